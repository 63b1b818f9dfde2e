"""Feature bags: slides whose patches were turned into features before, read from their files when they are needed."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from samil_lite.bags import Bags, Key, chosen_bags
from samil_lite.data.arrays import h5_dataset, open_h5
from samil_lite.files import load_torch, read_csv
from samil_lite.fingerprint import digest

SUFFIXES = (".h5", ".pt")
MISSING = {
    "",
    "?",
    "-",
    "--",
    "na",
    "n/a",
    "<na>",
    "#n/a",
    "#na",
    "nan",
    "-nan",
    "null",
    "none",
    "nat",
    "[not available]",
}


@dataclass(frozen=True, eq=False, repr=False)
class FeatureBags:
    """Bags that stay on disk: indexing reads the files of the chosen bags, and nothing else is kept.

    Made by `feature_bags`. `fit`, `predict` and `evaluate` take it in place of `Bags`.

    Attributes:
        paths: of the files, in the order of the table.
        sizes: number of instances of each bag, shape (B,).
        width: number of features, d.
        labels: integers, shape (B,); None if no label column was named.
        classes: names of the classes 0, 1, …, if the table has names; None if it has integers.
        has_coordinates: whether every file has coordinates; only then the bags that are read have them.
        table: the rows of the table, one for each bag, in the same order.
    """

    paths: tuple[Path, ...]
    sizes: Tensor
    width: int
    labels: Tensor | None
    classes: tuple[str, ...] | None
    has_coordinates: bool
    table: pd.DataFrame

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bags, those of the files without their endings."""
        return tuple(path.stem for path in self.paths)

    @property
    def n_instances(self) -> int:
        """Number of instances in all bags, N."""
        return int(self.sizes.sum())

    def __len__(self) -> int:
        """Number of bags, B."""
        return len(self.paths)

    def __getitem__(self, key: Key) -> Bags:
        """Reads the chosen bags: an integer, a slice, integers or a mask, as for `Bags`.

        Raises:
            IndexError: if a number is out of range or no bag is chosen.
            ValueError: if a file holds NaN or infinity, or is no longer what it was; the message names it.
        """
        chosen = chosen_bags(key, len(self)).tolist()
        parts = [self._read(b) for b in chosen]
        features, coordinates = [x for x, _ in parts], [xy for _, xy in parts if xy is not None]
        labels = None if self.labels is None else self.labels[chosen]
        try:
            return Bags.from_list(features, labels, coordinates=coordinates if self.has_coordinates else None)
        except ValueError as error:  # it says bags[0]; the reader needs the file
            broken = [str(self.paths[b]) for b, x in zip(chosen, features, strict=True) if not x.isfinite().all()]
            raise ValueError(f"{', '.join(broken)}: {error}") from error

    def __iter__(self) -> Iterator[Bags]:
        return (self[b] for b in range(len(self)))

    def subset(self, key: Key) -> "FeatureBags":
        """The chosen bags, still on disk: for folds, where indexing would read them."""
        chosen = chosen_bags(key, len(self)).tolist()
        return replace(
            self,
            paths=tuple(self.paths[b] for b in chosen),
            sizes=self.sizes[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            table=self.table.iloc[chosen].reset_index(drop=True),
        )

    def digest(self) -> str:
        """What tells these bags from others: names, sizes and times of the files, and what their headers say."""
        files = [(path.name, (found := path.stat()).st_size, found.st_mtime_ns) for path in self.paths]
        return digest(files, self.sizes, self.width, self.has_coordinates)

    def group(self, column: str) -> np.ndarray:
        """A column of the table, one value for each bag: the patients, say, that must not be in two folds.

        Raises:
            ValueError: if there is no such column, or a bag has no value in it.
        """
        _check_columns(self.table, column)
        values = self.table[column]
        for name, value in zip(self.names, values, strict=True):
            if _is_missing(value):
                raise ValueError(f"column {column!r}: expected a value for each bag, but {name} has none")
        return values.to_numpy()  # type: ignore[no-any-return]

    def _read(self, b: int) -> tuple[Tensor, Tensor | None]:
        """Features (n, d) and coordinates (n, 2) of one bag, both float32."""
        path, expected = self.paths[b], (int(self.sizes[b]), self.width)
        with _contents(path) as (features, coords):
            if tuple(features.shape) != expected or (self.has_coordinates and coords is None):
                raise ValueError(f"{path} has changed: it had {expected} features, now {tuple(features.shape)}")
            x, xy = _float32(features), _float32(coords) if self.has_coordinates else None
        if xy is not None and not xy.isfinite().all():
            raise ValueError(f"{path}: expected finite coords, got NaN or infinity")
        return x, xy

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else f"labels {dict(sorted(Counter(self.labels.tolist()).items()))}"
        return (
            f"FeatureBags({len(self)} bags of {int(self.sizes.min())} to {int(self.sizes.max())} instances, "
            f"{self.n_instances} in all, {self.width} features, "
            f"{'with' if self.has_coordinates else 'no'} coordinates, {labels}, in {self.paths[0].parent})"
        )


def feature_bags(
    folder: str | Path,
    table: str | Path | pd.DataFrame,
    label: str | None = "label",
    bag: str = "slide_id",
    allow_unlisted: bool = False,
    verify: bool = False,
) -> FeatureBags:
    """Bags of features that were extracted before, one file for each bag, read when they are needed.

    A bag is a slide, an instance one of its patches, the label that of the slide. This is the layout that
    `CLAM <https://github.com/mahmoodlab/CLAM>`__ writes and most tools for whole slides can write:

    ::

        folder/                      or folder/h5_files/, folder/pt_files/ as CLAM makes them
          slide_1.h5                 features (n, d), floating point; coords (n, 2), optional
          slide_2.pt                 or a tensor (n, d)
        table.csv                    slide_id,label,patient,…

    Coordinates are (x, y) as the file has them; in CLAM's, they are the upper left corner of the patch, in pixels of
    the slide's finest level. A `.pt` file has none. It is opened by `torch.load(…, weights_only=True)`, so it runs no
    code. All headers are read here and checked, which takes milliseconds a file; features are read by indexing.

    Give the model a layer of its own, `torch.nn.Sequential(torch.nn.Linear(d, 256), torch.nn.ReLU())`, as CLAM does:
    attention straight on features that take both signs (encoder `torch.nn.Identity()`) can start out turned away from
    the key instances, by the seed, and stay so.

    Args:
        folder: that has the files. Others than `.h5` and `.pt` are left alone. If it has neither, its `h5_files` is
            looked into, then `pt_files`.
        table: path of a CSV file, all of whose columns are read as text, or a data frame. The bags come in its order.
        label: column of the labels: integers from 0, kept as they are, or names, numbered in sorted order; a blank, NA
            or NaN is a missing label. None: the bags have no labels.
        bag: column of the names of the bags, which are those of the files without `.h5` or `.pt`.
        allow_unlisted: whether the folder may have files that the table does not list; they are left out.
        verify: whether to read all features and coordinates once, in search of NaN and infinity, which are found in
            training otherwise.

    Returns:
        `FeatureBags`, whose `labels` and `group(column)` are at hand without reading.

    Raises:
        FileNotFoundError: if the folder, the table or the file of a row is not there.
        ValueError: if a column is missing, a name is missing or listed twice, a file is not listed or there twice, a
            label is missing or neither an integer nor a name, or a file is broken, empty or unlike the first one.
        ImportError: if there are `.h5` files and h5py is not installed.
    """
    rows = _read_table(table)
    _check_columns(rows, bag, *([] if label is None else [label]))
    names = ["" if _is_missing(name) else str(name).strip() for name in rows[bag]]
    if not names:
        raise ValueError("table: expected at least one row, got none")
    if "" in names:
        raise ValueError(
            f"column {bag!r}: expected a name in each row, but row {names.index('')} of the table has none"
        )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(f"column {bag!r}: {name} is listed {times} times")
    files = _files(Path(folder), names, allow_unlisted)
    labels, classes = (None, None) if label is None else _labels(names, rows[label], label)
    paths = tuple(files[name] for name in names)
    headers = [_header(path) for path in paths]
    sizes, widths, coordinates = zip(*headers, strict=True)
    for path, width in zip(paths, widths, strict=True):
        if width != widths[0]:
            raise ValueError(f"{path}: expected {widths[0]} features as in {paths[0]}, got {width}")
    bags = FeatureBags(paths, torch.tensor(sizes), widths[0], labels, classes, all(coordinates), rows)
    if verify:
        for _ in bags:
            pass
    return bags


def _read_table(table: str | Path | pd.DataFrame) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        return table.reset_index(drop=True)
    if not Path(table).exists():
        raise FileNotFoundError(f"table: {table} is not a file; expected a CSV with a row for each bag")
    # As text, or slide 007 would become 7.
    return read_csv(Path(table), dtype=str, keep_default_na=False, index_col=False)


def _check_columns(table: pd.DataFrame, *columns: str) -> None:
    for column in columns:
        if (times := list(table.columns).count(column)) != 1:
            which = f"{'one' if times else 'a'} column {column!r}"
            raise ValueError(f"table: expected {which}, got {', '.join(map(str, table.columns))}")


def _is_missing(value: Any) -> bool:
    return bool(pd.isna(value)) or str(value).strip().lower() in MISSING


def _files(folder: Path, names: list[str], allow_unlisted: bool) -> dict[str, Path]:
    """The file of each name."""
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: {folder} is not a folder; expected one with a .h5 or .pt file for each bag")
    for place in (folder, folder / "h5_files", folder / "pt_files"):
        found = [path for path in place.glob("[!.]*") if path.suffix in SUFFIXES]
        if found:
            break
    else:
        raise FileNotFoundError(f"folder: {folder} has no .h5 and no .pt file")
    files: dict[str, Path] = {}
    for path in sorted(found):
        if path.stem in files:
            raise ValueError(f"{path}: this bag is there twice, the other file is {files[path.stem].name}")
        files[path.stem] = path
    for name in names:
        if name not in files:
            raise FileNotFoundError(f"{place / name}.h5 or .pt is not there, but the table lists {name}")
    unlisted = sorted(files.keys() - set(names))
    if unlisted and not allow_unlisted:
        raise ValueError(
            f"{files[unlisted[0]]} is not in the table ({len(unlisted)} file(s) are not); "
            "allow_unlisted=True leaves them out"
        )
    return files


def _labels(names: list[str], column: pd.Series, label: str) -> tuple[Tensor, tuple[str, ...] | None]:
    """Labels (B,), and the names of the classes if the column has names."""
    texts = [str(value).strip() for value in column]
    for name, value in zip(names, column, strict=True):
        if _is_missing(value):
            raise ValueError(f"column {label!r}: expected a label for each bag, but {name} has none")
    integer, number = re.compile(r"\d{1,9}"), re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
    if all(map(integer.fullmatch, texts)):
        return torch.tensor([int(text) for text in texts]), None
    if numbers := [(text, name) for text, name in zip(texts, names, strict=True) if number.fullmatch(text)]:
        text, name = next((pair for pair in numbers if not integer.fullmatch(pair[0])), numbers[0])
        raise ValueError(
            f"column {label!r}: expected integers from 0 in all rows, or names of classes, got {text!r} for {name}"
        )
    number_of = {text: number for number, text in enumerate(sorted(set(texts)))}
    return torch.tensor([number_of[text] for text in texts]), tuple(number_of)


def _header(path: Path) -> tuple[int, int, bool]:
    """Size and width of a bag and whether it has coordinates; reads no features."""
    with _contents(path) as (features, coords):
        n, width = features.shape
        return n, width, coords is not None


@contextmanager
def _contents(path: Path) -> Iterator[tuple[Any, Any]]:
    """Features and coordinates (or None) of an open file, types and shapes checked; they are read by indexing."""
    with _opened(path) as (features, coords):
        shape, kind = tuple(features.shape), features.dtype
        is_float = kind.is_floating_point if isinstance(features, Tensor) else kind.kind == "f"
        if len(shape) != 2 or 0 in shape or not is_float:
            raise ValueError(f"{path}: expected features of shape (n, d), floating point, got {kind} of shape {shape}")
        if coords is not None and (tuple(coords.shape) != (shape[0], 2) or coords.dtype.kind not in "iuf"):
            raise ValueError(
                f"{path}: expected coords of shape ({shape[0]}, 2), numbers, got {coords.dtype} of {coords.shape}"
            )
        yield features, coords


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    if path.suffix == ".pt":
        yield _tensor(path), None
        return
    with open_h5(path) as file:
        features, coords = h5_dataset(path, file, "features"), h5_dataset(path, file, "coords")
        if features is None:
            names = ", ".join(map(str, file))
            raise ValueError(f"{path}: expected a dataset named features, got {names or 'an empty file'}")
        yield features, coords


def _tensor(path: Path) -> Tensor:
    """The tensor of a file, mapped to memory: its numbers are read at first use."""
    x = load_torch(path, what=" is broken or holds more than a tensor")
    if not isinstance(x, Tensor):
        raise ValueError(f"{path}: expected a tensor of features (n, d), got {type(x).__name__}")
    return x.detach()


def _float32(x: Any) -> Tensor:
    """Reads all of a tensor or of an HDF5 dataset."""
    return x.float() if isinstance(x, Tensor) else torch.from_numpy(np.asarray(x[:], np.float32))
