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
