"The command lamd_data, as the shell gives it: tables, images, caches and shards, and one sentence for what is wrong."
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_videos import pixels, write
from PIL import Image
from test_bair import record

from lamd_nb.cli.runs import text_condition_config
from lamd_nb.cli.sample import sample_command
from lamd_nb.cli.train import train_command
from lamd_nb.data.video.clips import Clips
from lamd_nb.data.benchmarks.records import write_tfrecord
from lamd_nb.data.specs import dataset_from_spec


def shell(*words, status=0):
    "What the shell shows, and that it ends as it should."
    done = subprocess.run([Path(sys.executable).parent / words[0], *map(str, words[1:])], capture_output=True, text=True, timeout=120)
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr[-2000:]
    return done.stdout + done.stderr


def lamd_data(*words, status=0):
    return shell("lamd_data", *words, status=status)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    "Videos in two classes, split."
    home = tmp_path_factory.mktemp("data")
    for k in range(6):
        write(home / f"videos/{'train' if k < 4 else 'test'}/{('turn_left', 'stop')[k % 2]}/{k}.mp4", pixels(k, 18 + k))
    return home / "videos"


def test_check(videos, tmp_path):
    said = lamd_data("check", videos)
    rows = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in said.splitlines()}
    assert rows[""] == ["train", "test"] and rows["videos"] == ["4", "2"] and rows["classes"] == ["stop, turn_left"] * 2
    assert rows["frames"] == [str(18 + 19 + 20 + 21), str(22 + 23)] and rows["unreadable or too short"] == ["0", "0"]
    assert "2 videos or files are unreadable or too short" in lamd_data("check", videos, "--frames", 20, status=1)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    write(tmp_path / "good.mp4", pixels(0))
    assert "broken.mp4" in lamd_data("check", tmp_path, status=1)


