"""Decoders of stage I, each with the loss that suits it, trained for equal processor minutes and measured on held-out clips.

    python nbs/_tools/compare.py --seeds 3                                        every variant on synthetic shapes, 400 nats
    python nbs/_tools/compare.py --seeds 3 fusion warp                            some of them
    python nbs/_tools/compare.py --seeds 3 --data DIR --name hands --target-kl 800  on a folder of videos with the splits train and test

Minutes are processor minutes: twenty are ten minutes of two cores, and other work on the machine takes nothing from any of them. Each run writes
OUT/NAME-VARIANT-SEED.json and, on the synthetic dataset, a frame grid beside it (.png). A run whose file is there is not made again; if that file was
made with other settings, this says so and stops: delete it to begin anew."""
import argparse
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import imageio.v3 as imageio
import torch
import torch.nn.functional as F
from einops import rearrange

from lamd_nb.core import machine_info, seed_all, to_uint8
from lamd_nb.data.specs import dataset_from_spec
from lamd_nb.data.worlds.shapes import ShapesWorld
from lamd_nb.evaluation.adherence import score_clips
from lamd_nb.evaluation.fidelity import moving_mask
from lamd_nb.evaluation.report import batch_ranges, motion_transfer_leakage, reconstruction_metrics, to_json_values, weighted_mean
from lamd_nb.models.mcdvae import MCDVAE
from lamd_nb.presets import get_preset
from lamd_nb.training.checkpoints import write_json
from lamd_nb.training.loaders import make_loader
from lamd_nb.training.loop import fit
from lamd_nb.training.losses import perceptual_loss
from lamd_nb.training.perceptual import Lite0Distance
from lamd_nb.training.stage1 import Stage1, stage1_train_states

SHAPES = "worlds:shapes"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "comparison"
HALF_SIZE = dict(half_size_steps=1000)
VARIANTS = {  # preset, what differs from its loss of stage I, and the steps until the target KL is reached: half of those that twenty minutes allow
    "fusion": ("toy", {}, 1000),
    "warp": ("warp", {}, 700),
    "objects": ("objects", {}, 600),
    "warp, half size first": ("warp", HALF_SIZE, 1000),
    "objects, half size first": ("objects", HALF_SIZE, 1000),
    "fusion, full size throughout": ("toy", dict(half_size_steps=0), 700),
    "fusion, perceptual loss": ("toy", dict(perceptual_weight=0.5), 1000),
    "fusion, true colours": ("toy", dict(augment_colours=False), 1000),
    "fusion, no weight": ("toy", dict(extra_moving_weight=0.0), 1000),
    "fusion, dilated weight": ("toy", dict(dilation=1 / 16), 1000),
}
SHOWN = range(3)  # clips in a frame grid


def settings(variant: str, seed: int, a: argparse.Namespace) -> dict:
    "All that decides how a run goes, but for the code and the machine."
    preset, changes, anneal_steps = VARIANTS[variant]
    p = get_preset(preset)
    loss = p.stage1_loss | dict(target_kl=a.target_kl, anneal_steps=anneal_steps) | changes
    return dict(variant=variant, data=a.name, seed=seed, minutes=a.minutes, clips=a.clips, size=p.size, frames=p.frames, vae=p.vae, stage1=loss,
                batch=p.stage1_training["batch_size"], lr=p.stage1_training["lr"], ema=0.99, warmup=p.stage1_training["warmup"], precision="no")


