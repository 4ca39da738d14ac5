"The command lamd_data, as the shell gives it: tables, pictures, packs and shards, and one sentence for what is wrong."
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from footage import pixels, write
from PIL import Image
from test_bair import record

from lamd_nb.cli import commands as cli
from lamd_nb.data.video.clips import Clips
from lamd_nb.data.benchmarks.records import write_records
from lamd_nb.data.specs import open_data


def shell(*words, status=0):
    "What the shell shows, and that it ends as it should."
    done = subprocess.run([Path(sys.executable).parent / words[0], *map(str, words[1:])], capture_output=True, text=True, timeout=120)
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr[-2000:]
    return done.stdout + done.stderr


def lamd_data(*words, status=0):
    return shell("lamd_data", *words, status=status)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    "Films in two classes, split."
    home = tmp_path_factory.mktemp("data")
    for k in range(6):
        write(home / f"films/{'train' if k < 4 else 'test'}/{('turn_left', 'stop')[k % 2]}/{k}.mp4", pixels(k, 18 + k))
    return home / "films"


def test_check(films, tmp_path):
    said = lamd_data("check", films)
    rows = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in said.splitlines()}
    assert rows[""] == ["train", "test"] and rows["films"] == ["4", "2"] and rows["classes"] == ["stop, turn_left"] * 2
    assert rows["frames"] == [str(18 + 19 + 20 + 21), str(22 + 23)] and rows["broken or too short"] == ["0", "0"]
    assert "2 films or files are broken or too short" in lamd_data("check", films, "--frames", 20, status=1)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    write(tmp_path / "good.mp4", pixels(0))
    assert "broken.mp4" in lamd_data("check", tmp_path, status=1)


