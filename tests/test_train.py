"""The loop under conditions a notebook cannot stage: two processes, a kill in the middle of a write, a disk that is full."""
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import lamd_nb.training.checkpoints as checkpoints
import lamd_nb.training.step
from lamd_nb.training.checkpoints import checkpoint_error, list_checkpoints, load_checkpoint, read_weights
from lamd_nb.core import command_line
from lamd_nb.data.worlds.shapes import ShapesWorld
from lamd_nb.models.mcdvae import MCDVAE
from lamd_nb.training.step import TrainState
from lamd_nb.training.stage2 import cache_latents
from lamd_nb.training.loaders import derive_seed, make_loader, seeded_rng
from lamd_nb.training.loop import fit

ROOT = Path(__file__).resolve().parents[1]


class Numbers:
    "Endless: item k is made of the number k."
    def batch(self, index):
        rows = [torch.randn(8, generator=torch.Generator().manual_seed(derive_seed(int(i)))) for i in index]
        return dict(x=torch.stack(rows), index=index)


def game(seed=0, width=16, noise=True, ema=.9):
    "Two train states, small enough to train twenty steps in a blink."
    with seeded_rng("weights", seed):
        maker = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Dropout(.1 if noise else 0.), nn.Linear(width, 8))
        maker.register_buffer("level", torch.zeros(()))              # remembered beside the weights, and part of the loss
        discriminator = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, 1))
    def make(batch, step):
        out = maker(batch["x"] + (.1*torch.randn_like(batch["x"]) if noise else 0))
        batch["out"] = out.detach()
        l1 = (out - batch["x"]).abs().mean()
        loss = (1 + maker.level)*l1 - .1*discriminator(out).mean()
        maker.level.lerp_(l1.detach(), .1)
        return loss, dict(l1=l1)
    def judge(batch, step):
        return (1 + discriminator(batch["out"])).relu().mean() + (1 - discriminator(batch["x"])).relu().mean(), {}
    return [TrainState("maker", maker, make, lr=1e-2, ema_decay=ema), TrainState("discriminator", discriminator, judge, lr=1e-2, start=3)]


def script(tmp_path, body, name="run.py"):
    "A program that knows the game."
    path = tmp_path / name
    path.write_text("import sys\nfrom test_train import Numbers, fit, game, make_loader\n" + body)
    return str(path)


def environment():
    "One thread per process; the library from this tree; no accelerator."
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "CUDA_VISIBLE_DEVICES": ""}


def same(a, b):
    "Whether two lists of train states agree in every bit of weights and averages."
    pairs = [(p.module.state_dict(), q.module.state_dict()) for p, q in zip(a, b)]
    pairs += [(p.ema_module.state_dict(), q.ema_module.state_dict()) for p, q in zip(a, b)]
    return all(torch.equal(x[k], y[k]) for x, y in pairs for k in x)


def test_resumed_equals_straight(tmp_path):
    straight, again = game(), game(seed=5)
    whole = list(fit(straight, make_loader(Numbers(), 4), steps=20, warmup=5))
    for row in fit(game(), make_loader(Numbers(), 4), steps=20, warmup=5, out=tmp_path, save_steps=10):
        if row["step"] == 13:
            break
    rest = list(fit(again, make_loader(Numbers(), 4), steps=20, warmup=5, out=tmp_path, resume=True))
    assert [r["step"] for r in rest] == list(range(11, 21))
    assert same(straight, again)
    timing = ("seconds", "clips_per_second")
    assert [{k: v for k, v in r.items() if k not in timing} for r in whole[10:]] == [{k: v for k, v in r.items() if k not in timing} for r in rest]


