"""Clips: the same whoever asks, in every layout, of the frames and pixels that were asked for and no others decoded; and real videos where they are at hand."""
import colorsys
import gc
import os
import pickle
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from sample_videos import as_bytes, pixels, real, touch, whole, write
from PIL import Image
from test_videos import linked
from torch.utils.data import DataLoader

from lamd_nb.data.video.clips import Clips
from lamd_nb.data.video.splits import classes_from_folders, split_folder
from lamd_nb.data.specs import dataset_from_spec
from lamd_nb.data.video.windows import RESIZE_MODES, sample_frame_indices, shift_hue, apply_colour_jitter, jitter_ranges
from lamd_nb.training.loaders import make_loader


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "Four videos of 24 frames and their folder."
    root = tmp_path_factory.mktemp("videos")
    for k in range(4):
        write(root / f"clip_{k}.mp4", pixels(k), g="12")
    return root


def stills(path: Path, x: np.ndarray, kind: str = "png") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for n, pic in enumerate(x):
        Image.fromarray(pic).save(path / f"frame{2 * n}.{kind}")
    return path


# --- pixels ---

@pytest.mark.parametrize("name, codec, pix_fmt", [("a.mp4", "libx264", "yuv420p"), ("b.avi", "mpeg4", "yuv420p"), ("c.mov", "libx264", "yuv420p10le"),
                                                  ("d.webm", "libvpx", "yuv420p"), ("e.mkv", "ffv1", "gray")])
def test_the_frames_of_the_window(tmp_path, name, codec, pix_fmt):
    "A clip holds the very bytes that PyAV decodes, of the frames that it names."
    want = whole(write(tmp_path / name, pixels(1), codec, pix_fmt))
    for clip in Clips(tmp_path, frames=5, stride=3), Clips(tmp_path, frames=5, window="random"), Clips(tmp_path, frames=5, split="test"):
        for k in (0, 5, 9):
            got = clip[k]
            at = clip.clip_frame_indices(clip.get_reader(0), k)
            assert got["start_frame"] == at[0] and np.array_equal(as_bytes(got["video"]), want[at])


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_folders_of_images(tmp_path, kind):
    for k in range(3):
        stills(tmp_path / f"walk{k}", pixels(k, 12), kind)
    clips = Clips(tmp_path, frames=8)
    assert clips.files == ["walk0", "walk1", "walk2"] and not clips.classes
    got = clips[4]
    names = [f"frame{2 * n}.{kind}" for n in range(got["start_frame"], got["start_frame"] + 8)]
    want = [np.asarray(Image.open(tmp_path / got["file"] / name).convert("RGB")) for name in names]
    assert np.array_equal(as_bytes(got["video"]), np.stack(want))
    with pytest.raises(ValueError, match="walk.' has no time stamps: leave fps out"):
        Clips(tmp_path, frames=8, fps=12)[0]


def test_fits(tmp_path):
    write(tmp_path / "wide.mkv", pixels(0, 4, 96)[:, 20:74], "ffv1")
    x = whole(tmp_path / "wide.mkv")
    shape = {mode: Clips(tmp_path, 32, 4, split="test", resize_mode=mode).resize_frame(torch.zeros(1, 3, 54, 96).byte()).shape[2:] for mode in RESIZE_MODES}
    assert shape == {"crop": (32, 32), "stretch": (32, 32), "pad": (32, 32), "random_crop": (36, 64)}
    for mode in RESIZE_MODES:
        assert Clips(tmp_path, 32, 4, resize_mode=mode)[0]["video"].shape == (3, 4, 32, 32)
    assert np.array_equal(as_bytes(Clips(tmp_path, 54, 4, split="test")[0]["video"]), x[:, :, 21:75])
    padded = as_bytes(Clips(tmp_path, 96, 4, split="test", resize_mode="pad")[0]["video"])
    assert np.array_equal(padded[:, 21:75], x) and not padded[:, :21].any() and not padded[:, 75:].any()
    places = {Clips(tmp_path, 48, 4, resize_mode="random_crop")[k]["video"].sum().item() for k in range(12)}
    assert len(places) > 9, "each clip is cut somewhere else"
    middle = Clips(tmp_path, 48, 4, split="test", resize_mode="random_crop")
    assert torch.equal(middle[0]["video"], middle[1]["video"])


