"""The stored chapters: executed, clean, in the agreed form. That their outputs come out again is nbval's task."""

import json
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from tools.repository import slug
from tools.student_copies import COPIES, EMPTY, errors, student_copy

ROOT = Path(__file__).parents[2]
COLAB = "https://colab.research.google.com"
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
chapters = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def has_tag(cell: nbformat.NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def test_there_are_chapters_and_the_book_has_them_all():
    toc = (ROOT / "_toc.yml").read_text()
    assert len(CHAPTERS) >= 4
    assert [path.stem for path in CHAPTERS] == re.findall(r"notebooks/(\w+)", toc)


@chapters
def test_executed_in_order_without_error(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [o.text for o in outputs if o.get("name") == "stderr"]


@chapters
def test_stored_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert set(notebook.metadata) - {"accelerator"} == {"kernelspec", "language_info"}
    assert [cell.id for cell in notebook.cells] == [f"cell-{i:03}" for i in range(1, len(notebook.cells) + 1)]
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    text = re.sub(r"[A-Za-z0-9+/=]{200,}", "picture", path.read_text(encoding="utf-8"))  # base64 may spell anything
    assert "widget-view" not in text
    assert not re.search(r"/(home|root|Users|work|tmp)/", text), "a path of the machine that ran it"


@chapters
def test_every_picture_has_alt_text(path):
    pictures = [o for cell in code_cells(path) for o in cell.outputs if "image/png" in o.get("data", {})]
    assert pictures
    for picture in pictures:
        assert len(picture.metadata["image/png"]["alt"]) > 20


@chapters
def test_anatomy(path):
    notebook = read(path)
    first, cells = notebook.cells[0].source, notebook.cells
    assert first.startswith(f"# {int(path.stem[:2])} · ")
    assert f"https://colab.research.google.com/github/{slug(ROOT)}/blob/main/notebooks/{path.name}" in first
    assert code_cells(path)[0].source == code_cells(CHAPTERS[0])[0].source  # one set-up cell for all
    headings = [
        re.match(r"(#+) ", line)[1] for c in cells if c.cell_type == "markdown" for line in headings_of(c.source)
    ]
    assert headings.count("#") == 1
    assert all(len(b) - len(a) <= 1 for a, b in pairwise(headings))
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for section in ("## Pitfalls", "## Summary", "## Recall", "## Exercises", "## Further reading"):
        assert section in text, section
    assert "{" + "ref}" not in text
    assert not re.search(r"\{[a-z:]+\}`", text), "a MyST role"
    assert not re.search(r"^(:::|```\{)", text, re.MULTILINE), "a MyST directive"
    kinds = "".join("c" if cell.cell_type == "code" else "m" for cell in cells)
    assert "ccc" not in kinds
    assert max(lines_of(cell) for cell in code_cells(path) if not has_tag(cell, "hide-input")) <= 30
    assert max(lines_of(cell) for cell in code_cells(path)) <= 62  # folded: set-up, plots, tables


def lines_of(cell) -> int:
    return len(cell.source.splitlines())


def headings_of(source: str) -> list[str]:
    return [line for line in source.splitlines() if re.match(r"#+ ", line)]


@chapters
def test_colab_gives_a_card_to_chapters_that_train_on_it(path):
    trains = any("sl.fit(" in cell.source and "device=" not in cell.source for cell in code_cells(path))
    for notebook in (read(path), read(path.parent / "student" / path.name)):
        promised = "trains on a graphics card where there is one" in notebook.cells[0].source
        assert notebook.metadata.get("accelerator") == ("GPU" if promised else None)
        assert trains or not promised


@chapters
def test_exercises_are_checked_and_stripped_for_students(path):
    cells = read(path).cells
    exercises = [i for i, cell in enumerate(cells) if has_tag(cell, "exercise")]
    assert len(exercises) >= 3
    for i in exercises:
        assert has_tag(cells[i], "hide-input")
        assert cells[i].source.count("### BEGIN SOLUTION") == cells[i].source.count("### END SOLUTION") >= 1
        check = next(cell for cell in cells[i + 1 :] if cell.cell_type == "code")
        assert "sl.checks." in check.source
    student = read(path.parent / "student" / path.name)
    nbformat.validate(student)
    assert student == student_copy(read(path), path.name), "make notebooks, or python -m tools.notebooks --copies"
    address = f"github/{slug(ROOT)}/blob/main/notebooks"
    assert f"({COLAB}/{address}/student/{path.name})" in cells[0].source
    assert re.findall(rf"{COLAB}/\S+\.ipynb", student.cells[0].source) == [f"{COLAB}/{address}/student/{path.name}"]
    stubs = [cell for cell in student.cells if 'raise NotImplementedError("nothing is filled in yet")' in cell.source]
    assert len(stubs) == len(exercises)
    assert [c.id for c in student.cells] == [c.id for c in cells]
    for i, cell in enumerate(student.cells):
        assert "SOLUTION" not in cell.source
        assert "<details>" not in cell.source, "an answer"
        assert cell.get("execution_count") is None
        if cell.cell_type == "code":
            pictures = [o.metadata["image/png"]["alt"] for o in cell.outputs if "image/png" in o.get("data", {})]
            kept = [o.metadata["image/png"]["alt"] for o in cells[i].outputs if "image/png" in o.get("data", {})]
            assert pictures == kept, "the pictures to compare with, with their alt text"
        if cell.cell_type == "code" and "!" not in cell.source and "%" not in cell.source:
            compile(cell.source, f"{path.name} cell {i}", "exec")
        if i not in exercises and cell.cell_type == "code":
            assert cell.source == cells[i].source


@chapters
def test_runs_within_a_minute(path):
    measured = json.loads((ROOT / "book" / "results" / "chapters.json").read_text())
    assert measured["chapters"][path.stem]["seconds"] <= 60


@chapters
def test_numbers_have_at_most_four_decimals(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if not has_tag(cell, "nbval-ignore-output"):
                assert not re.search(r"\d\.\d{5,}", text), text


@chapters
def test_printed_output_fits_the_column(path):
    """88 characters, as code: what is wider is cut off at the right. Tables as HTML and texts of pictures are not."""
    for cell in code_cells(path):
        for output in cell.outputs:
            data = output.get("data", {})
            text = output.get("text", "" if {"text/html", "image/png"} & set(data) else data.get("text/plain", ""))
            wide = [line for line in text.splitlines() if len(line) > 88]
            assert not wide, f"{cell.id}: {wide[0]}"


@chapters
def test_setup_and_plots_are_folded(path):
    for cell in code_cells(path):
        lines = lines_of(cell)
        imports = len(re.findall(r"^(?:import|from) ", cell.source, re.MULTILINE))
        if imports > max(5, lines / 2) or "plt.subplots" in cell.source:
            assert has_tag(cell, "hide-input"), f"{cell.id}: tag it hide-input"


def test_a_copy_for_students_runs_to_the_end():
    """One of them in a kernel; python -m tools.student_copies runs them all."""
    found = errors(COPIES / "11_choosing_a_kernel.ipynb")
    assert found
    assert set(found) <= EMPTY
