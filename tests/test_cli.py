"What the four commands promise: they run from end to end, and bad input ends with one sentence, a status, and nothing left behind."
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, ImageSequence

from lamd_nb import LaMD
from lamd_nb.cli import sample
from lamd_nb.cli.demo import demo_command
from lamd_nb.cli.evaluate import evaluate_command
from lamd_nb.cli.sample import sample_command
from lamd_nb.cli.train import train_command
from lamd_nb.data.worlds.shapes import ShapesWorld
from lamd_nb.show import animate
from lamd_nb.core import to_uint8

COMMANDS = dict(train=train_command, sample=sample_command, evaluate=evaluate_command, demo=demo_command)


def films(folder, *lengths, size=40):
    "A folder of small videos of moving shapes."
    for n in lengths:
        animate(ShapesWorld(size, n).batch([n])["video"], folder/f"{n}.mp4", zoom=1)
    return folder


def tiny(stage, out, *more):
    "Train the tiny preset as the shell would."
    train_command.main([stage, "--preset", "tiny", "--out", str(out), *map(str, more)], "lamd_train")
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "Both stages on the world of shapes and on a folder of videos, a picture, and a picture that is none."
    at = tmp_path_factory.mktemp("cli")
    data = films(at/"films", 16, 19, 24)
    for name, source in (("shapes", "worlds:shapes"), ("films", data)):
        tiny("stage1", at/f"{name}1", "--data", source, "--steps", 4, *(("--target_kl", 90) if name == "films" else ()))
        tiny("stage2", at/f"{name}2", "--data", source, "--steps", 4, "--vae", at/f"{name}1", "--clips", 8)
    image = to_uint8(ShapesWorld(70).batch([3])["video"][0, :, 0]).permute(1, 2, 0).numpy()
    Image.fromarray(np.pad(image, ((0, 0), (8, 8), (0, 0)))).save(at/"a.png")
    (at/"broken.png").write_bytes(b"no picture")
    (at/"empty").mkdir()
    films(at/"short", 9)
    return SimpleNamespace(at=at, data=data, image=at/"a.png", shapes=at/"shapes2/model", films=at/"films2/model")


def test_a_run_leaves_its_record(made):
    record = json.loads((made.at/"films2/run.json").read_text())
    assert record["step"] == 4 and record["stage"] == "stage2" and record["preset"]["name"] == "tiny"
    assert record["motion_generator"]["condition"] is None, "videos without captions need no words"
    assert record["preset"]["stage1_loss"]["target_kl"] == 90, "stage II keeps what its autoencoder was trained with"
    assert json.loads((made.at/"shapes2/run.json").read_text())["motion_generator"]["condition"]["words"] == ShapesWorld().vocabulary
    assert len((made.at/"films1/log.jsonl").read_text().splitlines()) == 1


def test_a_run_of_another_version_is_one_sentence(made, tmp_path):
    shutil.copytree(made.at/"shapes1", tmp_path/"old")
    record = json.loads((tmp_path/"old/run.json").read_text())
    record["preset"]["vae"]["widths"] = [8, 16, 24]
    (tmp_path/"old/run.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="tensors do not fit.*another version of lamd_nb"):
        tiny("stage2", tmp_path/"new", "--vae", tmp_path/"old", "--steps", 1, "--clips", 8)


def test_reading_ahead_changes_no_clip(made, tmp_path):
    losses = lambda run: [json.loads(line)["vae"] for line in (run/"log.jsonl").read_text().splitlines()]
    more = ["--data", made.data, "--steps", 4, "--target_kl", 90]
    assert losses(tiny("stage1", tmp_path/"ahead", *more, "--prefetch", 3)) == losses(made.at/"films1")


def test_resume(made):
    for stage, name, more in (("stage1", "films1", ()), ("stage2", "shapes2", ("--vae", made.at/"shapes1", "--clips", 8))):
        source = made.data if name == "films1" else "worlds:shapes"
        tiny(stage, made.at/name, "--data", source, "--steps", 6, "--resume", *more)
        record = json.loads((made.at/name/"run.json").read_text())
        assert record["step"] == 6 and record["resumed"][0]["step"] == 4
        assert name != "films1" or record["preset"]["stage1_loss"]["target_kl"] == 90, "a resumed run forgets nothing"


@pytest.mark.parametrize("model, name, n, files", [("shapes", "clip.mp4", 1, ["clip.mp4"]), ("films", "new/clip.gif", 2, ["clip_1.gif", "clip_2.gif"]),
                                                   ("films", "strip.png", 3, ["strip.png"])])
def test_sample(made, tmp_path, capsys, model, name, n, files):
    words = ["--prompt", "the circle is jumping"] if model == "shapes" else []
    sample_command.main(["--image", str(made.image), "--model", str(getattr(made, model)), "--out", str(tmp_path/name), "--num_videos_per_prompt", str(n), "--num_inference_steps", "2", *words], "lamd_sample")
    said = capsys.readouterr()
    paths = sorted((tmp_path/name).parent.iterdir())
    assert [p.name for p in paths] == files and said.out.split() == [str(p) for p in paths]
    assert "cropped" in said.err and "32 x 32" in said.err
    if name.endswith("mp4"):
        assert iio.imread(paths[0], plugin="pyav").shape == (16, 128, 128, 3)
    else:
        with Image.open(paths[0]) as image:
            durations = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(image)]
        assert sum(durations) == 16 * 120 if name.endswith("gif") else len(durations) == 1  # ms; a GIF joins equal neighbours to one longer frame


