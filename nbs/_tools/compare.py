"""Decoders of stage I, each with the loss of its own preset, trained for equal minutes and measured on held-out clips.

    python nbs/_tools/compare.py --minutes 10 --seeds 3                      all of them, one after the other
    python nbs/_tools/compare.py --minutes 10 --seeds 3 fusion warp          some of them
    python nbs/_tools/compare.py --seeds 3 --data my_videos --out results    on your own videos, both splits

Minutes are processor minutes of one thread, so that other work on the machine takes nothing from any of them. Each run writes OUT/NAME-SEED.json. A run
whose file is there is not made again; if that file was made with other settings, this says so and stops: delete it to begin anew."""
import argparse
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch

from lamd_nb.training.checkpoints import write_json
from lamd_nb.core import seed_all, machine_info
from lamd_nb.data.specs import dataset_from_spec
from lamd_nb.data.worlds.shapes import ShapesWorld
from lamd_nb.models.mcdvae import MCDVAE
from lamd_nb.presets import get_preset
from lamd_nb.evaluation.report import batch_ranges, weighted_mean, to_json_values, reconstruction_metrics, motion_transfer_leakage
from lamd_nb.training.stage1 import Stage1, stage1_train_states
from lamd_nb.training.loaders import make_loader
from lamd_nb.training.loop import fit
from lamd_nb.evaluation.adherence import score_clips

SHAPES = "worlds:shapes"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "comparison"
ARMS = {  # preset, and what differs from its loss of stage I
    "fusion": ("toy", {}),
    "warp": ("warp", {}),
    "objects": ("objects", {}),
    "fusion, true colours": ("toy", dict(augment_colours=False)),
    "fusion, no weight": ("toy", dict(extra_moving_weight=0.0)),
    "fusion, dilated weight": ("toy", dict(dilation=1 / 16)),
}


def settings(name: str, seed: int, minutes: float, clips: int, data: str) -> dict:
    "All that decides how a run goes, but for the code and the machine."
    preset, changes = ARMS[name]
    p = get_preset(preset)
    return dict(name=name, seed=seed, minutes=minutes, clips=clips, data=data, size=p.size, frames=p.frames, vae=p.vae, stage1=p.stage1_loss | changes,
                batch=p.stage1_training["batch_size"], lr=p.stage1_training["lr"], ema=0.99, warmup=p.stage1_training["warmup"], precision="bf16")


@torch.no_grad()
def figures(vae, clips: int, size: int, frames: int, data: str) -> dict:
    "Reconstruction of held-out clips, and, where the ground truth is known, whether shapes are preserved."
    model = SimpleNamespace(vae=vae, encode=lambda v: (vae.encode_content(v[:, :, 0]), vae.encode_motion(v).mu),
                            decode=lambda content, z: vae.decode(content, z).clamp(-1, 1))
    if data != SHAPES:
        return reconstruction_metrics(model, dataset_from_spec(data, size, frames, split="test"), clips)
    world, free = (ShapesWorld(size, frames, "test", mode) for mode in ("captioned", "stochastic"))
    parts = [world.batch(rows) for rows in batch_ranges(clips)]
    seen = weighted_mean([score_clips(model.decode(*model.encode(p["video"])), p) for p in parts], [len(p["video"]) for p in parts])
    again = {f"stochastic_{k}": v for k, v in reconstruction_metrics(model, free, clips).items()}
    return reconstruction_metrics(model, world, clips) | again | seen | dict(content_leakage=motion_transfer_leakage(model, world, clips))


def trial(s: dict) -> dict:
    "Train one arm with one seed and measure it."
    seed_all(s["seed"])
    train_states = stage1_train_states(Stage1(MCDVAE(**s["vae"]), **s["stage1"]), lr=s["lr"], ema_decay=s["ema"])
    data = s["data"]
    batches = make_loader(dataset_from_spec(data, s["size"], s["frames"]), s["batch"], s["seed"])
    with patch.object(time, "perf_counter", time.process_time):
        *_, last = fit(train_states, batches, minutes=s["minutes"], warmup=s["warmup"], precision=s["precision"], seed=s["seed"], show_progress=True)
    return s | dict(steps=last["step"]) | figures(train_states[0].ema_module.vae.cpu().eval(), s["clips"], s["size"], s["frames"], data)


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
    say.add_argument("--clips", type=int, default=100, help="held-out clips to measure on")
    say.add_argument("--data", default=SHAPES, help="dataset spec, as for lamd_train; of videos, both splits")
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
            wanted, file = settings(name, seed, a.minutes, a.clips, a.data), a.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
            if missing(wanted, file):
                write_json(file, to_json_values(trial(wanted)) | dict(machine=machine_info()))


if __name__ == "__main__":
    main()
