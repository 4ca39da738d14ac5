"Videos that the tests write for themselves, and the real ones where they are at hand."
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lamd_nb.data.worlds.shapes import ShapesWorld

REAL = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def pixels(k: int, frames: int = 24, size: int = 64) -> np.ndarray:
    "(t h w 3) bytes of one clip of the shapes world."
    video = ShapesWorld(size, frames, "test").batch([k])["video"][0]
    return ((video + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()


def write(path: Path, x: np.ndarray, codec: str = "libx264", pix_fmt: str = "yuv444p", times=None, fps: int = 25, box: dict = {}, **options) -> Path:
    "Write frames; `times` in milliseconds, if they are not evenly spaced; options for the box, and for the codec."
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=box) as out:
        track = out.add_stream(codec, rate=fps, options=options)
        track.height, track.width, track.pix_fmt = *x.shape[1:3], pix_fmt
        track.time_base = track.codec_context.time_base = Fraction(1, fps if times is None else 1000)
        for k, pic in enumerate(x):
            frame = av.VideoFrame.from_ndarray(pic, "rgb24" if x.shape[-1] == 3 else "rgba")
            frame.pts = k if times is None else int(times[k])
            out.mux(track.encode(frame))
        out.mux(track.encode())
    return path


def whole(path: Path) -> np.ndarray:
    "(t h w 3) every frame, by PyAV alone."
    with av.open(str(path)) as box:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in box.decode(video=0)])


def as_bytes(video: torch.Tensor) -> np.ndarray:
    "A clip (3 t h w) in [-1,1] as (t h w 3) bytes."
    return ((video + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()


def real(*parts: str) -> Path:
    path = REAL.joinpath(*parts)
    if not path.is_dir():
        pytest.skip(f"the sample videos are not here: {Path(*parts)}")
    return path


def touch(root: Path, *names: str):
    "Empty files, and the folders they lie in."
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def crc32c(data: bytes) -> int:
    "CRC-32C bit by bit, straight from its polynomial."
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def framed(payload: bytes) -> bytes:
    "One record of a TFRecord file, by the table in TensorFlow's documentation."
    def mask(data):
        crc = crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)
    length = struct.pack("<Q", len(payload))
    return length + mask(length) + payload + mask(payload)
