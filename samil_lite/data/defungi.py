"""DeFungi: microscope photographs of fungi that infect people, as bags of patches."""

import hashlib
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from samil_lite.bags import Bags
from samil_lite.data.images import check_chosen, data_folder, find_images, image_size, read_rgb
from samil_lite.files import read_bytes, read_csv

SOURCE = "https://archive.ics.uci.edu/dataset/773/defungi"
CLASSES = {"H1": "TSH", "H2": "BASH", "H3": "GMA", "H5": "SHC", "H6": "BBH"}  # folder: the paper's short name
NAME = re.compile(r"(?P<sample>H\d_\d+)(?P<photograph>[a-z]*)_(?P<patch>\d+)")  # H3_1a_32: sample 1, photograph a
# Pairs of samples that share a patch, though not to the last bit; found by eye.
NEARLY_THE_SAME = (("H5_111", "H5_54"), ("H6_15", "H6_51"))


def defungi_bags(
    folder: str | Path | None = None, *, classes: Sequence[str] = tuple(CLASSES), progress: bool = True
) -> Bags:
    """Photographs from DeFungi, each a bag of the patches that were cut from it, in five classes of fungi.

    A bag is one photograph, an instance one patch, the label the number of its class in `classes`. Data:
    `Pineda Sopo, Hajati and Gheisari (2021) <https://arxiv.org/abs/2109.07322>`__, 9,114 patches of 877 photographs;
    this loader ships none. It expects ::

        defungi/
            H1/H1_1a_1.jpg, H1_1a_2.jpg …   sample 1, photograph a, patches 1, 2, …
            H2/ … H3/ … H5/ … H6/ …

    Where in its photograph a patch lies is not told. Photographs of one sample, and samples that share a patch, must
    not be divided between training and test: see `defungi_table`, column `group`.

    Args:
        folder: with the layout above; None: `defungi` in `$SAMIL_DATA` or in the user's cache folder.
        classes: folders to read; the label of a bag is the place of its folder here.
        progress: whether to show a progress bar.

    Returns:
        B bags in the order of `defungi_table`, with instances (N, 3, height, width), uint8, RGB, and labels (B,).

    Raises:
        FileNotFoundError: if the folder or a class is not there.
        ValueError: if a class is not known or has no image, a name does not say its sample and patch, or an image is
            broken or of another size than the first. The message names the file.
    """
    table = defungi_table(folder, classes=classes)
    paths = [path for of_photograph in table["paths"] for path in of_photograph]
    width, height = image_size(paths[0])
    pixels = np.empty((len(paths), 3, height, width), np.uint8)
    for i, path in enumerate(tqdm(paths, "DeFungi", unit="patch", disable=not progress)):
        patch = read_rgb(path)  # (height, width, 3)
        if patch.shape != (height, width, 3) or patch.dtype != np.uint8:
            raise ValueError(
                f"{path}: expected {height} × {width} pixels of 8 bits as in {paths[0].name}, "
                f"got {patch.shape[0]} × {patch.shape[1]} of {patch.dtype}"
            )
        pixels[i] = patch.transpose(2, 0, 1)
    offsets = np.concatenate([[0], table["n_patches"].cumsum()])
    return Bags(torch.from_numpy(pixels), torch.from_numpy(offsets), torch.tensor(table["label"].to_numpy()))


def defungi_table(folder: str | Path | None = None, *, classes: Sequence[str] = tuple(CLASSES)) -> pd.DataFrame:
    """What is known of each bag of `defungi_bags`, in the same order.

    Samples are in one group if they share a patch, byte for byte, or stand in `NEARLY_THE_SAME`: folds must not
    divide a group. (The public random split of the patches puts 716 of the 877 photographs on both sides.)

    Args:
        folder: as in `defungi_bags`.
        classes: as in `defungi_bags`.

    Returns:
        A row for each photograph with `photograph`, `class`, `label`, `sample`, `group`, `n_patches` and `paths`.

    Raises:
        FileNotFoundError, ValueError: as `defungi_bags`; images are hashed, not decoded.

    Warns:
        UserWarning: if the same patch is in two classes; the message lists them.
    """
    check_chosen("classes", classes, tuple(CLASSES), "folder")
    root = data_folder(folder, "defungi", SOURCE)
    rows = [row for label, name in enumerate(classes) for row in _photographs(root / name, label)]
    table = pd.DataFrame(rows)
    return table.assign(group=_groups(table))


