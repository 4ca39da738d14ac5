"""Videos as they come: every kind read as others read it, only what is needed decoded, everything listed and nothing opened, and 200 damaged files."""
import json
import os
import random
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from multiprocessing import get_context
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
from sample_videos import pixels, real, touch, whole, write
from PIL import Image

from lamd_nb.data.video import reading
from lamd_nb.data.video.reading import FrameFolder, VideoFile, open_video
from lamd_nb.data.video.listing import list_videos
from lamd_nb.data.images import read_image_rgb


def read(path, numbers=None) -> np.ndarray:
    reader = open_video(path)
    return np.stack(list(reader.read(range(len(reader)) if numbers is None else numbers)))


@pytest.fixture(autouse=True)
def shelf(tmp_path_factory, monkeypatch) -> Path:
    "The cache of listings, in a folder of the test's own."
    path = tmp_path_factory.mktemp("shelf")
    monkeypatch.setenv("LAMD_CACHE", str(path))
    return path


# --- every kind of video ---

UNEVEN = np.cumsum([40, 7, 300, 40, 90] * 20)
KINDS = [
    ("a.mp4", "libx264", "yuv420p", {"g": "12", "bf": "3"}, None), ("b.avi", "mpeg4", "yuv420p", {"g": "12"}, None),
    ("c.avi", "mpeg4", "yuv420p", {"g": "12", "bf": "2"}, None), ("d.mkv", "ffv1", "yuv444p", {}, None),
    ("e.webm", "libvpx-vp9", "yuv420p", {"g": "12", "cpu-used": "8"}, None), ("f.webm", "libvpx", "yuv420p", {"g": "20", "lag-in-frames": "16", "auto-alt-ref": "1"}, None),
    ("g.mov", "libx264", "yuv420p", {"g": "20"}, None), ("h.gif", "gif", "rgb8", {}, None), ("i.mkv", "libx264", "yuv420p", {"g": "12"}, UNEVEN),
    ("j.mp4", "libx264", "yuv420p", {"g": "12", "bf": "3"}, UNEVEN), ("k.avi", "mjpeg", "yuvj420p", {}, None), ("l.avi", "rawvideo", "yuv420p", {}, None),
    ("m.avi", "libx264", "yuv420p", {"g": "12", "bf": "2"}, None), ("n.mp4", "libx265", "yuv420p", {"x265-params": "keyint=12:log-level=none"}, None),
    ("o.mp4", "libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=12:bframes=3"}, None), ("p.mov", "libx264", "yuv420p10le", {}, None),
    ("q.mkv", "ffv1", "gray", {}, None), ("r.mp4", "libx264", "yuv444p", {"g": "1"}, None)]


@pytest.mark.parametrize("name, codec, pix_fmt, options, times", KINDS, ids=[k[0] for k in KINDS])
def test_frame_by_frame(tmp_path, name, codec, pix_fmt, options, times):
    "Each frame, alone, in a row, and scattered, is what PyAV gives that decodes the whole file; its time too."
    x = np.concatenate([pixels(k, 25) for k in range(4)])[:, :, :62 if "444" in pix_fmt else 64]
    path = write(tmp_path / name, x, codec, pix_fmt, times, **options)
    want = whole(path)
    reader = open_video(path)
    assert len(reader) == len(want) == 100
    assert np.array_equal(read(path), want)
    for n in range(0, 100, 7):
        assert np.array_equal(next(reader.read([n])), want[n]), n
    for numbers in ([13, 14, 15], [3, 3, 50, 51, 99], [0, 99], list(range(40, 56))):
        assert np.array_equal(np.stack(list(reader.read(numbers))), want[numbers])
    assert np.allclose(reader.timestamps, np.arange(100) * .04 if times is None else (times - times[0]) / 1000, atol=.002)
    assert name == "h.gif" or abs(reader.declared_frames - 100) <= 1


