"Every chapter runs from top to bottom, one case each, and leaves the world as it found it."
import gc
import os

import matplotlib
import pytest
import torch
from conftest import NBS, ROOT
from nbdev.config import get_config
from nbdev.test import test_nb as run_notebook

CHAPTERS = sorted([*NBS.glob("[0-9]_*/*.ipynb"), *NBS.glob("*.ipynb")])


def world() -> dict:
    "Global state that a chapter must not leave changed: its neighbours run in the same process."
    return {"folder": os.getcwd(), "dtype": torch.get_default_dtype(), "gradients": torch.is_grad_enabled(),
            "algorithms": torch.are_deterministic_algorithms_enabled(), "device": torch.get_default_device(),
            "rcParams": {k: v for k, v in matplotlib.rcParams.items() if k.startswith(("font", "axes", "lines", "image", "savefig"))},
            "threads": torch.get_num_threads(), "search path": os.environ.get("PYTHONPATH"), "home": os.environ.get("HOME")}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.relative_to(NBS).with_suffix("").as_posix())
def test_chapter(path, monkeypatch):
    monkeypatch.setenv("IN_TEST", "1")
    import matplotlib.pyplot  # noqa: F401  its first import sets up the state compared below
    before = world()
    passed, _ = run_notebook(path, skip_flags=get_config().tst_flags.split(), basepath=ROOT)
    after = world()
    os.chdir(ROOT)
    gc.collect()
    assert passed, f"{path.name} stopped: its traceback is in the captured stderr"
    changed = [key for key in before if before[key] != after[key]]
    assert not changed, f"{path.name} left changed: {', '.join(changed)}"
