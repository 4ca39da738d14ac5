"What site.py and readme.py both need: a chapter's cells as a reader should meet them, without nbdev's marks."
import ast
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NBS = ROOT / "nbs"
PARTS = {"1_tour": "Tour", "2_autoencoder": "The autoencoder: stage I", "3_generator": "The motion generator: stage II", "4_evaluation": "Evaluation",
         "5_beyond": "Beyond the paper", "6_systems": "Other designs", "7_data": "Data", "8_training": "Training", "9_reference": "Reference"}
MARK = re.compile(r"^#\|\s*([\w-]+):?\s*(.*)\n?", re.M)


def chapters() -> list:
    "The numbered notebooks of all parts, in reading order."
    return sorted(NBS.glob("[0-9]_*/[0-9]*.ipynb"))


def page_of(path: Path) -> str:
    "A notebook's page in the site, such as '2_autoencoder/02_content'."
    return path.relative_to(NBS).with_suffix("").as_posix()


def load(path: Path):
    "A notebook whose code cells have lost their leading `#|` lines to `cell.marks`, and whose hidden cells are gone."
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        head = re.match(r"(#\|.*\n?)*", cell.source).group() if cell.cell_type == "code" else ""
        cell.marks = dict(MARK.findall(head))
        cell.source = cell.source[len(head):]
    nb.cells = [c for c in nb.cells if c.source.strip() and not c.marks.keys() & {"hide", "default_exp"}]
    return nb


def exported(cell) -> dict:
    "The public functions and classes a cell gives to the library: name to first line of the docstring."
    if not cell.marks.keys() & {"export", "exports"}:
        return {}
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    found = [node for node in ast.parse(cell.source).body if isinstance(node, kinds) and node.name[0] != "_"]
    return {owner(node) + node.name: (ast.get_docstring(node) or "").split("\n")[0] for node in found}


def owner(node) -> str:
    "The class a patched method belongs to, with its dot; nothing for all else."
    patched = any(getattr(mark, "id", "") == "patch" for mark in node.decorator_list)
    return f"{ast.unparse(node.args.args[0].annotation)}." if patched and node.args.args[0].annotation else ""


def module_of(path: Path) -> str | None:
    "The module a notebook writes, such as 'models.fusion'."
    for cell in nbformat.read(path, as_version=4).cells:
        if found := re.match(r"#\|\s*default_exp\s+(\S+)", cell.source):
            return found[1]
    return None


def title(path: Path) -> str:
    "The first heading."
    return nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ").strip()