@pytest.mark.parametrize("name, codec, pix_fmt", [
    ("a.mp4", "libx264", "yuv444p"), ("c.avi", "mpeg4", "yuv420p"), ("d.mkv", "ffv1", "yuv444p"), ("e.mkv", "ffv1", "gray"),
    ("f.webm", "libvpx", "yuv420p"), ("g.webm", "libvpx-vp9", "yuv420p"), ("h.avi", "mjpeg", "yuvj420p"), ("i.avi", "rawvideo", "yuv420p"), ("j.gif", "gif", "rgb8")])
def test_odd_sizes(tmp_path, name, codec, pix_fmt):
    "47 rows of 63 pixels (H.264 allows that in 4:4:4 only): nothing is rounded, shifted or lost at the edges."
    x = pixels(2, 12)[:, :47, :63]
    path = write(tmp_path / name, x, codec, pix_fmt)
    want = whole(path)
    assert want.shape == (12, 47, 63, 3) and np.array_equal(read(path), want) and np.array_equal(read(path, [3, 8]), want[[3, 8]])
    assert codec != "ffv1" or pix_fmt == "gray" or np.abs(want.astype(int) - x).max() < 8


def test_gaps_in_time_are_no_broken_promise(tmp_path):
    "An AVI whose frames last for several ticks, or that begins late, has all it promises."
    for name, ticks in (("late.avi", np.arange(60) + 100), ("long.avi", np.append(np.arange(59), 400))):
        reader = VideoFile(write(tmp_path / name, pixels(0, 60), "mpeg4", "yuv420p", ticks * 40))
        assert len(reader) == reader.declared_frames == 60


def test_gif_as_ffmpeg_reads_it(tmp_path):
    "Pillow draws, FFmpeg is the judge; times in hundredths of a second, of which 0 and 1 mean ten."
    iio.imwrite(tmp_path / "a.gif", pixels(2), duration=80, loop=0)
    reader = open_video(tmp_path / "a.gif")
    assert np.array_equal(read(tmp_path / "a.gif"), whole(tmp_path / "a.gif")) and np.allclose(reader.timestamps, np.arange(len(reader)) * .08)
    assert list(reader.read([9])) and reader.num_decoded == 10
    for ms, want in ((20, .02), (10, .1), (0, .1)):
        iio.imwrite(tmp_path / "b.gif", pixels(2)[:3], duration=ms, loop=0)
        assert np.allclose(open_video(tmp_path / "b.gif").timestamps, np.arange(3) * want)


def test_gif_without_durations(tmp_path):
    "As Pillow writes them: FFmpeg glues such images together, and loses some."
    ims = [Image.fromarray(x).quantize(32) for x in pixels(3, 9, 40)]
    ims[0].save(tmp_path / "a.gif", save_all=True, append_images=ims[1:])
    assert np.array_equal(read(tmp_path / "a.gif"), np.stack([np.asarray(im.convert("RGB")) for im in ims]))
    Image.fromarray(pixels(0)[0]).save(tmp_path / "b.gif")
    assert len(open_video(tmp_path / "b.gif")) == 1


def test_transparent_video(tmp_path):
    "What is clear in a video shows white."
    x = np.zeros((3, 32, 32, 4), np.uint8)
    x[..., 0], x[:, :16, :, 3] = 255, 255
    path = write(tmp_path / "a.mov", x, "qtrle", "argb")
    assert (read(path)[:, :16] == (255, 0, 0)).all() and (read(path)[:, 16:] == 255).all()


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
def test_rotation_flag(tmp_path, matrix, quarters):
    "A telephone's flag is obeyed; the matrix (0 1 -1 0) means a quarter turn clockwise."
    plain = write(tmp_path / "plain.mp4", pixels(0)[:, :40])
    assert np.array_equal(read(turned(plain, matrix)), np.rot90(whole(plain), quarters, (1, 2)))


