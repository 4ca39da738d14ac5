"A cache: killed anywhere and continued it is the same to the byte; its clips are those of the videos; whatever is wrong is named."
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_videos import pixels, real, write
from PIL import Image
from torch.utils.data import DataLoader

from lamd_nb.data.video.clips import Clips
from lamd_nb.data.video.cache import CachedClips, find_corrupted, is_cache, read_cache_metadata, read_cache_entries
from lamd_nb.data.video.cache_write import write_cache
from lamd_nb.data.specs import dataset_from_spec
from lamd_nb.training.loaders import iterate_batches, make_loader


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    "Six videos in two classes, of two sizes and six lengths."
    root = tmp_path_factory.mktemp("videos")
    for k in range(6):
        write(root / f"{'ab'[k % 2]}/{k}.mp4", pixels(k, 24 - k)[:, :, : 64 - 16 * (k > 3)], g="12")
    return root


@pytest.fixture(scope="module")
def cached(videos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("caches") / "straight"
    write_cache(Clips(videos, 32), out)
    return out


def contents(folder: Path) -> dict:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def same(a: dict, b: dict):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key], key


def test_killed_at_random_bytes(videos, cached, tmp_path):
    "Frames cut anywhere, the index anywhere behind the videos that were whole by then: written again, all bytes are as if nothing had been."
    whole, chance = contents(cached), random.Random(0)
    lines = whole["index.jsonl"].splitlines(keepends=True)
    ends = np.cumsum([np.prod(json.loads(line)["shape"]) for line in lines])
    begun = json.dumps({k: v for k, v in read_cache_metadata(cached).items() if k not in ("num_skipped", "num_frames")} | {"complete": False}, indent=1)
    places = [0, 1, *ends, *ends - 1, *(chance.randrange(ends[-1]) for _ in range(20))]
    for n in map(int, places):
        ruin = tmp_path / "ruin"
        ruin.mkdir()
        (ruin / "lamd_cache.json").write_text(begun)
        (ruin / "lamd_cache.json.part").write_text(begun[: chance.randrange(len(begun))])
        (ruin / "frames.u8").write_bytes(whole["frames.u8"][:n])
        most = sum(map(len, lines[: int((ends <= n).sum())])) + chance.randrange(60) * (n < ends[-1])
        (ruin / "index.jsonl").write_bytes(whole["index.jsonl"][: chance.choice([most, chance.randrange(most + 1)])])
        with pytest.raises(ValueError, match="of 6 videos and is not finished: write it again"):
            CachedClips(ruin)
        write_cache(Clips(videos, 32), ruin)
        assert contents(ruin) == whole, f"killed at byte {n}"
        shutil.rmtree(ruin)


@pytest.mark.parametrize("name", ["frames.u8", "index.jsonl"])
def test_a_shortened_file_of_a_finished_cache(videos, cached, tmp_path, name):
    shutil.copytree(cached, tmp_path / "short")
    file = tmp_path / "short" / name
    os.truncate(file, file.stat().st_size - 5)
    with pytest.raises(ValueError, match="holds 5 of 6 videos and is damaged"):
        CachedClips(tmp_path / "short")
    write_cache(Clips(videos, 32), tmp_path / "short")
    assert contents(tmp_path / "short") == contents(cached), "writing it again repairs it"


WRITING = "import sys, torch; from lamd_nb.data.video.clips import Clips; from lamd_nb.data.video.cache_write import write_cache; torch.set_num_threads(1); print('go', flush=True); write_cache(Clips(sys.argv[1], 32), sys.argv[2])"


