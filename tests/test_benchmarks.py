"""Benchmarks in their official layouts, small ones written here, pixels held against an independent reading; and real pixels where they are at hand."""
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_videos import as_bytes, pixels, real, whole, write
from PIL import Image

import lamd_nb.data.benchmarks.layouts as benchmarks
from lamd_nb.data.benchmarks.layouts import MUG, NATOPS, SkyTimelapse, read_temporal_segments
from lamd_nb.data.video.cache import CachedClips
from lamd_nb.data.video.cache_write import write_cache


def stills(folder: Path, x: np.ndarray, name) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for t, image in enumerate(x):
        Image.fromarray(image).save(folder / name(t))
    return folder


def images(folder: Path, at) -> np.ndarray:
    "Images of a folder in the order of the last number in their names, by Pillow alone."
    files = sorted(folder.iterdir(), key=lambda f: int("".join(c for c in f.stem.replace("-", "_").split("_")[-1] if c.isdigit())))
    return np.stack([np.asarray(Image.open(files[n]).convert("RGB")) for n in at])


def cuts(parts=((1, 10), (12, 24))) -> str:
    "A segmentation.txt for all subjects and signals."
    lines = []
    for s in range(1, 21):
        lines += [f"// Subject {s}", ""]
        for g in range(1, 25):
            lines += [f"{g},{s},{len(parts)}", *(f"{k}:{a},{z}" for k, (a, z) in enumerate(parts, 1)), ""]
    return "\r\n".join(lines)


def stage(k: int) -> np.ndarray:
    return np.pad(pixels(k, 24, 160), ((0, 0), (40, 40), (80, 80), (0, 0)), constant_values=120)


# --- NATOPS ---