def public_test(folder: str | Path | None = None) -> torch.Tensor:
    """Which patches the public random split tests, booleans (N,) in the order of `defungi_bags`.

    Read from `patches.csv` in the folder, a row for each patch with its `file` name and `repo_split`, train or test. It
    puts 716 of the 877 photographs on both sides: for measuring what such a split promises too much.

    Raises:
        FileNotFoundError: if the folder or the table is not there.
        ValueError: if the table has other columns, does not name a patch or names it twice, or says something else.
    """
    root = data_folder(folder, "defungi", SOURCE)
    table = root / "patches.csv"
    rows = read_csv(table, dtype=str)
    if missing := {"file", "repo_split"} - set(rows):
        raise ValueError(f"{table}: expected the columns file and repo_split, {sorted(missing)} not there")
    names = [path.name for of_photograph in defungi_table(root)["paths"] for path in of_photograph]
    if wrong := sorted({*rows["file"][rows["file"].duplicated()], *set(names).difference(rows["file"])}):
        raise ValueError(f"{table}: expected one row for each patch, {len(wrong)} have not, such as {wrong[0]}")
    side = rows.set_index("file")["repo_split"][names]
    if not side.isin(["train", "test"]).all():
        raise ValueError(f"{table}: repo_split: expected train or test, got {sorted(set(side.map(str)))}")
    return torch.tensor((side == "test").to_numpy())


def _photographs(folder: Path, label: int) -> list[dict[str, object]]:
    """A row for each photograph of a class, in natural order, its patches in the order of their numbers."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. Get the files from {SOURCE}")
    patches: dict[tuple[str, str], list[tuple[int, Path]]] = defaultdict(list)
    for stem, path in find_images(folder).items():
        match = NAME.fullmatch(stem)
        if match is None or not stem.startswith(folder.name):
            raise ValueError(f"{path}: expected a name such as {folder.name}_1a_2, sample 1, photograph a, patch 2")
        sample = match["sample"]
        patches[sample, sample + match["photograph"]].append((int(match["patch"]), path))
    if not patches:
        raise ValueError(f"{folder}: no image in this folder")
    return [
        {
            "photograph": photograph,
            "class": folder.name,
            "label": label,
            "sample": sample,
            "n_patches": len(numbered),
            "paths": [path for _, path in sorted(numbered)],
        }
        for (sample, photograph), numbered in patches.items()
    ]


def _groups(table: pd.DataFrame) -> pd.Series:
    """The name of the first sample that each photograph's sample is connected to by shared patches."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    holders: dict[bytes, list[int]] = defaultdict(list)  # of each patch: the rows that have it
    for row, paths in enumerate(table["paths"]):
        for path in paths:
            holders[hashlib.sha256(read_bytes(path)).digest()].append(row)
    shared = [rows for rows in holders.values() if len(set(rows)) > 1]
    if mixed := [rows for rows in shared if table["class"].iloc[rows].nunique() > 1]:
        names = "; ".join(" and ".join(table["photograph"].iloc[sorted(set(rows))]) for rows in mixed)
        warnings.warn(f"the same patch is in photographs of different classes: {names}", stacklevel=3)
    samples = list(table["sample"].drop_duplicates())
    number = {sample: i for i, sample in enumerate(samples)}
    pairs = [(table["sample"].iloc[rows[0]], table["sample"].iloc[other]) for rows in shared for other in rows[1:]]
    pairs += [pair for pair in NEARLY_THE_SAME if all(sample in number for sample in pair)]
    i, j = (np.array([number[pair[side]] for pair in pairs], dtype=int) for side in (0, 1))
    graph = coo_array((np.ones(len(pairs)), (i, j)), shape=(len(samples), len(samples)))
    component = connected_components(graph, directed=False)[1]  # (samples,)
    first = {c: samples[i] for i, c in reversed(list(enumerate(component)))}
    return table["sample"].map(lambda sample: first[component[number[sample]]])