def test_frames_of_several_sizes(tmp_path):
    "A folder of pictures may hold some that are larger."
    for n, size in enumerate((64, 96, 48)):
        (tmp_path / "walk").mkdir(exist_ok=True)
        Image.fromarray(pixels(0, 2, size)[0]).save(tmp_path / f"walk/{n}.png")
    for mode in RESIZE_MODES:
        assert Clips(tmp_path, 32, 3, resize_mode=mode)[0]["video"].shape == (3, 3, 32, 32)


def test_flip_and_jitter_hold_for_a_clip(tmp_path):
    "A video of one picture stays at rest whatever is done to it; the test is never varied."
    write(tmp_path / "still.mkv", np.repeat(pixels(3, 2)[:1], 8, 0), "ffv1")
    options = dict(frames=8, flip=True, colour_jitter=.5, resize_mode="random_crop", size=48)
    several = [Clips(tmp_path, **options)[k]["video"] for k in range(8)]
    assert all(torch.equal(v[:, :1].expand_as(v), v) and v.min() >= -1 and v.max() <= 1 for v in several)
    assert len({v.sum().item() for v in several}) == 8
    plain = dict(frames=8, resize_mode="random_crop", size=48)
    assert torch.equal(Clips(tmp_path, split="test", **options)[0]["video"], Clips(tmp_path, split="test", **plain)[0]["video"])


def test_one_share_is_what_it_was(folder):
    "A number draws three numbers, as before there was a hue; three equal shares and no hue are the same to the bit."
    plain, lit = Clips(folder, seed=3), Clips(folder, seed=3, colour_jitter=.3)
    for k in range(4):
        assert torch.equal(lit[k]["video"], apply_colour_jitter(plain[k]["video"], .3 * (2 * plain.sample_uniform(k, -3, 3) - 1)))
        assert torch.equal(lit[k]["video"], Clips(folder, seed=3, colour_jitter=(.3, .3, .3, 0))[k]["video"])
    assert torch.equal(Clips(folder, colour_jitter=(0, 0, 0, 0))[0]["video"], Clips(folder)[0]["video"])


def test_hue(folder):
    "Against colorsys; the same for all frames of a clip, never in the test, and as a tuple or a list."
    x = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0], x[1:, 0, 1] = .5, 0                # greys, and pure reds
    for turn in (-.5, -.21, -.04, 1e-4, .04, .33, .5):
        hsv = [colorsys.rgb_to_hsv(*c) for c in x.flatten(1).T.tolist()]
        want = torch.tensor([colorsys.hsv_to_rgb((h + turn) % 1, s, v) for h, s, v in hsv]).T.view_as(x)
        assert (shift_hue(x, turn) - want).abs().max() < 1e-5, turn
    assert torch.equal(shift_hue(x, 0), x) and torch.equal(shift_hue(x, 0.), x)
    lit, plain = Clips(folder, colour_jitter=(0, 0, 0, .5), frames=8), Clips(folder, frames=8)
    for k in range(3):
        turn = float(.5 * (2 * lit.sample_uniform(k, -3, 4)[3] - 1))
        a, b = (c[k]["video"] for c in (lit, plain))
        assert (a - (2 * shift_hue((b + 1) / 2, turn) - 1)).abs().max() < 1e-5 and (a.amax(0) - b.amax(0)).abs().max() < 1e-5
    assert torch.equal(Clips(folder, colour_jitter=[.1, .2, .3, .4])[2]["video"], Clips(folder, colour_jitter=(.1, .2, .3, .4))[2]["video"])
    assert torch.equal(Clips(folder, split="test", colour_jitter=(.1, .2, .3, .4))[2]["video"], Clips(folder, split="test")[2]["video"])
    assert jitter_ranges([.1, .2, .3, .4]) == [.1, .2, .3, .4] and Clips(folder, colour_jitter=(.1, .2, .3, .4)).sampling_options["colour_jitter"] == [.1, .2, .3, .4]


