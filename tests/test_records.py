"""TFRecord: real records, read a second time by looking for the names among the bytes."""
from pathlib import Path

import numpy as np
import pytest

from lamd_nb.data.records import find_records, parse_example

FIXTURES = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "fixtures" / "bair_tfrecord"


def test_real_robot():
    "Thirty frames of two cameras, actions and places, in every record; the pictures are where their names are."
    if not FIXTURES.is_dir():
        pytest.skip("the sample records are not here")
    files = sorted(FIXTURES.rglob("*.tfrecords"))
    assert files
    for file in files:
        data = np.memmap(file, mode="r")
        for first, size in find_records(data, file.name, payloads=True):
            payload = data[first:first + size].tobytes()
            said = parse_example(payload)
            for t in range(30):
                assert len(said[f"{t}/action"]) == 4 and len(said[f"{t}/endeffector_pos"]) == 3
                for camera in ("image_aux1", "image_main"):
                    name = f"{t}/{camera}/encoded".encode()
                    at = payload.index(b"\x0a" + bytes([len(name)]) + name)     # tag and length stand before a name
                    after = payload[at + 2 + len(name):][:12 + 64 * 64 * 3]      # ... and tags and lengths before the picture
                    assert bytes(said[name.decode()][0]) in after and len(said[name.decode()][0]) == 64 * 64 * 3
