"""BAIR as published and in three copies: every frame against an independent reading; damage named; the index built once."""
import sys
from pathlib import Path

import numpy as np
import pytest
from footage import as_bytes, pixels, real
from PIL import Image

import lamd_nb.data.bair as bair
from lamd_nb.data.bair import BAIR, index_records
from lamd_nb.data.records import write_records


def number(n: int) -> bytes:
    return bytes([n & 127 | 128]) + number(n >> 7) if n > 127 else bytes([n])


def field(n: int, data: bytes) -> bytes:
    return number(n << 3 | 2) + number(len(data)) + data


def record(film: np.ndarray, order=None) -> bytes:
    "A film as tf.train.Example, its entries in any order."
    said = [(f"{t}/{c}/encoded", x.tobytes()) for t, film_t in enumerate(film) for c, x in (("image_main", 255 - film_t), ("image_aux1", film_t))]
    said = [said[k] for k in order] if order is not None else said
    return field(1, b"".join(field(1, field(1, k.encode()) + field(2, field(1, field(1, v)))) for k, v in said))


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return np.stack([pixels(k, 30) for k in range(5)])


@pytest.fixture(scope="module")
def root(films, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bair")
    for name, some in (("train/traj_256_to_511", films[:1]), ("train/traj_512_to_767", films[1:3]), ("test/traj_0_to_255", films[3:])):
        file = root / "softmotion30_44k" / f"{name}.tfrecords"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_records(file, [record(f, np.random.RandomState(k).permutation(60)) for k, f in enumerate(some)])
    return root


def test_records(root, films):
    "Whatever the order of names in a record; both cameras; from the folder above, or the folder itself."
    for top in (root, root / "softmotion30_44k"):
        test, train = BAIR(top, split="test"), BAIR(top)
        assert len(test) == 2 and [f[:18] for f in train.files] == ["traj_256_to_511.tf", "traj_512_to_767.tf", "traj_512_to_767.tf"]
        assert np.array_equal(np.stack([as_bytes(v) for v in test.batch([0, 1])["video"]]), films[3:, :16])
        for k in range(6):
            got, i = train[k], train.where(k)[0]
            assert np.array_equal(as_bytes(got["video"]), films[i, got["start"]:got["start"] + 16])
    assert np.array_equal(as_bytes(BAIR(root, "test", camera="image_main")[1]["video"]), 255 - films[4, :16])


def test_validation(root):
    train, val = (BAIR(root, split, validation=True) for split in ("train", "test"))
    assert train.files == ["traj_512_to_767.tfrecords#0", "traj_512_to_767.tfrecords#1"] and val.files == ["traj_256_to_511.tfrecords#0"]
    assert "43008 train films" in train.lacks() and "256 test films" in val.lacks()


def test_index_is_built_once(root, tmp_path, monkeypatch):
    "The second time the file is not searched; after a change it is."
    file = tmp_path / "traj.tfrecords"
    file.write_bytes((root / "softmotion30_44k/test/traj_0_to_255.tfrecords").read_bytes())
    searched = []
    monkeypatch.setenv("LAMD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bair, "WORTH", 0)
    monkeypatch.setattr(bair, "find_records", lambda data, name, find=bair.find_records: searched.append(name) or find(data, name))
    first = index_records(file)
    assert np.array_equal(index_records(file), first) and len(first) == 2 and len(searched) == 1
    write_records(file, [b"one"])
    assert len(index_records(file)) == 1 and len(searched) == 2
    for shelf in (tmp_path / "cache").iterdir():
        shelf.write_text('{"key": 1')
    assert len(index_records(file)) == 1 and len(searched) == 3
    monkeypatch.setenv("LAMD_CACHE", str(file))                       # no folder, so nothing can be kept
    assert len(index_records(file)) == 1 and len(searched) == 4


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
    write_records(file, [b"hello", record(np.zeros((3, 8, 8, 3), np.uint8))])
    for k, part in ((0, "#0' is no tf.train.Example"), (1, "#1', frame 0: 192 bytes, but 64 x 64 x 3 = 12288 were expected")):
        with pytest.raises(ValueError, match=part):
            BAIR(tmp_path, split="test", frames=2)[k]
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        BAIR(tmp_path)


# --- copies ---

def test_mcvd(films, tmp_path):
    h5py = pytest.importorskip("h5py")
    for split, some in (("train", films[:3]), ("test", films[3:])):
        for shard, part in enumerate((some[:1], some[1:]), 1):
            (tmp_path / split).mkdir(exist_ok=True)
            with h5py.File(tmp_path / split / f"shard_{shard:04d}.hdf5", "w") as box:
                for n, film in enumerate(part):
                    box[f"len/{n}"] = len(film)
                    for t, x in enumerate(film):
                        box[f"{n}/{t}"] = x
    same(tmp_path, films, ["shard_0001.hdf5#0", "shard_0002.hdf5#0"])


@pytest.mark.parametrize("alone", [True, False])
def test_videogpt(films, tmp_path, alone):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "bair.hdf5", "w") as box:
        for split, some in (("train", films[:3]), ("test", films[3:])):
            box[f"{split}_data"], box[f"{split}_idx"] = np.concatenate(some), np.arange(len(some)) * 30
    same(tmp_path / "bair.hdf5" if alone else tmp_path, films, ["#0", "#1"] if alone else ["bair.hdf5#0", "bair.hdf5#1"])


def test_svg(films, tmp_path):
    for split, some in (("train", films[:3]), ("test", films[3:])):
        for n, film in enumerate(some, 1):
            folder = tmp_path / f"processed_data/{split}/{'traj_512_to_767' if split == 'train' else 'traj_0_to_255'}/{n}"
            folder.mkdir(parents=True)
            for t, x in enumerate(film):
                Image.fromarray(x).save(folder / f"{t}.png")
    same(tmp_path, films, ["traj_0_to_255/1", "traj_0_to_255/2"])


def same(root, films, names):
    test, train = BAIR(root, split="test"), BAIR(root)
    assert test.files == names and len(train) == 3 and "label" not in test[0]
    assert np.array_equal(np.stack([as_bytes(v) for v in test.batch([0, 1])["video"]]), films[3:, :16])
    for k in range(6):
        got, i = train[k], train.where(k)[0]
        assert np.array_equal(as_bytes(got["video"]), films[i, got["start"]:got["start"] + 16])


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
            first, size = clips.spans[file][int(k)]
            payload = raw[file][first:first + size]
            got = as_bytes(clips.clip(0, i)["video"])
            for t in (0, 7, 15):
                key = f"{t}/image_aux1/encoded".encode()
                after = payload[payload.index(b"\x0a" + bytes([len(key)]) + key) + 2 + len(key):][:12 + 12288]
                assert got[t].tobytes() in after