# --- windows ---

@pytest.mark.parametrize("n", [1, 3, 16, 17, 40, 178])
def test_lfdm_windows(n):
    "As the public code has them: the ends stay, each frame moves strictly between its neighbours' old places; a short video repeats its last frame."
    even = sample_frame_indices("uniform", n, 16)
    assert np.array_equal(even, np.linspace(0, n - 1, 16).astype(int) if n >= 16 else np.minimum(np.arange(16), n - 1))
    rows = {rule: np.stack([sample_frame_indices(rule, n, 16, u=np.random.RandomState(k).rand(16)) for k in range(400)]) for rule in ("random", "very_random")}
    for rule, at in rows.items():
        assert (np.diff(at) >= 0).all() and (at[:, 0] == 0).all() and at.max() == n - 1, rule
    at = rows["random"]
    assert (at[:, -1] == n - 1).all()
    if n >= 16:
        for i in range(1, 15):                     # reached, and no more than that: sorting can only bring a frame nearer to its own place
            assert even[i - 1] < at[:, i].min() and at[:, i].max() < even[i + 1]
        assert n < 40 or len(np.unique(at[:, 7])) > 2
    else:
        assert (at == even).all()


def test_every_window_once(tmp_path):
    for k, frames in enumerate((24, 10, 17)):
        write(tmp_path / f"{k}.mp4", pixels(k, frames))
    test, train = (Clips(tmp_path, frames=8, split=split, window="consecutive") for split in ("test", "train"))
    want = [("0.mp4", 0), ("0.mp4", 8), ("0.mp4", 16), ("1.mp4", 0), ("2.mp4", 0), ("2.mp4", 8)]
    assert len(test) == len(train) == 6 and [(c["file"], c["start_frame"]) for c in test] == want
    assert sorted((c["file"], c["start_frame"]) for c in train) == want and [(c["file"], c["start_frame"]) for c in train] != want
    assert [test.locate_clip(k) for k in (6, 7)] == [(0, 0), (0, 1)]
    with pytest.raises(ValueError, match="1.mp4' has 10 frames"):
        len(Clips(tmp_path, frames=12, window="consecutive"))


