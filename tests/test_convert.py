"Models of older versions: names are brought up to date, numbers stay, and the shipped weights still make what they made before."
import json
import sys

import pytest
import torch
from conftest import NBS, ROOT
from safetensors.torch import load_file, save_file

from lamd_nb import LaMD
from lamd_nb.data.worlds.shapes import ShapesWorld

sys.path.insert(0, str(NBS / "_tools"))
from convert_weights import KEYS, convert, new_config, new_key  # noqa: E402

OLD = {  # a name of the first version -> today's, one for each form of pattern
    "vae.content.enter.weight": "vae.content_encoder.stem.weight",
    "generator.dmg.up.0.places.attend.q.weight": "motion_generator.dmg.up_blocks.0.self_attention.attention.q.weight",
    "generator.condition.nothing": "motion_generator.condition.null_token",
    "vae.decoder.around.1.conv1.weight": "vae.decoder.context.1.conv1.weight",
    "vae.decoder.timeline.then": "vae.decoder.temporal_upsampler.frame_embedding",
    "vae.decoder.source.ask.weight": "vae.decoder.flow.to_q.weight",
    "vae.decoder.at_full.3.bias": "vae.decoder.compositor.head.3.bias",
    "vae.decoder.slots.at_full.weight": "vae.decoder.masks.proj_full.weight",
    "vae.decoder.spins": "vae.decoder.motion.rotation_readout",
    "decoder.stiff": "decoder.motion.log_lambda",
}


def test_keys():
    "Old names become new ones; new ones stay, so that converting twice does no harm; what is no decoder's stays, too."
    assert {key: new_key(key) for key in OLD} == OLD
    shipped = load_file(ROOT / "lamd_nb/weights/toy-shapes/model.safetensors")
    assert [key for key in shipped if new_key(key) != key] == []
    assert all(new_key(replacement) == replacement for _, replacement in KEYS if "\\" not in replacement)


def test_config():
    old = dict(size=64, vae=dict(d=3, kind="slots"), generator={})
    assert new_config(old)["vae"] == dict(z_channels=3, decoder="objects") and old["vae"]["kind"] == "slots"
    assert new_config(new_config(old)) == new_config(old)
    with pytest.raises(ValueError, match="kind 'plain' is no longer part of lamd_nb"):
        new_config(dict(vae=dict(kind="plain"), generator={}))


def test_folder(tmp_path):
    "A folder becomes another, or itself; each tensor bit for bit what it was."
    state = {key: torch.randn(3).half() for key in OLD if key.startswith("vae.")}
    (old := tmp_path / "old").mkdir()
    (old / "README.md").write_text("a card")
    (old / "config.json").write_text(json.dumps(dict(size=64, vae=dict(kind="slots"), generator={})))
    save_file(state, old / "model.safetensors")
    assert convert(old, tmp_path / "new") == len(state)
    made = load_file(tmp_path / "new/model.safetensors")
    assert made.keys() == {OLD[key] for key in state} and all(torch.equal(made[OLD[key]], value) for key, value in state.items())
    assert (tmp_path / "new/README.md").read_text() == "a card"
    assert convert(old, old) == len(state) and convert(old, old) == 0
    assert (old / "model.safetensors").read_bytes() == (tmp_path / "new/model.safetensors").read_bytes()


def test_shipped_weights_make_what_they_made():
    "Every fourth pixel of frames 3, 9, 15 of 8 reconstructions and of a sample, made by the version before `kind` became `decoder`."
    model, made = LaMD.from_pretrained("toy-shapes"), load_file(ROOT / "tests/fixtures/toy_shapes.safetensors")
    parts = [ShapesWorld(64, split="test", mode=mode).batch(torch.arange(4)) for mode in ("captioned", "stochastic")]
    with torch.no_grad():
        again = model.decode(*model.encode(torch.cat([part["video"] for part in parts])))
    sample = model(parts[0]["video"][0, :, 0], parts[0]["caption"][0], generator=torch.Generator().manual_seed(0)).video
    for name, video in (("reconstruction", again), ("sample", sample)):
        torch.testing.assert_close(video[:, :, 3::6, ::4, ::4], made[name], atol=1e-4, rtol=0)
