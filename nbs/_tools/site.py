"""The book as web pages: `python nbs/_tools/site.py --out _docs`. No notebook is run; the pages show the stored outputs."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from chapters import NBS, PARTS, ROOT, chapters, exported, load, module_of, page_of, title

WORD = re.compile(r"(?<![`\w\[])`([A-Za-z_]\w*)(\(\))?`(?!`)")


def index(paths: list) -> dict:
    "Exported name to (page, module, docstring)."
    return {name: (page_of(path), module_of(path), doc) for path in paths for cell in load(path).cells
            for name, doc in exported(cell).items()}


def linked(text: str, names: dict, page: str) -> str:
    "Turn `seed_all`, `MCDVAE` or `strip()` into links to where they are made; plain words such as `video` stay words."
    def link(found):
        name, call = found.groups()
        place, plain = names.get(name), not call and name.islower() and "_" not in name
        if not place or plain or place[0] == page:
            return found.group()
        return f'<a href="{os.path.relpath(place[0], os.path.dirname(page) or ".")}.html#{name}"><code>{name}{call or ""}</code></a>'
    parts = re.split(r"(```.*?```|\$\$.*?\$\$)", text, flags=re.S)
    return "".join(part if n % 2 else WORD.sub(link, part) for n, part in enumerate(parts))


def page(path: Path, names: dict):
    "One chapter: links in the prose, an anchor before each exported name, plumbing and solutions folded."
    nb = load(path)
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, names, page_of(path))
        tags = ["exported"] if cell.marks.keys() & {"export", "exports"} else []
        if "export" in cell.marks or cell.marks.get("code-fold") == "true":
            tags.append("hide-input")
        if anchors := "".join(f'<span id="{name}"></span>' for name in exported(cell)):
            cells.append(nbformat.v4.new_markdown_cell(anchors))
        if cell.pop("marks") is not None and tags:
            cell.metadata["tags"] = tags
        cells.append(cell)
    nb.cells = cells
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return nb


def contents(paths: list) -> str:
    "The table of contents, in parts."
    tree = "```{toctree}\n:hidden:\n:caption: {part}\n\n{pages}\n```\n"
    text = ""
    for folder, part in PARTS.items():
        pages = [page_of(p) for p in paths if p.parent.name == folder] + ["names"] * (folder == "9_reference")
        text += tree.replace("{part}", part).replace("{pages}", "\n".join(pages)) if pages else ""
    return text


def reference(names: dict) -> str:
    "Every exported name, by module, with its one line."
    rows = {}
    for name, (place, where, doc) in names.items():
        doc = doc.replace("|", "\\|")
        rows.setdefault(where, []).append(f'| <a href="{place}.html#{name}"><code>{name}</code></a> | {doc} |')
    tables = [f"## `lamd_nb.{where}`\n\n| name | in one line |\n|---|---|\n" + "\n".join(lines) for where, lines in rows.items()]
    return "\n\n".join(["# Every name", *tables]) + "\n"


def write(folder: Path):
    "All pages into `folder`, ready for Sphinx."
    paths = chapters()
    names = index(paths)
    for path in paths:
        (folder / page_of(path)).parent.mkdir(exist_ok=True)
        nbformat.write(page(path, names), folder / f"{page_of(path)}.ipynb")
    home = NBS / "index.ipynb"
    nb = page(home, names) if home.exists() else nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(
        "# lamd_nb\n\n" + "\n".join(f"- [{title(p)}]({page_of(p)}.ipynb)" for p in paths))])
    nb.cells.append(nbformat.v4.new_markdown_cell(contents(paths)))
    nbformat.write(nb, folder / "index.ipynb")
    (folder / "names.md").write_text(reference(names), encoding="utf-8")
    for name in ("images", "results"):
        if (NBS / name).is_dir():
            shutil.copytree(NBS / name, folder / name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="folder for the pages")
    out = parser.parse_args().out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder) / "source", Path(folder) / "built"  # the builder leaves a folder of pictures beside the pages
        source.mkdir()
        write(source)
        command = [sys.executable, "-P", "-m", "sphinx", "-q", "-b", "html", "-c", str(NBS / "_tools"), str(source), str(built)]
        command = [word for word in command if word != "-P" or sys.version_info >= (3, 11)]
        done = subprocess.run(command, cwd=source).returncode
        if not done:
            shutil.rmtree(out, ignore_errors=True)
            shutil.move(built, out)
    if not done:
        for spare in (".doctrees", "_sources"):
            shutil.rmtree(out / spare, ignore_errors=True)
        print(f"the book: {out / 'index.html'}")
    return done


if __name__ == "__main__":
    sys.exit(main())
