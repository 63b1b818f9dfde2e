"""The copies of the chapters that students fill in: stubs for solutions, no answers, the outputs to compare with.

python -m tools.student_copies runs them all as they are, from top to bottom; the only errors are those of exercises.
"""

import re
import sys
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

COPIES = Path(__file__).parents[1] / "notebooks" / "student"
EMPTY = {"NotImplementedError", "Unanswered"}  # what an exercise raises that is not filled in, and its check

SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION", re.DOTALL | re.MULTILINE)
STUB = 'raise NotImplementedError("nothing is filled in yet")'
FOLDED = re.compile(r"<details><summary>(.*?)</summary>\n.*?</details>\n*", re.DOTALL)
BADGE = re.compile(r"(\[▶ Open in Colab\]\(\S+/blob/main/notebooks/)(\d\d_\w+\.ipynb)\)( · \[for students\]\(\S+?\))?")
OF_PAGE = ("dark", "narrow", "narrow_dark")  # pictures that only the built page shows, most of a notebook's weight
NOTE = (
    "*This is the copy to work in. Fill in the cells that raise `NotImplementedError`; the check under each says what "
    "is still wrong. Stored outputs are what comes out when all is right: run a cell to put yours in their place. "
    "[The chapter]({name}) has a solution of each exercise and the answers to the questions, folded.*"
)


def student_copy(notebook: NotebookNode, name: str) -> NotebookNode:
    """A chapter with a stub in place of every solution, its own badge, and without answers.

    Args:
        notebook: the chapter, executed.
        name: its file, such as 01_bags.ipynb.
    """
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.source = SOLUTION.sub(rf"\1{STUB}", cell.source)
            cell.execution_count = None
            for output in cell.outputs:
                output.pop("execution_count", None)
                for metadata in output.get("metadata", {}).values():
                    for variant in OF_PAGE:
                        metadata.pop(variant, None)
                if output.output_type == "execute_result":
                    output.output_type = "display_data"
        else:
            cell.source = without_answers(cell.source, name)
    first = BADGE.sub(rf"\1student/{name})", copy.cells[0].source)
    title, _, rest = first.partition("\n")
    copy.cells[0].source = f"{title}\n\n{NOTE.format(name=name)}\n{rest}"
    for cell in copy.cells:
        cell.source = re.sub(r"\]\((?=\d\d_\w+\.ipynb|\.\./)", "](../", cell.source)  # links, from one folder down
    return copy


def without_answers(text: str, name: str) -> str:
    """Takes the folded answers out of a text cell; a summary that is the question itself stays."""

    def question(fold: re.Match[str]) -> str:
        return "" if fold[1] in ("Answer", "Answers") else f"{fold[1]}\n\n"

    if not FOLDED.search(text):
        return text
    text = FOLDED.sub(question, text)
    where = f"The answers are folded under the questions of [the chapter]({name}).\n\n"
    before, recall, after = text.partition("## Recall\n\n")
    return before + recall + where + after if recall else text.rstrip("\n")


def errors(path: Path) -> list[str]:
    """Names of the errors that a notebook raises when all its cells run in a kernel, one after another."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=600, allow_errors=True, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.ename for output in outputs if output.output_type == "error"]


def main() -> None:
    failed = False
    for path in sorted(COPIES.glob("*.ipynb")):
        found = errors(path)
        other = sorted(set(found) - EMPTY)
        failed |= bool(other)
        print(
            f"{path.name}: {len(found)} cells wait for an answer{'; ' + ', '.join(other) if other else ''}", flush=True
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