def test_check_a_benchmark(tmp_path):
    for name in ("008/anger/take000", "001/fear/take001", "001/fear/take002"):
        for t, x in enumerate(pixels(0, 18)):
            (tmp_path / "subjects3" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(tmp_path / f"subjects3/{name}/img_{t:04d}.jpg")
    said = lamd_data("check", f"mug:{tmp_path}")
    for part in ("1 of 465", "2 of 466", "1 of 26", "1 of 7: anger", "464 of 465 videos", "the index of each video; --decode"):
        assert part in said
    (tmp_path / "subjects3/001/fear/take002/img_0003.jpg").write_bytes(b"")
    assert "1 video or file is unreadable" in lamd_data("check", f"mug:{tmp_path}", "--decode", status=1)


def test_check_names_what_is_damaged(videos, tmp_path):
    "A table all the same: half a download, a video that is cut off but opens, a folder called a video, a misprint."
    (tmp_path / "bair/train").mkdir(parents=True)
    for k in range(2):
        write_tfrecord(tmp_path / f"bair/train/traj_{256 * (k + 1)}_to_{256 * (k + 1) + 255}.tfrecords", [record(pixels(k, 30))] * 3)
    cut = tmp_path / "bair/train/traj_512_to_767.tfrecords"
    os.truncate(cut, cut.stat().st_size // 2)
    said = lamd_data("check", f"bair:{tmp_path}/bair", status=1)
    for part in ("| videos | 4 of 43,264 |", "| files | 2 of 169 |", "| frames | 120 of 1,297,920 |", "traj_512_to_767.tfrecords", "1 video or file is unreadable"):
        assert part in said
    assert "left out" in lamd_data("cache", f"bair:{tmp_path}/bair", tmp_path / "cache", "--skip_errors")
    assert "traj_512_to_767.tfrecords" in lamd_data("cache", f"bair:{tmp_path}/bair", tmp_path / "cache2", status=1)
    assert "| videos | 4 of 43,264 |" in lamd_data("check", f"bair:{tmp_path}/bair?on_error=skip", status=1)
    (tmp_path / "bair/test").mkdir()
    (tmp_path / "bair/test/traj_0_to_255.tfrecords").write_bytes(cut.read_bytes()[:500])
    said = lamd_data("check", f"bair:{tmp_path}/bair", status=1)
    assert "no test video of BAIR" in said and "| videos | 4 of 43,264 | - |" in said, "a split of which nothing is left is no split that is missing"
    assert "no test video of BAIR" in lamd_data("cache", f"bair:{tmp_path}/bair", tmp_path / "cache3", "--skip_errors", status=1) and not (tmp_path / "cache3").exists()
    write(tmp_path / "videos/whole.mkv", pixels(0, 40), "mpeg4", "yuv420p")
    whole = (tmp_path / "videos/whole.mkv").read_bytes()
    assert "| unreadable or too short | 0 |" in lamd_data("check", tmp_path / "videos")
    (tmp_path / "videos/whole.mkv").write_bytes(whole[:len(whole) * 3 // 4])
    (tmp_path / "videos/empty.mp4").mkdir()
    said = lamd_data("check", tmp_path / "videos", "--frames", 4, status=1)
    assert "2 videos or files are unreadable" in said and "there is no image in" in said


def test_skipping_is_told_in_a_line(videos, tmp_path):
    for k in range(2):
        write(tmp_path / f"videos/{k}.mp4", pixels(k, 20))
    (tmp_path / "videos/2.mp4").write_bytes(b"nothing")
    for word in ("cache", "shard"):
        said = lamd_data(word, tmp_path / "videos", tmp_path / word, "--skip_errors")
        assert f"lamd_data {word}: skipped: cannot read '{tmp_path}/videos/2.mp4'" in said and "2 videos" in said and "1 left out (videos that were left out" in said
        assert "cannot read" in lamd_data(word, tmp_path / "videos", tmp_path / f"{word}2", status=1)


def test_check_asks_how_long_a_clip_is(videos, tmp_path):
    "Of a cache too, which vouches for its videos, with rules of its own or without."
    lamd_data("cache", videos, tmp_path / "cache", "--size", 32)
    for rules, frames, wrong in (("", 18, 0), ("", 19, 1), ("?stride=2", 10, 1), ("?stride=2", 9, 0), ("?resize_mode=crop", 100, 4)):
        said = lamd_data("check", f"{tmp_path}/cache{rules}", "--frames", frames, status=wrong > 0)
        assert f"| unreadable or too short | {wrong} |" in said, (rules, frames)
    assert lamd_data("show", f"{tmp_path}/cache?flip=true", "--clips", 2, "--out", tmp_path / "a.png").strip() == f"{tmp_path}/a.png"


def test_names_that_are_no_text(tmp_path):
    (tmp_path / "videos").mkdir()
    video = write(tmp_path / "a.mp4", pixels(0, 20)).read_bytes()
    for name, data in ((b"caf\xe9.mp4", video), (b"th\xe9.mp4", b"nothing")):
        Path(os.fsdecode(os.fsencode(tmp_path / "videos") + b"/" + name)).write_bytes(data)
    assert "th\ufffd.mp4" in lamd_data("check", tmp_path / "videos", status=1)
    Path(os.fsdecode(os.fsencode(tmp_path / "videos") + b"/th\xe9.mp4")).unlink()
    lamd_data("show", tmp_path / "videos", "--clips", 1, "--out", tmp_path / "a.png")


def test_one_file_with_both_splits(tmp_path):
    "A VideoGPT file with as many test videos as training videos has two splits all the same."
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "bair.hdf5", "w") as box:
        for split, k in (("train", 0), ("test", 1)):
            box[f"{split}_data"], box[f"{split}_idx"] = pixels(k, 40), np.array([0, 20])
    said = lamd_data("check", f"bair:{tmp_path}/bair.hdf5")
    assert "| | train | test |" in said.replace("|  |", "| |")


def test_training_goes_on_without_what_is_broken(videos, tmp_path):
    "If it was allowed to, and not if nothing is left."
    write(tmp_path / "videos/1.mp4", pixels(0, 20))
    (tmp_path / "videos/2.mp4").write_bytes(b"nothing")
    ask = ["stage1", "--preset", "tiny", "--steps", "2"]
    for rules, status, part in (("?on_error=skip", 0, "skipped: cannot read"), ("", 1, "2.mp4': it is no mp4"), ("?on_error=skip&fps=.1", 1, "can be used")):
        said = shell("lamd_train", *ask, "--data", f"{tmp_path}/videos{rules}", "--out", tmp_path / f"run{len(rules)}", status=status)
        assert part in said, rules


def test_show(videos, tmp_path):
    for src, name in ((videos, "a.png"), ("worlds:faces", "new/b.png")):
        assert lamd_data("show", src, "--out", tmp_path / name, "--clips", 3).strip() == str(tmp_path / name)
        assert Image.open(tmp_path / name).width > 400
    assert "must end in .png" in lamd_data("show", videos, "--out", tmp_path / "a.gif", status=1)


def test_cache_and_shard(videos, tmp_path):
    "All three hold the same videos, and a model that is trained on any of them can be told the same sentences."
    assert "4 videos, 78 frames" in lamd_data("cache", videos, tmp_path / "cache", "--size", 32)
    assert "4 videos, 4 segments" in lamd_data("shard", tmp_path / "cache", tmp_path / "shards", "--shard_size_mb", .1)
    assert "4 videos, 78 frames" in lamd_data("cache", videos, tmp_path / "cache", "--size", 32)      # nothing to do
    for src in (tmp_path / "cache", f"wds:{tmp_path / 'shards'}"):
        assert "| videos | 4 | 2 |" in lamd_data("check", src)
    want = Clips(videos, 32, split="test").batch([0, 1])
    got = dataset_from_spec(tmp_path / "cache", 32, split="test").batch([0, 1])
    assert torch.equal(got["video"], want["video"]) and got["caption"] == want["caption"] == ["stop", "turn left"]
    text = dict(dim=8, max_len=4)
    configs = [text_condition_config(dataset_from_spec(str(src), 32), text) for src in (videos, tmp_path / "cache", f"wds:{tmp_path / 'shards'}")]
    assert configs == [dict(condition_type="text", words=["left", "stop", "turn"], dim=8, max_len=4)] * 3


BAD = [(["cahce"], "unknown command 'cahce'; known: check, show, cache, shard"), (["check", "nowhere"], "no such folder"), (["check", "worlds:shapes"], "there are no videos"),
       (["cache", "{videos}", "{new}", "--resize_mode", "squash"], "unknown resize_mode 'squash'; known: crop"), (["cache", "{videos}", "{videos}"], "holds something that is no cache"),
       (["shard", "{videos}", "{new}", "--shard_size_mb", "0"], "must be more than 0"), (["cache", "{videos}", "{new}", "--frames", "40"], "need 40"), (["check", "wds:{videos}"], "no cache")]


@pytest.mark.parametrize("words, part", BAD)
def test_bad_input(videos, tmp_path, words, part):
    before = sorted(map(str, videos.rglob("*")))
    said = lamd_data(*(w.format(videos=videos, new=tmp_path / "new") for w in words), status=1)
    assert part in said and said.count("\n") == 1
    assert sorted(map(str, videos.rglob("*"))) == before


def test_help():
    assert lamd_data("--help").startswith("usage: lamd_data check|show|cache|shard")
    for word in ("check", "show", "cache", "shard"):
        assert "examples:" in lamd_data(word, "--help")


def test_classes_become_words(videos, tmp_path):
    "Trained on a folder with classes, a model understands their names, and names them when it does not understand."
    with_tiny = ["--preset", "tiny", "--data", str(videos), "--steps", "2"]
    train_command.main(["stage1", *with_tiny, "--out", str(tmp_path / "a")], "lamd_train")
    train_command.main(["stage2", *with_tiny, "--vae", str(tmp_path / "a"), "--clips", "8", "--out", str(tmp_path / "b")], "lamd_train")
    assert json.loads((tmp_path / "b/run.json").read_text())["motion_generator"]["condition"]["words"] == ["left", "stop", "turn"]
    Image.fromarray(pixels(0)[0]).save(tmp_path / "a.png")
    ask = ["--image", str(tmp_path / "a.png"), "--model", str(tmp_path / "b/model"), "--num_inference_steps", "1", "--out", str(tmp_path / "x.gif")]
    sample_command.main([*ask, "--prompt", "turn left"], "lamd_sample")
    assert os.path.getsize(tmp_path / "x.gif")
    with pytest.raises(SystemExit, match="known words are: left stop turn"):
        sample_command.main([*ask, "--prompt", "turn right"], "lamd_sample")
