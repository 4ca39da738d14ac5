"What LaMD promises: same seed same clip, any image, diffusers' call, any precision, save and load, and one clear sentence for bad input."
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lamd_nb import LaMD
from lamd_nb.pipeline import DECODE_CHUNK, clip_generator
from lamd_nb.pretrained import list_pretrained

WORDS = ["the", "red", "circle", "is", "sliding", "left"]
TINY = dict(size=32, vae=dict(widths=(8, 8, 16), motion_width=8),
            motion_generator=dict(dmg=dict(content_channels=64, width=16, channel_mult=(1, 1, 1), token_dim=16),
                                  condition=dict(condition_type="text", words=WORDS, dim=16, depth=1, heads=2, max_len=8)))


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = LaMD(**TINY)
    for p in model.motion_generator.dmg.head.parameters():
        torch.nn.init.normal_(p, std=.1)
    return model


@pytest.fixture
def saved(tiny, tmp_path):
    tiny.save_pretrained(tmp_path/"m")
    return tmp_path/"m"


PROMPT = "the red circle is sliding left"


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))*2 - 1


def test_same_seed_same_clip(tiny, images):
    a, b, c = (tiny(images[0], PROMPT, num_videos_per_prompt=2, num_inference_steps=2, seed=s) for s in (0, 0, 1))
    assert a.video.shape == (2, 3, 16, 32, 32) and a.z_m.shape == (2, 3, 8, 8)
    assert a.video.abs().max() <= 1
    assert torch.equal(a.video, b.video) and not torch.equal(a.z_m, c.z_m)
    assert not torch.equal(a.z_m[0], a.z_m[1])


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m"])
def test_a_clip_does_not_depend_on_its_batch(tiny, images, sampler):
    "Alone, as the first of four, beside other images, beside a clip without prompt: the same clip, video by video."
    how = dict(num_inference_steps=4, sampler=sampler, seed=3)
    close = dict(atol=1e-4, rtol=1e-3)
    one = tiny(images[1], PROMPT, num_videos_per_prompt=2, **how)
    four = tiny(images[1], PROMPT, num_videos_per_prompt=4, **how)
    torch.testing.assert_close(four.z_m[:2], one.z_m, **close)
    torch.testing.assert_close(four.video[:2], one.video, **close)
    assert (four.z_m[0] - four.z_m[1]).abs().max() > .1
    batch = tiny(list(images), [None, PROMPT, "the red"], num_videos_per_prompt=2, **how)
    torch.testing.assert_close(batch.z_m[2:4], one.z_m, **close)
    torch.testing.assert_close(batch.z_m[:2], tiny(images[0], None, num_videos_per_prompt=2, **how).z_m, **close)


def test_all_samplers_start_from_the_same_noise(tiny, images):
    seen = []
    def first(pipe, i, timestep, kept):
        seen.append(kept["latents"].clone())
    for sampler in ("ddim", "dpmpp_2m"):
        tiny(images[0], PROMPT, num_inference_steps=1, sampler=sampler, callback_on_step_end=first)
    torch.testing.assert_close(*seen, atol=1e-4, rtol=1e-4)


def test_generators(tiny, images):
    "One for all draws as a batch; a list gives each clip its own; none is `seed`."
    own = lambda: [clip_generator(5, i) for i in range(2)]
    how = dict(num_videos_per_prompt=2, num_inference_steps=2, sampler="ddpm")
    a, b = tiny(images[0], PROMPT, generator=own(), **how), tiny(images[0], PROMPT, seed=5, **how)
    assert torch.equal(a.z_m, b.z_m)
    swapped = tiny(images[0], PROMPT, generator=own()[::-1], **how)
    torch.testing.assert_close(swapped.z_m, a.z_m.flip(0), atol=1e-4, rtol=1e-3)
    c, d = (tiny(images[0], PROMPT, generator=torch.Generator().manual_seed(1), **how) for _ in range(2))
    assert torch.equal(c.z_m, d.z_m) and not torch.equal(c.z_m, a.z_m)


def test_images_and_prompts_are_one_or_many(tiny, images):
    how = dict(num_inference_steps=1, num_videos_per_prompt=2)
    prompts = [PROMPT, "the red", "the"]
    for image, prompt, n, m in ((images[0], None, 2, 1), (images[0], prompts, 6, 1), (list(images), PROMPT, 6, 3), (images, prompts, 6, 3), (list(images), None, 6, 3)):
        out = tiny(image, prompt, **how)
        assert len(out.video) == len(out.z_m) == n and len(out.image) == m
    all_of_them = tiny(images, prompts, **how)
    for i in range(3):
        torch.testing.assert_close(all_of_them.z_m[2*i:2*i + 2], tiny(images[i], prompts[i], **how).z_m, atol=1e-4, rtol=1e-3)


def test_output_types(tiny, images):
    how = dict(num_inference_steps=1, num_videos_per_prompt=2)
    pt, array, pil = (tiny(images[0], PROMPT, output_type=kind, **how).video for kind in ("pt", "np", "pil"))
    assert array.shape == (2, 16, 32, 32, 3) and array.dtype == np.uint8
    assert np.abs(array - (pt.permute(0, 2, 3, 4, 1).numpy() + 1)*127.5).max() <= .51
    assert [len(clip) for clip in pil] == [16, 16] and (np.asarray(pil[1][7]) == array[1, 7]).all()