def test_resume_keeps_commands_seconds_and_curve(tmp_path, monkeypatch):
    say = lambda *words: monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", *words])
    say("--steps", "30")
    for row in fit(game(), make_loader(Numbers(), 4), steps=30, out=tmp_path, save_steps=10, log_every=5):
        time.sleep(.005)
        if row["step"] == 17:
            break
    at_10 = json.loads((tmp_path / "checkpoint-00000010" / "state.json").read_text())["seconds"]
    say("--resume")
    first = next(fit(game(), make_loader(Numbers(), 4), steps=30, out=tmp_path, resume=True, log_every=5))
    assert first["step"] == 11 and at_10 < first["seconds"] < at_10 + 5
    list(fit(game(), make_loader(Numbers(), 4), steps=30, out=tmp_path, resume=True, log_every=5))
    steps = [json.loads(row)["step"] for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [5, 10, 15, 20, 25, 30]
    record = json.loads((tmp_path / "run.json").read_text())
    assert [r["step"] for r in record["resumed"]] == [10, 10] and record["step"] == 30
    assert [record["command"], *(r["command"] for r in record["resumed"])] == ["train.py --steps 30", *["train.py --resume"]*2]
    assert os.uname().nodename not in json.dumps(record["machine"])


def test_going_on_from_another_run_never_costs_this_one(tmp_path):
    "A checkpoint of another folder may be the beginning of a new run, not the end of one that is there."
    for name in "ab":
        list(fit(game(), make_loader(Numbers(), 4), steps=4, out=tmp_path/name, save_steps=2))
    before = sorted((p.name, p.stat().st_size) for p in (tmp_path/"b").rglob("*"))
    first = list_checkpoints(tmp_path/"a")[0]
    with pytest.raises(FileExistsError, match="would be lost by going on from"):
        fit(game(), make_loader(Numbers(), 4), steps=6, out=tmp_path/"b", resume=first)
    assert sorted((p.name, p.stat().st_size) for p in (tmp_path/"b").rglob("*")) == before
    rows = list(fit(game(), make_loader(Numbers(), 4), steps=6, out=tmp_path/"c", resume=first))
    assert [r["step"] for r in rows] == [3, 4, 5, 6]
    assert json.loads((tmp_path/"c"/"run.json").read_text())["initialised_from"] == str(first)


def test_a_refused_run_changes_nothing(tmp_path):
    "A call that is refused leaves the average, the optimiser and the count of steps alone."
    train_states = game()
    list(fit(train_states, make_loader(Numbers(), 4), steps=5))
    weight = train_states[0].ema_module[0].weight.clone()
    for change in (dict(resume=True), dict(out=tmp_path, resume=True), dict(minutes=float("nan"))):
        with pytest.raises((ValueError, OSError)):
            fit(train_states, make_loader(Numbers(), 4), **dict(steps=9) | change)
    assert train_states[0].num_updates == 5 and torch.equal(train_states[0].ema_module[0].weight, weight)
    with pytest.raises(ValueError, match="one step for each batch"):
        fit(train_states, make_loader(Numbers(), 4), steps=9, accelerator=Accelerator(cpu=True, gradient_accumulation_steps=4))


def test_a_plug_pulled_while_going_on_keeps_the_curve(tmp_path, monkeypatch):
    "The curve is replaced in one stroke: cut off in the middle of that, all its rows are still there."
    list(fit(game(), make_loader(Numbers(), 4), steps=8, out=tmp_path, save_steps=4, log_every=1))
    def pulled(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(checkpoints.os, "replace", pulled)
        fit(game(), make_loader(Numbers(), 4), steps=9, out=tmp_path, resume=list_checkpoints(tmp_path)[0])
    assert len((tmp_path/"log.jsonl").read_text().splitlines()) == 8


def test_channels_last_survives_a_checkpoint(tmp_path):
    def convs(seed):
        with seeded_rng("convs", seed):
            net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))
        net = net.to(memory_format=torch.channels_last)
        return [TrainState("net", net, lambda b, s: ((net(b["x"]) - 1).square().mean(), {}), lr=1e-2, ema_decay=.9)]

    class Images:
        def batch(self, index):
            with seeded_rng("image", int(index[0])):
                return dict(x=torch.randn(len(index), 3, 8, 8).to(memory_format=torch.channels_last))

    straight, again = convs(0), convs(1)
    list(fit(straight, make_loader(Images(), 2), steps=8))
    for row in fit(convs(0), make_loader(Images(), 2), steps=8, out=tmp_path, save_steps=4):
        if row["step"] == 4:
            break
    list(fit(again, make_loader(Images(), 2), steps=8, out=tmp_path, resume=True))
    assert same(straight, again)
    w = again[0].module[0].weight
    assert w.is_contiguous(memory_format=torch.channels_last)
    assert all(s.stride() == w.stride() for s in again[0].optimizer.state[w].values() if s.ndim)


