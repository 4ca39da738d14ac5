"What LaMD promises at its doors: same seed same clip, any image, save and load, and one clear sentence for bad input."
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lamd_nb import LaMD
from lamd_nb.pipeline import shipped

WORDS = ["the", "red", "circle", "is", "sliding", "left"]
TINY = dict(size=32, vae=dict(widths=(8, 8, 16), motion_width=8),
            generator=dict(dmg=dict(content_channels=64, width=16, mults=(1, 1, 1), token_dim=16),
                           condition=dict(kind="text", words=WORDS, dim=16, depth=1, heads=2, max_len=8)))


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = LaMD(**TINY)
    for p in model.generator.dmg.leave.parameters():
        torch.nn.init.normal_(p, std=.1)
    return model


@pytest.fixture
def saved(tiny, tmp_path):
    tiny.save_pretrained(tmp_path/"m")
    return tmp_path/"m"


def test_same_seed_same_clip(tiny):
    image = torch.rand(3, 32, 32)*2 - 1
    a, b, c = (tiny(image, "the red circle is sliding left", n=2, steps=2, seed=s) for s in (0, 0, 1))
    assert a.video.shape == (2, 3, 16, 32, 32) and a.z_m.shape == (2, 3, 8, 8)
    assert a.video.abs().max() <= 1
    assert torch.equal(a.video, b.video) and not torch.equal(a.z_m, c.z_m)
    assert not torch.equal(a.z_m[0], a.z_m[1])


def test_sentence_changes_the_clip(tiny):
    image = torch.rand(3, 32, 32)*2 - 1
    a, b = tiny(image, "the red circle", steps=2), tiny(image, None, steps=2)
    assert not torch.equal(a.z_m, b.z_m)


def test_any_image(tiny, tmp_path):
    rgb = (np.random.default_rng(0).random((50, 70, 3))*255).astype("uint8")
    Image.fromarray(rgb).save(tmp_path/"a.png")
    outs = [tiny(x, steps=1) for x in (tmp_path/"a.png", str(tmp_path/"a.png"), Image.fromarray(rgb), rgb)]
    for out in outs[1:]:
        torch.testing.assert_close(out.image, outs[0].image)
    assert "crop" in outs[0].note


def test_save_and_load(tiny, saved):
    again = LaMD.from_pretrained(saved)
    for (k, a), b in zip(tiny.state_dict().items(), again.state_dict().values()):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3), k
    assert json.loads((saved/"config.json").read_text())["size"] == 32
    again.save_pretrained(saved.parent/"n")
    assert (saved.parent/"n/model.safetensors").read_bytes() == (saved/"model.safetensors").read_bytes()


@pytest.mark.parametrize("call, says", [
    (dict(image="no/such.png"), "no/such.png"),
    (dict(image={"a": 1}), "image"),
    (dict(prompt="the rde circle"), "did you mean 'red'"),
    (dict(sampler="euler"), "dpmpp_2m"),
    (dict(steps=0), "1 to 1000"),
    (dict(steps=1001), "1 to 1000"),
    (dict(n=0), "at least 1"),
    (dict(n=2, prompt=["the"]), "1 sentences for 2 clips"),
])
def test_bad_calls(tiny, call, says):
    image = call.pop("image", torch.zeros(3, 32, 32))
    with pytest.raises((ValueError, TypeError, OSError), match=says):
        tiny(image, **call)


def test_corrupt_image(tiny, tmp_path):
    (tmp_path/"a.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="a.png"):
        tiny(tmp_path/"a.png")


def test_truncated_weights(saved):
    data = (saved/"model.safetensors").read_bytes()
    (saved/"model.safetensors").write_bytes(data[:len(data)//2])
    with pytest.raises(ValueError, match="damaged or cut off"):
        LaMD.from_pretrained(saved)


def test_weights_of_another_config(saved):
    state = load_file(saved/"model.safetensors")
    first = next(iter(state))
    save_file(state | {first: torch.zeros(3)}, saved/"model.safetensors")
    with pytest.raises(ValueError, match="another config"):
        LaMD.from_pretrained(saved)


def test_a_generator_that_sees_less_is_of_another_version():
    old = {**TINY["generator"], "dmg": TINY["generator"]["dmg"] | dict(content_channels=16)}
    with pytest.raises(ValueError, match="reads 16 channels of the first frame, but is shown 64"):
        LaMD(**TINY | dict(generator=old))


@pytest.mark.parametrize("name", shipped())
def test_shipped_weights_make_a_clip(name):
    lamd = LaMD.from_pretrained(name)
    assert lamd(torch.zeros(3, lamd.size, lamd.size), steps=1).video.shape == (1, 3, 16, lamd.size, lamd.size)


def test_pickle_is_refused_unread(saved):
    shutil.move(saved/"model.safetensors", saved/"pytorch_model.bin")
    with pytest.raises(ValueError, match="refused unread"):
        LaMD.from_pretrained(saved)


def test_unknown_name():
    with pytest.raises(ValueError, match="toy-shapes"):
        LaMD.from_pretrained("toy-shaps")


def test_folder_without_config(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        LaMD.from_pretrained(tmp_path)
