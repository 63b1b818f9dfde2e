"""IDRiD: photographs of the retina with a grade each, and for some of them where every lesion is."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from samil_lite.bags import Bags
from samil_lite.data.images import data_folder, find_images, image_size, is_hidden, natural, open_image, read_rgb
from samil_lite.data.photographs import Grid, photograph_bags
from samil_lite.files import read_bytes, read_csv

SOURCE = "https://doi.org/10.21227/H25W98"
SMALL = Path(__file__).parent / "idrid_small"  # 40 photographs with their licence, CC BY 4.0
LESIONS = {"MA": 1, "HE": 2, "EX": 4, "SE": 8}  # microaneurysms, haemorrhages, hard and soft exudates: bit of each
SPLITS = {"train": ("a", "Training"), "test": ("b", "Testing")}  # in official names
SAME_EYE = (("train_013", "train_397"),)  # two exposures of one eye, found by eye; there may be more
# A segmented photograph is a graded one too if their thumbnails differ by less, in mean absolute levels of 255: the
# 60 pairs lie below 0.7, all others above 3.
TWIN = 1.5


def idrid_bags(
    folder: str | Path | None = None,
    size: int = 128,
    *,
    height: int | None = None,
    stride: int | None = None,
    max_black: float | None = 0.7,
    black_level: int = 10,
    progress: bool = True,
) -> Bags:
    r"""Photographs of the retina from IDRiD, each a bag of patches, labelled by whether it has to be seen by a doctor.

    A bag is one photograph, an instance one patch on a centred grid; the label is 1 for a retinopathy grade of 2 or
    more (*referable*) and else 0. Data: `Porwal et al. (2018) <https://doi.org/10.3390/data3030025>`__, 516 graded
    photographs, CC BY 4.0. 40 of them travel with this package, in the folder `SMALL`: 20 of grade 0 and 20 referable.
    Of 81 photographs the lesions were outlined, of which 60 are graded as well; they are found by their thumbnails.

    The folder has one of two layouts: the official one, with `A. Segmentation/` and `B. Disease Grading/` as the
    archives unpack, or, scaled by whoever made it, ::

        idrid/
            labels.csv                      columns image, split, grade, edema_risk
            images/ or grading/             train_001.jpg … test_103.jpg
            masks/train_014_MA.png …        one for each outlined kind of lesion: MA, HE, EX, SE
            or segmentation/IDRiD_01.jpg …  and masks/MA/IDRiD_01.png …

    Args:
        folder: with one of these layouts; None: `idrid` in `$SAMIL_DATA` or in the user's cache folder.
        size: height and width of a patch, in pixels.
        height: of the photographs after resizing, in pixels; None leaves each as it is.
        stride: from one patch to the next, in pixels; None: `size`, no overlap.
        max_black: a patch with a larger share of black pixels is dropped; None keeps every patch.
        black_level: brightest value, 0 to 255, that counts as black.
        progress: whether to show a progress bar.

    Returns:
        B bags in the order of `idrid_table`, with instances (N, 3, size, size), uint8, RGB; labels (B,);
        instance_labels (N,), the sum of the bits in `LESIONS` of the kinds that a patch has a pixel of, 0 for none and
        −1 where lesions were not outlined; coordinates (N, 2), float32, centres (x, y) in pixels of the photograph.

    Raises:
        FileNotFoundError: if the folder, its table or a photograph that the table lists is not there.
        ValueError: if an argument is out of range, the table lacks a column, a grade is no number from 0 to 4, a
            photograph is listed twice or not at all, a photograph is broken, too small or all black, or a mask has
            another size than its photograph. The message names the file.
    """
    grid = Grid(size, size if stride is None else stride, height, max_black, black_level)
    table = idrid_table(folder)
    paths, labels = table["path"].tolist(), torch.tensor(table["label"].to_numpy())
    bags, cells = photograph_bags(paths, labels, grid, "IDRiD", progress)
    lesions = [
        _lesions(path, masks, grid)[kept] for path, masks, kept in zip(paths, table["masks"], cells, strict=True)
    ]
    return replace(bags, instance_labels=torch.from_numpy(np.concatenate(lesions)))


def idrid_table(folder: str | Path | None = None) -> pd.DataFrame:
    """What is known of each bag of `idrid_bags`, in the same order.

    Returns:
        A row for each graded photograph with `name`, `split` ("train" or "test"), `grade` (0 to 4), `edema` (0 to 2),
        `label` (1 for a grade of 2 or more), `group` (photographs that are the same to the last byte, or in
        `SAME_EYE`, share one: folds must not divide it), `path`, and `masks`, a dictionary from the kind of lesion to
        its file, empty where lesions were not outlined.

    Raises:
        FileNotFoundError, ValueError: as `idrid_bags`; photographs are hashed, not checked.

    Warns:
        UserWarning: if one photograph is there under two names with two grades; the message lists them.
    """
    root = data_folder(folder, "idrid", SOURCE)
    official = (root / "B. Disease Grading").is_dir()
    table = _official(root) if official else _scaled(root)
    masks = _masks(root, official)
    if segmented := {name: path for name, path in _segmented(root, official).items() if name in masks}:
        masks = {table["name"].iloc[i]: masks[name] for name, i in _twins(segmented, list(table["path"]))}
    digest = [hashlib.sha256(read_bytes(path)).hexdigest() for path in table["path"]]
    first = table["name"].groupby(digest).transform("first")
    same_eye = {second: one for one, second in SAME_EYE if one in set(table["name"])}
    table = table.assign(
        label=(table["grade"] >= 2).astype(np.int64),
        group=first.map(lambda name: same_eye.get(name, name)),
        masks=[masks.get(name, {}) for name in table["name"]],
    )
    grades = table.groupby(first)["grade"].agg(["nunique", list])
    if len(twice := grades[grades["nunique"] > 1]):
        pairs = [f"{', '.join(table['name'][first == name])} (grades {row['list']})" for name, row in twice.iterrows()]
        warnings.warn(f"IDRiD: the same photograph has two grades: {'; '.join(pairs)}", stacklevel=2)
    return table[["name", "split", "grade", "edema", "label", "group", "path", "masks"]]


def small_features() -> Bags:
    """Frozen features of the 40 photographs in `SMALL`, so that no backbone has to be there.

    EfficientNet-Lite0 on the patches of `idrid_bags(SMALL, size=64, height=512)`, and of its 1,280 numbers the first 64
    principal components over these patches.

    Returns:
        The bags of that call with instances (N, 64), float32, in place of pixels.
    """
    bags = idrid_bags(SMALL, size=64, height=512, progress=False)
    with np.load(SMALL / "features.npz") as stored:
        if not np.array_equal(stored["offsets"], bags.offsets.numpy()):
            raise ValueError(f"{SMALL / 'features.npz'}: it is not of the photographs in this folder")
        return replace(bags, instances=torch.from_numpy(stored["features"].astype(np.float32)))


def lesion_areas(bags: Bags, size: int, folder: str | Path | None = None, *, height: int | None = None) -> torch.Tensor:
    """How much of each patch each kind of lesion covers.

    Args:
        bags: as `idrid_bags` gives them, or with features in place of patches; their coordinates are used.
        size: of the patches, as given to `idrid_bags`.
        folder: as given to `idrid_bags`.
        height: as given to `idrid_bags`.

    Returns:
        Shape (N, 4), float32, shares from 0 to 1 in the order of `LESIONS`: a kind without a mask covers 0; NaN in
        photographs whose lesions were not outlined.

    Raises:
        FileNotFoundError, ValueError: as `idrid_bags`; ValueError too if the bags are of another number of photographs
            or have no coordinates.
    """
    table = idrid_table(folder)
    if len(bags) != len(table) or bags.coordinates is None:
        raise ValueError(
            f"bags: expected the {len(table)} photographs of {folder or 'IDRiD'} with coordinates, got {len(bags)} bags"
            f"{'' if bags.coordinates is not None else ' without'}"
        )
    grid = Grid(size, size, height, None, 0)
    corners = (bags.coordinates - (size - 1) / 2).round().long()  # (N, 2)
    areas = torch.full((bags.n_instances, len(LESIONS)), torch.nan)
    for b, (path, masks) in enumerate(zip(table["path"], table["masks"], strict=True)):
        rows = range(int(bags.offsets[b]), int(bags.offsets[b + 1]))
        if masks:
            areas[rows.start : rows.stop] = 0
        for kind, mask in masks.items():
            inside = torch.from_numpy(_inside(path, mask, grid)).float()  # (height, width)
            column = list(LESIONS).index(kind)
            for row, (x, y) in zip(rows, corners[rows.start : rows.stop].tolist(), strict=True):
                areas[row, column] = inside[y : y + size, x : x + size].mean()
    return areas


def _scaled(root: Path) -> pd.DataFrame:
    path = root / "labels.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table, and no 'B. Disease Grading' in {root}. See {SOURCE}")
    folder = next((root / name for name in ("images", "grading") if (root / name).is_dir()), root / "images")
    table = _read_table(path, {"image": "name", "split": "split", "grade": "grade", "edema_risk": "edema"})
    return _with_paths(table, path, folder)


def _official(root: Path) -> pd.DataFrame:
    grading = root / "B. Disease Grading"
    parts = []
    for split, (letter, word) in SPLITS.items():
        path = grading / "2. Groundtruths" / f"{letter}. IDRiD_Disease Grading_{word} Labels.csv"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such table. See {SOURCE}")
        columns = {"Image name": "name", "Retinopathy grade": "grade", "Risk of macular edema": "edema"}
        table = _with_paths(_read_table(path, columns), path, grading / "1. Original Images" / f"{letter}. {word} Set")
        short = split + table["name"].str.removeprefix("IDRiD")  # numbers repeat between the splits
        parts.append(table.assign(name=short, split=split))
    return pd.concat(parts, ignore_index=True)


def _read_table(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The columns of a table of grades, renamed and checked."""
    table = read_csv(path, dtype=str).rename(columns=lambda column: str(column).strip())
    if missing := [column for column in columns if column not in table]:
        raise ValueError(f"{path}: no column {missing[0]!r}, only {', '.join(map(repr, table))}")
    table = table[list(columns)].rename(columns=columns).dropna(how="all").map(str.strip, na_action="ignore")
    for column, highest in (("grade", 4), ("edema", 2)):
        numbers = pd.to_numeric(table[column], errors="coerce")
        if not (good := numbers.isin(range(highest + 1))).all():
            row = table[~good].iloc[0]
            raise ValueError(f"{path}: {row['name']}: expected {column} 0 to {highest}, got {row[column]!r}")
        table[column] = numbers.astype(np.int64)
    table["name"] = table["name"].map(lambda name: Path(str(name)).stem)
    if (twice := table["name"].duplicated()).any():
        raise ValueError(f"{path}: {table['name'][twice].iloc[0]} is listed twice")
    return table


