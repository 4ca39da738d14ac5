"""README.md from nbs/index.ipynb, so that the front door and the book cannot disagree.

    python nbs/_tools/readme.py            write README.md
    python nbs/_tools/readme.py --check    say whether it is up to date

Images that cells show are written to nbs/images/, where GitHub finds them."""
import argparse
import base64
import re
import sys

from nbconvert import MarkdownExporter

from chapters import NBS, ROOT, load

NOTE = "<!-- Made from nbs/index.ipynb by nbs/_tools/readme.py: change it there. -->\n\n"


def images(nb) -> dict:
    "Move the images out of the outputs, each replaced by a line of HTML with its width and, from `#| alt:`, what is seen; file name to bytes."
    files = {}
    for n, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            data, meta = output.get("data", {}), output.get("metadata", {}).get("image/png", {})
            if "image/png" not in data:
                continue
            content = base64.b64decode(data.pop("image/png"))
            name = f"index_{len(files)}.{'gif' if content[:3] == b'GIF' else 'png'}"
            files[name] = content
            width = f' width="{meta["width"]}"' if "width" in meta else ""
            seen = cell.marks.get("alt", f"figure {len(files)}")
            output["data"] = {"text/markdown": f'<img src="images/{name}"{width} alt="{seen}">'}
    return files


def rooted(text: str) -> str:
    "Links that are right in nbs/ made right one folder up."
    place = r"(?!https?:|#|mailto:|/|\.\./|nbs/)"
    text = re.sub(r"\]\(" + place, "](nbs/", text)
    text = re.sub(r'((?:src|href)=")' + place, r"\1nbs/", text)
    return text.replace("](../", "](").replace('="../', '="')


def readme() -> tuple:
    "The text of README.md, and the images that go with it."
    nb = load(NBS / "index.ipynb")
    for cell in nb.cells:
        if cell.marks.get("echo") == "false":
            cell.metadata["transient"] = {"remove_source": True}
    files = images(nb)
    for cell in nb.cells:
        del cell["marks"]
    nb.metadata["language_info"] = {"name": "python"}
    body, _ = MarkdownExporter().from_notebook_node(nb)
    return NOTE + rooted(re.sub(r"\n{3,}", "\n\n", body)).strip() + "\n", files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    check = parser.parse_args().check
    text, files = readme()
    wanted = {ROOT / "README.md": text.encode(), **{NBS / "images" / name: data for name, data in files.items()}}
    stale = [path for path, data in wanted.items() if not path.exists() or path.read_bytes() != data]
    if check:
        print("\n".join(f"{path.relative_to(ROOT)} differs from nbs/index.ipynb: make export" for path in stale))
        return bool(stale)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wanted[path])
    print(f"README.md: {len(text)} characters, {len(files)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
