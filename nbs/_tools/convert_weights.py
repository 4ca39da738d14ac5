"""Bring a model saved by an older version to the names of this one.

    python nbs/_tools/convert_weights.py OLD_FOLDER NEW_FOLDER

OLD_FOLDER holds config.json and model.safetensors, as `save_pretrained` wrote them; NEW_FOLDER may be the same. Only names
change, no number does: tensors stay bit for bit what they were. A model that is up to date already comes out as it went in.

To rename a part of the library, add a pair to KEYS: a pattern and what to put in its place. The pairs are applied to each
name one after the other, so a later pair sees what an earlier one wrote. A pattern must not match its own result."""
import argparse
import json
import re
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

LEVEL = r"(dmg\.(?:down_blocks\.\d+|up_blocks\.\d+|mid_block))"
KEYS = [
    # encoders and statistics of the latents
    (r'^(vae\.)?content\.', r'\1content_encoder.'),
    (r'^(vae\.)?motion\.', r'\1motion_encoder.'),
    (r'^((?:vae\.)?(?:content|motion)_encoder)\.enter\.', r'\1.stem.'),
    (r'^((?:vae\.)?(?:content|motion)_encoder)\.around\.', r'\1.context.'),
    (r'^((?:vae\.)?(?:content|motion)_encoder)\.join\.', r'\1.fuse.'),
    (r'^((?:vae\.)?content_encoder)\.at_half\.', r'\1.down_half.'),
    (r'^((?:vae\.)?content_encoder)\.at_quarter\.', r'\1.down_quarter.'),
    (r'^((?:vae\.)?motion_encoder)\.shrink\.', r'\1.down.'),
    (r'^((?:vae\.)?motion_encoder)\.pair([12])\.', r'\1.time_down\2.'),
    (r'^((?:vae\.)?motion_encoder)\.flat\.', r'\1.merge_time.'),
    (r'\.(places|words|self_attention|cross_attention)\.attend\.', r'.\1.attention.'),
    (r'\.(time|timestep_embedding)\.net\.', r'.\1.mlp.'),
    (r'^((?:motion_)?generator\.)mean$', r'\1latents_mean'),
    (r'^((?:motion_)?generator\.)scale$', r'\1latents_std'),
    # motion generator and conditions
    (r'^generator\.', 'motion_generator.'),
    (r'(^|\.)condition\.nothing$', r'\1condition.null_token'),
    (r'(^|\.)condition\.net\.', r'\1condition.encoder.'),
    (r'(condition\.encoder)\.word\.', r'\1.token_embedding.'),
    (r'(condition\.encoder)\.place\.', r'\1.position_embedding.'),
    (r'(condition\.encoder)\.token\.', r'\1.class_embedding.'),
    (r'(condition\.encoder\.blocks\.\d+)\.attend\.', r'\1.attention.'),
    (r'(condition\.encoder\.blocks\.\d+)\.think\.', r'\1.mlp.'),
    (r'(^|\.)dmg\.time\.', r'\1dmg.timestep_embedding.'),
    (r'(^|\.)dmg\.content\.', r'\1dmg.content_proj.'),
    (r'(^|\.)dmg\.enter\.', r'\1dmg.stem.'),
    (r'(^|\.)dmg\.down\.', r'\1dmg.down_blocks.'),
    (r'(^|\.)dmg\.shrink\.', r'\1dmg.downsamplers.'),
    (r'(^|\.)dmg\.middle\.', r'\1dmg.mid_block.'),
    (r'(^|\.)dmg\.grow\.', r'\1dmg.upsamplers.'),
    (r'(^|\.)dmg\.up\.', r'\1dmg.up_blocks.'),
    (r'(^|\.)dmg\.leave\.', r'\1dmg.head.'),
    (LEVEL + r'\.res\.', r'\1.res_blocks.'),
    (LEVEL + r'\.places\.', r'\1.self_attention.'),
    (LEVEL + r'\.words\.', r'\1.cross_attention.'),
    # the decoder that moves pixels, once `FusionDecoder(kind='warp')` or `SlotDecoder`
    (r"\bdecoder\.enter\.", "decoder.stem."),
    (r"\bdecoder\.around\.", "decoder.context."),
    (r"\bdecoder\.fuse0\.", "decoder.fuse_latent."),
    (r"\bdecoder\.fuse1\.", "decoder.fuse_frames."),
    (r"\bdecoder\.timeline\.spread\.", "decoder.temporal_upsampler.expand."),
    (r"\bdecoder\.timeline\.when$", "decoder.temporal_upsampler.coarse_embedding"),
    (r"\bdecoder\.timeline\.then$", "decoder.temporal_upsampler.frame_embedding"),
    (r"\bdecoder\.timeline\.coarse\.", "decoder.temporal_upsampler.coarse_block."),
    (r"\bdecoder\.timeline\.medium\.", "decoder.temporal_upsampler.middle_block."),
    (r"\bdecoder\.frame\.", "decoder.frame_block."),
    (r"\bdecoder\.source\.norm\.", "decoder.flow.norm."),
    (r"\bdecoder\.source\.ask\.", "decoder.flow.to_q."),
    (r"\bdecoder\.source\.answer\.", "decoder.flow.to_k."),
    (r"\bdecoder\.source\.value\.", "decoder.flow.to_v."),
    (r"\bdecoder\.source\.out\.", "decoder.flow.to_out."),
    (r"\bdecoder\.source\.here$", "decoder.flow.q_position"),
    (r"\bdecoder\.source\.there$", "decoder.flow.k_position"),
    (r"\bdecoder\.source\.near$", "decoder.flow.log_kappa"),
    (r"\bdecoder\.after\.", "decoder.refine."),
    (r"\bdecoder\.shift\.", "decoder.flow_residual."),
    (r"\bdecoder\.rough\.", "decoder.low_res."),
    (r"\bdecoder\.plate\.", "decoder.background."),
    (r"\bdecoder\.moved_half\.", "decoder.warped_half."),
    (r"\bdecoder\.at_half\.", "decoder.half_blocks."),
    (r"\bdecoder\.tag\.", "decoder.warp_features."),
    (r"\bdecoder\.at_full\.", "decoder.compositor.head."),
    # its object layer
    (r"\bdecoder\.slots\.at_(full|half|quarter)\.", r"decoder.masks.proj_\1."),
    (r"\bdecoder\.slots\.learned\.", "decoder.masks.embed."),
    (r"\bdecoder\.slots\.sharp$", "decoder.masks.log_sharpness"),
    (r"\bdecoder\.slots\.clear$", "decoder.masks.log_threshold"),
    (r"\bdecoder\.vote\.", "decoder.motion.head."),
    (r"\bdecoder\.spins$", "decoder.motion.rotation_readout"),
    (r"\bdecoder\.stiff$", "decoder.motion.log_lambda"),
]
DECODERS = {"warp": "warp", "slots": "objects"}  # the autoencoder's old `kind` and today's `decoder`
TOP = dict(generator="motion_generator", fit="resize_mode")
VAE = dict(d="z_channels")
GENERATOR = dict(schedule="noise_schedule", kind="prediction_type", drop="condition_dropout", T="num_train_timesteps")
DMG = dict(mults="channel_mult", blocks="num_res_blocks", attend="self_attention", loud="output_gain")
CONDITION = dict(kind="condition_type", n_classes="num_classes")
RESIZE = dict(squeeze="stretch")