def test_frames_a_second(tmp_path):
    "Uneven, fast and slow videos come out at one pace, and the frame on the screen is the one shown."
    x = pixels(0, 48)
    times = np.cumsum([0, *[20, 60, 40] * 15, 20, 60])
    write(tmp_path / "a.mkv", x, times=times)
    write(tmp_path / "b.mp4", x, fps=50)
    clips = Clips(tmp_path, frames=8, fps=12.5, split="test")
    for i, when in ((0, times / 1000), (1, np.arange(48) / 50)):
        at = clips.clip_frame_indices(clips.get_reader(i), 0)
        assert at == [int(np.flatnonzero(when <= m + 1e-3)[-1]) for m in np.arange(8) / 12.5]
    assert clips[1]["stride"] == 4 - 4 / 7 or abs(clips[1]["stride"] - 4) < .1
    assert Clips(tmp_path, frames=20, fps=100, split="test").clip_frame_indices(clips.get_reader(1), 0) == [n // 2 for n in range(20)]
    with pytest.raises(ValueError, match="b.mp4' has 12 frames"):
        Clips(tmp_path, frames=16, fps=12.5)[1] and Clips(tmp_path, frames=16, fps=12.5)[0]


def test_one_frame(tmp_path):
    write(tmp_path / "one.mp4", pixels(0, 2)[:1])
    got = Clips(tmp_path, frames=1)[0]
    assert got["video"].shape == (3, 1, 64, 64) and got["stride"] == 1
    assert torch.equal(Clips(tmp_path, frames=4, window="uniform")[0]["video"], got["video"].expand(-1, 4, -1, -1))


# --- labels and splits ---

def test_labels(tmp_path):
    "Class folders, with and without splits: a class that the test lacks moves no other."
    for k, name in enumerate(("train/c10/a.mp4", "train/c2/a.mp4", "train/c1/a.mp4", "test/c1/b.mp4", "test/c10/b.mp4")):
        write(tmp_path / name, pixels(k, 8))
    for split in ("train", "test"):
        clips = Clips(tmp_path, frames=8, split=split)
        batch = clips.batch(range(len(clips)))
        assert clips.classes == ["c1", "c2", "c10"] and batch["label"].dtype == torch.int64
        assert [clips.classes[k] for k in batch["label"]] == [f.split("/")[0] for f in batch["file"]]
    (tmp_path / "train/hollow.mp4").mkdir()
    clips = Clips(tmp_path, frames=8, on_error="skip")
    assert clips.classes == ["c1", "c2", "c10"] and clips.distinct_captions() == ["c1", "c10", "c2"] and "hollow.mp4/" in clips.files
    assert classes_from_folders(["a/b/x.mp4", "c/d/x.mp4"]) == classes_from_folders(["a/x.mp4", "y.mp4"]) == classes_from_folders(["."]) == []


def test_no_labels(folder):
    assert Clips(folder).classes == [] and "label" not in Clips(folder)[0] and set(Clips(folder)[0]) == {"video", "file", "start_frame", "stride", "caption"}


def test_splits_do_not_mix(folder, tmp_path):
    for split, k in (("train", 0), ("test", 1)):
        write(tmp_path / split / f"{split}.mp4", pixels(k, 16))
    for split in ("train", "test"):
        assert dataset_from_spec(tmp_path, split=split).batch([0, 1])["file"] == [f"{split}.mp4"] * 2
    for f in (tmp_path / "test").iterdir():
        f.unlink()
    assert len(Clips(tmp_path)) == 1
    with pytest.raises(FileNotFoundError, match="no video in"):
        Clips(tmp_path, split="test")
    (tmp_path / "test").rmdir()
    with pytest.raises(FileNotFoundError, match="none named 'test'"):
        Clips(tmp_path, split="test")


def test_a_class_called_train(tmp_path):
    "Classes bus, car and train are not a training set of trains; a third split, papers and caches beside a split are nothing to ask about."
    touch(tmp_path / "a", "bus/1.mp4", "car/deep/er/1.mp4", "Train/1.mp4", "walk/1.png", "walk/2.png")
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="a' holds a folder 'Train', and videos beside it, in 'bus', 'car', 'walk': if 'Train' is a class like these, rename it; if it is a split, name '.*a/Train' itself"):
            split_folder(tmp_path / "a", split)
    assert Clips(tmp_path / "a/Train").files == ["1.mp4"]
    touch(tmp_path / "b", "train/1.mp4", "val/1.mp4", "Validation/1.mp4", "dev/1.mp4", "valid/1.mp4", "eval/1.mp4", "holdout/1.mp4", "papers/a.pdf", "papers/cover.png", ".old/1.mp4", "loose.txt")
    assert split_folder(tmp_path / "b", "train") == tmp_path / "b/train"
    touch(tmp_path / "c", "train/1.mp4", "test/1.mp4", "bus/1.mp4")
    with pytest.warns(UserWarning, match="the videos in 'bus' are left out: they lie beside 'test' and 'train' in"):
        assert split_folder(tmp_path / "c", "test") == tmp_path / "c/test"
    touch(tmp_path / "loose", "train/1.mp4", "2.mp4", "3.txt")
    (tmp_path / "loose/ring").symlink_to("ring")
    with pytest.warns(UserWarning, match="the videos in '2.mp4' are left out: they lie beside 'train' in"):
        assert split_folder(tmp_path / "loose", "train") == tmp_path / "loose/train"
    touch(tmp_path / "d", "train/lamd_cache.json", "videos/1.mp4")
    assert split_folder(tmp_path / "d", "train") == tmp_path / "d/train"
    touch(tmp_path / "e", "train/1.mp4", *(f"huge/{k}.txt" for k in range(3000)))
    (tmp_path / "e/huge/back").symlink_to(tmp_path / "e/huge")
    looks, scandir = [], os.scandir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: looks.append(path) or scandir(path))
        assert split_folder(tmp_path / "e", "train") == tmp_path / "e/train" and len(looks) < 5


