"The library is what the chapters say, no more and no less, and it imports anywhere."
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LIB, NBS, ROOT

MODULES = sorted(".".join(p.relative_to(ROOT).with_suffix("").parts) for p in LIB.rglob("*.py")
                 if p.name not in ("__init__.py", "_modidx.py"))


def shell(*command, cwd=ROOT, **env) -> subprocess.CompletedProcess:
    "Run a command without IN_TEST, which would turn an export into nothing; keep what it says."
    env = {**os.environ, **env}
    env.pop("IN_TEST", None)
    return subprocess.run([str(word) for word in command], cwd=cwd, env=env, text=True, capture_output=True)


def cells(path: Path) -> list:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


# --- in sync ---

@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    "A library exported afresh from the notebooks, in a folder of its own."
    copy = tmp_path_factory.mktemp("export")
    shutil.copy(ROOT / "settings.ini", copy)
    shutil.copytree(NBS, copy / "nbs", ignore=shutil.ignore_patterns("_*", ".*", "images", "results"))
    (copy / "lamd_nb").mkdir()
    shutil.copy(LIB / "__init__.py", copy / "lamd_nb")
    done = shell(sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()", cwd=copy,
                 PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    return copy / "lamd_nb"


def texts(folder: Path) -> dict:
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in sorted(folder.rglob("*.py"))}


def test_in_sync(exported):
    "Each module is just what its notebook exports: a change by hand, or a forgotten export, shows here."
    fresh, here = texts(exported), texts(LIB)
    assert fresh.keys() > {"core.py"}, "nothing was exported"
    stale = [name for name in fresh if here.get(name) != fresh[name]]
    assert not stale, f"run `make export`: {', '.join(stale)} differ from the notebooks"


def test_no_orphan(exported):
    "A module whose notebook is gone stays behind unseen, and still imports."
    orphans = texts(LIB).keys() - texts(exported).keys()
    assert not orphans, f"no notebook exports {', '.join(sorted(orphans))}"


# --- notebooks as they should be stored ---

def test_clean(notebooks):
    "Cleaning a notebook once more changes nothing."
    from execnb.nbio import nb2str, read_nb
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    cfg, dirty = get_config(), []
    for path in notebooks:
        nb = read_nb(path)
        clean_nb(nb, cfg.clear_all, cfg.allowed_metadata_keys.split(), cfg.allowed_cell_metadata_keys.split(), cfg.clean_ids)
        if nb2str(nb) != path.read_text(encoding="utf-8"):
            dirty.append(path.name)
    assert not dirty, f"run `make run NB=...` or nbdev_clean: {', '.join(dirty)}"


def test_outputs(notebooks):
    "Every notebook shows something, and nothing that it shows is an error."
    for path in notebooks:
        outputs = [out for cell in cells(path) for out in cell.get("outputs", [])]
        assert outputs, f"{path.name} has no stored outputs: make run NB=nbs/{path.name}"
        wrong = [out for out in outputs if out["output_type"] == "error" or out.get("name") == "stderr"]
        assert not wrong, f"{path.name} stores an error or a warning: {str(wrong[0])[:200]}"


def test_size(notebooks):
    for path in notebooks:
        assert path.stat().st_size <= 1.5e6, f"{path.name} has {path.stat().st_size / 1e6:.1f} MB, 1.5 at most"
    total = sum(path.stat().st_size for path in NBS.rglob("*") if path.is_file()) / 1e6
    assert total <= 24, f"nbs/ has {total:.1f} MB, 24 at most"


def test_form(notebooks):
    "A chapter opens with a title and a sentence, and ends with its export; nothing is imported by star."
    for path in notebooks:
        first, last = cells(path)[0], cells(path)[-1]
        assert re.match(r"# .+\n\n?> .+", source(first)), f"{path.name} should open with '# Title' and '> one sentence'"
        assert "nbdev_export()" in source(last), f"{path.name} should end with nbdev_export()"
        code = "\n".join(source(cell) for cell in cells(path) if cell["cell_type"] == "code")
        assert not re.search(r"^\s*from \S+ import \*", code, re.M), f"{path.name} imports by star"