def test_edit_list(tmp_path):
    "A video that a telephone has trimmed holds packets before its beginning: what a player shows is what we read."
    path = write(tmp_path / "a.mp4", pixels(0), g="24", bf="0")
    data = path.read_bytes()
    at = data.index(b"elst") + 4
    media = int.from_bytes(data[data.index(b"mdhd") + 16: data.index(b"mdhd") + 20], "big") // 25    # ticks of a frame
    path.write_bytes(data[:at + 12] + (6 * media).to_bytes(4, "big") + data[at + 16:])
    reader, want = VideoFile(path), whole(path)
    assert len(reader) == len(want) < 24 and np.array_equal(read(path), want)
    assert np.array_equal(next(reader.read([7])), want[7])


def test_one_frame(tmp_path):
    for name, codec in (("a.mp4", "libx264"), ("a.webm", "libvpx")):
        path = write(tmp_path / name, pixels(0)[:1], codec, "yuv420p")
        assert np.array_equal(read(path), whole(path)) and len(open_video(path)) == 1
    iio.imwrite(tmp_path / "a.gif", pixels(0)[:1])
    assert np.array_equal(read(tmp_path / "a.gif"), whole(tmp_path / "a.gif")) and len(open_video(tmp_path / "a.gif")) == 1


def test_only_what_is_needed_is_decoded(tmp_path):
    "Sixteen frames near the end of 1,400: not more than lie between them and the key before."
    x = np.concatenate([pixels(k, 100, 32) for k in range(14)])
    reader = VideoFile(write(tmp_path / "long.mp4", x, pix_fmt="yuv420p", g="50", sc_threshold="0"))
    assert (len(reader), reader.num_decoded, reader.keyframes.tolist()) == (1400, 0, list(range(0, 1400, 50)))
    assert len(list(reader.read(range(1330, 1346)))) == 16 and reader.num_decoded == 46
    list(reader.read([10, 710, 1399]))
    assert reader.num_decoded == 46 + 11 + 11 + 50
    first = reader.read(range(1400))
    next(first)
    assert reader.num_decoded == 119, "nothing is decoded before it is asked for"


# --- images ---

def test_images_as_pillow_reads_them(tmp_path):
    x = pixels(1)
    rgba = np.concatenate([x[3], np.full((64, 64, 1), 255, np.uint8)], -1)
    rgba[:20, :, 3] = 0
    kinds = {"1.png": x[1], "2.jpg": x[2], "10.webp": x[2], "9.png": rgba, "3.JPEG": x[4, :, :, 0]}
    for name, pic in kinds.items():
        Image.fromarray(pic).save(tmp_path / name)
    Image.fromarray(x[5, :, :, 0].astype(np.uint16) * 257).save(tmp_path / "11.png")
    Image.fromarray(x[5]).quantize(64).save(tmp_path / "12.png")
    (tmp_path / "._3.png").write_bytes(b"left behind")
    (tmp_path / "notes.txt").touch()
    reader = FrameFolder(tmp_path)
    assert reader.frame_names == ["1.png", "2.jpg", "3.JPEG", "9.png", "10.webp", "11.png", "12.png"] and reader.timestamps is None
    got = list(reader.read(range(7)))
    for k in (0, 1, 2, 4, 6):
        with Image.open(tmp_path / reader.frame_names[k]) as im:
            assert np.array_equal(got[k], np.asarray(im.convert("RGB"))), reader.frame_names[k]
    assert np.array_equal(got[3][20:], x[3][20:]) and (got[3][:20] == 255).all()
    assert np.array_equal(got[5], np.repeat(x[5, :, :, :1], 3, -1))
    assert reader.num_decoded == 7 and len(list(reader.read([2, 2, 6]))) == 3


@pytest.mark.parametrize("layout", ["sky_raw", "mug_style"])
def test_real_images(layout):
    root = real("fixtures", layout)
    for name in list_videos(root)[:2]:
        reader = open_video(root / name)
        with Image.open(Path(reader.file) / reader.frame_names[1]) as im:
            assert np.array_equal(list(reader.read([0, 1]))[1], np.asarray(im.convert("RGB")))


# --- finding ---

