"""TFRecord: real records, read a second time by looking for the names among the bytes; records of our own, framed by the rules of the format alone."""
from pathlib import Path

import numpy as np
import pytest
from sample_videos import crc32c, framed

from lamd_nb.data.benchmarks.records import scan_tfrecord, parse_tf_example, write_tfrecord

FIXTURES = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "fixtures" / "bair_tfrecord"


def test_real_robot():
    "Thirty frames of two cameras, actions and places, in every record; the images are where their names are."
    if not FIXTURES.is_dir():
        pytest.skip("the sample records are not here")
    files = sorted(FIXTURES.rglob("*.tfrecords"))
    assert files
    for file in files:
        data = np.memmap(file, mode="r")
        for first, size in scan_tfrecord(data, file.name, check_payloads=True):
            payload = data[first:first + size].tobytes()
            said = parse_tf_example(payload)
            for t in range(30):
                assert len(said[f"{t}/action"]) == 4 and len(said[f"{t}/endeffector_pos"]) == 3
                for camera in ("image_aux1", "image_main"):
                    name = f"{t}/{camera}/encoded".encode()
                    at = payload.index(b"\x0a" + bytes([len(name)]) + name)     # tag and length stand before a name
                    after = payload[at + 2 + len(name):][:12 + 64 * 64 * 3]      # ... and tags and lengths before the image
                    assert bytes(said[name.decode()][0]) in after and len(said[name.decode()][0]) == 64 * 64 * 3


def test_written_by_the_rules_alone(tmp_path):
    "Reader and writer against records that neither of them made."
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(bytes(32)) == 0x8A9136AA
    payloads = [b"", b"one", bytes(range(256)) * 5]
    raw = b"".join(map(framed, payloads))
    data = np.frombuffer(raw, np.uint8)
    assert [raw[a:a + n] for a, n in scan_tfrecord(data, check_payloads=True)] == payloads
    write_tfrecord(tmp_path / "three", payloads)
    assert (tmp_path / "three").read_bytes() == raw


def test_example_from_bytes_by_hand():
    "Every byte of a small message as the wire format has it: name a, bytes 'hi'; name b, whole numbers 1 and 300; name c, the float 1."
    a = "0a0b" "0a0161" "1206" "0a04" "0a026869"
    b = "0a0c" "0a0162" "1207" "1a05" "0a0301ac02"
    c = "0a0d" "0a0163" "1208" "1206" "0a040000803f"
    whole = bytes.fromhex(a + b + c)
    said = parse_tf_example(bytes([0x0A, len(whole)]) + whole)
    assert list(map(bytes, said["a"])) == [b"hi"] and said["b"].tolist() == [1, 300] and said["c"].tolist() == [1.0]


def test_what_stands_before_the_damage():
    "Cut or flipped anywhere in the third record: two are left, and one sentence."
    raw = b"".join(map(framed, (b"one", b"two", b"three")))
    for bad in (raw[:-1], raw[:40], raw[:38] + b"!" + raw[39:], raw[:-6] + b"!" + raw[-5:]):
        lost = []
        assert len(scan_tfrecord(np.frombuffer(bad, np.uint8), "x", check_payloads=True, errors=lost)) == 2 and len(lost) == 1 and "record 2" in lost[0]
        with pytest.raises(ValueError, match="record 2"):
            scan_tfrecord(np.frombuffer(bad, np.uint8), "x", check_payloads=True)