class Takes(Clips):
    "A benchmark of three lines: the split and the speed are in the name."

    def list_files(self, root):
        return [f for f in super().list_files(root) if (int(f[5]) < 2) == (self.split == "test")]

    def annotations(self, k, i):
        return dict(caption=f"take {self.files[i][5]}", label=i, speed=float(self.sample_uniform(k, -9, 1)))


def test_hooks(folder):
    train, test = Takes(folder), Takes(folder, split="test")
    batch = train.batch([3, 0])
    assert (train.files, test.files) == (["clip_2.mp4", "clip_3.mp4"], ["clip_0.mp4", "clip_1.mp4"])
    assert batch["caption"] == [f"take {f[5]}" for f in batch["file"]] and batch["speed"].dtype == torch.float32
    assert batch["speed"][1] == train.batch([0])["speed"][0]


# --- the same clip wherever it is asked for ---

@pytest.mark.parametrize("workers", [0, 1, 2])
def test_worker_processes(folder, workers):
    "The same batches whatever the number of workers."
    options = dict(seed=5, frames=8, flip=True, colour_jitter=.2, resize_mode="random_crop", size=48, window="random")
    clips = Clips(folder, **options)
    want = clips.batch(range(8))
    loader = DataLoader(clips, batch_size=4, sampler=range(8), num_workers=workers,
                        **dict(multiprocessing_context="fork", timeout=60) if workers else {})
    got = list(loader)
    assert torch.equal(torch.cat([b["video"] for b in got]), want["video"])
    assert sum((b["file"] for b in got), []) == want["file"] and torch.cat([b["start_frame"] for b in got]).tolist() == want["start_frame"].tolist()


def test_pickled_and_threaded(folder):
    clips = Clips(folder, seed=5)
    want = clips.batch(range(32))["video"]
    away = pickle.loads(pickle.dumps(clips))
    assert not away.memory_cache and len(pickle.dumps(clips)) < 5000 and torch.equal(away.batch(range(32))["video"], want)
    parts = [range(k, k + 4) for k in range(0, 32, 4)]
    with ThreadPoolExecutor(4) as pool:
        threads = torch.cat([b["video"] for b in pool.map(Clips(folder, seed=5).batch, parts)])
    assert torch.equal(threads, want)


def test_iterates_one_epoch(folder):
    clips = Clips(folder)
    assert sorted(c["file"] for c in clips) == clips.files and torch.equal(clips[9]["video"], clips.batch([9])["video"][0])
    with pytest.raises(IndexError, match="from 0"):
        clips[-1]


def test_cache_keeps_its_bound(folder):
    "Room for some of the frames: some are kept, and nothing changes but the work."
    small, large = Clips(folder, frame_cache_mib=.6), Clips(folder)
    assert torch.equal(small.batch(range(24))["video"], large.batch(range(24))["video"])
    frames = [x for key, x in small.memory_cache.items() if isinstance(key, tuple)]
    assert 30 < len(frames) and sum(x.nbytes for x in frames) <= .6 * 2**20
    assert len([key for key in large.memory_cache if isinstance(key, tuple)]) <= 4 * 24