def test_readme():
    "The front page is the one that the index makes."
    if not (NBS / "index.ipynb").exists():
        pytest.skip("there is no nbs/index.ipynb yet")
    done = shell(sys.executable, NBS / "_tools" / "readme.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


# --- the code ---

def test_ruff():
    "No unknown name, unused import or second definition: an exported function that leans on a notebook's global is caught here."
    done = shell(sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821,F401,F811", LIB)
    assert done.returncode == 0, done.stdout


IMPORT_EACH = """
import os, sys, traceback
import torch
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try: __import__(name); code = 0
        except BaseException: traceback.print_exc(); code = 1
        sys.stderr.flush(); os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]): failed.append(name)
print(*failed)
"""


def import_each(path: str = "") -> list:
    "Import every module in a process of its own (forked once torch is there, which takes the most time)."
    path = os.pathsep.join(filter(None, [path, str(ROOT)]))
    done = shell(sys.executable, "-c", IMPORT_EACH, "lamd_nb", *MODULES, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), f"{done.stdout.strip()} cannot be imported alone:\n{done.stderr}"


def test_imports_alone():
    "Every module imports first, by itself."
    import_each()


@pytest.fixture(scope="session")
def fastcore2(tmp_path_factory) -> Path:
    "fastcore 2 in a folder of its own; without a package index the test says so and is skipped."
    folder = tmp_path_factory.mktemp("fastcore2")
    done = shell(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "fastcore>=2,<3")
    if done.returncode:
        pytest.skip(f"fastcore 2 could not be downloaded: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def test_imports_with_fastcore2(fastcore2):
    "Notebooks need fastcore 1, users may have fastcore 2: the library takes both."
    ask = shell(sys.executable, "-c", "import fastcore; print(fastcore.__version__)", PYTHONPATH=str(fastcore2))
    assert ask.stdout.startswith("2."), ask.stdout + ask.stderr
    import_each(str(fastcore2))


LAYERS = [["core"], ["data"], ["diffusion"], ["models"], ["pretrained"], ["pipeline"], ["systems"], ["training"], ["evaluation"], ["presets", "show", "cli"]]  # lowest first
UPWARD = {"models": {"data"}, "diffusion": {"data"}, "systems": {"data"}}  # below, and still not to be known
LONG = {"models.layers": "the blocks that every network is built from, in one place: a screen over"}  # module: why it has more than 250 lines


def layer(module: str) -> int:
    "The place of a module's package in the order, 0 the lowest."
    return next(n for n, names in enumerate(LAYERS) if module.split(".")[0] in names)


def imported(path: Path, module: str) -> set:
    "The modules that a module imports, at any depth of its code."
    names, known = set(), {name.removeprefix("lamd_nb.") for name in MODULES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = ["lamd_nb", *module.split(".")][:-node.level] if node.level else []
            full = ".".join([*base, *filter(None, [node.module])])
            names |= {full, *(f"{full}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.removeprefix("lamd_nb.") for name in names if name.startswith("lamd_nb.")} & known


def package(module: str) -> str:
    return module.split(".")[0]


def test_layers():
    "A module imports only from its own package and from those below it; inside a package imports run in no circle."
    uses = {name: imported(LIB / (name.replace(".", "/") + ".py"), name) for name in (m.removeprefix("lamd_nb.") for m in MODULES)}
    for module, known in uses.items():
        wrong = {other for other in known if package(other) != package(module) and
                 (layer(other) >= layer(module) and layer(module) < len(LAYERS) - 1 or package(other) in UPWARD.get(package(module), ()))}
        assert not wrong, f"{module} imports {sorted(wrong)}, which is above it"
    while leaves := [module for module, known in uses.items() if not known & uses.keys()]:
        uses = {module: known for module, known in uses.items() if module not in leaves}
    assert not uses, f"imports in a circle: {sorted(uses)}"


def test_sizes():
    "At most ten modules in a folder and about 250 lines in a module; a longer one has its reason above."
    for folder in {path.parent for path in LIB.rglob("*.py")}:
        modules = [p.name for p in folder.glob("*.py") if p.name not in ("__init__.py", "_modidx.py")]
        assert len(modules) <= 10, f"{folder.name} has {len(modules)} modules: {sorted(modules)}"
    lines = {name: len((ROOT / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8").splitlines()) for name in MODULES}
    long = {name.removeprefix("lamd_nb."): n for name, n in lines.items() if n > 250}
    assert long.keys() == LONG.keys(), f"longer than 250 lines: {long}; with a reason: {sorted(LONG)}"


HEAVY = {"matplotlib", "IPython", "ipywidgets", "nbdev", "diffusers", "torchmetrics", "accelerate", "lamd_nb.training", "lamd_nb.evaluation", "lamd_nb.show"}


def loaded(code: str) -> set:
    "The heavy modules that a line of code loads."
    done = shell(sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    names = done.stdout.splitlines()[-1].split()
    return {heavy for heavy in HEAVY if any(name == heavy or name.startswith(heavy + ".") for name in names)}


def test_light_start():
    "Inference loads no training, no metrics, no plotting and no notebook tools."
    assert not loaded("import lamd_nb; from lamd_nb import LaMD")


@pytest.mark.parametrize("module, command", [("sample", "sample"), ("train", "train"), ("evaluate", "evaluate"), ("demo", "demo")])
def test_help_is_light(module, command):
    "A command answers --help before anything heavy is imported; the table of metrics has names alone."
    code = f"from lamd_nb.cli.{module} import {command}_command as c\ntry: c.main(['--help'], 'lamd')\nexcept SystemExit: pass"
    assert loaded(code) <= ({"lamd_nb.evaluation"} if module in ("evaluate", "demo") else set())


def test_weights_are_shipped():
    "Weights lie inside the package as safetensors and JSON, and setup.py names both."
    kinds = {path.suffix for path in (LIB / "weights").rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json"}, f"weights of other kinds: {kinds}"
    facts = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert "weights/**/*.safetensors" in facts and "weights/**/*.json" in facts
    total = sum(path.stat().st_size for path in (LIB / "weights").rglob("*") if path.is_file()) / 1e6
    assert total <= 16, f"the weights have {total:.1f} MB, 16 at most"


def test_links_between_chapters_lead_somewhere():
    "Relative links in the prose of the book and of the front page."
    prose = {path: "\n".join(source(cell) for cell in cells(path) if cell["cell_type"] == "markdown") for path in sorted(NBS.rglob("*.ipynb"))}
    prose[ROOT / "README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [(path, target) for path, text in prose.items() for target in re.findall(r"\]\(([^)#?\s]+)[^)]*\)", text) if "://" not in target]
    missing = [f"{path.relative_to(ROOT)}: {target}" for path, target in links if not (path.parent / target).exists()]
    assert links and not missing, missing
