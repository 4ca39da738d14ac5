"A pack: killed anywhere and continued it is the same to the byte; its clips are those of the films; whatever is wrong is named."
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
from footage import pixels, real, write
from PIL import Image
from torch.utils.data import DataLoader

from lamd_nb.data.video.clips import Clips
from lamd_nb.data.video.cache import Packed, damaged, is_pack, pack, pack_facts, pack_rows
from lamd_nb.data.specs import open_data
from lamd_nb.training.loaders import fetch, stream


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    "Six films in two classes, of two sizes and six lengths."
    root = tmp_path_factory.mktemp("films")
    for k in range(6):
        write(root / f"{'ab'[k % 2]}/{k}.mp4", pixels(k, 24 - k)[:, :, : 64 - 16 * (k > 3)], g="12")
    return root


@pytest.fixture(scope="module")
def packed(films, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packs") / "straight"
    pack(Clips(films, 32), out)
    return out


def contents(folder: Path) -> dict:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def same(a: dict, b: dict):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key], key


def test_killed_at_random_bytes(films, packed, tmp_path):
    "Frames cut anywhere, the index anywhere behind the films that were whole by then: packed again, all bytes are as if nothing had been."
    whole, chance = contents(packed), random.Random(0)
    lines = whole["index.jsonl"].splitlines(keepends=True)
    ends = np.cumsum([np.prod(json.loads(line)["shape"]) for line in lines])
    begun = json.dumps({k: v for k, v in pack_facts(packed).items() if k not in ("skipped", "packed_frames")} | {"done": False}, indent=1)
    places = [0, 1, *ends, *ends - 1, *(chance.randrange(ends[-1]) for _ in range(20))]
    for n in map(int, places):
        ruin = tmp_path / "ruin"
        ruin.mkdir()
        (ruin / "pack.json").write_text(begun)
        (ruin / "pack.json.part").write_text(begun[: chance.randrange(len(begun))])
        (ruin / "frames.u8").write_bytes(whole["frames.u8"][:n])
        most = sum(map(len, lines[: int((ends <= n).sum())])) + chance.randrange(60) * (n < ends[-1])
        (ruin / "index.jsonl").write_bytes(whole["index.jsonl"][: chance.choice([most, chance.randrange(most + 1)])])
        with pytest.raises(ValueError, match="of 6 films and is not finished: pack again"):
            Packed(ruin)
        pack(Clips(films, 32), ruin)
        assert contents(ruin) == whole, f"killed at byte {n}"
        shutil.rmtree(ruin)


@pytest.mark.parametrize("name", ["frames.u8", "index.jsonl"])
def test_a_shortened_file_of_a_finished_pack(films, packed, tmp_path, name):
    shutil.copytree(packed, tmp_path / "short")
    file = tmp_path / "short" / name
    os.truncate(file, file.stat().st_size - 5)
    with pytest.raises(ValueError, match="holds 5 of 6 films and is damaged"):
        Packed(tmp_path / "short")
    pack(Clips(films, 32), tmp_path / "short")
    assert contents(tmp_path / "short") == contents(packed), "packing again mends it"


PACKING = "import sys, torch; from lamd_nb.data.video.clips import Clips; from lamd_nb.data.video.cache import pack; torch.set_num_threads(1); print('go', flush=True); pack(Clips(sys.argv[1], 32), sys.argv[2])"