def test_stream_cuts_new_windows(folder):
    "Over a training run each video is cut at every place, and step 7 is step 7 whenever it is asked for."
    batches = make_loader(dataset_from_spec(folder), 4, seed=2)
    seen = {(f, s) for k in range(60) for b in [batches.batch_at(k)] for f, s in zip(b["file"], b["start_frame"].tolist())}
    assert len(seen) == 4 * 9
    assert torch.equal(batches.batch_at(7)["video"], make_loader(dataset_from_spec(folder), 4, seed=2).batch_at(7)["video"])


# --- only the work that is needed ---

def test_opens_nothing_before_it_is_asked(tmp_path, monkeypatch):
    "5,000 videos: none opened to list them, one for a clip, four for a batch; none again for what is kept."
    root, opened = linked(tmp_path / "many", 5000), []
    monkeypatch.setenv("LAMD_CACHE", str(tmp_path / "cache"))
    opener = av.open
    monkeypatch.setattr(av, "open", lambda file, *a, **k: opened.append(str(file)) or opener(file, *a, **k))
    clips = Clips(root, 32)
    assert len(clips) == 5000 and len(clips.classes) == 10 and not opened
    clips.batch([0, 1, 2, 3])
    assert len(set(opened)) == 4 and len(opened) == 8, "once for the index, once for the frames"
    clips.batch([0, 1, 2, 3])
    assert len(opened) == 8
    assert list(tmp_path.glob("cache/*.json")), "the listing is remembered"


def test_decodes_only_what_is_needed(tmp_path):
    "Of a video of 1,400 frames a clip decodes its 16 and those from the key before; what is kept is not decoded again."
    x = np.concatenate([pixels(k, 100, 32) for k in range(14)])
    write(tmp_path / "long.mp4", x, pix_fmt="yuv420p", g="50", sc_threshold="0")
    clips = Clips(tmp_path, 32)
    start = clips[0]["start_frame"]
    reader = clips.get_reader(0)
    assert reader.num_decoded == start % 50 + 16 < 66
    clips[0]
    assert reader.num_decoded == start % 50 + 16
    before = reader.num_decoded
    Clips(tmp_path, 32, window="uniform")[0]
    wide = Clips(tmp_path, 32, window="uniform")
    wide[0]
    assert reader.num_decoded == before and wide.get_reader(0).num_decoded <= 16 * 50


# --- videos that cannot be read ---