def test_callback_on_step_end(tiny, images):
    seen = []
    def watch(pipe, i, timestep, kept):
        seen.append((pipe is tiny, i, timestep, kept["latents"].shape, kept["x0"].shape))
    plain = tiny(images[0], PROMPT, num_inference_steps=4)
    watched = tiny(images[0], PROMPT, num_inference_steps=4, callback_on_step_end=watch)
    assert torch.equal(plain.z_m, watched.z_m)
    assert seen == [(True, i, t, (1, 3, 8, 8), (1, 3, 8, 8)) for i, t in enumerate((999, 749, 499, 249))]
    def steer(pipe, i, timestep, kept):
        return dict(latents=kept["latents"] + (i == 1))
    assert not torch.allclose(plain.z_m, tiny(images[0], PROMPT, num_inference_steps=4, callback_on_step_end=steer).z_m, atol=1e-3)


def test_many_clips_are_decoded_in_chunks(tiny, images, monkeypatch):
    sizes, decode = [], type(tiny.vae).decode
    def counted(vae, *args, **kwargs):
        out = decode(vae, *args, **kwargs)
        sizes.append(len(out))
        return out
    content, z = tiny.encode(torch.rand(1, 3, 16, 32, 32)*2 - 1)
    n = 2*DECODE_CHUNK + 3
    monkeypatch.setattr(type(tiny.vae), "decode", counted)
    with torch.no_grad():
        video = tiny.decode([c.expand(n, -1, -1, -1) for c in content], torch.randn(n, *z.shape[1:]))
    assert video.shape[0] == n and sizes == [DECODE_CHUNK, DECODE_CHUNK, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["tiny", *list_pretrained()])
def test_half_precision(tiny, saved, images, name, dtype):
    "`torch_dtype`, `.to(device, dtype)` and `.half()` are the same model, close to float32."
    path = saved if name == "tiny" else name
    full, light = LaMD.from_pretrained(path), LaMD.from_pretrained(path, torch_dtype=dtype)
    moved = LaMD.from_pretrained(path).to("cpu", dtype)
    cast = LaMD.from_pretrained(path).half() if dtype == torch.float16 else LaMD.from_pretrained(path).bfloat16()
    how = dict(prompt="the red circle is sliding left", num_inference_steps=2)
    want, got = full(images[0], **how), light(images[0], **how)
    assert light.dtype == dtype and {p.dtype for p in light.parameters()} == {dtype}
    assert got.video.dtype == torch.float32 and (got.video - want.video).abs().mean() < .05
    for other in (moved, cast):
        assert torch.equal(other(images[0], **how).video, got.video)
    motion = light.encode(want.video)[1]
    assert (motion.float() - full.encode(want.video)[1]).abs().mean() < .1


def test_sentence_changes_the_clip(tiny, images):
    a, b = tiny(images[0], "the red circle", num_inference_steps=2), tiny(images[0], None, num_inference_steps=2)
    assert not torch.equal(a.z_m, b.z_m)


def test_any_image(tiny, tmp_path):
    rgb = (np.random.default_rng(0).random((50, 70, 3))*255).astype("uint8")
    Image.fromarray(rgb).save(tmp_path/"a.png")
    outs = [tiny(x, num_inference_steps=1) for x in (tmp_path/"a.png", str(tmp_path/"a.png"), Image.fromarray(rgb), rgb, rgb[None])]
    for out in outs[1:]:
        torch.testing.assert_close(out.image, outs[0].image)
    assert "crop" in outs[0].resize_note


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
    (dict(num_inference_steps=0), "1 to 1000"),
    (dict(num_inference_steps=1001), "1 to 1000"),
    (dict(num_videos_per_prompt=0), "at least 1"),
    (dict(num_videos_per_prompt=1.5), "whole number"),
    (dict(image=[torch.zeros(3, 32, 32)]*2, prompt=["the"]*3), "3 prompts for 2 images"),
    (dict(image=[torch.zeros(3, 32, 32)]*2, prompt=["the"]), "1 prompts for 2 images"),
    (dict(image=[]), "no image"),
    (dict(prompt=[]), "a list of sentences"),
    (dict(prompt=["the", 3]), "a list of sentences"),
    (dict(generator=[torch.Generator()]*3), "3 generators for 1 clips"),
    (dict(output_type="gif"), "pt, np or pil"),
    (dict(seed=.5), "seed is a float"),
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
    old = {**TINY["motion_generator"], "dmg": TINY["motion_generator"]["dmg"] | dict(content_channels=16)}
    with pytest.raises(ValueError, match="takes 16 channels of image condition, but this autoencoder gives 64"):
        LaMD(**TINY | dict(motion_generator=old))


@pytest.mark.parametrize("name", list_pretrained())
def test_shipped_weights_make_a_clip(name):
    lamd = LaMD.from_pretrained(name)
    assert lamd(torch.zeros(3, lamd.size, lamd.size), num_inference_steps=1).video.shape == (1, 3, 16, lamd.size, lamd.size)


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