def _with_paths(table: pd.DataFrame, listed_in: Path, folder: Path) -> pd.DataFrame:
    """The table in natural order of names, with the file of each photograph."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. See {SOURCE}")
    images = find_images(folder)
    if lost := [name for name in table["name"] if name not in images]:
        raise FileNotFoundError(f"{folder / lost[0]}: no such image, nor {len(lost) - 1} others; {listed_in} lists it")
    if extra := sorted(images.keys() - set(table["name"]), key=natural):
        raise ValueError(f"{images[extra[0]]}: not listed in {listed_in}")
    order = sorted(range(len(table)), key=lambda row: natural(table["name"].iloc[row]))
    return table.iloc[order].assign(path=table["name"].iloc[order].map(images)).reset_index(drop=True)


def _masks(root: Path, official: bool) -> dict[str, dict[str, Path]]:
    """For each outlined photograph the file of each kind of lesion; the optic disc is no lesion."""
    folder = root / ("A. Segmentation/2. All Segmentation Groundtruths" if official else "masks")
    masks: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".png", ".tif") or is_hidden(path.name):
            continue
        name, _, kind = path.stem.rpartition("_")
        if kind not in (*LESIONS, "OD"):  # masks/MA/IDRiD_01.png
            name, kind = path.stem, path.parent.name
        if kind in LESIONS:
            masks.setdefault(name, {})[kind] = path
    return masks


def _segmented(root: Path, official: bool) -> dict[str, Path]:
    """The outlined photographs, by name, where they are files of their own."""
    if not official:
        folder = root / "segmentation"
        return find_images(folder) if folder.is_dir() else {}
    images = root / "A. Segmentation" / "1. Original Images"
    folders = [images / f"{letter}. {word} Set" for letter, word in SPLITS.values()]
    return {name: path for folder in folders if folder.is_dir() for name, path in find_images(folder).items()}


def _twins(segmented: Mapping[str, Path], photographs: list[Path]) -> list[tuple[str, int]]:
    """Pairs of an outlined photograph and the place of a graded one that shows the same."""
    a, b = (torch.stack([_thumbnail(path) for path in paths]) for paths in (list(segmented.values()), photographs))
    distance = torch.cdist(a, b, p=1) / a.shape[1]  # (outlined, graded)
    names = list(segmented)
    return [(names[i], int(j)) for i, j in (distance < TWIN).nonzero().tolist()]


def _thumbnail(path: Path) -> torch.Tensor:
    """128 × 85 pixels, flat: (32,640,), from 0 to 255."""
    with open_image(path) as image:
        image.draft("RGB", (256, 170))  # JPEG decodes to about this size, many times faster
        small = image.convert("RGB").resize((128, 85), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, dtype=np.float32).flatten())


def _lesions(photograph: Path, masks: Mapping[str, Path], grid: Grid) -> np.ndarray:
    """For each cell of the grid the sum of the bits of the kinds of lesion in it, shape (n,); −1 without masks."""
    n_cells = grid.n_cells(grid.resized(photograph))
    if not masks:
        return np.full(n_cells, -1)
    total = np.zeros(n_cells, dtype=np.int64)
    for kind, path in masks.items():
        inside = _inside(photograph, path, grid)
        total += LESIONS[kind] * grid.cut(inside[:, :, None])[0].any((1, 2, 3))
    return total


def _inside(photograph: Path, mask: Path, grid: Grid) -> np.ndarray:
    """Where a lesion is in the photograph as the grid resizes it: booleans (height, width)."""
    expected, shape = image_size(photograph), grid.resized(photograph)
    inside = read_rgb(mask).any(2)  # (height, width)
    if inside.shape != expected[::-1]:
        height, width = inside.shape
        raise ValueError(f"{mask}: {width} × {height} pixels, but {photograph} has {expected[0]} × {expected[1]}")
    if shape != expected:  # a pixel that a lesion touches belongs to it, or small lesions would vanish
        inside = np.asarray(Image.fromarray(inside).convert("L").resize(shape, Image.Resampling.BOX)) > 0
    return np.asarray(inside)
