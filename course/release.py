"""Makes the notebooks that students get: python -m course.release --seed 0 [--solutions FOLDER].

The source notebooks are whole, for the first variant of each formula. A release writes the seed's formulas, takes the
solutions out, and checks that none of their lines is left.
"""

import argparse
import functools
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course.variants import VARIANTS, variant

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).parent / "source"
RELEASED = ROOT / "notebooks" / "assignments"
STUB = 'raise NotImplementedError("nothing is filled in yet")'
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)\n *### END SOLUTION", re.DOTALL | re.MULTILINE)


def solved(name: str, seed: int) -> NotebookNode:
    """An assignment with its solutions, in the formulas of a seed, and with the chapters' set-up cell."""
    notebook: NotebookNode = nbformat.read(SOURCE / f"{name}.ipynb", as_version=4)
    first, chosen, setup = variant(name, 0), variant(name, seed), chapters_setup()
    for number, cell in enumerate(notebook.cells, 1):
        tags = cell.metadata.get("tags", [])
        text = setup.replace("/notebooks\n", "/notebooks/assignments\n") if "setup" in tags else cell.source
        for key in first:
            text = text.replace(first[key], chosen[key])
        cell.source = re.sub(r"^SEED = \d+$", f"SEED = {seed}", text, flags=re.MULTILINE)
        cell.id = f"cell-{number:03}"
    return notebook


@functools.cache
def chapters_setup() -> str:
    """The set-up cell of the chapters."""
    chapter = nbformat.read(sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))[0], as_version=4)
    return str(next(cell for cell in chapter.cells if cell.cell_type == "code").source)


def released(name: str, seed: int) -> NotebookNode:
    """The same for students: stubs, no solution, no answer.

    Raises:
        ValueError: if a line of a solution is left somewhere.
    """
    notebook = solved(name, seed)
    lines: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            lines |= {line.strip() for m in SOLUTION.finditer(cell.source) for line in m[2].splitlines()}
            cell.source = SOLUTION.sub(rf"\1{STUB}", cell.source)
            cell.outputs, cell.execution_count = [], None
        elif "answer" in cell.metadata.get("tags", []):
            cell.source = "*Your answer:*"
    for cell in notebook.cells:
        left = {line for line in lines if len(line) > 12 and line in cell.source}
        if left:
            raise ValueError(f"{name}: lines of a solution are left: {sorted(left)}")
    return notebook


@functools.cache
def answers(name: str, seed: int) -> dict[str, str]:
    """The right answers of an assignment: for each function or class that a cell defines, the source of that cell."""
    found: dict[str, str] = {}
    for cell in solved(name, seed).cells:
        if "exercise" in cell.metadata.get("tags", []):
            source = re.sub(r"^ *### (BEGIN|END) SOLUTION\n?", "", cell.source, flags=re.MULTILINE)
            found |= dict.fromkeys(re.findall(r"^(?:def|class) (\w+)", source, re.MULTILINE), source)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RELEASED, help="folder for the notebooks")
    parser.add_argument("--solutions", type=Path, help="folder for the solved notebooks; keep it out of the repository")
    args = parser.parse_args()
    for name in VARIANTS:
        for folder, make in ((args.out, released), (args.solutions, solved)):
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                text = nbformat.writes(make(name, args.seed)) + "\n"
                (folder / f"{name}.ipynb").write_text(text, encoding="utf-8")
                print(folder / f"{name}.ipynb")


if __name__ == "__main__":
    main()