def new_key(key: str) -> str:
    "What a tensor is called today."
    for pattern, replacement in KEYS:
        key = re.sub(pattern, replacement, key)
    return key


def renamed(config: dict, names: dict) -> dict:
    "The same values under other names."
    return {names.get(key, key): value for key, value in config.items()}


def new_config(config: dict) -> dict:
    "The configuration in today's words."
    config = renamed(config, TOP)
    vae = renamed(config["vae"], VAE)
    if "kind" in vae:
        kind = vae.pop("kind")
        if kind not in DECODERS:
            raise ValueError(f"a decoder of kind '{kind}' is no longer part of lamd_nb: only {', '.join(DECODERS)} can be converted")
        vae["decoder"] = DECODERS[kind]
    generator = renamed(config["motion_generator"], GENERATOR)
    for part, names in (("dmg", DMG), ("condition", CONDITION)):
        if generator.get(part):
            generator[part] = renamed(generator[part], names)
    if "resize_mode" in config:
        config["resize_mode"] = RESIZE.get(config["resize_mode"], config["resize_mode"])
    return config | dict(vae=vae, motion_generator=generator)


def convert(old: Path, new: Path) -> int:
    "Write `old` to `new` under today's names; how many tensors were renamed."
    config = new_config(json.loads((old / "config.json").read_text(encoding="utf-8")))
    state = load_file(old / "model.safetensors")
    renamed = {new_key(key): value for key, value in state.items()}
    if len(renamed) != len(state):
        raise ValueError("two tensors would get the same name: see KEYS")
    new.mkdir(parents=True, exist_ok=True)
    if new.resolve() != old.resolve():
        for path in old.iterdir():
            if path.is_file():
                shutil.copy(path, new)
    (new / "config.json").write_text(json.dumps(config, sort_keys=True, indent=2), encoding="utf-8")
    save_file(renamed, new / "model.safetensors")
    return sum(key not in state for key in renamed)


def main() -> None:
    "Convert, and load the result, which fails if a tensor is missing or too many."
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("old", type=Path, metavar="OLD_FOLDER")
    ask.add_argument("new", type=Path, metavar="NEW_FOLDER")
    args = ask.parse_args()
    try:
        n = convert(args.old, args.new)
        from lamd_nb import LaMD
        LaMD.from_pretrained(str(args.new))
    except (ValueError, OSError) as error:
        sys.exit(f"{args.old}: {error}")
    print(f"{args.new}: {n} tensors renamed, and the model loads")


if __name__ == "__main__":
    main()