def test_killed_in_earnest(videos, cached, tmp_path):
    "A process that is killed while it writes, again and again."
    out = tmp_path / "out"
    for wait in (.0, .02, .05, .1, .2):
        child = subprocess.Popen([sys.executable, "-c", WRITING, videos, out], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    write_cache(Clips(videos, 32), out)
    assert contents(out) == contents(cached)


def test_two_at_a_time(videos, tmp_path):
    "Whoever comes second is told to wait."
    fcntl = pytest.importorskip("fcntl")
    write_cache(Clips(videos, 32), tmp_path / "out")
    with open(tmp_path / "out/frames.u8", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing into"):
            write_cache(Clips(videos, 32), tmp_path / "out")


OPTIONS = [dict(), dict(flip=True, colour_jitter=.3, seed=4), dict(colour_jitter=(.1, .2, .3, .4), frames=5), dict(flip=True, colour_jitter=[0, 0, 0, .5], split="test"), dict(window="very_random", frames=9), dict(split="test", window="consecutive", frames=5),
           dict(fps=12, frames=6), dict(stride=2, frames=8), dict(window="uniform", frames=40)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_clips_of_the_videos(videos, cached, options):
    ours, theirs = CachedClips(cached, **options), Clips(videos, 32, **options)
    assert len(ours) == len(theirs) and ours.classes == theirs.classes == ["a", "b"] and ours.files == theirs.files
    index = [5, 0, 3, 1_000_003, 5]
    same(ours.batch(index), theirs.batch(index))
    same(ours[7], theirs[7])
    assert not ours.memory_cache, "no frame is copied into a cache"


@pytest.mark.parametrize("mode", ["stretch", "pad", "random_crop"])
def test_every_resize_mode(videos, tmp_path, mode):
    write_cache(Clips(videos, 32, resize_mode=mode), tmp_path / "out")
    same(CachedClips(tmp_path / "out", flip=True).batch(range(9)), Clips(videos, 32, resize_mode=mode, flip=True).batch(range(9)))
    with pytest.raises(ValueError, match=f"cached with resize_mode {mode}, but crop is requested"):
        CachedClips(tmp_path / "out", resize_mode="crop")


class Batches:
    "Batch n of a dataset, for a loader."
    def __init__(self, dataset): self.dataset = dataset
    def __len__(self): return 6
    def __getitem__(self, n): return self.dataset.batch(range(4 * n, 4 * n + 4))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_two_worker_processes(cached, start):
    clips = CachedClips(cached, flip=True, colour_jitter=.2, seed=2)
    want = [clips.batch(range(4 * n, 4 * n + 4)) for n in range(6)]
    loader = DataLoader(Batches(clips), batch_size=None, num_workers=2, multiprocessing_context=start, timeout=120)
    for got, expected in zip(loader, want, strict=True):
        same(got, expected)


def test_threads_and_pickles(cached):
    clips = CachedClips(cached, flip=True)
    want = [make_loader(clips, 4, seed=1).batch_at(n) for n in range(12)]
    for got, expected in zip(iterate_batches(make_loader(clips, 4, seed=1), 0, prefetch=3), want):
        same(got, expected)
    assert len(pickle.dumps(clips)) < 5000 and pickle.loads(pickle.dumps(clips)).memmap is None


def test_flipped_bytes_are_named(cached, tmp_path):
    shutil.copytree(cached, tmp_path / "bad")
    assert find_corrupted(tmp_path / "bad") == []
    rows = read_cache_entries(cached)
    with open(tmp_path / "bad/frames.u8", "r+b") as file:
        for row, at in ((rows[1], 0), (rows[4], int(np.prod(rows[4]["shape"])) - 1)):
            file.seek(row["byte_offset"] + at)
            byte = file.read(1)[0]
            file.seek(row["byte_offset"] + at)
            file.write(bytes([byte ^ 1]))
    assert find_corrupted(tmp_path / "bad") == [rows[1]["name"], rows[4]["name"]]


def test_splits_have_caches_of_their_own(videos, tmp_path):
    for split, names in dict(train=("a/0.mp4", "b/1.mp4"), test=("a/2.mp4", "c/3.mp4")).items():
        for name in names:
            (tmp_path / "src" / split / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(videos / name.replace("c", "b"), tmp_path / "src" / split / name)
    for split in ("train", "test"):
        write_cache(Clips(tmp_path / "src", 32, split=split), tmp_path / "out" / split)
    assert is_cache(tmp_path / "out") and not is_cache(tmp_path / "src")
    for split in ("train", "test"):
        ours, theirs = CachedClips(tmp_path / "out", split=split), Clips(tmp_path / "src", 32, split=split)
        assert ours.classes == ["a", "b", "c"]
        same(ours.batch(range(5)), theirs.batch(range(5)))


def test_dataset_from_spec(cached):
    train, test = dataset_from_spec(str(cached), 32, seed=3), dataset_from_spec(f"folder:{cached}", 32, split="test")
    assert isinstance(test, CachedClips) and not hasattr(train, "__len__")
    same(train.batch(range(5)), CachedClips(cached, seed=3).batch(range(5)))
    with pytest.raises(ValueError, match="cached with size 32, but 64 is requested"):
        dataset_from_spec(str(cached), 64)


def test_refusals(videos, cached, tmp_path):
    for other, word in ((Clips(videos, 16), "size 32"), (Clips(videos, 32, resize_mode="pad"), "resize_mode 'crop'"), (Clips(videos / "a", 32), "root"), (Clips(videos, 32, 8), "frames 16")):
        with pytest.raises(ValueError, match=f"cached with {word}.*, but now it would be .*: name another folder"):
            write_cache(other, cached)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("")
    with pytest.raises(ValueError, match="holds something that is no cache"):
        write_cache(Clips(videos, 32), tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="is no cache: it holds no lamd_cache.json"):
        CachedClips(tmp_path / "mine")
    shutil.copytree(cached, tmp_path / "torn")
    (tmp_path / "torn/lamd_cache.json").write_text("{")
    with pytest.raises(ValueError, match="lamd_cache.json' is damaged: it is not JSON"):
        CachedClips(tmp_path / "torn")


def test_videos_that_cannot_be_cached(videos, tmp_path):
    "Named, or left out and noted; a clip too long for a video is told as by Clips."
    shutil.copytree(videos, tmp_path / "src")
    torn = tmp_path / "src/a/2.mp4"
    torn.write_bytes(torn.read_bytes()[:2000])
    write(tmp_path / "src/b/9.mp4", pixels(0, 7))
    with pytest.raises(ValueError, match="2.mp4"):
        write_cache(Clips(tmp_path / "src", 32), tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patient = Clips(tmp_path / "src", 32, on_error="skip")
        assert write_cache(patient, tmp_path / "out")["num_skipped"] == 2
        patient.skipped.clear()
    clips = CachedClips(tmp_path / "out")
    assert clips.files == ["a/0.mp4", "a/4.mp4", "b/1.mp4", "b/3.mp4", "b/5.mp4"] and not find_corrupted(tmp_path / "out")
    with pytest.raises(ValueError, match="has 1. frames, but 20 frames"):
        CachedClips(tmp_path / "out", frames=20, split="test").batch(range(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patient = CachedClips(tmp_path / "out", frames=20, split="test", on_error="skip")
        assert patient.batch(range(5))["file"] == ["a/0.mp4", "a/4.mp4", "b/1.mp4", "b/3.mp4", "a/0.mp4"]
        patient.skipped.clear()


def test_four_shares_of_light_travel_with_a_cache(videos, tmp_path):
    "A tuple comes back from JSON as a list: the cache goes on, is found done, and its clips are those of the videos."
    clips = Clips(videos, 32, colour_jitter=(.1, .2, .3, .4))
    facts = write_cache(clips, tmp_path / "out")
    assert facts["sampling_options"]["colour_jitter"] == [.1, .2, .3, .4] and write_cache(Clips(videos, 32, colour_jitter=[.1, .2, .3, .4]), tmp_path / "out") == facts == read_cache_metadata(tmp_path / "out")
    ours = CachedClips(tmp_path / "out")
    same(ours.batch(range(7)), clips.batch(range(7)))
    same(ours[3], clips[3])
    assert not torch.equal(ours[3]["video"], CachedClips(tmp_path / "out", colour_jitter=0)[3]["video"])
    with pytest.raises(ValueError, match="cached with sampling_options"):
        write_cache(Clips(videos, 32, colour_jitter=(.1, .2, .3, .5)), tmp_path / "out")


def test_a_video_left_out_stays_out(videos, tmp_path):
    "Mended later it is not tried, and that is said: in the facts, and in a line for each video."
    shutil.copytree(videos, tmp_path / "src")
    mended = (tmp_path / "src/a/2.mp4").read_bytes()
    (tmp_path / "src/a/2.mp4").write_bytes(mended[:2000])
    run = [sys.executable, "-c", WRITING.replace("32)", "32, on_error='skip')"), tmp_path / "src", tmp_path / "out"]
    first = subprocess.run(run, capture_output=True, text=True)
    (tmp_path / "src/a/2.mp4").write_bytes(mended)
    again = subprocess.run(run, capture_output=True, text=True)
    assert first.returncode == again.returncode == 0
    for done, more in ((first, ""), (again, " (left out before, and not tried again)")):
        line, head, at_the_end = done.stderr.splitlines()
        assert line.startswith("<lamd_nb>:0: UserWarning: skipped: cannot read '") and "2.mp4" in line and line.endswith(more)
        assert head == "1 of 6 videos were skipped:" and at_the_end.strip() in line
    facts = write_cache(Clips(tmp_path / "src", 32), tmp_path / "out")
    assert facts == read_cache_metadata(tmp_path / "out") and facts["num_skipped"] == 1 and "write into a new folder" in facts["note"]
    assert "note" not in write_cache(Clips(tmp_path / "src", 32), tmp_path / "new") and CachedClips(tmp_path / "new").files == Clips(videos).files


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_tell_what_they_skipped(cached, capfd, start):
    "A cache inherits the telling."
    clips = CachedClips(cached, frames=21, split="test", on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = DataLoader(clips, batch_size=3, sampler=range(6), num_workers=2, multiprocessing_context=start, timeout=120)
        assert [f for b in loader for f in b["file"]] == ["a/0.mp4", "a/2.mp4", "b/1.mp4", "b/1.mp4", "b/3.mp4", "a/0.mp4"]
    told = capfd.readouterr().err
    assert told.count("1 of 6 videos were skipped:") == 2 and told.count(f"\n  '{cached}/a/4.mp4' has 20 frames") == told.count(f"\n  '{cached}/b/5.mp4' has 19 frames") == 1, told
    assert not clips.skipped


@pytest.mark.parametrize("broken", [[1], [1, 2], [0, 3], [3]])
def test_a_video_that_breaks_off_in_the_middle(tmp_path, broken):
    "What had been written of it is gone, and its neighbours are where the index says."
    for k in range(4):
        folder = tmp_path / f"videos/{k}"
        folder.mkdir(parents=True)
        for t, x in enumerate(pixels(k, 20)):
            Image.fromarray(x).save(folder / f"{t}.png")
        if k in broken:
            (folder / "10.png").write_bytes(b"")
    with pytest.warns(UserWarning):
        facts = write_cache(Clips(tmp_path / "videos", on_error="skip"), tmp_path / "cached")
    cached, good = CachedClips(tmp_path / "cached", split="test"), [k for k in range(4) if k not in broken]
    assert facts["num_skipped"] == len(broken) and cached.files == [str(k) for k in good] and cached.find_corrupted() == []
    assert (tmp_path / "cached/frames.u8").stat().st_size == len(good) * 20 * 3 * 64 * 64
    for place, k in enumerate(good):
        assert torch.equal(cached[place]["video"], Clips(tmp_path / "videos", split="test").extract_clip(k, k)["video"])


def test_real_videos(tmp_path):
    root = real("weizmann_actions")
    some = Clips(root, 32, 8)
    some.files = some.files[:4]
    write_cache(some, tmp_path / "out")
    same(CachedClips(tmp_path / "out", frames=8).batch(range(6)), some.batch(range(6)))
