"""The shipped text-to-video model where the evaluation report does not look: guidance scales, two commands in one prompt, objects that are not in the image, and objects that meet.

    python nbs/_tools/prompt_sweep.py                 200 held-out scenes, about ten minutes of one core

Writes nbs/results/toy-shapes/prompts.json, which the chapters Pipeline and Object layers print."""
import argparse
import time
from pathlib import Path

import torch

from lamd_nb.core import machine_info
from lamd_nb.data.worlds.drawing.shapes import COLOURS
from lamd_nb.data.worlds.shapes import ShapesWorld
from lamd_nb.evaluation.adherence import action_precision, distractors_static, shapes_preserved
from lamd_nb.evaluation.report import batch_ranges, permuted_prompts, prompt_adherence, to_json_values
from lamd_nb.evaluation.tracking import track_objects
from lamd_nb.pipeline import LaMD
from lamd_nb.training.checkpoints import write_json

RESULT = Path(__file__).resolve().parents[1] / "results" / "toy-shapes" / "prompts.json"
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


def sample(lamd, batch: dict, prompts: list) -> torch.Tensor:
    "One clip for each scene and prompt, seeded by the first scene's index, with the pipeline's default sampler, steps and guidance."
    content = lamd.vae.encode_content(batch["video"][:, :, 0])
    return lamd.decode(content, lamd.sample_motion(content, prompts, generator=torch.Generator().manual_seed(int(batch["index"][0]))))


def mean(parts: list[dict]) -> dict:
    "Mean over all clips of lists of values, entries that could not be measured left out."
    return {k: float(torch.cat([p[k].float().flatten() for p in parts]).nanmean()) for k in parts[0]}


def guidance(lamd, world, clips: int) -> dict:
    "Adherence for each guidance scale, on the same scenes with the same noise."
    names = "action_precision", "distractors_static", "shapes_preserved"
    result = {f"{g:g}": prompt_adherence(lamd, world.batch, clips, (0,), guidance_scale=g) for g in SCALES}
    return {g: {name: r[name] for name in names} for g, r in result.items()}


def two_commands(lamd, world, rows: range) -> dict:
    "Two captions of one scene, about different objects, as one prompt that the model can read: which of the two are followed?"
    first, second = world.batch(rows), permuted_prompts(world, rows)
    words = torch.tensor([len(f"{a} {b}".split()) for a, b in zip(first["caption"], second["caption"])])
    keep = ((first["referent"] != second["referent"]) & (words < lamd.motion_generator.condition.config["max_len"])).nonzero()[:, 0]
    pick = lambda batch: {k: v[keep] if isinstance(v, torch.Tensor) else [v[i] for i in keep.tolist()] for k, v in batch.items()}
    first, second = pick(first), pick(second)
    video = sample(lamd, first, [f"{a} {b}" for a, b in zip(first["caption"], second["caption"])])
    seen = track_objects(video, first)
    done = action_precision(seen, first), action_precision(seen, second)
    return dict(first_command=done[0], second_command=done[1], both_commands=done[0] & done[1])


def absent_object(lamd, world, rows: range) -> dict:
    "The colour of the object that the prompt names is replaced by one that no object has."
    batch = world.batch(rows)
    there = torch.zeros(len(rows), len(COLOURS), dtype=torch.bool).scatter_(1, batch["colour"], batch["present"])
    colours, prompts = list(COLOURS), []
    for i, caption in enumerate(batch["caption"]):
        own, other = colours[batch["colour"][i, batch["referent"][i]]], colours[int((~there[i]).int().argmax())]
        if own not in caption.split():
            raise ValueError(f"the caption '{caption}' names no colour: use full_captions=True")
        prompts.append(caption.replace(own, other))
    seen = track_objects(sample(lamd, batch, prompts), batch)
    return dict(nothing_moves=distractors_static(seen, batch | dict(referent=torch.full_like(batch["referent"], -1))),
                same_shape_and_size_moves_as_said=action_precision(seen, batch), another_object_moves=~distractors_static(seen, batch))


def meeting(seen, batch: dict) -> torch.Tensor:
    "(b k) whether an object comes so near to another one that their circumscribed circles overlap."
    distance = (seen.position[:, :, None] - seen.position[:, None]).norm(dim=-1).amin(-1)
    reach = batch["radius"][:, :, None] + batch["radius"][:, None]
    pair = batch["present"][:, :, None] & batch["present"][:, None] & ~torch.eye(distance.shape[1], dtype=torch.bool)
    return ((distance < reach) & pair).any(2)


def objects_that_meet(lamd, world, rows: range) -> dict:
    "Unprompted clips: is the shape of an object preserved if it meets another one on its way, and if it does not? Ground truth beside it."
    batch = world.batch(rows)
    result = {}
    for name, video in (("sample", sample(lamd, batch, [""] * len(rows))), ("ground_truth", batch["video"])):
        seen = track_objects(video, batch)
        kept, met = shapes_preserved(seen, batch), meeting(seen, batch)
        result |= {f"{name}_preserved_after_meeting": torch.where(met, kept, torch.nan), f"{name}_preserved_without": torch.where(met, torch.nan, kept),
                   f"{name}_share_that_meets": torch.where(batch["present"], met.float(), torch.nan)}
    return result


@torch.no_grad()
def main():
    "Measure and write."
    say = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say.add_argument("--clips", type=int, default=200, help="held-out scenes for each measurement")
    say.add_argument("--threads", type=int, default=1)
    say.add_argument("--out", type=Path, default=RESULT)
    a = say.parse_args()
    if min(a.clips, a.threads) <= 0:
        say.error("clips and threads must be positive")
    torch.set_num_threads(a.threads)
    start, lamd = time.perf_counter(), LaMD.from_pretrained("toy-shapes")
    frames = lamd.vae.config["frames"]
    world, full, free = (ShapesWorld(lamd.size, frames, "test", mode, full_captions=all_words)
                         for mode, all_words in (("captioned", False), ("captioned", True), ("stochastic", False)))
    over = lambda measure, data: to_json_values(mean([measure(lamd, data, rows) for rows in batch_ranges(a.clips)]))
    result = dict(guidance={g: to_json_values(r) for g, r in guidance(lamd, world, a.clips).items()}, two_commands=over(two_commands, world),
                  absent_object=over(absent_object, full), objects_that_meet=over(objects_that_meet, free))
    write_json(a.out, result | dict(clips=a.clips, seconds=round(time.perf_counter() - start), machine=machine_info()))


if __name__ == "__main__":
    main()