@pytest.fixture(scope="module")
def natops(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("natops")
    for k, (g, s) in enumerate(((1, 3), (13, 20), (1, 2), (24, 18), (7, 1))):
        write(root / f"gesture{g:02d}" / f"g{g:02d}s{s:02d}.avi", stage(k), "mjpeg", "yuvj420p", fps=20)
    write(root / "gesture01/g01s03_depth.avi", stage(0)[:4], "mjpeg", "yuvj420p")
    (root / "segmentation.txt").write_text(cuts())
    return root


@pytest.mark.parametrize("split, who", [("train", [(1, 3), (13, 20)]), ("test", [(1, 2), (24, 18)])])
def test_natops_videos(natops, split, who):
    "Repetition, crop, bars and label; frames by PyAV alone, cut with plain indices."
    clips = NATOPS(natops, split=split, size=260, frames=10, window="first", colour_jitter=0)
    assert clips.files == [f"gesture{g:02d}/g{g:02d}s{s:02d}.avi#{r}" for g, s in who for r in (1, 2)]
    for i, ((g, s), first) in enumerate((w, f) for w in who for f in (0, 11)):
        got = clips.extract_clip(0, i)
        frames = whole(natops / f"gesture{g:02d}/g{g:02d}s{s:02d}.avi")[first:first + 10, 10:239, 30:290]
        assert np.array_equal(as_bytes(got["video"]), np.pad(frames, ((0, 0), (15, 16), (0, 0), (0, 0))))
        assert (got["label"], clips.classes[got["label"]]) == (g - 1, {1: "I Have Command", 13: "Turn Left", 24: "Cut Engine"}[g])


def test_natops_frame_copy(natops, tmp_path):
    "The frames of a repetition as images are the same clip."
    x = whole(natops / "gesture24/g24s18.avi")
    for r, (a, z) in enumerate(((0, 10), (11, 24)), 1):
        stills(tmp_path / f"split_img_data/g24s18p{r:02d}", x[a:z], lambda t: f"g24s18p{r:02d}-{t:04d}-{a + t:04d}.png")
    copy, videos = NATOPS(tmp_path, split="test"), NATOPS(natops, split="test")
    for r in (0, 1):
        a, b = copy[r], videos.extract_clip(r, 2 + r)
        assert torch.equal(a["video"], b["video"]) and a["label"] == b["label"] == 23 and a["video"].shape == (3, 40, 128, 128)


@pytest.mark.parametrize("cache", [1024, 0])
def test_natops_opens_each_video_once(natops, monkeypatch, cache):
    "Whatever room there is for frames; nothing before it is asked, and nothing to learn a length."
    opened = []
    monkeypatch.setattr(benchmarks, "open_video", lambda path, open_video=benchmarks.open_video: opened.append(path.name) or open_video(path))
    clips = NATOPS(natops, size=32, frames=4, frame_cache_mib=cache)
    assert [clips.declared_length(i) for i in range(4)] == [10, 13, 10, 13] and not opened and not clips.memory_cache
    want = [clips.extract_clip(k, k % 4)["video"] for k in range(8)]
    assert sorted(opened) == ["g01s03.avi", "g13s20.avi"]
    away = pickle.loads(pickle.dumps(clips))
    assert not away.memory_cache and len(pickle.dumps(clips)) < 10_000
    assert all(torch.equal(away.extract_clip(k, k % 4)["video"], want[k]) for k in range(8)) and len(opened) == 4


def test_natops_repetitions_do_not_disturb_each_other(natops):
    "What one learns about its video while reading it, another that is being read does not notice."
    clips = NATOPS(natops, window="first", frames=5)
    first, second = clips.get_reader(0), clips.get_reader(1)
    assert first.reader is not second.reader and first.reader.timestamps is second.reader.timestamps
    want, reading = list(second.read(range(5))), second.read(range(5))
    got = [next(reading)]
    first.reader.reindex_by_decoding()
    assert all(np.array_equal(a, b) for a, b in zip(want, got + list(reading)))


def test_natops_claims_of_images(tmp_path):
    stills(tmp_path / "split_img_data/g01s03p01", pixels(0, 8), "g01s03p01-{0:04d}-{0:04d}.png".format)
    clips = NATOPS(tmp_path, size=32, frames=4)
    assert clips.declared_length(0) == 0 and len(clips.get_reader(0)) == 8


def test_natops_in_another_process(natops):
    clips = NATOPS(natops)
    assert torch.equal(pickle.loads(pickle.dumps(clips))[3]["video"], clips[3]["video"])


def test_natops_videos_beside_their_images(natops, tmp_path):
    "A root that holds both has each repetition once."
    shutil.copytree(natops, tmp_path / "both")
    reader = NATOPS(natops, size=32, frames=4)
    stills(tmp_path / "both/split_img_data/g01s03p01", pixels(0, 8), "g01s03p01-{0:04d}-{0:04d}.png".format)
    assert NATOPS(tmp_path / "both", size=32, frames=4).files == reader.files


@pytest.mark.parametrize("text, part", [("1:3,4", "stands before"), ("// Subject 1\n1,1,1\n1:9,7", "line 3"), ("// Subject 1\n1,1,1\n1:0,7", "line 3"),
                                        ("hello", "names no repetition"), (b"\xff\xfe\x00", "names no repetition")])
def test_segmentation_wrong(tmp_path, text, part):
    (tmp_path / "segmentation.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=part):
        read_temporal_segments(tmp_path / "segmentation.txt")


def test_natops_torn_list(natops, tmp_path):
    "A list that ends too early is missed when the folder is read, not after an hour of training."
    write(tmp_path / "gesture24/g24s20.avi", stage(0), "mjpeg", "yuvj420p")
    (tmp_path / "segmentation.txt").write_text(cuts().split("// Subject 20")[0])
    with pytest.raises(ValueError, match="does not say where the repetitions of 'gesture24/g24s20.avi' are"):
        NATOPS(tmp_path)


def test_real_natops():
    root = real("fixtures", "natops_style")
    for split in ("train", "test"):
        clips = NATOPS(root, split=split, window="first", frames=12, size=240, resize_mode="crop", colour_jitter=0)
        for i, name in enumerate(clips.files):
            want = images(root / name, range(12))
            h, w = want.shape[1:3]
            if (h, w) == (240, 320):
                want, h, w = want[:, 10:239, 30:290], 229, 260
            s = min(h, w)
            top, left = (h - s) // 2, (w - s) // 2
            clips.size = s
            assert np.array_equal(as_bytes(clips.extract_clip(0, i)["video"]), want[:, top:top + s, left:left + s])


# --- MUG ---

def faces(root: Path):
    names = ("001/anger/take001", "002/session0/surprise/take000end", "002/session1/neutral/take002nsg", "008/sadness/take000", "017/neutral/take10", "003/fear/take000", "008/mixed/take000")
    for k, name in enumerate(names):
        stills(root / "subjects3" / name, pixels(k % 5, 12), lambda t: f"img_{t:04d}.jpg")


def test_mug(tmp_path):
    faces(tmp_path)
    want = dict(train=(["008/sadness/take000", "017/neutral/take10"], [5, 4]), test=(["001/anger/take001", "002/session0/surprise/take000end", "002/session1/neutral/take002nsg"], [0, 6, 4]))
    for split, (files, labels) in want.items():
        for root in (tmp_path, tmp_path / "subjects3"):
            clips = MUG(root, split=split, size=64, frames=12, colour_jitter=0)
            assert clips.files == files
            for i, label in enumerate(labels):
                got = clips.extract_clip(0, i)
                assert np.array_equal(as_bytes(got["video"]), images(tmp_path / "subjects3" / files[i], range(12))) and got["label"] == label
    bare = MUG(tmp_path, include_neutral=False)
    assert bare.files == ["008/sadness/take000"] and bare.classes == ["anger", "disgust", "fear", "happiness", "sadness", "surprise"] and bare[0]["label"] == 4
    assert not bare.describe_missing() and MUG(tmp_path).describe_missing() == "463 of 465 videos"


def test_light_of_lfdm(natops):
    "Training plays with the light of a clip, by the four shares of the published loader; the test does not."
    for split, changed in (("train", True), ("test", False)):
        clips, plain = (NATOPS(natops, split=split, size=64, frames=4, **more) for more in ({}, dict(colour_jitter=0)))
        assert torch.equal(clips.extract_clip(0, 0)["video"], plain.extract_clip(0, 0)["video"]) != changed
    assert NATOPS.protocol["train"]["colour_jitter"] == MUG.protocol["train"]["colour_jitter"] == (64 / 255, .25, .25, .04)


def test_real_mug():
    root = real("fixtures", "mug_style")
    for split, labels in (("train", [0]), ("test", [3, 6])):
        clips = MUG(root, split=split, frames=8, window="first", colour_jitter=0)
        assert [clips.extract_clip(0, i)["label"] for i in range(len(clips))] == labels
        for i, name in enumerate(clips.files):
            want = images(root / "subjects3" / name, range(8))
            if want.shape[1] == want.shape[2]:
                clips.size, clips.memory_cache = want.shape[1], {}
                assert np.array_equal(as_bytes(clips.extract_clip(0, i)["video"]), want)


# --- Sky Time-lapse ---

def wide(k: int, frames: int = 34) -> np.ndarray:
    return pixels(k, frames, 160)[:, 35:125]


@pytest.mark.parametrize("level, name", [("", "film_frames_{:08d}.jpg"), ("/1", "film_frames_{:08d}.jpg"), ("", "frame{}.jpg")])
def test_sky_layouts(tmp_path, level, name):
    "Raw, with one more level, and renamed; numbers with gaps, folders that are too short, lists."
    for k, (split, reader, frames) in enumerate((("train", "a/a_1", 34), ("train", "a/a_2", 12), ("train", "b/b_10", 32), ("test", "c/c_1", 33))):
        stills(tmp_path / f"sky_{split}/{reader}{level}", wide(k, frames), lambda t: name.format(3 * t))
    train, test = (SkyTimelapse(tmp_path, split=s, protocol_name="pvdm", size=90) for s in ("train", "test"))
    assert train.files == [f"sky_train/a/a_1{level}", f"sky_train/b/b_10{level}"] and test.files == [f"sky_test/c/c_1{level}"]
    for clips in (train, test):
        for k in range(3):
            got = clips[k]
            at = range(got["start_frame"], got["start_frame"] + 32)
            assert np.array_equal(as_bytes(got["video"]), images(tmp_path / got["file"], at)[:, :, 35:125])
    (tmp_path / "train.txt").write_text("b/b_10/\r\n")
    assert SkyTimelapse(tmp_path).files == [f"sky_train/b/b_10{level}"] and len(SkyTimelapse(tmp_path, split="test")) == 1
    (tmp_path / "train.txt").write_text("b/b_10/\na/a_2/\n")
    with pytest.raises(ValueError, match="names 1 folders that are not there or too short, the first is 'a/a_2'"):
        SkyTimelapse(tmp_path)


def test_sky_too_short(tmp_path):
    "Only images count; what is left out is named, and told where videos are missing."
    for name, frames in (("a/a_1", 31), ("b/b_1", 32), ("c/c_1", 33)):
        stills(tmp_path / "sky_train" / name, wide(0, frames)[:, ::9, ::9], "frame{}.JPG".format)
    for name in ("Thumbs.db", "readme.txt", ".hidden.jpg", "list.csv"):
        (tmp_path / "sky_train/a/a_1" / name).touch()
    write(tmp_path / "sky_train/stray.mp4", pixels(0, 4))
    clips = SkyTimelapse(tmp_path)
    assert (clips.files, clips.too_short) == (["sky_train/b/b_1", "sky_train/c/c_1"], ["sky_train/a/a_1"])
    assert clips.describe_missing() == "2,390 of 2,392 videos; left out: 1 shorter than 32 frames"
    every = SkyTimelapse(tmp_path, frames=17, stride=2)
    assert every.too_short == ["sky_train/a/a_1", "sky_train/b/b_1"] and every.describe_missing().endswith("2 shorter than 33 frames")
    every = SkyTimelapse(tmp_path, frames=31)
    assert every.too_short == [] and every.describe_missing() == "2,389 of 2,392 videos"


def test_sky_list_says_what_to_expect(tmp_path):
    for n in range(4):
        stills(tmp_path / f"sky_test/a/a_{n}", wide(n, 32)[:, ::9, ::9], "{}.jpg".format)
    assert SkyTimelapse(tmp_path, split="test").describe_missing() == "221 of 225 videos"
    (tmp_path / "test.txt").write_text("a/a_1/\na/a_2/\na/a_2/\n")
    clips = SkyTimelapse(tmp_path, split="test")
    assert (clips.describe_missing(), clips.official_counts["test"], SkyTimelapse.official_counts["test"], len(clips)) == ("", 2, 225, 2)


def test_sky_rules(tmp_path):
    "Squeezed in training to 9/8 and cut at random; in the test to the size; MDGAN takes the first frames."
    stills(tmp_path / "sky_train/a/a_1", wide(0, 40), lambda t: f"{t}.png")
    stills(tmp_path / "sky_test/b/b_1", wide(1, 40), lambda t: f"{t}.png")
    x = torch.zeros(1, 3, 90, 160).byte()
    shape = {(r, s): tuple(SkyTimelapse(tmp_path, split=s, protocol_name=r).resize_frame(x).shape[2:]) for r in ("cinn", "mdgan", "pvdm") for s in ("train", "test")}
    assert shape.pop(("cinn", "train")) == (144, 144) and set(shape.values()) == {(128, 128)}
    assert {SkyTimelapse(tmp_path, protocol_name="mdgan")[k]["start_frame"] for k in range(6)} == {0}
    assert len({SkyTimelapse(tmp_path)[k]["start_frame"] for k in range(12)}) > 3
    want = torch.nn.functional.interpolate(torch.from_numpy(images(tmp_path / "sky_test/b/b_1", range(32))).permute(0, 3, 1, 2), (128, 128), mode="bilinear", antialias=True)
    assert np.array_equal(as_bytes(SkyTimelapse(tmp_path, split="test")[0]["video"]), want.permute(0, 2, 3, 1).numpy())


def test_a_cached_sky_is_cut_at_random_too(tmp_path):
    "cINN's images are a little larger than a clip: a batch from the cache, a clip from it and the images themselves agree."
    for k in range(2):
        stills(tmp_path / f"sky/sky_train/a/a_{k}", wide(k), "a_frames_{:08d}.jpg".format)
    write_cache(SkyTimelapse(tmp_path / "sky", size=32), tmp_path / "cached")
    train, cached = SkyTimelapse(tmp_path / "sky", size=32), CachedClips(tmp_path / "cached", frames=32)
    want, got = train.batch(range(6)), cached.batch(range(6))
    assert torch.equal(want["video"], got["video"]) and torch.equal(cached[5]["video"], got["video"][5])
    assert cached.flip and cached.get_reader(0).frames.shape[2:] == (36, 36)


def test_real_sky():
    root = real("fixtures", "sky_raw")
    for split in ("train", "test"):
        clips = SkyTimelapse(root, split=split, protocol_name="mdgan")
        assert len(clips) > 3
        for i, name in enumerate(clips.files[:3]):
            want = images(root / name, range(32))
            small = np.stack([np.asarray(Image.fromarray(x).resize((128, 128), Image.Resampling.BILINEAR)) for x in want])
            assert np.abs(as_bytes(clips.extract_clip(0, i)["video"]).astype(int) - small).max() <= 2


# --- what they share ---

def test_nothing_there(tmp_path):
    write(tmp_path / "a.mp4", pixels(0, 4))
    for kind, part in ((NATOPS, "no train video of NATOPS in"), (MUG, "no train video of MUG in"), (SkyTimelapse, "holds no folder 'sky_train'")):
        with pytest.raises(FileNotFoundError, match=part):
            kind(tmp_path)
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            kind(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="unknown split 'valid'"):
            kind(tmp_path, split="valid")