def test_same_seed_same_film(made, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sample_command(image=str(made.image), model=str(made.shapes), out=str(tmp_path/f"{name}.gif"), num_inference_steps=2, seed=seed)
    a, b, c = ((tmp_path/f"{name}.gif").read_bytes() for name in "abc")
    assert a == b
    x, y = (LaMD.from_pretrained(made.shapes)(made.image, num_inference_steps=2, seed=s).z_m for s in (0, 1))
    assert not torch.equal(x, y)


def test_eval(made, tmp_path, capsys):
    evaluate_command.main(["--model", str(made.shapes), "--clips", "4", "--seeds", "1", "--num_inference_steps", "1", "--out", str(tmp_path/"r/report.json")], "lamd_eval")
    report = json.loads((tmp_path/"r/report.json").read_text())
    assert report["clips"] == 4 and 0 <= report["action_precision"] <= 1
    assert "| Action precision |" in capsys.readouterr().out
    evaluate_command.main(["--model", str(made.films), "--data", str(made.data)], "lamd_eval")
    assert "3 held-out clips" in capsys.readouterr().out


SAMPLE = ["--image", "{at}/a.png", "--model", "{at}/shapes2/model", "--out", "{new}/x.mp4"]
BAD = [
    ("sample", [], "say --image"),
    ("sample", ["--image", "{at}/no.png", "--out", "{new}/x.mp4"], "no such file"),
    ("sample", ["--image", "{at}/broken.png", "--out", "{new}/x.mp4"], "broken.png"),
    ("sample", [*SAMPLE, "--prompt", "the rde circle is jumping"], "did you mean 'red'"),
    ("sample", [*SAMPLE, "--sampler", "euler"], "ddpm, ddim, dpmpp_2m"),
    ("sample", [*SAMPLE, "--num_inference_steps", "0"], "1 to 1000"),
    ("sample", [*SAMPLE, "--num_inference_steps", "1001"], "1 to 1000"),
    ("sample", [*SAMPLE, "--num_videos_per_prompt", "0"], "at least 1"),
    ("sample", [*SAMPLE, "--out", "{new}/x.avi"], ".mp4, .gif or .png"),
    ("sample", [*SAMPLE, "--model", "toy-shaps"], "toy-shapes"),
    ("sample", [*SAMPLE, "--model", "{at}/films2/model", "--prompt", "the circle"], "takes no prompt"),
    ("evaluate", ["--model", "{at}/films2/model"], "trained without captions"),
    ("evaluate", ["--model", "{at}/films2/model", "--data", "{at}/empty"], "empty"),
    ("evaluate", ["--clips", "0"], "at least 1"),
    ("evaluate", ["--out", "{at}/empty"], "which is a folder"),
    ("demo", ["--model", "toy-shaps", "--out", "{new}/demo"], "toy-shapes"),
    ("train", ["stage3", "--steps", "1"], "stage1 or stage2"),
    ("train", ["stage1"], "--minutes"),
    ("train", ["stage1", "--steps", "0"], "at least one step"),
    ("train", ["stage1", "--steps", "1", "--preset", "huge"], "toy, video, objects, warp, tiny"),
    ("train", ["stage1", "--steps", "1", "--data", "{at}/nowhere"], "nowhere"),
    ("train", ["stage1", "--steps", "1", "--data", "{at}/empty"], "empty"),
    ("train", ["stage1", "--steps", "1", "--data", "{at}/short"], "9 frames"),
    ("train", ["stage1", "--steps", "1", "--precision", "half"], "auto, no or bf16"),
    ("train", ["stage1", "--steps", "1", "--target_kl", "0"], "positive"),
    ("train", ["stage1", "--steps", "1", "--target_kl", "nan"], "positive"),
    ("train", ["stage2", "--steps", "1", "--vae", "{at}/shapes1", "--target_kl", "100"], "belongs to stage1"),
    ("train", ["stage1", "--steps", "1", "--resume"], "nothing to resume"),
    ("train", ["stage1", "--steps", "1", "--out", "{at}/shapes1"], "--resume"),
    ("train", ["stage1", "--steps", "9", "--out", "{at}/films1", "--preset", "tiny", "--resume"], "begun with data"),
    ("train", ["stage1", "--steps", "9", "--out", "{at}/shapes1", "--preset", "tiny", "--seed", "5", "--resume"], "begun with seed 0"),
    ("train", ["stage1", "--steps", "1", "--out", "{at}/a.png"], "which is a file"),
    ("train", ["stage1", "--steps", "1", "--threads", "0"], "threads is 0"),
    ("train", ["stage1", "--steps", "1", "--prefetch", "-1"], "prefetch is -1"),
    ("train", ["stage2", "--minutes", "-1", "--vae", "{at}/shapes1"], "minutes is -1"),
    ("train", ["stage2", "--steps", "1"], "--vae"),
    ("train", ["stage2", "--steps", "1", "--vae", "{at}/nowhere"], "run.json"),
    ("train", ["stage2", "--steps", "1", "--vae", "{at}/shapes1"], "--preset tiny"),
]


@pytest.mark.parametrize("command, words, says", BAD, ids=[f"{c}-{s}" for c, _, s in BAD])
def test_bad_input(made, tmp_path, capsys, command, words, says):
    words = [w.format(at=made.at, new=tmp_path/"new") for w in words]
    if command == "train" and "--out" not in words:
        words += ["--out", str(tmp_path/"new")]
    before = sorted(made.at.rglob("*"))
    with pytest.raises(SystemExit) as end:
        COMMANDS[command].main(words, f"lamd_{command}")
    sentence = end.value.code
    assert isinstance(sentence, str) and sentence.startswith(f"lamd_{command}: ") and says in sentence and "\n" not in sentence
    assert not capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and sorted(made.at.rglob("*")) == before, "something was left behind"


def test_a_full_disk_is_one_sentence(made, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "x.mp4")
    monkeypatch.setattr(sample, "write_clips", full)
    with pytest.raises(SystemExit, match="lamd_sample: No space left on device: 'x.mp4'"):
        sample_command.main(["--image", str(made.image), "--model", str(made.shapes), "--num_inference_steps", "1"], "lamd_sample")


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "demo"])
def test_help(command):
    text = COMMANDS[command].help_text(f"lamd_{command}")
    assert "examples:" in text and "(default: " in text and "--pdb" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_from_a_real_shell(tmp_path):
    "The little script that pip installs: help goes out with status 0, a mistake is one line and status 1, a wrong option is argparse's 2."
    script = tmp_path/"lamd_sample"
    script.write_text("import sys\nfrom lamd_nb.cli.sample import sample_command\nif __name__ == '__main__': sys.exit(sample_command())\n")
    def run(*words):
        return subprocess.run([sys.executable, script, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True)
    good, bad, odd = run("--help"), run("--image", "no.png"), run("--colour", "red")
    assert good.returncode == 0 and good.stdout.startswith("usage: lamd_sample")
    assert bad.returncode == 1 and bad.stderr == "lamd_sample: image is 'no.png', but no such file is there\n" and not bad.stdout
    assert odd.returncode == 2 and "--colour" in odd.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["lamd_sample"]
