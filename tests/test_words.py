"The book speaks the field's language: words that only this project ever used do not come back."
import json
import re

import pytest
from conftest import NBS, ROOT

RETIRED = {  # a word that is no term of the field: what to write instead
    "films?|filmed|footage|film strips?": "video, clip, recording; frame grid", "pictures?": "image", "halves": "splits",
    "thermostats?": "rate controller", "critics?|forgers?": "discriminator, generator", "players?": "train state", "judges?|judged": "metric, evaluator",
    "verdicts?": "result", "obedience|obey|obeys|obeyed": "prompt adherence", "yardsticks?|oracles?": "baseline, reference", "strangers?": "mismatched pairs",
    "foreign colou?rs?|foreign paint": "content leakage", "deaf": "unconditional", "drown|drowns|drowned|drowning": "forward process", "walks? back": "reverse process",
    "plates?": "background", "cut-?outs?": "object layers", "scissors": "segmentation", "doubts?": "squared logits", "wish|wishes": "prompt", "whispers?": "codes",
    "dice|throw the die": "sample", "rooms|this room|first room|room of its own|data room|a room": "module, chapter", "pack|packs|packed|packing": "pre-decoded cache", "listens?|listening": "attends, uses",
    "the trap": "collapse, local optimum", "loud|louder|loudly": "output gain", "riddles?": "", "melts?|melted": "blurs, deforms",
}
PATTERN = re.compile(r"(?<![\w`/.-])(" + "|".join(f"(?:{word})" for word in RETIRED) + r")(?![\w`/-])", re.I)
ALLOWED = {  # chapter: words that stand in it as quotations, and why
}
PENDING = set("""
2_autoencoder/01_layers
2_autoencoder/02_content
2_autoencoder/03_motion
2_autoencoder/05_losses
2_autoencoder/06_perceptual
3_generator/01_diffusion
3_generator/02_conditions
3_generator/03_dmg
3_generator/04_generator
3_generator/05_stage2
3_generator/06_samplers
3_generator/07_pipeline
4_evaluation/07_adherence
4_evaluation/09_report
5_beyond/01_warp
7_data/01_base
7_data/02_drawing
7_data/03_motions
7_data/04_shapes
7_data/05_arm_physics
7_data/06_arm
7_data/07_sky
7_data/08_figure
7_data/09_gestures
7_data/11_portrait
7_data/12_faces
7_data/13_listing
7_data/14_reading
7_data/17_splits
7_data/19_clips
7_data/21_cache
7_data/24_records
7_data/25_layouts
8_training/01_step
8_training/02_loaders
8_training/03_checkpoints
8_training/05_loop
9_reference/01_core
9_reference/02_show
9_reference/04_command
9_reference/06_data_command
9_reference/09_sample
9_reference/11_demo_page
9_reference/12_demo
""".split())  # chapters written before the list; one that is clean must leave this set


def words(path) -> list:
    "Retired words in prose and code of a notebook; FiLM, the layer, is none."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    text = re.sub(r"\]\([^)]*\)", "]", text).replace("FiLM", "")
    return [word for word in PATTERN.findall(text) if word.lower() not in ALLOWED.get(name(path), ())]


def name(path) -> str:
    return path.relative_to(NBS).with_suffix("").as_posix()


CHAPTERS = sorted([*NBS.glob("[0-9]_*/*.ipynb"), *NBS.glob("*.ipynb")])


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_chapter_is_written_in_the_fields_terms(path):
    found = words(path)
    if name(path) in PENDING:
        assert found, f"{name(path)} is clean: take it from PENDING"
    else:
        assert not found, f"{name(path)} has {len(found)} retired words: {sorted(set(found))}; write {[RETIRED[k] for k in RETIRED if any(re.fullmatch(k, w, re.I) for w in found)]}"


def test_front_page():
    found = PATTERN.findall(re.sub(r"\]\([^)]*\)|\(nbs[^)]*\)", "]", (ROOT / "README.md").read_text(encoding="utf-8")).replace("FiLM", ""))
    assert not found, f"README.md: {sorted(set(found))}"


def test_pending_chapters_exist():
    assert not PENDING - {name(path) for path in CHAPTERS}
