"""Executes the chapters in place and stores them clean: make notebooks [NAMES="01_bags …"].

With --copies nothing is executed: after an edit that changes no output, only the copies for students are written.

Clean means that running again changes nothing but results: no timing, no random ids, no widget state, no versions.
How long each chapter took goes into book/results/chapters.json, and a copy without the solutions of the exercises
into notebooks/student/.
"""

import argparse
import json
import os
import platform
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tools.student_copies import student_copy

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "notebooks"
TIMES = ROOT / "book" / "results" / "chapters.json"


def execute(path: Path) -> float:
    """Runs all cells of a notebook in order, from its own folder, and stores it clean. Returns the seconds."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": path.parent}}).execute()
    seconds = time.perf_counter() - start
    write(clean(notebook), path)
    write(student_copy(notebook, path.name), path.parent / "student" / path.name)
    return seconds


def clean(notebook: NotebookNode) -> NotebookNode:
    """Takes out everything that differs from run to run or from machine to machine without meaning anything."""
    kept = {k: v for k, v in notebook.metadata.items() if k == "accelerator"}  # Colab gives the chapter a card
    notebook.metadata = NotebookNode(
        kept,
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python", "pygments_lexer": "ipython3"},
    )
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number:03}"
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k == "tags"})
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    return notebook


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Joins consecutive pieces of printed text: where they were cut depends on timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and output.output_type == "stream" == merged[-1].output_type and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def write(notebook: NotebookNode, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    os.replace(part, path)


def chapter_facts(path: Path, seconds: float) -> dict[str, Any]:
    """What the contents page says of a chapter: its title, the chapters it builds on, and its seconds, rounded up."""
    first = nbformat.read(path, as_version=4).cells[0].source
    return {
        "title": first.splitlines()[0].removeprefix("# "),
        "needs": sorted(set(re.findall(r"\((\d\d_\w+)\.ipynb\)", first))),
        "seconds": int(-(-seconds // 5) * 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="chapters, such as 01_bags; all if none is named")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--copies", action="store_true", help="write the copies for students and execute nothing")
    args = parser.parse_args()
    paths = [CHAPTERS / f"{name}.ipynb" for name in args.names] or sorted(CHAPTERS.glob("[0-9]*.ipynb"))
    if args.copies:
        for path in paths:
            write(student_copy(nbformat.read(path, as_version=4), path.name), path.parent / "student" / path.name)
        return
    os.environ["TQDM_DISABLE"] = "1"  # a progress bar would be stored
    os.environ["OMP_NUM_THREADS"] = "1"  # as in the test: trained numbers differ a little with the threads
    with ProcessPoolExecutor(args.workers) as pool:
        seconds = dict(zip(paths, pool.map(execute, paths), strict=True))
    known = json.loads(TIMES.read_text())["chapters"] if TIMES.exists() else {}
    known |= {path.stem: chapter_facts(path, s) for path, s in seconds.items()}
    at_once = "one chapter" if args.workers == 1 else f"{args.workers} chapters"
    device = f"{os.cpu_count()} CPU cores ({platform.machine()}), {at_once} at a time"
    TIMES.write_text(json.dumps({"device": device, "chapters": dict(sorted(known.items()))}, indent=1) + "\n")
    for path, s in seconds.items():
        print(f"{path.name}: {s:.0f} s")


if __name__ == "__main__":
    main()
