"""Messidor: photographs of the retina, as bags of patches."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from samil_lite.bags import Bags
from samil_lite.data.images import (
    check_chosen,
    data_folder,
    find_images,
    natural,
)
from samil_lite.data.photographs import Grid, photograph_bags
from samil_lite.extras import from_extra
from samil_lite.files import naming, read_bytes, read_csv

BASES = tuple(f"Base{department}{part}" for department in (1, 2, 3) for part in (1, 2, 3, 4))
MOST_XLS = 2**24  # bytes of a table; the official ones have 30 thousand
SOURCE = "https://www.adcis.net/en/third-party/messidor/"
COLUMNS = {  # in the official tables: in the table that this module returns
    "Image name": "name",
    "Ophthalmologic department": "department",
    "Retinopathy grade": "grade",
    "Risk of macular edema": "edema",
}
CORRECTED_GRADES = {  # (base, image without suffix): (grade first published, grade corrected)
    ("Base11", "20051020_63045_0100_PP"): (3, 0),  # erratum of 31 August 2016
    ("Base11", "20051020_64007_0100_PP"): (1, 3),  # errata of 24 October 2016
    ("Base11", "20051020_63936_0100_PP"): (3, 1),
    ("Base13", "20060523_48477_0100_PP"): (2, 3),
}
DUPLICATES = (  # Base33, erratum of 16 August 2017: the same photograph under two names, here without suffix
    ("20051202_55582_0400_PP", "20051202_54744_0400_PP"),
    ("20051202_41076_0400_PP", "20051202_40508_0400_PP"),
    ("20051202_48287_0400_PP", "20051202_41238_0400_PP"),
    ("20051202_48586_0400_PP", "20051202_41260_0400_PP"),
    ("20051202_55457_0400_PP", "20051202_54530_0400_PP"),
    ("20051202_55626_0400_PP", "20051205_33025_0400_PP"),  # retinopathy grades 2 and 3
    ("20051202_54783_0400_PP", "20051202_55607_0400_PP"),
    ("20051202_48575_0400_PP", "20051202_41034_0400_PP"),
    ("20051205_32966_0400_PP", "20051205_35099_0400_PP"),
    ("20051202_55484_0400_PP", "20051202_54555_0400_PP"),
    ("20051205_32981_0400_PP", "20051205_35110_0400_PP"),
    ("20051202_55562_0400_PP", "20051202_54611_0400_PP"),  # risks of macular edema 0 and 1
    ("20051202_54547_0400_PP", "20051202_55498_0400_PP"),
)


def messidor_bags(
    folder: str | Path | None = None,
    size: int = 224,
    *,
    height: int | None = 700,
    stride: int | None = None,
    max_black: float | None = 0.7,
    black_level: int = 10,
    bases: Sequence[str] = BASES,
    errata: bool = True,
    progress: bool = True,
) -> Bags:
    """Photographs of the retina from Messidor, each a bag of patches on a grid, labelled by retinopathy.

    A bag is one photograph, an instance one patch; the label is 1 for a retinopathy grade above 0 and else 0. Where
    the signs of disease lie is not known. The data: 1,200 photographs from three departments, by the Messidor program
    partners, see `Decencière et al. (2014) <https://doi.org/10.5566/ias.1155>`__; free of charge for research and
    education on request at https://www.adcis.net/en/third-party/messidor/, copies may not be passed on. This loader
    was tested on a synthetic stand-in only (`samil_lite.data.synthetic.retina`). It expects ::

        messidor/
            Annotation_Base11.xls … Annotation_Base34.xls   here or in their base's folder, .xls or saved as .csv;
                                                            a file Annotation_Base11_update….xls goes first
            Base11/20051019_38557_0100_PP.tif …             TIFF, or converted to PNG, JPEG or BMP
            …
            Base34/

    Errata, as public code that cites the owner's page gives them (the page itself could not be read): four grades,
    `CORRECTED_GRADES`, of which one changes the label; and 13 photographs that Base33 has under two names,
    `DUPLICATES`, of which the second is dropped, so that 1,187 bags remain. One list in use has the first names,
    another the second, in the same order: two pairs are spelled out there, the other eleven follow from the order.
    The one pair whose retinopathy grades disagree (2 and 3) is positive either way.

    Photographs come in three sizes, so they are first brought to one height (bilinear, antialiased, the width in
    proportion). The grid is centred; what does not fill a patch is left out on both sides. A pixel is black if no
    channel exceeds `black_level`; a patch with a larger share of black pixels than `max_black` is dropped.

    Args:
        folder: with the layout above; None: `messidor` in `$SAMIL_DATA` or in the user's cache folder.
        size: height and width of a patch, in pixels.
        height: of the photographs after resizing, in pixels; None leaves each as it is.
        stride: from one patch to the next, in pixels; None: `size`, no overlap.
        max_black: share from 0 to 1; None keeps every patch.
        black_level: brightest value, 0 to 255, that counts as black.
        bases: names of the parts to load, from `BASES`.
        errata: whether the errata are applied.
        progress: whether to show a progress bar.

    Returns:
        B bags in the order of `bases`, then of the names, as in `messidor_table`, with instances (N, 3, size, size),
        uint8, RGB; labels (B,), 0 or 1; coordinates (N, 2), float32, centres (x, y) of the patches in pixels of the
        resized photograph. All 1,187 make about 2 GB as set (at most 12 patches each).

    Raises:
        FileNotFoundError: if the folder, a base, its table or an image is not there.
        ValueError: if an argument is out of range; if a table lacks a column or a name, has a grade out of range or a
            name twice, or does not list an image; if an image is broken, has more than 8 bits a channel, or is too
            small or all black. The message names the file.
            Tables and the headers of all images are checked before any image is decoded.
        ImportError: if a table is .xls and xlrd is not installed.
    """
    grid = Grid(size, size if stride is None else stride, height, max_black, black_level)
    table = messidor_table(folder, bases=bases, errata=errata)
    labels = torch.tensor(table["label"].to_numpy())
    return photograph_bags(table["path"].tolist(), labels, grid, "Messidor", progress)[0]


def messidor_table(
    folder: str | Path | None = None, *, bases: Sequence[str] = BASES, errata: bool = True
) -> pd.DataFrame:
    """What is known of each bag of `messidor_bags`, in the same order, from the official tables.

    Returns:
        A row for each photograph with `base`, `name`, `label` (grade above 0), `grade` (0 to 3), `path`, and, where the
        tables have them, `department` and `edema` (0 to 2). Folds grouped by `base` or `department` keep the cameras
        apart.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `messidor_bags`; images are not opened.
    """
    check_chosen("bases", bases, BASES, "name")
    root = data_folder(folder, "messidor", SOURCE)
    tables = [_base_table(root, base, errata) for base in bases]
    return pd.concat(tables, ignore_index=True)


def _base_table(root: Path, base: str, errata: bool) -> pd.DataFrame:
    """The checked table of one base, with paths."""
    if not (root / base).is_dir():
        raise FileNotFoundError(f"{root / base}: no such folder. Get the files from {SOURCE}")
    path = _find_table(root, base)
    table = _read_table(path)
    if missing := [column for column in ("Image name", "Retinopathy grade") if column not in table]:
        raise ValueError(f"{path}: no column {missing[0]!r}, only {', '.join(map(repr, table))}")
    table = table[[column for column in COLUMNS if column in table]].rename(columns=COLUMNS)
    table = table.dropna(how="all")
    table["name"] = ["" if pd.isna(name) else str(name).strip() for name in table["name"]]
    if (unnamed := table["name"] == "").any():
        raise ValueError(f"{path}: expected an image name in each row, but row {table.index[unnamed][0] + 2} has none")
    table["stem"] = table["name"].map(lambda name: Path(name).stem)  # images may have been converted
    grades = pd.to_numeric(table["grade"], errors="coerce")
    if not (good := grades.isin(range(4))).all():
        wrong = table[~good].iloc[0]
        raise ValueError(f"{path}: {wrong['name']}: expected a retinopathy grade 0, 1, 2 or 3, got {wrong['grade']}")
    if (twice := table["stem"].duplicated()).any():
        raise ValueError(f"{path}: {table['name'][twice].iloc[0]} is listed twice")
    table = table.assign(grade=grades.astype(np.int64))
    images = find_images(root / base)
    if extra := images.keys() - set(table["stem"]):
        raise ValueError(f"{images[min(extra, key=natural)]}: not listed in {path.name}")
    if errata:
        table = _apply_errata(table, base, path)
    if not (there := table["stem"].isin(images.keys())).all():
        raise FileNotFoundError(f"{root / base / table['name'][~there].iloc[0]}: no such image; {path.name} lists it")
    if table.empty:
        raise ValueError(f"{path}: no image is listed")
    label, paths = (table["grade"] > 0).astype(np.int64), table["stem"].map(images)
    order = sorted(range(len(table)), key=lambda row: natural(table["stem"].iloc[row]))
    return table.assign(base=base, label=label, path=paths).drop(columns="stem").iloc[order]


def _find_table(root: Path, base: str) -> Path:
    """The table of a base: an updated one before the first, then the only one."""
    found = [
        path
        for folder in (root, root / base)
        for path in sorted(folder.glob(f"Annotation?{base}*"))
        if path.suffix.lower() in (".xls", ".csv")
    ]
    if not found:
        raise FileNotFoundError(f"{root / f'Annotation_{base}.xls'}: no such table, and no .csv. See {SOURCE}")
    found = [path for path in found if "update" in path.stem] or found
    if len(found) > 1:
        raise ValueError(f"{found[1]}: a second table of {base} beside {found[0]}; keep one of them")
    return found[0]


def _read_table(path: Path) -> pd.DataFrame:
    if path.suffix.lower() == ".xls":
        with from_extra("retina", f"{path.name} needs xlrd", ", or save the table as .csv"):
            import xlrd  # noqa: F401  # pandas reads .xls by it
    if path.suffix.lower() == ".csv":
        table = read_csv(path)
    else:
        with naming(path, ": cannot be read as a table"):
            file, remarks = io.BytesIO(read_bytes(path, MOST_XLS)), io.StringIO()  # which xlrd would print
            table = pd.read_excel(file, engine="xlrd", engine_kwargs={"logfile": remarks})
    table = table.rename(columns=lambda column: str(column).strip())  # one official name ends with a blank
    if (twice := table.columns.duplicated()).any():
        raise ValueError(f"{path}: two columns are called {table.columns[twice][0]!r}")
    return table


def _apply_errata(table: pd.DataFrame, base: str, path: Path) -> pd.DataFrame:
    """Corrects grades, in tables that have the first or the corrected ones, and keeps one of each two duplicates."""
    table = table.copy()
    for (where, name), known in CORRECTED_GRADES.items():
        row = table["stem"] == name
        if where != base or not row.any():
            continue
        if (grade := int(table["grade"][row].iloc[0])) not in known:
            raise ValueError(
                f"{path}: {name}: grade {grade}, but {known[0]} was published and corrected to {known[1]}; "
                "errata=False takes the table as it is"
            )
        table.loc[row, "grade"] = known[1]
    names = set(table["stem"])
    dropped = [second for first, second in DUPLICATES if base == "Base33" and {first, second} <= names]
    return table[~table["stem"].isin(dropped)]
