"""How fast clips come out of videos and out of a cache of them, 64 pixels and 16 frames, by two worker processes.

    python nbs/_tools/bench_data.py                  videos of the shapes world, written and cached in a temporary folder
    python nbs/_tools/bench_data.py --data FOLDER    your own videos
    python nbs/_tools/bench_data.py --steps 20       also train the autoencoder for some steps, and show how long it waits

Videos and cache take turns, so that whatever else the machine does slows both; the medians of several rounds are shown.
Processor time is that of one process alone, which a busy machine changes less."""
import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import imageio.v3 as iio
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from lamd_nb.data.video.clips import Clips
from lamd_nb.data.video.cache import CachedClips
from lamd_nb.data.video.cache_write import write_cache
from lamd_nb.data.worlds.shapes import ShapesWorld
from lamd_nb.models.mcdvae import MCDVAE
from lamd_nb.training.step import prepare
from lamd_nb.presets import get_preset
from lamd_nb.training.stage1 import Stage1, stage1_train_states
from lamd_nb.training.loaders import iterate_batches, make_loader


class Batches:
    "Batches of a dataset, by number, for a loader."
    def __init__(self, dataset, first, count, size): self.dataset, self.first, self.count, self.size = dataset, first, count, size
    def __len__(self): return self.count
    def __getitem__(self, n): return self.dataset.batch(range((self.first + n) * self.size, (self.first + n + 1) * self.size))


def write_videos(folder: Path, count: int, frames: int = 32) -> Path:
    "Videos of 64 x 64 pixels, as most people have them: H.264, a key frame now and then."
    for k in range(count):
        x = ShapesWorld(64, frames).batch([k])["video"][0]
        iio.imwrite(folder / f"{k}.mp4", ((x + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy(), plugin="pyav", codec="libx264", fps=25, out_pixel_format="yuv420p")
    return folder


def delivered(dataset, clips: int, size: int, first: int = 0, workers: int = 2) -> float:
    "Clips a second that worker processes hand over, once they have begun."
    skip = 2 * workers
    loader = iter(DataLoader(Batches(dataset, first, clips // size + skip, size), batch_size=None, num_workers=workers, prefetch_factor=4))
    for _ in range(skip):
        next(loader)
    start = time.perf_counter()
    count = sum(len(batch["video"]) for batch in loader)
    return count / (time.perf_counter() - start)


def threaded(dataset, clips: int, size: int, first: int = 0, threads: int = 2) -> float:
    "Clips a second that threads of this process make ahead, as `fit` does it with prefetch."
    batches = iterate_batches(make_loader(dataset, size), 10**6 + first, prefetch=threads)
    next(batches)
    start, count = time.perf_counter(), 0
    while count < clips:
        count += len(next(batches)["video"])
    took = time.perf_counter() - start
    batches.close()
    return count / took


def processor(dataset, clips: int, size: int) -> float:
    "Milliseconds of processor time for a clip, in this process."
    dataset.batch(range(size))
    start = time.process_time()
    for n in range(1, max(clips // size, 1) + 1):
        dataset.batch(range(n * size, (n + 1) * size))
    return 1000 * (time.process_time() - start) / (max(clips // size, 1) * size)


def waiting(dataset, steps: int, prefetch: int, name: str = "toy") -> tuple:
    "Share of the time that a training step of the autoencoder waits for its batch; seconds a step."
    p = get_preset(name)
    settings = dict(p.stage1_training)
    size, _ = settings.pop("batch"), settings.pop("warmup")
    train_state = prepare(stage1_train_states(Stage1(MCDVAE(**p.vae), **p.stage1_loss), **settings)[0], Accelerator(cpu=True))
    batches, waited, start = iterate_batches(make_loader(dataset, size), 0, prefetch=prefetch), 0.0, 0.0
    for n in range(steps + 2):
        if n == 2:
            waited, start = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        train_state.loss_fn(batch, n)[0].backward()
        train_state.optimizer.step()
        train_state.optimizer.zero_grad()
    took = time.perf_counter() - start
    batches.close()
    return waited / took, took / steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of videos; by default some are written")
    parser.add_argument("--videos", type=int, default=64, help="how many to write")
    parser.add_argument("--clips", type=int, default=4096, help="clips from the cache in a round; an eighth of them from videos")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="training steps, to see how long each waits for its clips")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        folder = args.data or write_videos(Path(home), args.videos)
        out = Path(home) / "cached"
        start = time.perf_counter()
        facts = write_cache(Clips(folder), out)
        seconds = time.perf_counter() - start
        videos, cached = Clips(folder, frame_cache_mib=0), CachedClips(out)
        rows = []
        for n in range(args.rounds):
            rows.append((delivered(videos, args.clips // 8, args.batch, n * args.clips), delivered(cached, args.clips, args.batch, n * args.clips),
                         threaded(cached, args.clips, args.batch, n * args.clips)))
        mp4, fast, thread, ratio = (median(column) for column in zip(*((a, b, c, b / a) for a, b, c in rows)))
        print(f"cached once: {facts['num_videos']} videos, {facts['num_frames']} frames in {seconds:.1f} s\n")
        print("| from | clips a second, 2 worker processes | processor time a clip |\n|---|---|---|")
        print(f"| videos | {mp4:,.0f} | {processor(videos, 256, args.batch):.2f} ms |")
        print(f"| cache | {fast:,.0f} | {processor(cached, 2048, args.batch):.2f} ms |")
        print(f"| cache, 2 threads instead | {thread:,.0f} | |")
        print(f"\nratio, median of {args.rounds} rounds: {ratio:.1f} (rounds: {', '.join(f'{b / a:.1f}' for a, b, c in rows)}; cache: {', '.join(f'{b:,.0f}' for a, b, c in rows)})")
        if args.steps:
            torch.set_num_threads(2)
            print("\n| step of the autoencoder reads | batches ahead | waits | seconds a step |\n|---|---|---|---|")
            for dataset, what in ((videos, "videos"), (cached, "cache")):
                for ahead in (0, 2):
                    share, step = waiting(dataset, args.steps, ahead)
                    print(f"| {what} | {ahead} | {100 * share:.2f} % | {step:.2f} |")


if __name__ == "__main__":
    main()