def high_frequency_energy(video: torch.Tensor, mask: torch.Tensor) -> float:
    "Sum over the pixels of a mask of the squared difference to the mean of 3 x 3 pixels."
    detail = video - F.avg_pool3d(video, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    return float((detail.square() * mask).double().sum())


def appearance(model, dataset, clips: int) -> dict:
    "Lite0 distance, and high-frequency energy over moving pixels relative to ground truth."
    distance, total, energy = Lite0Distance(), 0.0, torch.zeros(2, dtype=torch.float64)
    for rows in batch_ranges(clips):
        video = dataset.batch(rows)["video"]
        recon, mask = model.decode(*model.encode(video)), moving_mask(video)
        total += len(video) * float(perceptual_loss(distance, video[:, :, 1:], recon[:, :, 1:]))
        energy += torch.tensor([high_frequency_energy(v, mask) for v in (recon, video)])
    return dict(lite0_distance=total / clips, high_frequency_ratio=float(energy[0] / energy[1]))


def leakage_and_scores(model, size: int, frames: int, clips: int) -> dict:
    "What only a synthetic dataset can tell: leakage, shapes preserved, and reconstruction when everything moves at once."
    world, free = (ShapesWorld(size, frames, "test", mode) for mode in ("captioned", "stochastic"))
    parts = [world.batch(rows) for rows in batch_ranges(clips)]
    seen = weighted_mean([score_clips(model.decode(*model.encode(p["video"])), p) for p in parts], [len(p["video"]) for p in parts])
    again = {f"stochastic_{k}": v for k, v in reconstruction_metrics(model, free, clips).items()}
    return again | seen | dict(content_leakage=motion_transfer_leakage(model, world, clips))


@torch.no_grad()
def figures(vae, s: dict, spec: str, picture: Path) -> dict:
    "All measures of a trained autoencoder; clips of the synthetic dataset are shown in a frame grid."
    model = SimpleNamespace(vae=vae, encode=lambda v: (vae.encode_content(v[:, :, 0]), vae.encode_motion(v).mu),
                            decode=lambda content, z: vae.decode(content, z).clamp(-1, 1))
    test = ShapesWorld(s["size"], s["frames"], "test", "captioned") if spec == SHAPES else dataset_from_spec(spec, s["size"], s["frames"], split="test")
    video = test.batch(SHOWN)["video"]
    grid = rearrange(to_uint8(torch.stack([video, model.decode(*model.encode(video))])[..., ::3, :, :]), "s b c t h w -> (b s h) (t w) c")
    imageio.imwrite(picture, grid.numpy())
    return reconstruction_metrics(model, test, s["clips"]) | appearance(model, test, s["clips"]) | (
        leakage_and_scores(model, s["size"], s["frames"], s["clips"]) if spec == SHAPES else {})


def trial(s: dict, spec: str, picture: Path) -> dict:
    "Train one variant with one seed and measure it."
    seed_all(s["seed"])
    distance = Lite0Distance() if "perceptual_weight" in s["stage1"] else None
    states = stage1_train_states(Stage1(MCDVAE(**s["vae"]), **s["stage1"], perceptual_distance=distance), lr=s["lr"], ema_decay=s["ema"])
    batches = make_loader(dataset_from_spec(spec, s["size"], s["frames"]), s["batch"], s["seed"])
    with patch.object(time, "perf_counter", time.process_time):
        *_, last = fit(states, batches, minutes=s["minutes"], warmup=s["warmup"], precision=s["precision"], seed=s["seed"], show_progress=True)
    return s | dict(steps=last["step"]) | figures(states[0].ema_module.vae.cpu().eval(), s, spec, picture)


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
    say.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    say.add_argument("--minutes", type=float, default=20, help="processor minutes of training")
    say.add_argument("--seeds", type=int, default=3)
    say.add_argument("--clips", type=int, default=100, help="held-out clips to measure on")
    say.add_argument("--data", default=SHAPES, help="dataset spec, as for lamd_train; of videos, both splits")
    say.add_argument("--name", default="shapes", help="what the data are called in the results")
    say.add_argument("--target-kl", type=float, default=400, help="nats per clip, the same for every decoder")
    say.add_argument("--threads", type=int, default=1)
    say.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    say.add_argument("--pictures", type=Path, help="folder for the frame grids, if another: clips that may not be published")
    a = say.parse_args()
    if unknown := set(a.variants) - set(VARIANTS):
        say.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    if min(a.minutes, a.seeds, a.clips, a.threads, a.target_kl) <= 0:
        say.error("minutes, seeds, clips, threads and target-kl must be positive")
    torch.set_num_threads(a.threads)
    for folder in (a.out, a.pictures or a.out):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in range(a.seeds):
        for variant in a.variants or VARIANTS:
            wanted, name = settings(variant, seed, a), f"{a.name}-{variant.replace(', ', '-').replace(' ', '-')}-{seed}"
            if missing(wanted, a.out / f"{name}.json"):
                result = trial(wanted, a.data, (a.pictures or a.out) / f"{name}.png")
                write_json(a.out / f"{name}.json", to_json_values(result) | dict(machine=machine_info()))


if __name__ == "__main__":
    main()
