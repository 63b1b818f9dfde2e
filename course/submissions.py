"""Finds the notebooks that were handed in, whatever a learning platform calls them, and reads what they hold."""

import json
import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LARGEST_ARCHIVE = 4 * 2**30  # bytes, unpacked
IGNORED = {"__MACOSX", ".ipynb_checkpoints", ".git", ".DS_Store", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Submission:
    """What one student handed in: the notebooks, of which the first is graded, or none."""

    student: str
    notebooks: tuple[Path, ...]
    note: str = ""


class NotReadable(Exception):  # noqa: N818
    """A file is no notebook; the text says why."""


def unpacked(path: Path, folder: Path) -> Path:
    """The submissions as a folder: an archive, and archives inside, are unpacked into `folder`.

    Raises:
        FileNotFoundError: if there is nothing at this path.
        ValueError: if an archive is damaged or would take more than `LARGEST_ARCHIVE` bytes.
    """
    if not path.exists():
        raise FileNotFoundError(f"SUBMISSIONS: there is no folder or zip file {path}")
    target = folder / "submissions"
    if path.is_dir():
        archives = sorted(p for p in path.rglob("*.zip") if not IGNORED & set(p.parts))
        if not archives:
            return path
        shutil.copytree(path, target)
    else:
        extract(path, target)
    for _ in range(3):  # an archive in an archive in an archive
        for inner in sorted(target.rglob("*.zip")):
            extract(inner, inner.with_suffix(""))
            inner.unlink()
    return target


def extract(archive: Path, target: Path) -> None:
    """Unpacks a zip file; names that lead out of the folder stay inside."""
    try:
        with zipfile.ZipFile(archive) as file:
            if (size := sum(info.file_size for info in file.infolist())) > LARGEST_ARCHIVE:
                raise ValueError(f"SUBMISSIONS: {archive.name} would take {size / 2**30:.1f} GB unpacked")
            file.extractall(target)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"SUBMISSIONS: {archive.name} cannot be unpacked: {error}") from error


def find(folder: Path, functions: Sequence[str]) -> list[Submission]:
    """The submissions in a folder, by student.

    Each file or folder in it is a submission and its name the student's; folders around all of them are passed over. Of
    several notebooks in a student's folder the one that defines most of the `functions` is graded, the newest of equal
    ones.
    """
    while len(inside := _entries(folder)) == 1 and inside[0].is_dir() and len(_entries(_end(inside[0]))) > 1:
        folder = _end(inside[0])
    found = []
    for entry in _entries(folder):
        if entry.is_dir():
            files = [p for p in sorted(entry.rglob("*")) if p.is_file() and not IGNORED & set(p.parts)]
            found.append(_submission(entry.name, files, functions))
        else:
            found.append(_submission(re.sub(r"(\.ipynb|\.json|\.txt)+$", "", entry.name), [entry], functions))
    return found


def _entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name not in IGNORED)


def _end(folder: Path) -> Path:
    """The end of a chain of folders that hold nothing but the next."""
    inside = _entries(folder)
    return _end(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder


def _submission(student: str, files: list[Path], functions: Sequence[str]) -> Submission:
    notebooks = [p for p in files if ".ipynb" in p.name] or [p for p in files if _looks_right(p)]
    if not notebooks:
        return Submission(
            student, (), "no notebook, only " + ", ".join(p.name for p in files) if files else "an empty folder"
        )

    def fits(path: Path) -> tuple[int, float]:
        try:
            text = "\n".join(code_cells(path))
        except NotReadable:
            return -1, path.stat().st_mtime
        return sum(bool(re.search(rf"^(def|class) {f}\b", text, re.M)) for f in functions), path.stat().st_mtime

    best = sorted(notebooks, key=fits, reverse=True)
    note = f"{len(best)} notebooks; {best[0].name} was graded" if len(best) > 1 else ""
    return Submission(student, tuple(best), note)


def _looks_right(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1000).lstrip(b"\xef\xbb\xbf \n\r\t").startswith(b"{") and path.stat().st_size < 2**28


def _cells(path: Path, kind: str) -> list[str]:
    """The sources of all cells of a kind, in order; metadata, ids and outputs are not looked at."""
    try:
        notebook = json.loads(path.read_bytes().decode("utf-8-sig"))
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        chosen = [cell for cell in cells if cell.get("cell_type") == kind]
        return ["".join(cell.get("source", cell.get("input", ""))) for cell in chosen]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        why = "the file is empty" if not path.stat().st_size else f"{type(error).__name__}: {error}"
        raise NotReadable(f"{path.name} is not a notebook: {why}"[:200]) from error


def code_cells(path: Path) -> list[str]:
    """The code of a notebook.

    Raises:
        NotReadable: if the file is no notebook.
    """
    return _cells(path, "code")


def written(path: Path, known: set[str]) -> list[str]:
    """The text cells that are not in the release: what a person reads."""
    return [text.strip() for text in _cells(path, "markdown") if text.strip() and text.strip() not in known]
