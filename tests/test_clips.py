"""Films as they come: lying on their side, damaged, silent, odd, read by several processes and threads; and real hands where they are at hand."""
import multiprocessing
import random
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from lamd_nb.data.clips import Clips, decode, find_videos, load_image, open_data
from lamd_nb.data.worlds import ShapesWorld
from lamd_nb.streams import stream

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"


def pixels(k: int, frames: int = 24, size: int = 64) -> np.ndarray:
    "(t h w 3) bytes of one clip of the shapes world."
    video = ShapesWorld(size, frames, "test").batch([k])["video"][0]
    return ((video + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()


def write(path: Path, x: np.ndarray, codec: str = "libx264", pix_fmt: str = "yuv444p", times=None, **options) -> Path:
    "Write frames; `times` in milliseconds, if they are not evenly spaced."
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as box:
        track = box.add_stream(codec, rate=25)
        track.height, track.width, track.pix_fmt = *x.shape[1:3], pix_fmt
        track.time_base = track.codec_context.time_base = Fraction(1, 1000)
        for k, pic in enumerate(x):
            frame = av.VideoFrame.from_ndarray(pic, "rgb24")
            frame.pts, frame.time_base = (40 * k if times is None else times[k]), Fraction(1, 1000)
            box.mux(track.encode(frame))
        box.mux(track.encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "Four films of 24 frames and their folder."
    root = tmp_path_factory.mktemp("films")
    for k in range(4):
        write(root / f"clip_{k}.mp4", pixels(k))
    return root


# --- kinds of films ---

def turned(path: Path, matrix: tuple) -> Path:
    "A copy of an mp4 whose track header says that it must be turned before it is shown."
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40              # version 0: the matrix begins 40 bytes after the name
    a, b, c, d = matrix
    for k, v in enumerate((a, b, 0, c, d, 0, 0, 0)):
        data[at + 4 * k: at + 4 * k + 4] = (v * 65536 & 0xFFFFFFFF).to_bytes(4, "big")
    new = path.with_name(f"turned_{a}_{b}_{c}_{d}.mp4")
    new.write_bytes(data)
    return new


@pytest.mark.parametrize("matrix, quarters", [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_rotation_flag(folder, tmp_path, matrix, quarters):
    "A telephone's flag is obeyed; the matrix (0 1 -1 0) means a quarter turn clockwise."
    plain = write(tmp_path / "plain.mp4", pixels(0))
    want = [np.rot90(x, quarters) for x in iio.imread(plain, plugin="pyav")]
    got = [x.permute(1, 2, 0).numpy() for x in decode(turned(plain, matrix), 64)]
    assert np.array_equal(np.stack(got), np.stack(want))


@pytest.mark.parametrize("name, codec, pix_fmt, side", [
    ("a.mp4", "libx264", "yuv420p", 64), ("b.mov", "libx264", "yuv420p10le", 64), ("c.mkv", "libx264", "yuv444p", 63),
    ("d.avi", "mpeg4", "yuv420p", 64), ("e.webm", "libvpx", "yuv420p", 64), ("f.mkv", "ffv1", "gray", 64), ("g.avi", "mjpeg", "yuvj420p", 64)])
def test_kinds(tmp_path, name, codec, pix_fmt, side):
    "Each kind of file gives all frames, close to what was written."
    x = pixels(1)[:, :side, :side]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = write(tmp_path / name, x, codec, pix_fmt)
    got = torch.stack(list(decode(path, side))).permute(0, 2, 3, 1).numpy()
    assert got.shape == x.shape
    if pix_fmt == "gray":
        x = np.repeat(x @ np.array([.299, .587, .114]), 3).reshape(x.shape)
    gap = np.abs(got.astype(float) - x).mean()
    assert gap < 12, f"{name}: {gap:.1f} levels off"


def test_uneven_times(tmp_path):
    "A film that pauses has the frames that were written, no more and no fewer."
    times = np.cumsum([40, 40, 300, 7, 40, 1000] * 4).tolist()
    assert Clips(write(tmp_path / "vfr.mkv", pixels(0), times=times).parent).count(0) == 24


def test_gif_and_first_image(tmp_path):
    x = pixels(2)
    iio.imwrite(tmp_path / "a.gif", x, duration=80, loop=0)
    Image.fromarray(x[0]).save(tmp_path / "a.png")
    first = Clips(tmp_path, split="test").batch([0])["video"][0, :, 0]
    assert (first - load_image(tmp_path / "a.png", 64)[0][0]).abs().mean() < .1


def test_names(tmp_path):
    "Odd names are sorted without a stumble; folders and hidden files are no films."
    for name in ("b/10.mp4", "b/9.mp4", "b/²x.mp4", "A.GIF", "é 3.mkv", ".hidden.mp4", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert [f.name for f in find_videos(tmp_path)] == ["A.GIF", "9.mp4", "10.mp4", "²x.mp4", "é 3.mkv"]


def test_splits_do_not_mix(folder, tmp_path):
    for split, k in (("train", 0), ("test", 1)):
        write(tmp_path / split / f"{split}.mp4", pixels(k, 16))
    for split in ("train", "test"):
        assert open_data(tmp_path, split=split).batch([0, 1])["file"] == [f"{split}.mp4"] * 2
    for f in (tmp_path / "test").iterdir():
        f.unlink()
    with pytest.raises(FileNotFoundError, match="no video in"):
        Clips(tmp_path, split="test")
    (tmp_path / "test").rmdir()
    with pytest.raises(FileNotFoundError, match="none named 'test'"):
        Clips(tmp_path, split="test")


# --- damage ---

def test_sound_only(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as box:
        track = box.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.rate = 44100
        box.mux(track.encode(frame))
        box.mux(track.encode())
    with pytest.raises(ValueError, match="song.mp4': it holds no moving picture"):
        Clips(tmp_path).batch([0])


@pytest.mark.parametrize("part", [0, .01, .3, .6, .95])
def test_cut_short(tmp_path, part):
    "A film cut anywhere, its index at the front as the web has it, is named: unreadable, or too short."
    path = write(tmp_path / "cut.mp4", pixels(0, 16), movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[:int(part * len(data))])
    with pytest.raises(ValueError, match=r"cut.mp4'( has \d+ frames|: )"):
        Clips(tmp_path).batch([0])


def test_flipped_bytes(folder, tmp_path):
    "A damaged film is read or named; never a crash, never a picture of another size."
    data, chance = (folder / "clip_0.mp4").read_bytes(), random.Random(0)
    for k in range(40):
        torn = bytearray(data)
        for _ in range(5):
            torn[chance.randrange(len(torn))] = chance.randrange(256)
        (tmp_path / "torn.mp4").write_bytes(torn)
        try:
            assert Clips(tmp_path).batch([k])["video"].shape == (1, 3, 16, 64, 64)
        except ValueError as error:
            assert "torn.mp4" in str(error)


def test_vanished(folder, tmp_path):
    path = write(tmp_path / "gone.mp4", pixels(0))
    clips = Clips(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="gone.mp4': No such file"):
        clips.batch([0])


# --- the same clip wherever it is asked for ---

def test_processes_and_threads(folder):
    clips = Clips(folder, seed=5)
    want = clips.batch(range(32))["video"]
    parts = [range(k, k + 4) for k in range(0, 32, 4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        away = torch.cat([torch.from_numpy(x) for x in pool.map(Numbers(clips), parts)])
    assert torch.equal(away, want)
    with ThreadPoolExecutor(4) as pool:
        threads = torch.cat([b["video"] for b in pool.map(Clips(folder, seed=5).batch, parts)])
    assert torch.equal(threads, want)


class Numbers:
    "Clips as numpy arrays, which travel between processes without shared memory."

    def __init__(self, clips):
        self.clips = clips

    def __call__(self, index):
        assert not self.clips.kept, "kept frames should stay at home"
        return self.clips.batch(index)["video"].numpy()


def test_cache_keeps_its_bound(folder):
    "Room for two of the four films: two are kept, and nothing changes but the time."
    small, large = Clips(folder, cache=.6), Clips(folder)
    assert torch.equal(small.batch(range(24))["video"], large.batch(range(24))["video"])
    assert len(small.kept) == 2 and len(large.kept) == 4
    assert sum(x.nbytes for x in small.kept.values()) <= .6 * 2**20


def test_stream_cuts_new_windows(folder):
    "Over a training run each film is cut at every place, and step 7 is step 7 whenever it is asked for."
    batches = stream(open_data(folder), 4, seed=2)
    seen = {(f, s) for k in range(60) for b in [batches.at(k)] for f, s in zip(b["file"], b["start"].tolist())}
    assert len(seen) == 4 * 9
    assert torch.equal(batches.at(7)["video"], stream(open_data(folder), 4, seed=2).at(7)["video"])


# --- real films, where they are ---

def real(*parts: str) -> Path:
    path = REAL.joinpath(*parts)
    if not path.is_dir():
        pytest.skip(f"the sample films are not here: {Path(*parts)}")
    return path


def test_real_hands():
    root = real("asl_hands", "64", "train")
    clips = Clips(root)
    assert len(clips) == 747
    batch = clips.batch(range(24))
    assert batch["video"].shape == (24, 3, 16, 64, 64) and batch["video"].std() > .2
    for k in (0, 7):
        whole = iio.imread(root / batch["file"][k], plugin="pyav")
        start = int(batch["start"][k])
        want = torch.from_numpy(whole[start:start + 16]).permute(3, 0, 1, 2) / 127.5 - 1
        assert torch.allclose(batch["video"][k], want, atol=1e-6)
    began = time.process_time()
    for _ in range(4):
        clips.batch(range(24))
    assert 96 / (time.process_time() - began) > 200, "frames that were kept come at 200 clips a second at least"


def test_real_splits():
    root = real("asl_hands", "64")
    assert (len(open_data(root, split="test")), len(open_data(root).worlds[0])) == (197, 747)


@pytest.mark.parametrize("name", ["asl_hands/128", "landscape_real/128", "weizmann_actions/64"])
def test_real_others(name):
    clips = Clips(real(*name.split("/"), "test"), split="test", size=48)
    video = clips.batch(range(3))["video"]
    assert video.shape == (3, 3, 16, 48, 48) and (video[:, :, 0] != video[:, :, 15]).any()