def test_names(tmp_path):
    "Odd names are sorted without a stumble; hidden files, pipes and covers are no videos; a dead link is one, and so is a folder x.mp4 without a video."
    touch(tmp_path, "b/10.mp4", "b/9.mp4", "b/²x.mp4", "A.GIF", "é 3.mkv", ".hidden.mp4", ".git/x.mp4", "x.txt", "cover.jpg",
          "walk/1.png", "walk/2.png", "one/1.webp", "b/thumb.png", "deep/cover.png", "deep/er/1.jpg")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "dead.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "ring.mp4").symlink_to("ring.mp4")
    (tmp_path / "b/back").symlink_to(tmp_path)
    assert list_videos(tmp_path) == ["A.GIF", "b/9.mp4", "b/10.mp4", "b/²x.mp4", "dead.mp4", "deep/er", "folder.mp4/", "one", "ring.mp4", "walk", "é 3.mkv"]
    assert list_videos(tmp_path / "walk") == ["."] and len(FrameFolder(tmp_path / "walk" / ".")) == 2
    with pytest.raises(ValueError, match="dead.mp4': No such file"):
        open_video(tmp_path / "dead.mp4")


def test_nothing_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        list_videos(tmp_path / "no")
    touch(tmp_path, "x.txt", "other/x.txt")
    with pytest.raises(FileNotFoundError, match="no video in .* looked for .mp4 "):
        list_videos(tmp_path)
    with pytest.raises(NotADirectoryError, match="x.txt' is a file"):
        list_videos(tmp_path / "x.txt")


def test_folders_named_like_videos(tmp_path):
    "A folder x.mp4 of images is a video, one with videos in it a folder, and one with neither is listed, so that opening it can say so."
    touch(tmp_path, "hollow.mp4/x.txt", "deep.avi/er.MKV/x.txt", "stills.mp4/1.png", "stills.mp4/2.png", "box.mov/a.mp4", "tree.gif/walk/1.png", "tree.gif/walk/2.png", "plain/x.txt", ".away.mp4/x.txt")
    assert list_videos(tmp_path) == ["box.mov/a.mp4", "deep.avi/er.MKV/", "hollow.mp4/", "stills.mp4", "tree.gif/walk"]
    for name in ("hollow.mp4/", "deep.avi/er.MKV/"):
        with pytest.raises(ValueError, match=f"there is no image in '.*{name}': looked for"):
            open_video(os.path.join(tmp_path, name))
    assert len(open_video(tmp_path / "stills.mp4")) == 2
    assert list_videos(tmp_path / "hollow.mp4" / "..") == list_videos(tmp_path)
    shutil.rmtree(tmp_path / "stills.mp4")
    for name in ("box.mov/a.mp4", "tree.gif/walk/1.png", "tree.gif/walk/2.png"):
        (tmp_path / name).unlink()
    assert list_videos(tmp_path) == ["box.mov/", "deep.avi/er.MKV/", "hollow.mp4/", "tree.gif/"]


def linked(root: Path, n: int) -> Path:
    "A folder of n names for one video, in ten folders, an hour old."
    reader = write(root.parent / "one.mp4", pixels(0, 16, 32))
    for k in range(10):
        (root / f"{k}").mkdir(parents=True)
        for j in range(n // 10):
            os.link(reader, root / f"{k}/clip_{j}.mp4")
        os.utime(root / f"{k}", (time.time() - 3600,) * 2)
    os.utime(root, (time.time() - 3600,) * 2)
    return root


def test_listing(tmp_path, shelf, monkeypatch):
    "5,000 videos are listed without opening one; the second time without looking into a folder; any change is noticed."
    root, looks = linked(tmp_path / "many", 5000), []
    scandir = os.scandir
    monkeypatch.setattr(av, "open", lambda *a, **k: pytest.fail("listing opened a file"))
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or scandir(path))
    names = list_videos(root)
    assert len(names) == 5000 and names[10] == "0/clip_10.mp4" and len(looks) == 11
    assert list_videos(root) == names and len(looks) == 11
    (root / "3/new.mp4").touch()
    assert len(list_videos(root)) == 5001 and len(looks) == 22, "a folder that changed just now is not remembered"
    assert len(list_videos(root)) == 5001 and len(looks) == 33
    (root / "3/new.mp4").unlink()
    os.utime(root / "3", (time.time() - 60,) * 2)
    assert list_videos(root) == names and list_videos(root) == names and len(looks) == 44