def test_skip(folder, tmp_path, capsys):
    "The next video takes the place, for everybody the same; told when met, counted, told at the end."
    for k in range(4):
        write(tmp_path / f"{k}.mp4", pixels(k))
    for k in (1, 2):
        (tmp_path / f"{k}.mp4").write_bytes((tmp_path / f"{k}.mp4").read_bytes()[:200])
    clips = Clips(tmp_path, split="test", on_error="skip")
    with pytest.warns(UserWarning, match="skipped: cannot read '.*1.mp4'"):
        batch = clips.batch(range(4))
    assert batch["file"] == ["0.mp4", "3.mp4", "3.mp4", "3.mp4"] and list(clips.skipped) == [1, 2]
    assert torch.equal(batch["video"][1], clips.extract_clip(1, 3)["video"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = Clips(tmp_path, split="test", on_error="skip")
        assert other.batch([2])["file"] == ["3.mp4"] and list(other.skipped) == [2]
        every = Clips(tmp_path, frames=8, split="test", on_error="skip", window="consecutive")
        assert len(every) == 6 and list(every.skipped) == [1, 2]
    capsys.readouterr()
    del clips, batch
    gc.collect()
    told = capsys.readouterr().err
    assert told.startswith("2 of 4 videos were skipped:") and "1.mp4" in told and "2.mp4" in told
    with pytest.raises(ValueError, match="1.mp4"):
        Clips(tmp_path, split="test").batch(range(4))


@pytest.fixture()
def torn(tmp_path) -> Path:
    "Six videos, of which two cannot be read."
    for k in range(6):
        write(tmp_path / f"torn/{k}.mp4", pixels(k))
    for k in (1, 4):
        (tmp_path / f"torn/{k}.mp4").write_bytes((tmp_path / f"torn/{k}.mp4").read_bytes()[:200])
    return tmp_path / "torn"


@pytest.mark.parametrize("before", [False, True], ids=["fresh", "after a skip of the main process"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_each_process_tells_what_it_skipped(torn, capfd, start, before):
    "Two workers meet one broken video each, and the main process tells what it met itself, once."
    clips = Clips(torn, split="test", on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if before:
            clips[1]
        got = list(DataLoader(clips, batch_size=3, sampler=range(6), num_workers=2, multiprocessing_context=start, timeout=120))
        assert [f for b in got for f in b["file"]] == ["0.mp4", "2.mp4", "2.mp4", "3.mp4", "5.mp4", "5.mp4"]
    gc.collect()
    told = capfd.readouterr().err
    assert told.count("1 of 6 videos were skipped:") == 2 and "2 of 6" not in told, told
    reports = told.split("1 of 6 videos were skipped:")[1:]
    assert sorted(name for report in reports for name in ("1.mp4", "4.mp4") if name in report.splitlines()[1]) == ["1.mp4", "4.mp4"]
    assert list(clips.skipped) == [1] * before
    del clips
    gc.collect()
    assert capfd.readouterr().err.count("1 of 6 videos were skipped:") == before


def test_a_copy_tells_for_itself(torn, capsys):
    clips = Clips(torn, split="test", on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clips[1]
        away = pickle.loads(pickle.dumps(clips))
        assert away.skipped == {} and list(clips.skipped) == [1]
        away[4]
        assert list(away.skipped) == [4]
    both = {"4.mp4": away, "1.mp4": clips}
    del away, clips
    for name in ("4.mp4", "1.mp4"):
        capsys.readouterr()
        both.pop(name)
        gc.collect()
        told = capsys.readouterr().err
        assert told.startswith("1 of 6 videos were skipped:") and name in told and told.count("cannot read") == 1


SKIPPING = "import sys; from lamd_nb.data.video.clips import Clips; clips = Clips(sys.argv[1], split='test', on_error='skip'); clips.batch(range(6)); clips.batch(range(6))"


def test_what_a_shell_shows(torn):
    "A line for each video when it is met, without a place in our code; and all of them at the end."
    done = subprocess.run([sys.executable, "-c", SKIPPING, torn], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and len(lines) == 5 and lines[2] == "2 of 6 videos were skipped:"
    for line, name in zip(lines[:2], ("1.mp4", "4.mp4")):
        assert line.startswith("<lamd_nb>:0: UserWarning: skipped: cannot read '") and name in line


def test_nothing_left_for_a_copy(tmp_path):
    "Counted elsewhere, and nothing was found: a sentence, too."
    write(tmp_path / "short.mp4", pixels(0, 9))
    clips = Clips(tmp_path, on_error="skip", window="consecutive")
    with pytest.warns(UserWarning, match="has 9 frames"):
        assert len(clips) == 0
    with pytest.raises(ValueError, match="none of the 1 videos in .* can be used: they were skipped when they were counted"):
        pickle.loads(pickle.dumps(clips))[0]
    clips.skipped.clear()


class Partly(Clips):
    "A benchmark in which one file is no list of videos."

    def list_files(self, root):
        self.unreadable["c.tar"] = f"cannot read '{root}/c.tar': it is empty"
        return super().list_files(root)


def test_files_that_could_not_be_listed(folder, tmp_path, capsys):
    assert Clips(folder).unreadable == {}
    for split in ("train", "test"):
        write(tmp_path / split / "a.mp4", pixels(0))
    clips = Partly(tmp_path)
    assert clips.unreadable == {"c.tar": f"cannot read '{tmp_path}/train/c.tar': it is empty"}, "not those of the other split"
    assert pickle.loads(pickle.dumps(clips)).unreadable == clips.unreadable
    gc.collect()
    assert not capsys.readouterr().err, "a copy tells only what it skipped"
    del clips
    gc.collect()
    assert capsys.readouterr().err == f"1 of the files could not be listed:\n  cannot read '{tmp_path}/train/c.tar': it is empty\n"


def test_nothing_left(tmp_path):
    write(tmp_path / "short.mp4", pixels(0, 9))
    clips = Clips(tmp_path, on_error="skip")
    with pytest.warns(UserWarning, match="has 9 frames"), pytest.raises(ValueError, match="none of the 1 videos in .* can be used: .*has 9 frames"):
        clips[0]
    with pytest.raises(ValueError, match="short.mp4' has 9 frames, but 16 frames with stride 2 need 31: remove the video"):
        Clips(tmp_path, stride=2)[0]


@pytest.mark.parametrize("options, says", [
    (dict(split="valid"), "known: train, test"), (dict(window="last"), "known: random_start, first"), (dict(resize_mode="squash"), "known: crop, stretch"),
    (dict(on_error="ignore"), "known: raise, skip"), (dict(size=0), "size is 0"), (dict(frames=0), "frames is 0"), (dict(stride=0), "stride is 0"),
    (dict(fps=0), "fps is 0"), (dict(fps=float("nan")), "fps is nan"), (dict(colour_jitter=2), "colour_jitter is 2, but must be one share from 0 to 1, or four"), (dict(colour_jitter=-.1), "colour_jitter is -0.1"), (dict(colour_jitter=float("nan")), "colour_jitter is nan"),
    (dict(colour_jitter=(.1, .1, .1)), r"colour_jitter is \[0.1, 0.1, 0.1\], but must be one"), (dict(colour_jitter=(.1, .1, .1, .6)), "of the hue from 0 to 0.5"), (dict(colour_jitter="much"), "colour_jitter is much")])
def test_bad_options(folder, options, says):
    with pytest.raises(ValueError, match=says):
        Clips(folder, **options)


# --- real videos, where they are ---

def test_real_hands():
    root = real("asl_hands", "64", "train")
    clips = Clips(root)
    assert len(clips) == 747
    batch = clips.batch(range(24))
    assert batch["video"].shape == (24, 3, 16, 64, 64) and batch["video"].std() > .2
    for k in (0, 7):
        want = iio.imread(root / batch["file"][k], plugin="pyav")[int(batch["start_frame"][k]):][:16]
        assert np.array_equal(as_bytes(batch["video"][k]), want)
    began = time.process_time()
    for _ in range(4):
        clips.batch(range(24))
    assert 96 / (time.process_time() - began) > 200, "frames that were kept come at 200 clips a second at least"


def test_real_splits():
    root = real("asl_hands", "64")
    assert (len(dataset_from_spec(root, split="test")), len(dataset_from_spec(root).datasets[0].files)) == (197, 747)


@pytest.mark.parametrize("name", ["asl_hands/128", "landscape_real/128", "weizmann_actions/64"])
def test_real_others(name):
    video = Clips(real(*name.split("/"), "test"), split="test", size=48).batch(range(3))["video"]
    assert video.shape == (3, 3, 16, 48, 48) and (video[:, :, 0] != video[:, :, 15]).any()


@pytest.mark.parametrize("name, n", [("sky_raw", 33), ("mug_style", 40)])
def test_real_folders_of_images(name, n):
    "Benchmarks as they are unpacked, read with no conversion."
    clips = Clips(real("fixtures", name), window="uniform", frames=16)
    got = clips[0]
    assert got["video"].shape == (3, 16, 64, 64) and len(clips.get_reader(0)) == n