TWO = '''
import json
from accelerate import Accelerator
from accelerate.utils import gather_object

out, accelerator, seen = sys.argv[1], Accelerator(cpu=True), []
assert accelerator.num_processes == 2, accelerator.num_processes

class Watched(Numbers):
    def batch(self, index):
        seen.extend(index.tolist())
        return super().batch(index)

def run(resume):
    train_states = game(seed=accelerator.process_index, noise=False)      # other weights in each process: fit must make them the same
    for row in fit(train_states, make_loader(Watched(), 4), steps=10, out=out, save_steps=5, resume=resume):
        if row["step"] == 5: break
    return train_states, row

run(False)
train_states, row = run(True)
state = [p.tolist() for train_state in train_states for p in train_state.module.state_dict().values()]
everything = gather_object([dict(seen=seen, state=state, step=row["step"], loss=row["maker"])])
if accelerator.is_main_process:
    with open(out + ".json", "w") as f: json.dump(everything, f)
accelerator.end_training()
'''


def in_two_processes(program, out):
    "Run a program as a user with two GPUs would, and wait for it."
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", program, out]
    done = subprocess.run(start, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes(tmp_path):
    "Two processes with batches of 4, cut and resumed, take the steps of one with batches of 8, and stay alike."
    program, out = script(tmp_path, TWO), str(tmp_path / "two")
    in_two_processes(program, out)
    a, b = json.loads(Path(out + ".json").read_text())
    assert a["step"] == b["step"] == 10
    assert a["state"] == b["state"] and a["loss"] == b["loss"]
    assert sorted(a["seen"] + b["seen"]) == list(range(80))                      # every clip once, in one process only
    assert [p.name for p in list_checkpoints(out)] == ["checkpoint-00000005", "checkpoint-00000010"]

    alone = game(noise=False)
    list(fit(alone, make_loader(Numbers(), 8), steps=10))
    for w, other in zip([p for train_state in alone for p in train_state.module.state_dict().values()], a["state"]):
        torch.testing.assert_close(w.detach(), torch.tensor(other), atol=2e-5, rtol=1e-3)


SHARED = '''
import torch
from accelerate import Accelerator
from lamd_nb.data.worlds.shapes import ShapesWorld
from lamd_nb.models.mcdvae import MCDVAE
from lamd_nb.training.stage2 import cache_latents_distributed
torch.manual_seed(0)
vae = MCDVAE(widths=(8, 16, 16), motion_width=16)
accelerator = Accelerator(cpu=True)
made = cache_latents_distributed(vae, ShapesWorld(32), 7, accelerator)
torch.save([made.mu, made.content, made.caption], f'{sys.argv[1]}{accelerator.process_index}.pt')
accelerator.end_training()
'''


def test_two_processes_share_the_encoding(tmp_path):
    "Both end with all seven rows, in the order of one process."
    program, out = script(tmp_path, SHARED), str(tmp_path / "rows")
    in_two_processes(program, out)
    torch.manual_seed(0)
    alone = cache_latents(MCDVAE(widths=(8, 16, 16), motion_width=16), ShapesWorld(32), 7)
    for rank in (0, 1):
        mu, content, captions = torch.load(f"{out}{rank}.pt")
        torch.testing.assert_close(mu, alone.mu, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(content, alone.content, atol=2e-2, rtol=2e-3)
        assert captions == alone.caption


KILL = '''
out, steps = sys.argv[1], int(sys.argv[2])
from lamd_nb.training.checkpoints import list_checkpoints
train_states = game(width=20000)                      # a checkpoint of some 12 MB, so that a write takes a while
for row in fit(train_states, make_loader(Numbers(), 2), steps=steps, out=out, save_steps=1, resume=bool(list_checkpoints(out))): pass
'''


def kill_while_writing(program, out, steps):
    "Start the program and kill it (SIGKILL) while it writes its third checkpoint or a later one. True if it was caught at it."
    before = len(list(Path(out).glob("checkpoint-*"))) and int(list_checkpoints(out)[-1].name[11:])
    child = subprocess.Popen([sys.executable, program, out, str(steps)], env=environment())
    try:
        deadline = time.time() + 120
        while child.poll() is None and time.time() < deadline:
            busy = next(Path(out).glob(".unfinished-*"), None)
            if busy and int(busy.name[12:]) > before + 2 and any(busy.glob("*.safetensors")):
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(.001)
    finally:
        child.kill()
        child.wait()
    return any(Path(out).glob(".unfinished-*"))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_kill_during_a_checkpoint(tmp_path):
    "Whatever the moment of death, every named checkpoint is whole, and the run ends at the same bits."
    program, out, steps = script(tmp_path, KILL), str(tmp_path / "run"), 12
    assert any(kill_while_writing(program, out, steps) for _ in range(3)), "the child was never caught during a write"
    left = list_checkpoints(out)
    assert left and [checkpoint_error(p) for p in left] == [None]*len(left)
    resumed, straight = game(seed=3, width=20000), game(width=20000)
    rows = list(fit(resumed, make_loader(Numbers(), 2), steps=steps, out=out, resume=True))
    assert rows[0]["step"] == int(left[-1].name[11:]) + 1
    list(fit(straight, make_loader(Numbers(), 2), steps=steps))
    assert same(resumed, straight)
    assert not list(Path(out).glob(".unfinished-*"))


def test_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    "The second file of a checkpoint finds no room: one sentence, no debris, the one before it loads."
    written, real = [], checkpoints.write_file

    def write_file(path, data):
        written.append(path)
        if "00000004" in str(path) and path.name.startswith("maker.optimizer"):
            path.write_bytes(data[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, data)

    monkeypatch.setattr(checkpoints, "write_file", write_file)
    with pytest.raises(OSError, match=r"could not write .*checkpoint-00000004 \(No space left on device\); .*checkpoint-00000002 is untouched") as e:
        list(fit(game(), make_loader(Numbers(), 4), steps=8, out=tmp_path, save_steps=2))
    assert e.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["checkpoint-00000002"]
    monkeypatch.undo()
    resumed, straight = game(seed=1), game()
    list(fit(resumed, make_loader(Numbers(), 4), steps=8, out=tmp_path, resume=True))
    list(fit(straight, make_loader(Numbers(), 4), steps=8))
    assert same(resumed, straight)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_real_full_device(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device\); there is no earlier checkpoint"):
        with checkpoints.explain_write_errors(tmp_path, "a file"):
            checkpoints.write_file(Path("/dev/full"), b"x"*10)


LIMIT = '''
import resource
out = sys.argv[1]
for row in fit(game(), make_loader(Numbers(), 4), steps=2, out=out): pass
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))          # from here on no file may grow beyond 2000 bytes
for row in fit(game(), make_loader(Numbers(), 4), steps=4, out=out, resume=True): pass
'''


@pytest.mark.skipif(os.name == "nt", reason="resource limits")
def test_a_write_the_system_refuses(tmp_path):
    out = tmp_path / "run"
    done = subprocess.run([sys.executable, script(tmp_path, LIMIT), str(out)], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "could not write" in done.stderr and "checkpoint-00000002 is untouched" in done.stderr.splitlines()[-1]
    load_checkpoint(out / "checkpoint-00000002", list(map(prepared, game())))


def prepared(train_state):
    "A train state as `fit` would prepare it."
    return lamd_nb.training.step.prepare(train_state, Accelerator(cpu=True))


def test_damage_is_named_and_not_passed_over(tmp_path):
    for row in fit(game(), make_loader(Numbers(), 4), steps=8, out=tmp_path, save_steps=2):
        if row["step"] == 4:
            break
    good, bad = list_checkpoints(tmp_path)
    file = bad / "discriminator.safetensors"
    data = file.read_bytes()
    for harm, words in ((data[:50], "50 bytes instead of"), (data[:-1] + b"\xff", "contents have changed"), (None, "is missing")):
        file.unlink() if harm is None else file.write_bytes(harm)
        with pytest.raises(ValueError, match=words) as e:
            fit(game(), make_loader(Numbers(), 4), steps=8, out=tmp_path, resume=True)
        assert str(file) in str(e.value) and str(good) in str(e.value)
    (bad / "state.json").write_text('{"step": 4, "fil')
    with pytest.raises(ValueError, match="state.json is damaged; the last good checkpoint before it is .*checkpoint-00000002"):
        fit(game(), make_loader(Numbers(), 4), steps=8, out=tmp_path, resume=True)
    train_states = game(seed=2)
    rows = list(fit(train_states, make_loader(Numbers(), 4), steps=8, out=tmp_path, resume=good))     # said aloud, it goes on from the good one
    straight = game()
    list(fit(straight, make_loader(Numbers(), 4), steps=8))
    assert rows[0]["step"] == 3 and same(train_states, straight)


def test_a_pickle_is_never_opened(tmp_path):
    list(fit(game(), make_loader(Numbers(), 4), steps=2, out=tmp_path))
    folder = list_checkpoints(tmp_path)[0]
    torch.save({}, folder / "maker.safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        fit(game(), make_loader(Numbers(), 4), steps=8, out=tmp_path, resume=True)


def test_another_model_is_refused(tmp_path):
    list(fit(game(), make_loader(Numbers(), 4), steps=2, out=tmp_path))
    with pytest.raises(ValueError, match="another model than this 'maker'.*size mismatch"):
        fit(game(width=17), make_loader(Numbers(), 4), steps=8, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="holds the train states"):
        fit(game()[:1], make_loader(Numbers(), 4), steps=8, out=tmp_path, resume=True)
    assert set(read_weights(tmp_path, "maker")) == set(game()[0].module.state_dict())


def test_prefetch_and_bf16_change_no_decision(tmp_path):
    plain, ahead, half = game(noise=False), game(noise=False), game(noise=False)
    list(fit(plain, make_loader(Numbers(), 4), steps=12))
    list(fit(ahead, make_loader(Numbers(), 4), steps=12, prefetch=2))
    assert same(plain, ahead)
    rows = list(fit(half, make_loader(Numbers(), 4), steps=12, precision="bf16"))
    assert rows[-1]["maker/l1"] == pytest.approx(list(fit(game(noise=False), make_loader(Numbers(), 4), steps=12))[-1]["maker/l1"], rel=.05)
    assert all(p.dtype == torch.float32 for p in half[0].params)


def test_minutes_stop_the_run_and_end_the_rate():
    rows = list(fit(game(), make_loader(Numbers(), 4), minutes=.01, warmup=5))
    assert .6 <= rows[-1]["seconds"] < 6 and rows[-1]["lr"] < 5e-3


def test_the_world_outside_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(fit(game(), make_loader(Numbers(), 4), steps=3))
    assert torch.equal(before, torch.get_rng_state())


def test_progress_bar(capsys):
    list(fit(game(), make_loader(Numbers(), 4), steps=3, show_progress=True))
    bar = capsys.readouterr().err
    assert "100%" in bar and "maker" in bar and "clips_per_second" in bar


def test_command_has_no_folders(monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lamd_train", "stage1", "--out", "runs/a b"])
    assert command_line() == "lamd_train stage1 --out 'runs/a b'"
