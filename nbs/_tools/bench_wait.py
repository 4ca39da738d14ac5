"""How long one waits for data: for the first clip of a long video, for the list of a large folder, for a look at a full BAIR, for a world.

    python nbs/_tools/bench_wait.py              all of it
    python nbs/_tools/bench_wait.py seek worlds  some of it

seek     the first clip of a video of 1,400 frames against "decode the whole file, then slice", both with PyAV
listing  a folder of 50,000 videos (hard links to one): the first start, the second, and the memory it takes
bair     `lamd_data check` on 170 files of 256 records (hard links to one)
worlds   clips a second of processor time, 64 pixels, 16 frames, one thread

Seconds are medians of several tries; where two ways are compared they take turns. Everything is written into a temporary folder."""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import imageio.v3 as iio
import numpy as np
import torch

from lamd_nb.data.video.clips import Clips
from lamd_nb.data.benchmarks.records import write_tfrecord
from lamd_nb.data.specs import WORLDS, make_world
from lamd_nb.data.worlds.shapes import ShapesWorld


def seconds(call) -> float:
    "Wall-clock seconds of a call."
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def seek(home: Path, frames: int = 1400, size: int = 128, tries: int = 15):
    "First clip of a long video without cuts (so that key frames are rare), as it would be met in training: somewhere in it."
    scene = ShapesWorld(size, frames).batch([0])["video"][0]
    x = ((scene + 1) * 127.5).round().byte().permute(1, 2, 3, 0).contiguous().numpy()
    iio.imwrite(home / "long.mp4", x, plugin="pyav", codec="libx264", fps=25, out_pixel_format="yuv420p")

    def whole(start):
        with av.open(str(home / "long.mp4")) as box:
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in box.decode(video=0)])
        return decoded[start : start + 16]

    rows = []
    for k in range(tries):
        clips = Clips(home, seed=k, frame_cache_mib=0)
        start = clips.clip_frame_indices(clips.open(0), 0)[0]
        rows.append((seconds(lambda: Clips(home, seed=k, frame_cache_mib=0)[0]), seconds(lambda: whole(start))))
    ratios = sorted(b / a for a, b in rows)
    print("| first clip of 1,400 frames of 128 x 128 | seconds |\n|---|---|")
    print(f"| `Clips` | {median(a for a, b in rows):.3f} |\n| decode the whole file, then slice | {median(b for a, b in rows):.3f} |")
    print(f"\nratio: median {median(ratios):.1f}, worst {ratios[0]:.1f} of {tries} places in the video\n")


def listing(home: Path, count: int = 50_000):
    "A process of its own lists the folder, twice, and says what it cost."
    reader = home / "one.mp4"
    iio.imwrite(reader, np.zeros((20, 64, 64, 3), np.uint8), plugin="pyav", codec="libx264", fps=25)
    for k in range(count):
        folder = home / f"many/{k // 1000:02d}"
        if k % 1000 == 0:
            folder.mkdir(parents=True)
        os.link(reader, folder / f"{k}.mp4")
    program = """
import sys, time
from lamd_nb.data.video.clips import Clips
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))/1024
before, began = peak(), time.perf_counter()
clips = Clips(sys.argv[1])
print(len(clips), time.perf_counter() - began, peak() - before, peak())
"""
    time.sleep(3)  # a folder that has just changed is not remembered
    print("| start | videos | seconds | MiB more | MiB in all |\n|---|---|---|---|---|")
    for start in ("first", "second"):
        done = subprocess.run([sys.executable, "-c", program, str(home / "many")], env=os.environ | dict(LAMD_CACHE=str(home / "cache")), capture_output=True, text=True, check=True)
        n, took, more, total = map(float, done.stdout.split())
        print(f"| {start} | {int(n):,} | {took:.2f} | {more:.0f} | {total:.0f} |")
    print()


def bair(home: Path, files: int = 170):
    "A BAIR of full length: records of random pixels, one file under many names."
    def number(n):
        return bytes([n & 127 | 128]) + number(n >> 7) if n > 127 else bytes([n])

    def field(n, data):
        return number(n << 3 | 2) + number(len(data)) + data

    chance = np.random.default_rng(0)
    def record():
        said = [(f"{t}/{camera}/encoded", chance.bytes(64 * 64 * 3)) for t in range(30) for camera in ("image_main", "image_aux1")]
        return field(1, b"".join(field(1, field(1, name.encode()) + field(2, field(1, field(1, x)))) for name, x in said))

    root = home / "softmotion30_44k"
    (root / "train").mkdir(parents=True)
    (root / "test").mkdir()
    first = root / "test/traj_0_to_255.tfrecords"
    write_tfrecord(first, [record() for _ in range(256)])
    for k in range(1, files):
        os.link(first, root / f"train/traj_{256 * k}_to_{256 * k + 255}.tfrecords")
    command = [str(Path(sys.executable).parent / "lamd_data"), "check", f"bair:{home}"]
    env = os.environ | dict(LAMD_CACHE=str(home / "cache"))
    for start in ("first", "second"):
        began = time.perf_counter()
        table = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        print(f"{start} `lamd_data check`: {time.perf_counter() - began:.1f} s")
    print(f"\n{table}")


def worlds(home: Path, batch: int = 16, tries: int = 5):
    "Processor time, which a busy machine changes less than the clock on the wall."
    torch.set_num_threads(1)
    print("| world | clips a second of processor time |\n|---|---|")
    for name in ("shapes", *WORLDS):
        world, speeds = make_world(name), []
        world.batch(range(batch))
        for k in range(tries):
            began = time.process_time()
            world.batch(range(batch * (k + 1), batch * (k + 2)))
            speeds.append(batch / (time.process_time() - began))
        print(f"| {name} | {median(speeds):.0f} |")
    print()


def main():
    parts = dict(seek=seek, listing=listing, bair=bair, worlds=worlds)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"{', '.join(parts)}; by default all")
    args = parser.parse_args()
    if unknown := [p for p in args.parts if p not in parts]:
        parser.error(f"unknown part '{unknown[0]}'; known: {', '.join(parts)}")
    for name in args.parts or parts:
        with tempfile.TemporaryDirectory() as home:
            parts[name](Path(home))


if __name__ == "__main__":
    main()
