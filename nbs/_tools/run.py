"""Run notebooks in place and keep what they show.

    python nbs/_tools/run.py nbs/2_autoencoder/04_fusion.ipynb ...       export, run, store the outputs, clean
    python nbs/_tools/run.py --flags slow nbs/2_autoencoder/08_*.ipynb   also run the cells marked `#| slow`

A cell marked `#| slow`, `#| gpu` or `#| notest` keeps the outputs it has, unless its flag is given;
`#| eval: false` and the closing `nbdev_export()` are never run. Two runs give the same bytes."""
import argparse
import base64
import hashlib
import io
import json
import os
import queue
import re
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
os.chdir(ROOT)  # nbdev looks for settings.ini from here
from nbdev.clean import clean_nb  # noqa: E402
from nbdev.config import get_config  # noqa: E402
from nbdev.export import nb_export  # noqa: E402
from nbdev.process import extract_directives  # noqa: E402

KERNEL = {"display_name": "python3", "language": "python", "name": "python3"}


class Runner(NotebookClient):
    "A notebook client that leaves flagged cells as they are."

    skip = frozenset()

    async def async_execute_cell(self, cell, cell_index, **kwargs):
        "Run `cell` unless a flag says not to."
        channel = self.kc.shell_channel
        if not hasattr(channel, "get_msg_once"):  # ask again every second: a reply that arrives while an output widget sends is else overlooked
            channel.get_msg_once = channel.get_msg
            channel.get_msg = lambda timeout=None: patient(channel.get_msg_once, timeout)
        return cell if skipped(cell, self.skip) else await super().async_execute_cell(cell, cell_index, **kwargs)


async def patient(get_msg, timeout):
    "A message, asked for every second."
    end = time.monotonic() + (1e9 if timeout is None else timeout)
    while True:
        try:
            return await get_msg(timeout=1)
        except queue.Empty:
            if time.monotonic() > end:
                raise


def skipped(cell, flags: frozenset) -> bool:
    "Whether `cell` is one that is not run when `flags` are the ones to leave out."
    if cell.cell_type != "code" or not cell.source.strip() or "nbdev_export(" in cell.source:
        return True
    marks = extract_directives(nbformat.from_dict(cell), remove=False)
    return marks.get("eval:", [""])[0].lower() == "false" or bool(flags & marks.keys())


def steady(nb):
    "Name widgets by the order of their making: their ids are drawn at random."
    states = nb.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    text = nbformat.writes(nb)
    for n, name in enumerate(states):
        text = text.replace(name, f"{n:032x}")
    return nbformat.reads(text, as_version=4)


def name_cells(nb):
    "Name each cell after its text: the exported modules quote these names, so they must not be drawn at random."
    seen = set()
    for cell in nb.cells:
        name, n = hashlib.sha1(cell.source.encode()).hexdigest()[:8], 0
        while name in seen:
            n += 1
            name = hashlib.sha1(f"{cell.source}{n}".encode()).hexdigest()[:8]
        seen.add(name)
        cell["id"] = name


def lighter(png: str, step: int = 4) -> str:
    "A picture, base64, with each colour rounded to `step` levels of 255, which nobody sees and which makes it a third smaller."
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.format != "PNG" or picture.mode == "P" or np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        return png
    x = np.asarray(picture.convert("RGB")).astype(int)
    box = io.BytesIO()
    Image.fromarray(((x + step // 2) // step * step).clip(0, 255).astype(np.uint8)).save(box, "PNG", optimize=True)
    return min(png, base64.b64encode(box.getvalue()).decode(), key=len)


def tidy(nb, cfg):
    "Drop what changes from run to run or says nothing: times, ids, counters, warnings about them."
    for cell in nb.cells:
        cell.get("metadata", {}).pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            if "nbdev_export(" in cell.source:
                cell.outputs = []
            for data in (o["data"] for o in cell.outputs if "image/png" in o.get("data", {})):
                data["image/png"] = lighter(data["image/png"])
    nb.metadata["kernelspec"] = dict(KERNEL)
    nb.metadata.pop("jupytext", None)
    nb = steady(nb)
    name_cells(nb)
    clean_nb(nb, cfg.clear_all, cfg.allowed_metadata_keys.split(), cfg.allowed_cell_metadata_keys.split(), cfg.clean_ids)
    return nb


def run(path: Path, skip: frozenset, timeout: int) -> float:
    "Export one notebook, run it in its own folder and write it back; the seconds it took."
    nb = tidy(nbformat.read(path, as_version=4), get_config())
    write(path, nb)
    nb.metadata.pop("widgets", None)
    nb_export(path, lib_path=ROOT / "lamd_nb")
    client = Runner(nb, timeout=timeout, kernel_name="python3", coalesce_streams=True,
                    extra_arguments=["--log-level=40"],
                    resources={"metadata": {"path": str(path.parent)}})
    client.skip = skip
    start = time.time()
    client.execute()
    seconds = time.time() - start
    write(path, tidy(nb, get_config()))
    return seconds


def write(path: Path, nb):
    "Write as nbdev does, so that cleaning once more changes nothing."
    text = json.dumps(json.loads(nbformat.writes(nb)), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def shorten(text: str, keep: int = 40) -> str:
    "The first and last lines of a long error: a failed test of two tensors prints both."
    lines = text.splitlines()
    return text if len(lines) <= 2 * keep else "\n".join([*lines[:keep], "    ...", *lines[-keep:]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--flags", default="", help="flagged cells to run as well, such as 'slow gpu'")
    parser.add_argument("--timeout", type=int, default=600, help="seconds one cell may take")
    args = parser.parse_args()
    skip = frozenset(get_config().tst_flags.split()) - frozenset(args.flags.split())
    os.environ.pop("IN_TEST", None)
    for key, value in {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}.items():
        os.environ.setdefault(key, value)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    failed = 0
    for path in args.notebooks:
        path = path if path.is_absolute() else ROOT / path
        try:
            print(f"{path.name}: {run(path, skip, args.timeout):.1f} s, {path.stat().st_size / 1e6:.2f} MB", flush=True)
        except CellExecutionError as error:
            failed += 1
            plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # without the terminal's colours
            print(f"{path.name}: stopped\n" + shorten(plain), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
