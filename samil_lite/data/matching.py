"""Which file belongs to which name in a table."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from samil_lite.data.layouts import SUFFIXES

SLIDES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".czi", ".vms", ".bif", ".isyntax", ".dcm", ".qptiff")
MANY = 2000  # names among which a similar one is looked for; it takes time in proportion


class Files:
    """The files of features in a folder, and what they may be called in a table.

    A file is found by its name without ending, by its path in the folder, or by the name of its own folder if it is the
    only one there. Names in a table may have the ending of a slide or of a file, or a path before them.

    Attributes:
        place: folder in which they are: the one given, its `h5_files`, its `pt_files`, or the one given with all below
            it if those have none.
        paths: of all files.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"folder: {folder} is not a folder; expected one with a file for each bag")
        for place in (folder, folder / "h5_files", folder / "pt_files"):
            self.place, self.paths = place, _in(place)
            if self.paths:
                break
        else:
            self.place, self.paths = folder, _below(folder)
        if not self.paths:
            raise FileNotFoundError(f"folder: {folder} has no .h5 and no .pt file, no .hdf5, .pth or .npy either")
        in_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in self.paths:
            in_folder[path.parent].append(path)
        self._known: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            names = {path.stem, path.relative_to(folder).with_suffix("").as_posix()}
            if len(in_folder[path.parent]) == 1 and path.parent != self.place:
                names.add(path.parent.name)
            for name in names:
                self._known[name].append(path)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._known or stripped(name) in self._known)

    def __getitem__(self, name: str) -> Path:
        """The file of a name.

        Raises:
            FileNotFoundError: if there is none; a near match is suggested.
            ValueError: if there are several.
        """
        for text in (name, re.sub(r"\.[A-Za-z0-9]+$", "", name) if _ending(name) else name, stripped(name)):
            if found := self._known.get(text):
                if len(found) == 1:
                    return found[0]
                other = found[0].name if found[0].parent == found[1].parent else found[0]
                raise ValueError(
                    f"{found[1]}: this bag is there twice, the other file is {other}; keep one of them, or give the "
                    "folder of one"
                )
        raise FileNotFoundError(
            f"{self.place / name}.h5 or .pt is not there, but the table lists {name}{self._suggestion(name)}"
        )

    def unlisted(self, used: Sequence[Path]) -> list[Path]:
        """Files that no name has, in folders where others have one."""
        folders, taken = {path.parent for path in used}, set(used)
        return [path for path in self.paths if path.parent in folders and path not in taken]

    def _suggestion(self, name: str) -> str:
        plain = _plain(name)
        near = [known for known in self._known if _plain(known) == plain]
        near = near or [known for known in self._known if known.startswith(f"{stripped(name)}.")]
        if not near and len(self._known) <= MANY:
            same_numbers = [known for known in self._known if re.findall(r"\d+", known) == re.findall(r"\d+", name)]
            near = get_close_matches(name, same_numbers, n=1, cutoff=0.8)
        if not near:
            return ""
        lost = plain.isdigit() and near[0].startswith("0")
        why = "; tables read as numbers lose their zeros: read it with dtype=str" if lost else ""
        return f"; did you mean {near[0]}{f' or {near[1]}' if len(near) > 1 else ''}?{why}"


def stripped(name: str) -> str:
    """A name without the path before it and the ending of a slide or a file of features."""
    name = re.split(r"[/\\]", name)[-1]
    while ending := _ending(name):
        name = name[: -len(ending)]
    return name


def _ending(name: str) -> str:
    lower = name.lower()
    return next((e for e in (*SLIDES, *SUFFIXES) if lower.endswith(e) and len(name) > len(e)), "")


def _plain(name: str) -> str:
    """What is left of a name if case, zeros before a number, .0 behind it and signs between words do not count."""
    name = re.sub(r"\.0$", "", stripped(name)).casefold()
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\s_.-]+", "-", name))


def _in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("[!.]*") if p.suffix.lower() in SUFFIXES and not p.is_dir())


def _below(folder: Path) -> list[Path]:
    """All files below a folder; of a pair in h5_files and pt_files the first."""
    found = []
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found += _in(Path(place))
    there = set(found)
    return sorted(
        path
        for path in found
        if path.parent.name != "pt_files" or path.parent.with_name("h5_files") / f"{path.stem}.h5" not in there
    )
