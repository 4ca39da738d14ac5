"""Autoencoders that differ in one choice, trained for equal minutes, and how good each is.

    python nbs/_tools/compare.py --minutes 10 --seeds 2             all of them, one after the other
    python nbs/_tools/compare.py --minutes 10 --seeds 2 slots warp  some of them
    python nbs/_tools/compare.py --seeds 1 --data asl_hands/64 --out nbs/results/asl-hands/comparison slots warp    on your own films

Minutes are processor minutes of one thread, so that whatever else the machine does takes nothing from anyone. All but
the named choice is as in the shipped training, the rate too: after ten minutes it is still on its way down.
Each run writes OUT/NAME-SEED.json. A run whose file is there is not made again; if that file was
made with other settings, this says so and stops: delete the folder to begin anew."""
import argparse
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch

from lamd_nb.training.checkpoints import machine, write_json
from lamd_nb.core import seed_all
from lamd_nb.data.specs import open_data
from lamd_nb.data.worlds.shapes import ShapesWorld
from lamd_nb.models.mcdvae import MCDVAE
from lamd_nb.presets import preset
from lamd_nb.evaluation.report import chunks, mean, plain, reconstruction, swap
from lamd_nb.training.stage1 import Stage1, stage1_players
from lamd_nb.training.loaders import stream
from lamd_nb.training.loop import fit
from lamd_nb.evaluation.adherence import judge

SHAPES = "worlds:shapes"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "comparison"
ARMS = {  # what differs from the preset: arguments of MCDVAE, arguments of Stage1, and of the training if need be
    "slots": ({}, {}),
    "warp": (dict(kind="warp"), {}),
    "attend": (dict(kind="attend"), {}),
    "plain": (dict(kind="plain"), {}),
    "true colours": ({}, dict(blind=False)),
    "100 nats": ({}, dict(nats=100.0)),
    "1600 nats": ({}, dict(nats=1600.0)),
    "no weight": ({}, dict(extra=0.0, usual=0.0)),
    "bold weight": ({}, dict(reach=0.0)),
    "not alike": ({}, dict(usual=0.0)),
    "without total variation": ({}, dict(tv=0.0)),
    "without a loss on the plate": ({}, dict(plate=0.0)),
    "draws alone": ({}, dict(mean_share=0.0)),
    "without doubt": ({}, dict(doubt=0.0)),
    "warp without doubt": (dict(kind="warp"), dict(doubt=0.0)),
    "hurried": ({}, {}, dict(warmup=50)),
    "hurried without doubt": ({}, dict(doubt=0.0), dict(warmup=50)),
}


def settings(name: str, seed: int, minutes: float, clips: int, data: str) -> dict:
    "All that decides how a run goes, but for the code and the machine."
    p, (vae, stage, *more) = preset("toy"), ARMS[name]
    base = dict(name=name, seed=seed, minutes=minutes, clips=clips, size=p.size, frames=p.frames, vae=p.vae | vae, stage1=p.stage1 | stage,
                batch=p.fit1["batch"], lr=p.fit1["lr"], ema=0.99, warmup=p.fit1["warmup"], precision="bf16")
    return base | (dict(data=data) if data != SHAPES else {}) | (more[0] if more else {})


@torch.no_grad()
def figures(vae, clips: int, size: int, frames: int, data: str) -> dict:
    "How well held-out clips come back, and, where the truth is known, whether their shapes do."
    model = SimpleNamespace(vae=vae, encode=lambda v: (vae.content(v[:, :, 0]), vae.encode(v).mu),
                            decode=lambda content, z: vae.decode(z, content).clamp(-1, 1))
    if data != SHAPES:
        return reconstruction(model, open_data(data, size, frames, split="test"), clips)
    world, free = (ShapesWorld(size, frames, "test", mode) for mode in ("captioned", "free"))
    parts = [world.batch(rows) for rows in chunks(clips)]
    seen = mean([judge(model.decode(*model.encode(p["video"])), p) for p in parts], [len(p["video"]) for p in parts])
    again = {f"free_{k}": v for k, v in reconstruction(model, free, clips).items()}
    q, content = vae.encode(parts[0]["video"]).mu, vae.content(parts[0]["video"][:, :, 0])
    sure = vae.decode(q, content, details=True)[1]["logits"].abs().mean().item()
    return reconstruction(model, world, clips) | again | seen | dict(foreign_colour_mass=swap(model, world, clips), mean_logit=sure)


def trial(s: dict) -> dict:
    "Train one arm with one seed and judge it."
    seed_all(s["seed"])
    players = stage1_players(Stage1(MCDVAE(**s["vae"]), **s["stage1"]), lr=s["lr"], ema=s["ema"])
    data = s.get("data", SHAPES)
    batches = stream(open_data(data, s["size"], s["frames"]), s["batch"], s["seed"])
    with patch.object(time, "perf_counter", time.process_time):
        *_, last = fit(players, batches, minutes=s["minutes"], warmup=s["warmup"], precision=s["precision"], seed=s["seed"], show=True)
    return s | dict(steps=last["step"]) | figures(players[0].averaged.vae.cpu().eval(), s["clips"], s["size"], s["frames"], data)


def missing(wanted: dict, file: Path) -> bool:
    "Whether this run is still to be made."
    if not file.exists():
        return True
    made = json.loads(file.read_text())
    if {k: made.get(k) for k in wanted} != json.loads(json.dumps(wanted)):
        sys.exit(f"{file} was made with other settings: delete it to make it again")
    return False


def main():
    "Make what is missing."
    say = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ARMS))
    say.add_argument("--minutes", type=float, default=10, help="processor minutes of training")
    say.add_argument("--seeds", type=int, default=2)
    say.add_argument("--clips", type=int, default=100, help="held-out clips to judge by")
    say.add_argument("--data", default=SHAPES, help="what to train on and be judged by, as for lamd_train: of films, both halves")
    say.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    a = say.parse_args()
    if unknown := set(a.names) - set(ARMS):
        say.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    if min(a.minutes, a.seeds, a.clips) <= 0:
        say.error("minutes, seeds and clips must be positive")
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    for seed in range(a.seeds):
        for name in a.names or ARMS:
            wanted, file = settings(name, seed, a.minutes, a.clips, a.data), a.out / f"{name.replace(' ', '-')}-{seed}.json"
            if missing(wanted, file):
                write_json(file, plain(trial(wanted)) | dict(machine=machine()))


if __name__ == "__main__":
    main()