def test_check_a_benchmark(tmp_path):
    for name in ("008/anger/take000", "001/fear/take001", "001/fear/take002"):
        for t, x in enumerate(pixels(0, 18)):
            (tmp_path / "subjects3" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(tmp_path / f"subjects3/{name}/img_{t:04d}.jpg")
    said = lamd_data("check", f"mug:{tmp_path}")
    for part in ("1 of 465", "2 of 466", "1 of 26", "1 of 7: anger", "464 of 465 films", "the index of each film; --decode"):
        assert part in said
    (tmp_path / "subjects3/001/fear/take002/img_0003.jpg").write_bytes(b"")
    assert "1 film or file is broken" in lamd_data("check", f"mug:{tmp_path}", "--decode", status=1)


def test_check_names_what_is_damaged(films, tmp_path):
    "A table all the same: half a download, a film that is cut off but opens, a folder called a film, a misprint."
    (tmp_path / "bair/train").mkdir(parents=True)
    for k in range(2):
        write_records(tmp_path / f"bair/train/traj_{256 * (k + 1)}_to_{256 * (k + 1) + 255}.tfrecords", [record(pixels(k, 30))] * 3)
    cut = tmp_path / "bair/train/traj_512_to_767.tfrecords"
    os.truncate(cut, cut.stat().st_size // 2)
    said = lamd_data("check", f"bair:{tmp_path}/bair", status=1)
    for part in ("| films | 4 of 43,264 |", "| files | 2 of 169 |", "| frames | 120 of 1,297,920 |", "traj_512_to_767.tfrecords", "1 film or file is broken"):
        assert part in said
    assert "left out" in lamd_data("pack", f"bair:{tmp_path}/bair", tmp_path / "pack", "--skip")
    assert "traj_512_to_767.tfrecords" in lamd_data("pack", f"bair:{tmp_path}/bair", tmp_path / "pack2", status=1)
    assert "| films | 4 of 43,264 |" in lamd_data("check", f"bair:{tmp_path}/bair?on_error=skip", status=1)
    (tmp_path / "bair/test").mkdir()
    (tmp_path / "bair/test/traj_0_to_255.tfrecords").write_bytes(cut.read_bytes()[:500])
    said = lamd_data("check", f"bair:{tmp_path}/bair", status=1)
    assert "no test film of BAIR" in said and "| films | 4 of 43,264 | - |" in said, "a half of which nothing is left is no half that is missing"
    assert "no test film of BAIR" in lamd_data("pack", f"bair:{tmp_path}/bair", tmp_path / "pack3", "--skip", status=1) and not (tmp_path / "pack3").exists()
    write(tmp_path / "films/whole.mkv", pixels(0, 40), "mpeg4", "yuv420p")
    whole = (tmp_path / "films/whole.mkv").read_bytes()
    assert "| broken or too short | 0 |" in lamd_data("check", tmp_path / "films")
    (tmp_path / "films/whole.mkv").write_bytes(whole[:len(whole) * 3 // 4])
    (tmp_path / "films/empty.mp4").mkdir()
    said = lamd_data("check", tmp_path / "films", "--frames", 4, status=1)
    assert "2 films or files are broken" in said and "there is no picture in" in said


def test_skipping_is_told_in_a_line(films, tmp_path):
    for k in range(2):
        write(tmp_path / f"films/{k}.mp4", pixels(k, 20))
    (tmp_path / "films/2.mp4").write_bytes(b"nothing")
    for word in ("pack", "shard"):
        said = lamd_data(word, tmp_path / "films", tmp_path / word, "--skip")
        assert f"lamd_data {word}: skipped: cannot read '{tmp_path}/films/2.mp4'" in said and "2 films" in said and "1 left out (films that were left out" in said
        assert "cannot read" in lamd_data(word, tmp_path / "films", tmp_path / f"{word}2", status=1)


def test_check_asks_how_long_a_clip_is(films, tmp_path):
    "Of a pack too, which vouches for its films, with rules of its own or without."
    lamd_data("pack", films, tmp_path / "pack", "--size", 32)
    for rules, frames, wrong in (("", 18, 0), ("", 19, 1), ("?stride=2", 10, 1), ("?stride=2", 9, 0), ("?fit=crop", 100, 4)):
        said = lamd_data("check", f"{tmp_path}/pack{rules}", "--frames", frames, status=wrong > 0)
        assert f"| broken or too short | {wrong} |" in said, (rules, frames)
    assert lamd_data("show", f"{tmp_path}/pack?flip=true", "--clips", 2, "--out", tmp_path / "a.png").strip() == f"{tmp_path}/a.png"


def test_names_that_are_no_text(tmp_path):
    (tmp_path / "films").mkdir()
    film = write(tmp_path / "a.mp4", pixels(0, 20)).read_bytes()
    for name, data in ((b"caf\xe9.mp4", film), (b"th\xe9.mp4", b"nothing")):
        Path(os.fsdecode(os.fsencode(tmp_path / "films") + b"/" + name)).write_bytes(data)
    assert "th\ufffd.mp4" in lamd_data("check", tmp_path / "films", status=1)
    Path(os.fsdecode(os.fsencode(tmp_path / "films") + b"/th\xe9.mp4")).unlink()
    lamd_data("show", tmp_path / "films", "--clips", 1, "--out", tmp_path / "a.png")


def test_one_file_with_both_halves(tmp_path):
    "A VideoGPT file with as many test films as training films has two halves all the same."
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "bair.hdf5", "w") as box:
        for split, k in (("train", 0), ("test", 1)):
            box[f"{split}_data"], box[f"{split}_idx"] = pixels(k, 40), np.array([0, 20])
    said = lamd_data("check", f"bair:{tmp_path}/bair.hdf5")
    assert "| | train | test |" in said.replace("|  |", "| |")


def test_training_goes_on_without_what_is_broken(films, tmp_path):
    "If it was allowed to, and not if nothing is left."
    write(tmp_path / "films/1.mp4", pixels(0, 20))
    (tmp_path / "films/2.mp4").write_bytes(b"nothing")
    ask = ["stage1", "--preset", "tiny", "--steps", "2"]
    for rules, status, part in (("?on_error=skip", 0, "skipped: cannot read"), ("", 1, "2.mp4': it is no mp4"), ("?on_error=skip&fps=.1", 1, "can be used")):
        said = shell("lamd_train", *ask, "--data", f"{tmp_path}/films{rules}", "--out", tmp_path / f"run{len(rules)}", status=status)
        assert part in said, rules


def test_show(films, tmp_path):
    for src, name in ((films, "a.png"), ("worlds:faces", "new/b.png")):
        assert lamd_data("show", src, "--out", tmp_path / name, "--clips", 3).strip() == str(tmp_path / name)
        assert Image.open(tmp_path / name).width > 400
    assert "must end in .png" in lamd_data("show", films, "--out", tmp_path / "a.gif", status=1)


def test_pack_and_shard(films, tmp_path):
    "All three hold the same films, and a model that is trained on any of them can be told the same sentences."
    assert "4 films, 78 frames" in lamd_data("pack", films, tmp_path / "pack", "--size", 32)
    assert "4 films, 4 pieces" in lamd_data("shard", tmp_path / "pack", tmp_path / "shards", "--megabytes", .1)
    assert "4 films, 78 frames" in lamd_data("pack", films, tmp_path / "pack", "--size", 32)      # nothing to do
    for src in (tmp_path / "pack", f"wds:{tmp_path / 'shards'}"):
        assert "| films | 4 | 2 |" in lamd_data("check", src)
    want = Clips(films, 32, split="test").batch([0, 1])
    got = open_data(tmp_path / "pack", 32, split="test").batch([0, 1])
    assert torch.equal(got["video"], want["video"]) and got["caption"] == want["caption"] == ["stop", "turn left"]
    text = dict(dim=8, max_len=4)
    configs = [cli.condition_of(open_data(str(src), 32), text) for src in (films, tmp_path / "pack", f"wds:{tmp_path / 'shards'}")]
    assert configs == [dict(kind="text", words=["left", "stop", "turn"], dim=8, max_len=4)] * 3


BAD = [(["pakc"], "unknown command 'pakc'; known: check, show, pack, shard"), (["check", "nowhere"], "no such folder"), (["check", "worlds:shapes"], "there are no films"),
       (["pack", "{films}", "{new}", "--fit", "stretch"], "unknown fit 'stretch'; known: crop"), (["pack", "{films}", "{films}"], "holds something that is no pack"),
       (["shard", "{films}", "{new}", "--megabytes", "0"], "must be more than 0"), (["pack", "{films}", "{new}", "--frames", "40"], "need 40"), (["check", "wds:{films}"], "no pack")]


@pytest.mark.parametrize("words, part", BAD)
def test_bad_input(films, tmp_path, words, part):
    before = sorted(map(str, films.rglob("*")))
    said = lamd_data(*(w.format(films=films, new=tmp_path / "new") for w in words), status=1)
    assert part in said and said.count("\n") == 1
    assert sorted(map(str, films.rglob("*"))) == before


def test_help():
    assert lamd_data("--help").startswith("usage: lamd_data check|show|pack|shard")
    for word in ("check", "show", "pack", "shard"):
        assert "examples:" in lamd_data(word, "--help")


def test_classes_become_words(films, tmp_path):
    "Trained on a folder with classes, a model understands their names, and names them when it does not understand."
    with_tiny = ["--preset", "tiny", "--data", str(films), "--steps", "2"]
    cli.train.shell(["stage1", *with_tiny, "--out", str(tmp_path / "a")], "lamd_train")
    cli.train.shell(["stage2", *with_tiny, "--vae", str(tmp_path / "a"), "--clips", "8", "--out", str(tmp_path / "b")], "lamd_train")
    assert json.loads((tmp_path / "b/run.json").read_text())["generator"]["condition"]["words"] == ["left", "stop", "turn"]
    Image.fromarray(pixels(0)[0]).save(tmp_path / "a.png")
    ask = ["--image", str(tmp_path / "a.png"), "--model", str(tmp_path / "b/model"), "--steps", "1", "--out", str(tmp_path / "x.gif")]
    cli.sample.shell([*ask, "--prompt", "turn left"], "lamd_sample")
    assert os.path.getsize(tmp_path / "x.gif")
    with pytest.raises(SystemExit, match="known words are: left stop turn"):
        cli.sample.shell([*ask, "--prompt", "turn right"], "lamd_sample")
