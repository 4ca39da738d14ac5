"""BAIR as published and in three copies: every frame against an independent reading; damage named; the index built once."""
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_videos import as_bytes, framed, pixels, real
from PIL import Image

import lamd_nb.data.benchmarks.bair as bair
from lamd_nb.data.benchmarks.bair import BAIR, index_tfrecord
from lamd_nb.data.benchmarks.records import write_tfrecord


def number(n: int) -> bytes:
    return bytes([n & 127 | 128]) + number(n >> 7) if n > 127 else bytes([n])


def field(n: int, data: bytes) -> bytes:
    return number(n << 3 | 2) + number(len(data)) + data


def record(video: np.ndarray, order=None) -> bytes:
    "A video as tf.train.Example, its entries in any order."
    said = [(f"{t}/{c}/encoded", x.tobytes()) for t, frame in enumerate(video) for c, x in (("image_main", 255 - frame), ("image_aux1", frame))]
    said = [said[k] for k in order] if order is not None else said
    return field(1, b"".join(field(1, field(1, k.encode()) + field(2, field(1, field(1, v)))) for k, v in said))


@pytest.fixture(scope="module")
def videos() -> np.ndarray:
    return np.stack([pixels(k, 30) for k in range(5)])


@pytest.fixture(scope="module")
def root(videos, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bair")
    for name, some in (("train/traj_256_to_511", videos[:1]), ("train/traj_512_to_767", videos[1:3]), ("test/traj_0_to_255", videos[3:])):
        file = root / "softmotion30_44k" / f"{name}.tfrecords"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tfrecord(file, [record(f, np.random.RandomState(k).permutation(60)) for k, f in enumerate(some)])
    return root


def test_records(root, videos):
    "Whatever the order of names in a record; both cameras; from the folder above, or the folder itself."
    for top in (root, root / "softmotion30_44k"):
        test, train = BAIR(top, split="test"), BAIR(top)
        assert len(test) == 2 and [f[:18] for f in train.files] == ["traj_256_to_511.tf", "traj_512_to_767.tf", "traj_512_to_767.tf"]
        assert np.array_equal(np.stack([as_bytes(v) for v in test.batch([0, 1])["video"]]), videos[3:, :16])
        for k in range(6):
            got, i = train[k], train.locate_clip(k)[0]
            assert np.array_equal(as_bytes(got["video"]), videos[i, got["start_frame"]:got["start_frame"] + 16])
    assert np.array_equal(as_bytes(BAIR(root, "test", camera="image_main")[1]["video"]), 255 - videos[4, :16])


def test_validation(root):
    train, val = (BAIR(root, split, validation=True) for split in ("train", "test"))
    assert train.files == ["traj_512_to_767.tfrecords#0", "traj_512_to_767.tfrecords#1"] and val.files == ["traj_256_to_511.tfrecords#0"]
    assert (train.describe_missing(), val.describe_missing()) == ("43,006 of 43,008 videos", "255 of 256 videos")


def test_index_is_built_once(root, tmp_path, monkeypatch):
    "The second time the file is not searched; after a change it is."
    file = tmp_path / "traj.tfrecords"
    file.write_bytes((root / "softmotion30_44k/test/traj_0_to_255.tfrecords").read_bytes())
    searched = []
    monkeypatch.setenv("LAMD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bair, "MEMO_MIN_BYTES", 0)
    monkeypatch.setattr(bair, "scan_tfrecord", lambda data, name, errors, find=bair.scan_tfrecord: searched.append(name) or find(data, name, errors=errors))
    first = index_tfrecord(file)
    assert np.array_equal(index_tfrecord(file), first) and len(first) == 2 and len(searched) == 1
    write_tfrecord(file, [b"one"])
    assert len(index_tfrecord(file)) == 1 and len(searched) == 2
    for shelf in (tmp_path / "cache").iterdir():
        shelf.write_text('{"key": 1')
    assert len(index_tfrecord(file)) == 1 and len(searched) == 3
    monkeypatch.setenv("LAMD_CACHE", str(file))                       # no folder, so nothing can be kept
    assert len(index_tfrecord(file)) == 1 and len(searched) == 4


def test_damage(root, tmp_path):
    good = (root / "softmotion30_44k/test/traj_0_to_255.tfrecords").read_bytes()
    file = tmp_path / "traj_0_to_255.tfrecords"
    file.write_bytes(good[:-9])
    with pytest.raises(ValueError, match="traj_0_to_255.tfrecords' is cut off: record 1"):
        BAIR(tmp_path, split="test")
    file.write_bytes(good[:1000] + bytes([good[1000] ^ 8]) + good[1001:])
    test = BAIR(tmp_path, split="test", on_error="raise")
    with pytest.raises(ValueError, match="traj_0_to_255.tfrecords#0' is damaged: its checksum is wrong"):
        test[0]
    assert test[1]["video"].shape == (3, 16, 64, 64)
    write_tfrecord(file, [b"hello", record(np.zeros((3, 8, 8, 3), np.uint8))])
    for k, part in ((0, "#0' is no tf.train.Example"), (1, "#1', frame 0: 192 bytes, but 64 x 64 x 3 = 12288 were expected")):
        with pytest.raises(ValueError, match=part):
            BAIR(tmp_path, split="test", frames=2)[k]
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        BAIR(tmp_path, split="test")
    with pytest.warns(UserWarning, match="is empty"), pytest.raises(ValueError, match="no test video of BAIR in .*is empty"):
        BAIR(tmp_path, split="test", on_error="skip")


def download(root: Path, top: Path) -> Path:
    "A copy of the folder of training videos, four in three files."
    top.mkdir()
    two = (root / "softmotion30_44k/train/traj_512_to_767.tfrecords").read_bytes()
    for n, raw in ((512, two), (768, two[:len(two) // 2 + 9]), (1024, b"")):
        (top / f"traj_{n}_to_{n + 255}.tfrecords").write_bytes(raw)
    (top / "traj_1280_to_1535.tfrecords").symlink_to(top / "gone")
    return top


def test_half_a_download(root, tmp_path):
    "The videos before the damage stay, and the rest has its reason; nobody allowed that, so it raises."
    top = download(root, tmp_path / "half")
    with pytest.raises(ValueError, match="traj_1024_to_1279.tfrecords' is empty"):
        BAIR(top)
    with pytest.warns(UserWarning, match="skipped: ") as told:
        clips = BAIR(top, on_error="skip")
    assert len(told) == 3
    assert clips.files == ["traj_512_to_767.tfrecords#0", "traj_512_to_767.tfrecords#1", "traj_768_to_1023.tfrecords#0"]
    assert {name: why.split("'")[2].strip(" :")[:10] for name, why in clips.unreadable.items()} == {
        "traj_768_to_1023.tfrecords": "is cut off", "traj_1024_to_1279.tfrecords": "is empty", "traj_1280_to_1535.tfrecords": "No such fi"}
    assert torch.equal(clips.extract_clip(0, 2)["video"], clips.extract_clip(0, 0)["video"]) and clips.describe_missing() == "43,261 of 43,264 videos"
    assert BAIR(root).unreadable == {}
    (top / "traj_768_to_1023.tfrecords").write_bytes((top / "traj_512_to_767.tfrecords").read_bytes())
    for name in ("traj_1024_to_1279.tfrecords", "traj_1280_to_1535.tfrecords"):
        (top / name).unlink()
    assert len(BAIR(top)) == 4, "mended, it is whole again"


def test_half_an_index_is_not_remembered(root, tmp_path, monkeypatch):
    "Not even if the rest of the file comes without a change of its size and time."
    monkeypatch.setenv("LAMD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bair, "MEMO_MIN_BYTES", 0)
    file = tmp_path / "traj_512_to_767.tfrecords"
    raw = (root / "softmotion30_44k/train/traj_512_to_767.tfrecords").read_bytes()
    head = len(raw) // 2                                    # of the second record
    file.write_bytes(raw[:head] + bytes([raw[head] ^ 1]) + raw[head + 1:])
    at = file.stat().st_mtime_ns
    lost = []
    assert len(index_tfrecord(file, lost)) == 1 and len(lost) == 1
    with pytest.raises(ValueError, match="record 1"):
        index_tfrecord(file)
    file.write_bytes(raw)
    os.utime(file, ns=(at, at))
    assert len(index_tfrecord(file)) == 2


def test_training_videos_are_no_test(root, videos, tmp_path):
    "In every dress, from the folder or the file itself; and the other way round."
    h5py = pytest.importorskip("h5py")
    train, test = (root / "softmotion30_44k" / s for s in ("train", "test"))
    for s in ("train", "test"):
        (tmp_path / "mcvd" / s).mkdir(parents=True)
        with h5py.File(tmp_path / "mcvd" / s / "shard_0001.hdf5", "w") as box:
            box["len/0"] = 30
        stills = tmp_path / "svg" / s / ("traj_512_to_767/1" if s == "train" else "traj_0_to_255/1")
        stills.mkdir(parents=True)
        for t in range(16):
            Image.fromarray(videos[0, t]).save(stills / f"{t}.png")
    (tmp_path / "odd/train").mkdir(parents=True)
    write_tfrecord(tmp_path / "odd/train/robot.tfrecords", [record(videos[0])])
    for place in (train, train / "traj_512_to_767.tfrecords", tmp_path / "mcvd/train", tmp_path / "mcvd/train/shard_0001.hdf5", tmp_path / "svg/train", tmp_path / "odd/train"):
        with pytest.raises(FileNotFoundError, match="holds the training videos of BAIR, on which nothing is to be tested"):
            BAIR(place, split="test")
        assert len(BAIR(place))
    for place in (test, test / "traj_0_to_255.tfrecords", tmp_path / "mcvd/test", tmp_path / "mcvd/test/shard_0001.hdf5", tmp_path / "svg/test"):
        with pytest.raises(FileNotFoundError, match="holds the test videos of BAIR, which are not to be learned from"):
            BAIR(place)
        assert len(BAIR(place, split="test"))
    for place in (root, train, train / "traj_256_to_511.tfrecords"):
        assert [f[-2:] for f in BAIR(place, split="test", validation=True).files] == ["#0"]


def test_one_file_for_both_splits_may_lie_anywhere(videos, tmp_path):
    "VideoGPT's file says itself what is in it, whatever its folder is called."
    h5py = pytest.importorskip("h5py")
    (tmp_path / "train").mkdir()
    with h5py.File(tmp_path / "train/bair.hdf5", "w") as box:
        for split, some in (("train", videos[:3]), ("test", videos[3:])):
            box[f"{split}_data"], box[f"{split}_idx"] = np.concatenate(some), np.arange(len(some)) * 30
    same(tmp_path / "train", videos, ["bair.hdf5#0", "bair.hdf5#1"])


# --- by the rules of the formats alone ---

def test_a_file_that_our_writer_never_saw(videos, tmp_path):
    "Protocol buffer, frame and checksum by hand: the images come out of it, and our writer makes the same bytes."
    x, entries = videos[0, :2], b""
    for t, image in enumerate(x):
        value = b"\x0a\x80\x60" + image.tobytes()                # BytesList, field 1: 96 * 128 + 0 = 12288 bytes, in groups of seven bits
        value = b"\x0a\x83\x60" + value                           # Feature, field 1: 12291
        key = b"\x0a\x14" + f"{t}/image_aux1/encoded".encode()     # 20 letters
        entries += b"\x0a\x9f\x60" + key + b"\x12\x86\x60" + value # one of the map: 12319; its field 2: 12294
    payload = b"\x0a\xc4\xc0\x01" + entries                       # 1 * 16384 + 64 * 128 + 68 = 24644 = 2 * (12319 + 3)
    raw = framed(payload)
    (tmp_path / "traj_0_to_255.tfrecords").write_bytes(raw)
    test = BAIR(tmp_path, split="test", frames=2)
    assert len(test) == 1 and np.array_equal(as_bytes(test[0]["video"]), x)
    write_tfrecord(tmp_path / "ours", [payload])
    assert (tmp_path / "ours").read_bytes() == raw


# --- copies ---

def test_mcvd(videos, tmp_path):
    h5py = pytest.importorskip("h5py")
    for split, some in (("train", videos[:3]), ("test", videos[3:])):
        for shard, part in enumerate((some[:1], some[1:]), 1):
            (tmp_path / split).mkdir(exist_ok=True)
            with h5py.File(tmp_path / split / f"shard_{shard:04d}.hdf5", "w") as box:
                for n, video in enumerate(part):
                    box[f"len/{n}"] = len(video)
                    for t, x in enumerate(video):
                        box[f"{n}/{t}"] = x
    same(tmp_path, videos, ["shard_0001.hdf5#0", "shard_0002.hdf5#0"])


@pytest.mark.parametrize("alone", [True, False])
def test_videogpt(videos, tmp_path, alone):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "bair.hdf5", "w") as box:
        for split, some in (("train", videos[:3]), ("test", videos[3:])):
            box[f"{split}_data"], box[f"{split}_idx"] = np.concatenate(some), np.arange(len(some)) * 30
    same(tmp_path / "bair.hdf5" if alone else tmp_path, videos, ["#0", "#1"] if alone else ["bair.hdf5#0", "bair.hdf5#1"])


def test_svg(videos, tmp_path):
    for split, some in (("train", videos[:3]), ("test", videos[3:])):
        for n, video in enumerate(some, 1):
            folder = tmp_path / f"processed_data/{split}/{'traj_512_to_767' if split == 'train' else 'traj_0_to_255'}/{n}"
            folder.mkdir(parents=True)
            for t, x in enumerate(video):
                Image.fromarray(x).save(folder / f"{t}.png")
    same(tmp_path, videos, ["traj_0_to_255/1", "traj_0_to_255/2"])


def same(root, videos, names):
    test, train = BAIR(root, split="test"), BAIR(root)
    assert test.files == names and len(train) == 3 and "label" not in test[0]
    assert np.array_equal(np.stack([as_bytes(v) for v in test.batch([0, 1])["video"]]), videos[3:, :16])
    for k in range(6):
        got, i = train[k], train.locate_clip(k)[0]
        assert np.array_equal(as_bytes(got["video"]), videos[i, got["start_frame"]:got["start_frame"] + 16])


def test_broken_h5(videos, tmp_path):
    "A shard that cannot be read is named, and the others are used."
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "shard_0001.hdf5", "w") as box:
        box["len/0"] = 30
        for t, x in enumerate(videos[0]):
            box[f"0/{t}"] = x
    (tmp_path / "shard_0002.hdf5").write_bytes((tmp_path / "shard_0001.hdf5").read_bytes()[:5000])
    with h5py.File(tmp_path / "shard_0003.hdf5", "w") as box:
        box["len"] = 3
    with h5py.File(tmp_path / "shard_0004.hdf5", "w"):
        pass
    with pytest.raises(ValueError, match="cannot read .*shard_0002.hdf5'"):
        BAIR(tmp_path)
    with pytest.warns(UserWarning, match="skipped: "):
        clips = BAIR(tmp_path, on_error="skip")
    assert clips.files == ["shard_0001.hdf5#0"] and np.array_equal(as_bytes(clips[0]["video"]), videos[0, clips[0]["start_frame"]:][:16])
    assert list(clips.unreadable) == [f"shard_000{n}.hdf5" for n in (2, 3, 4)] and "holds nothing; expected" in clips.unreadable["shard_0004.hdf5"]


def test_without_h5py(tmp_path, monkeypatch):
    (tmp_path / "bair.hdf5").write_bytes(b"no")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py: pip install lamd_nb\[h5\]"):
        BAIR(tmp_path / "bair.hdf5")


def test_real_robot():
    "Frames of the real records, found by looking for their names among the bytes."
    root = real("fixtures", "bair_tfrecord")
    for split in ("train", "test"):
        clips = BAIR(root, split=split, window="first")
        raw = {f.name: f.read_bytes() for f in (root / "softmotion30_44k" / split).iterdir()}
        for i, name in enumerate(clips.files[:4]):
            file, k = name.split("#")
            first, size = clips.record_spans[file][int(k)]
            payload = raw[file][first:first + size]
            got = as_bytes(clips.extract_clip(0, i)["video"])
            for t in (0, 7, 15):
                key = f"{t}/image_aux1/encoded".encode()
                after = payload[payload.index(b"\x0a" + bytes([len(key)]) + key) + 2 + len(key):][:12 + 12288]
                assert got[t].tobytes() in after
