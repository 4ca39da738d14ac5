"What the tests share: where things are, and a library that imports from this checkout."
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
LIB = ROOT / "lamd_nb"
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.chdir(ROOT)  # nbdev looks for settings.ini from here


def pytest_collection_modifyitems(items: list):
    "Chapters first: they take longest, and a worker that is done takes short tests from the end of the other's list."
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(scope="session")
def notebooks() -> list:
    "Every notebook of the book, in reading order."
    return sorted([*NBS.glob("[0-9]_*/*.ipynb"), *NBS.glob("*.ipynb")])