def test_killed_in_earnest(films, packed, tmp_path):
    "A process that is killed while it packs, again and again."
    out = tmp_path / "out"
    for wait in (.0, .02, .05, .1, .2):
        child = subprocess.Popen([sys.executable, "-c", PACKING, films, out], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    pack(Clips(films, 32), out)
    assert contents(out) == contents(packed)


def test_two_at_a_time(films, tmp_path):
    "Whoever comes second is told to wait."
    fcntl = pytest.importorskip("fcntl")
    pack(Clips(films, 32), tmp_path / "out")
    with open(tmp_path / "out/frames.u8", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is packing into"):
            pack(Clips(films, 32), tmp_path / "out")


OPTIONS = [dict(), dict(flip=True, jitter=.3, seed=4), dict(jitter=(.1, .2, .3, .4), frames=5), dict(flip=True, jitter=[0, 0, 0, .5], split="test"), dict(window="very_random", frames=9), dict(split="test", window="every", frames=5),
           dict(fps=12, frames=6), dict(stride=2, frames=8), dict(window="uniform", frames=40)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_clips_of_the_films(films, packed, options):
    ours, theirs = Packed(packed, **options), Clips(films, 32, **options)
    assert len(ours) == len(theirs) and ours.classes == theirs.classes == ["a", "b"] and ours.files == theirs.files
    index = [5, 0, 3, 1_000_003, 5]
    same(ours.batch(index), theirs.batch(index))
    same(ours[7], theirs[7])
    assert not ours.kept, "no frame is copied into a cache"


@pytest.mark.parametrize("fit", ["squeeze", "pad", "random_crop"])
def test_every_fit(films, tmp_path, fit):
    pack(Clips(films, 32, fit=fit), tmp_path / "out")
    same(Packed(tmp_path / "out", flip=True).batch(range(9)), Clips(films, 32, fit=fit, flip=True).batch(range(9)))
    with pytest.raises(ValueError, match=f"packed with fit {fit}, but crop is asked for"):
        Packed(tmp_path / "out", fit="crop")


class Batches:
    "Batch n of a source, for a loader."
    def __init__(self, source): self.source = source
    def __len__(self): return 6
    def __getitem__(self, n): return self.source.batch(range(4 * n, 4 * n + 4))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_two_worker_processes(packed, start):
    clips = Packed(packed, flip=True, jitter=.2, seed=2)
    want = [clips.batch(range(4 * n, 4 * n + 4)) for n in range(6)]
    loader = DataLoader(Batches(clips), batch_size=None, num_workers=2, multiprocessing_context=start, timeout=120)
    for got, expected in zip(loader, want, strict=True):
        same(got, expected)


def test_threads_and_pickles(packed):
    clips = Packed(packed, flip=True)
    want = [stream(clips, 4, seed=1).at(n) for n in range(12)]
    for got, expected in zip(fetch(stream(clips, 4, seed=1), 0, prefetch=3), want):
        same(got, expected)
    assert len(pickle.dumps(clips)) < 5000 and pickle.loads(pickle.dumps(clips)).flat is None


def test_flipped_bytes_are_named(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "bad")
    assert damaged(tmp_path / "bad") == []
    rows = pack_rows(packed)
    with open(tmp_path / "bad/frames.u8", "r+b") as file:
        for row, at in ((rows[1], 0), (rows[4], int(np.prod(rows[4]["shape"])) - 1)):
            file.seek(row["start"] + at)
            byte = file.read(1)[0]
            file.seek(row["start"] + at)
            file.write(bytes([byte ^ 1]))
    assert damaged(tmp_path / "bad") == [rows[1]["name"], rows[4]["name"]]


def test_splits_have_packs_of_their_own(films, tmp_path):
    for split, names in dict(train=("a/0.mp4", "b/1.mp4"), test=("a/2.mp4", "c/3.mp4")).items():
        for name in names:
            (tmp_path / "src" / split / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(films / name.replace("c", "b"), tmp_path / "src" / split / name)
    for split in ("train", "test"):
        pack(Clips(tmp_path / "src", 32, split=split), tmp_path / "out" / split)
    assert is_pack(tmp_path / "out") and not is_pack(tmp_path / "src")
    for split in ("train", "test"):
        ours, theirs = Packed(tmp_path / "out", split=split), Clips(tmp_path / "src", 32, split=split)
        assert ours.classes == ["a", "b", "c"]
        same(ours.batch(range(5)), theirs.batch(range(5)))


def test_open_data(packed):
    train, test = open_data(str(packed), 32, seed=3), open_data(f"folder:{packed}", 32, split="test")
    assert isinstance(test, Packed) and not hasattr(train, "__len__")
    same(train.batch(range(5)), Packed(packed, seed=3).batch(range(5)))
    with pytest.raises(ValueError, match="packed with size 32, but 64 is asked for"):
        open_data(str(packed), 64)


def test_refusals(films, packed, tmp_path):
    for other, word in ((Clips(films, 16), "size 32"), (Clips(films, 32, fit="pad"), "fit 'crop'"), (Clips(films / "a", 32), "source"), (Clips(films, 32, 8), "frames 16")):
        with pytest.raises(ValueError, match=f"packed with {word}.*, but now it would be .*: name another folder"):
            pack(other, packed)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("")
    with pytest.raises(ValueError, match="holds something that is no pack"):
        pack(Clips(films, 32), tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="is no pack: it holds no pack.json"):
        Packed(tmp_path / "mine")
    shutil.copytree(packed, tmp_path / "torn")
    (tmp_path / "torn/pack.json").write_text("{")
    with pytest.raises(ValueError, match="pack.json' is damaged: it is not JSON"):
        Packed(tmp_path / "torn")


def test_films_that_cannot_be_packed(films, tmp_path):
    "Named, or left out and noted; a clip too long for a film is told as by Clips."
    shutil.copytree(films, tmp_path / "src")
    torn = tmp_path / "src/a/2.mp4"
    torn.write_bytes(torn.read_bytes()[:2000])
    write(tmp_path / "src/b/9.mp4", pixels(0, 7))
    with pytest.raises(ValueError, match="2.mp4"):
        pack(Clips(tmp_path / "src", 32), tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patient = Clips(tmp_path / "src", 32, on_error="skip")
        assert pack(patient, tmp_path / "out")["skipped"] == 2
        patient.skipped.clear()
    clips = Packed(tmp_path / "out")
    assert clips.files == ["a/0.mp4", "a/4.mp4", "b/1.mp4", "b/3.mp4", "b/5.mp4"] and not damaged(tmp_path / "out")
    with pytest.raises(ValueError, match="has 1. frames, but 20 frames"):
        Packed(tmp_path / "out", frames=20, split="test").batch(range(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patient = Packed(tmp_path / "out", frames=20, split="test", on_error="skip")
        assert patient.batch(range(5))["file"] == ["a/0.mp4", "a/4.mp4", "b/1.mp4", "b/3.mp4", "a/0.mp4"]
        patient.skipped.clear()


def test_four_shares_of_light_travel_with_a_pack(films, tmp_path):
    "A tuple comes back from JSON as a list: the pack goes on, is found done, and its clips are those of the films."
    clips = Clips(films, 32, jitter=(.1, .2, .3, .4))
    facts = pack(clips, tmp_path / "out")
    assert facts["asked"]["jitter"] == [.1, .2, .3, .4] and pack(Clips(films, 32, jitter=[.1, .2, .3, .4]), tmp_path / "out") == facts == pack_facts(tmp_path / "out")
    ours = Packed(tmp_path / "out")
    same(ours.batch(range(7)), clips.batch(range(7)))
    same(ours[3], clips[3])
    assert not torch.equal(ours[3]["video"], Packed(tmp_path / "out", jitter=0)[3]["video"])
    with pytest.raises(ValueError, match="packed with asked"):
        pack(Clips(films, 32, jitter=(.1, .2, .3, .5)), tmp_path / "out")


def test_a_film_left_out_stays_out(films, tmp_path):
    "Mended later it is not tried, and that is said: in the facts, and in a line for each film."
    shutil.copytree(films, tmp_path / "src")
    mended = (tmp_path / "src/a/2.mp4").read_bytes()
    (tmp_path / "src/a/2.mp4").write_bytes(mended[:2000])
    run = [sys.executable, "-c", PACKING.replace("32)", "32, on_error='skip')"), tmp_path / "src", tmp_path / "out"]
    first = subprocess.run(run, capture_output=True, text=True)
    (tmp_path / "src/a/2.mp4").write_bytes(mended)
    again = subprocess.run(run, capture_output=True, text=True)
    assert first.returncode == again.returncode == 0
    for done, more in ((first, ""), (again, " (left out before, and not tried again)")):
        line, head, at_the_end = done.stderr.splitlines()
        assert line.startswith("<lamd_nb>:0: UserWarning: skipped: cannot read '") and "2.mp4" in line and line.endswith(more)
        assert head == "1 of 6 films were skipped:" and at_the_end.strip() in line
    facts = pack(Clips(tmp_path / "src", 32), tmp_path / "out")
    assert facts == pack_facts(tmp_path / "out") and facts["skipped"] == 1 and "pack into a new folder" in facts["note"]
    assert "note" not in pack(Clips(tmp_path / "src", 32), tmp_path / "new") and Packed(tmp_path / "new").files == Clips(films).files


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_tell_what_they_skipped(packed, capfd, start):
    "A pack inherits the telling."
    clips = Packed(packed, frames=21, split="test", on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = DataLoader(clips, batch_size=3, sampler=range(6), num_workers=2, multiprocessing_context=start, timeout=120)
        assert [f for b in loader for f in b["file"]] == ["a/0.mp4", "a/2.mp4", "b/1.mp4", "b/1.mp4", "b/3.mp4", "a/0.mp4"]
    told = capfd.readouterr().err
    assert told.count("1 of 6 films were skipped:") == 2 and told.count(f"\n  '{packed}/a/4.mp4' has 20 frames") == told.count(f"\n  '{packed}/b/5.mp4' has 19 frames") == 1, told
    assert not clips.skipped


@pytest.mark.parametrize("broken", [[1], [1, 2], [0, 3], [3]])
def test_a_film_that_breaks_off_in_the_middle(tmp_path, broken):
    "What had been written of it is gone, and its neighbours are where the index says."
    for k in range(4):
        folder = tmp_path / f"films/{k}"
        folder.mkdir(parents=True)
        for t, x in enumerate(pixels(k, 20)):
            Image.fromarray(x).save(folder / f"{t}.png")
        if k in broken:
            (folder / "10.png").write_bytes(b"")
    with pytest.warns(UserWarning):
        facts = pack(Clips(tmp_path / "films", on_error="skip"), tmp_path / "packed")
    packed, good = Packed(tmp_path / "packed", split="test"), [k for k in range(4) if k not in broken]
    assert facts["skipped"] == len(broken) and packed.files == [str(k) for k in good] and packed.damaged() == []
    assert (tmp_path / "packed/frames.u8").stat().st_size == len(good) * 20 * 3 * 64 * 64
    for place, k in enumerate(good):
        assert torch.equal(packed[place]["video"], Clips(tmp_path / "films", split="test").clip(k, k)["video"])


def test_real_films(tmp_path):
    root = real("weizmann_actions")
    some = Clips(root, 32, 8)
    some.files = some.files[:4]
    pack(some, tmp_path / "out")
    same(Packed(tmp_path / "out", frames=8).batch(range(6)), some.batch(range(6)))