@pytest.mark.parametrize("harm", ["torn", "null", "strings", "other"])
def test_a_bad_cache_is_not_used(tmp_path, shelf, harm):
    root = linked(tmp_path / "many", 1000)
    names = list_videos(root)
    kept, = shelf.iterdir()
    record = json.loads(kept.read_text())
    kept.write_text({"torn": kept.read_text()[:500], "null": "null", "strings": '{"key": "a", "videos": "b", "folder_mtimes": "c"}',
                     "other": json.dumps(record | {"key": ["elsewhere"]})}[harm])
    assert list_videos(root) == names


def test_no_place_for_a_cache(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAMD_CACHE", str(tmp_path / "file"))
    root = linked(tmp_path / "many", 1000)
    assert len(list_videos(root)) == len(list_videos(root)) == 1000


# --- damage ---

def test_sound_only(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as box:
        track = box.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.rate = 44100
        box.mux(track.encode(frame))
        box.mux(track.encode())
    with pytest.raises(ValueError, match="song.mp4': it has no video stream"):
        VideoFile(tmp_path / "song.mp4")


def test_a_playlist_leads_nowhere(tmp_path):
    write(tmp_path / "real.mp4", pixels(0))
    for name, text in (("net.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"), ("list.mkv", "ffconcat version 1.0\nfile real.mp4\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"cannot read '.*{name}'"):
            VideoFile(tmp_path / name)


def sources(root: Path) -> list:
    "Seven healthy videos of 16 frames."
    x = pixels(5, 16, 48)
    made = [write(root / "a.mp4", x, pix_fmt="yuv420p", box={"movflags": "faststart"}, g="6"), write(root / "b.avi", x, "mpeg4", "yuv420p"),
            write(root / "c.mov", x), write(root / "d.webm", x, "libvpx", "yuv420p"), write(root / "e.mkv", x, "ffv1"), write(root / "f.avi", x, "mjpeg", "yuvj420p")]
    iio.imwrite(root / "g.gif", x, duration=80, loop=0)
    return [*made, root / "g.gif"]


def damage(root: Path, whole_ones: list) -> dict:
    "200 files: name to (what was done to it, the healthy video it was made from)."
    chance, done = random.Random(0), {}

    def put(name, data, what, origin=None):
        (root / name).write_bytes(data)
        done[name] = what, origin
    for k in range(200):
        origin = whole_ones[k % 7]
        data, name = origin.read_bytes(), f"{k:03}{origin.suffix}"
        if k < 70:
            put(name, data[:chance.randrange(1, len(data))], "cut", origin)
        elif k < 170:
            torn = bytearray(data)
            for _ in range(chance.choice((1, 5, 50))):
                torn[chance.randrange(len(torn))] = chance.randrange(256)
            put(name, bytes(torn), "flipped", origin)
        elif k < 180:
            put(name, b"", "empty")
        elif k < 190:
            put(name, chance.choice((b"Dear reader, " * 99, chance.randbytes(4000), b"GIF89a", b"\0" * 5000)), "no video")
        elif k < 195:
            wrong = whole_ones[(k + 3) % 7]
            put(name, wrong.read_bytes(), "other name", wrong)
        elif k < 198:
            (root / f"{k:03}.mp4").mkdir()
            done[f"{k:03}.mp4"] = "folder", None
        else:                                      # for ever: loops without end, and the same frames again and again without a last one
            gif = whole_ones[6].read_bytes()
            put(f"{k:03}.gif", gif[:-1] + gif[gif.index(b"\x21\xf9"):-1] * (40 if k == 198 else 400), "endless", whole_ones[6])
    return done


def look(path: str) -> tuple:
    "What reading the first 16 frames gives: them, or the sentence."
    try:
        reader = open_video(path)
        return "read", np.stack(list(reader.read(range(min(16, len(reader))))))
    except ValueError as error:
        return "named", str(error)


def test_200_damaged_files(tmp_path):
    """No crash, no hang (10 seconds each in a process of its own), each named; what can be read is right, or (flipped bytes that no check covers) at
    least an image and not black."""
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    healthy = sources(tmp_path / "good")
    right = {path: read(path) for path in healthy}
    done = damage(tmp_path / "bad", healthy)
    assert len(done) == 200
    assert {f.rstrip("/") for f in list_videos(tmp_path / "bad")} == set(done)
    tally = {}
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        for name, (what, origin) in done.items():
            try:
                state, got = pool.submit(look, str(tmp_path / "bad" / name)).result(timeout=10)
            except Late:
                pool.shutdown(wait=False, cancel_futures=True)
                pytest.fail(f"{name} ({what}) hangs")
            tally.setdefault(what, []).append(state)
            if state == "named":
                assert name in got and "\n" not in got, got
                continue
            assert what not in ("empty", "no video", "folder"), f"{name} was read"
            want = right[origin]
            if what != "flipped":
                assert np.array_equal(got, want[:len(got)]), f"{name} ({what}) was read, but not as it was"
            assert got.reshape(len(got), -1).max(1).min() > 100, f"{name} ({what}) has a black frame"
    share = {what: states.count("named") / len(states) for what, states in tally.items()}
    assert share["empty"] == share["no video"] == share["folder"] == 1 and share["endless"] == 1 and share["cut"] > .6 and share["flipped"] > .4, share


def test_gif_cut_anywhere(tmp_path):
    "However few bytes a GIF has lost at its end, it says so; what others have written behind the end is no harm."
    file = tmp_path / "a.gif"
    iio.imwrite(file, pixels(0, 4, 32), duration=80, loop=0)
    data, want = file.read_bytes(), read(file)
    for more in (b";\0\0", b";\nsigned: the camera", b"!\xfe\x05hello\0;", b"\0;"):
        file.write_bytes(data[:-1] + more)
        assert np.array_equal(read(file), want)
    for one in (data, data[:6] + b"\0" * 9):
        file.write_bytes(one[:12])
        with pytest.raises(ValueError, match="a.gif': it breaks off"):
            open_video(file)
    for n in (*range(1, 1000), *range(1000, len(data) - 20, 37)):
        file.write_bytes(data[:-n])
        with pytest.raises(ValueError, match="a.gif': "):
            open_video(file)


CUT = [("a.mp4", "libx264", "yuv420p", {"g": "12", "bf": "2"}, None), ("b.mkv", "ffv1", "yuv444p", {}, None), ("c.mkv", "libx264", "yuv420p", {"bf": "3"}, UNEVEN),
       ("d.avi", "libx264", "yuv420p", {"bf": "2"}, None), ("e.avi", "mpeg4", "yuv420p", {}, None), ("f.avi", "mjpeg", "yuvj420p", {}, None), ("g.webm", "libvpx", "yuv420p", {}, None)]


@pytest.mark.parametrize("name, codec, pix_fmt, options, times", CUT, ids=[k[0] for k in CUT])
def test_what_was_promised(tmp_path, name, codec, pix_fmt, options, times):
    "A video that lost its end says so, or its header knows of more frames than come; a whole one keeps its promise."
    x = np.concatenate([pixels(k, 25) for k in range(4)])
    path = write(tmp_path / name, x, codec, pix_fmt, times, box={"movflags": "faststart"} if name[-3:] == "mp4" else {}, **options)
    assert len(VideoFile(path)) == 100 and abs(VideoFile(path).declared_frames - 100) <= 1
    data, short = path.read_bytes(), tmp_path / f"short_{name}"
    with av.open(str(path)) as box:
        places = sorted(p.pos for p in box.demux(video=0) if p.size)
    short.write_bytes(data[:places[60]])           # between two packets: nothing looks torn
    assert len(VideoFile(short)) in (59, 60) and 95 < VideoFile(short).declared_frames < 105
    short.write_bytes(data[:len(data) * 6 // 10])
    try:
        assert len(VideoFile(short)) < VideoFile(short).declared_frames - 1 > 90
    except ValueError as error:
        assert "breaks off within frame" in str(error)


def test_promises_that_mean_something_else(tmp_path):
    "Frames that an edit cut away were not promised; longer sound beside the images, or a header that says nothing, promises nothing."
    path = write(tmp_path / "a.mp4", pixels(0), g="24", bf="0")
    data = path.read_bytes()
    at, media = data.index(b"elst") + 4, int.from_bytes(data[data.index(b"mdhd") + 16: data.index(b"mdhd") + 20], "big") // 25
    path.write_bytes(data[:at + 12] + (6 * media).to_bytes(4, "big") + data[at + 16:])
    assert len(VideoFile(path)) < 24 and abs(VideoFile(path).declared_frames - len(VideoFile(path))) <= 1
    assert VideoFile(write(tmp_path / "live.mkv", pixels(0), box={"live": "1"})).declared_frames == 0
    one = VideoFile(write(tmp_path / "one.mkv", pixels(0)[:1], "ffv1"))
    assert len(one) == one.declared_frames == 1
    with av.open(str(tmp_path / "loud.mkv"), "w") as box:
        track, sound = box.add_stream("ffv1", rate=25), box.add_stream("pcm_s16le", rate=8000)
        track.width, track.height, track.pix_fmt = 64, 64, "yuv444p"
        for x in pixels(0):
            box.mux(track.encode(av.VideoFrame.from_ndarray(x, "rgb24")))
        box.mux(track.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 5), np.int16), "s16", "mono")
        frame.rate = 8000
        box.mux(sound.encode(frame))
        box.mux(sound.encode())
    assert len(VideoFile(tmp_path / "loud.mkv")) == 24 and VideoFile(tmp_path / "loud.mkv").declared_frames in (0, 24, 25)


def test_vanished(tmp_path):
    path = write(tmp_path / "gone.mp4", pixels(0))
    reader = VideoFile(path)
    path.unlink()
    with pytest.raises(ValueError, match="gone.mp4': No such file"):
        next(reader.read([0]))
    shutil.copytree(real("fixtures", "sky_raw"), tmp_path / "sky")
    still = open_video(tmp_path / "sky" / list_videos(tmp_path / "sky")[0])
    (Path(still.file) / still.frame_names[1]).unlink()
    with pytest.raises(ValueError, match=f"{still.frame_names[1]}': No such file"):
        list(still.read([0, 1]))


def test_damaged_image(tmp_path):
    for name in ("1.png", "2.jpg", "3.webp"):
        Image.fromarray(pixels(0)[0]).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        for torn in (data[:len(data) // 2], b"", b"no image"):
            (tmp_path / name).write_bytes(torn)
            with pytest.raises(ValueError, match=name):
                read_image_rgb(tmp_path / name)


def test_a_promise_not_kept(tmp_path, monkeypatch):
    "Frames that the index promised and that do not come are an error, after the whole file was decoded."
    path = write(tmp_path / "a.mp4", pixels(0))
    reader = VideoFile(path)
    reader.pts = np.append(reader.pts, reader.pts[-1] + 512)
    reader.timestamps = np.arange(25) / 25
    with pytest.raises(ValueError, match="a.mp4': its index has 25 frames, but 24 are decoded"):
        list(reader.read([24]))
    late = VideoFile(path)
    late.keyframes = np.array([0, 20])                  # there is no key: the jump fails, and the video is read from its first frame
    monkeypatch.setattr(reading.VideoFile, "_frame_number", lambda self, frame, before, old=reading.VideoFile._frame_number: old(self, frame, 23 if len(self.keyframes) and before < 0 else before))
    assert np.array_equal(next(late.read([22])), whole(path)[22]) and not len(late.keyframes)
