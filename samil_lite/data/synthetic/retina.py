"""A synthetic stand-in for Messidor, not real data: drawn discs in the layout that `messidor_bags` reads."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from samil_lite.arguments import at_least, checked
from samil_lite.data.retina import BASES, CORRECTED_GRADES, DUPLICATES

DEPARTMENTS = {"1": "Department 1", "2": "Department 2", "3": "Department 3"}
WIDTHS = {"1": 1.5, "2": 1.505, "3": 1.5}  # width by height
SCALES = {"1": 1.0, "2": 1.55, "3": 1.6}  # as the heights 960, 1488, 1536 of the set; which is whose is made up


@checked(n_images=at_least(1), height=at_least(1), seed=at_least(0))
def write_messidor(
    folder: str | Path,
    n_images: int = 2,
    *,
    height: int = 96,
    bases: Sequence[str] = BASES,
    tables: str = "csv",
    errata: bool = False,
    seed: int = 0,
) -> Path:
    """Writes a synthetic stand-in for Messidor, not real data, in the layout that `messidor_bags` expects.

    Every image is an orange disc on black with a bright spot; grades 1 to 3 add small dark red dots, two, five and
    twelve. Half of the images are of grade 0.

    Args:
        folder: made if it is not there.
        n_images: in each base.
        height: of the images of the first department, in pixels; the others' are larger.
        bases: parts to write, from `BASES`.
        tables: "csv", or "xls" for spreadsheets as the originals are (in the oldest form of that format).
        errata: whether Base11, Base13 and Base33 also get the images that errata are about: the four with their first
            grades, and every pair of duplicates.
        seed: the same seed writes the same images.

    Returns:
        The folder.
    """
    if n_images < 1 or height < 32 or tables not in ("csv", "xls"):
        raise ValueError(f"expected 1 image, 32 pixels or more, csv or xls, got {n_images}, {height}, {tables!r}")
    root = Path(folder)
    for base in bases:
        (root / base).mkdir(parents=True, exist_ok=True)
        rows = []
        for stem, drawn_as, grade in _images(base, n_images, errata):
            rng = np.random.RandomState(zlib.crc32(f"{seed}/{base}/{drawn_as}".encode()))
            department = base[4]
            pixels = _fundus(rng, round(height * SCALES[department]), WIDTHS[department], grade)
            Image.fromarray(pixels).save(root / base / f"{stem}.tif", compression="tiff_adobe_deflate")
            rows.append((f"{stem}.tif", DEPARTMENTS[department], grade, min(grade, 2)))
        # The last name ends with a blank in the originals.
        columns = ["Image name", "Ophthalmologic department", "Retinopathy grade", "Risk of macular edema "]
        if tables == "csv":
            pd.DataFrame(rows, columns=columns).to_csv(root / f"Annotation_{base}.csv", index=False)
        else:
            (root / f"Annotation_{base}.xls").write_bytes(_spreadsheet([tuple(columns), *rows]))
    return root


def _images(base: str, n: int, errata: bool) -> list[tuple[str, str, int]]:
    """Name, name of the image that it shows, and grade."""
    code = {"1": "0100", "2": "0200", "3": "0400"}[base[4]]
    names = [f"2005{base[4]}0{base[5]}0_{i + 1}_{code}_PP" for i in range(n)]
    listed = [(name, name, i // 2 % 3 + 1 if i % 2 else 0) for i, name in enumerate(names)]
    if errata:
        listed += [(name, name, grades[0]) for (where, name), grades in CORRECTED_GRADES.items() if where == base]
    if errata and base == "Base33":
        listed += [(name, pair[0], 2) for pair in DUPLICATES for name in pair]
    return listed


def _fundus(rng: np.random.RandomState, height: int, ratio: float, grade: int) -> np.ndarray:
    """A drawn retina (height, width, 3), uint8."""
    width = round(height * ratio)
    y, x = np.mgrid[:height, :width] / height - np.array([0.5, ratio / 2])[:, None, None]
    r = np.hypot(x, y)
    pixels = np.where((r < 0.47)[..., None], np.array([200, 96, 40]), 0)
    side = rng.choice([-1, 1])
    pixels[np.hypot(x - 0.25 * side, y) < 0.07] = [248, 200, 120]  # the optic disc
    for _ in range((0, 2, 5, 12)[grade]):
        at, angle = rng.uniform(0.05, 0.4), rng.uniform(0, 2 * np.pi)
        pixels[np.hypot(x - at * np.cos(angle), y - at * np.sin(angle)) < 0.02] = [104, 16, 8]
    noise = 8 * rng.randint(-1, 2, (height, width, 1))  # few values: noise that still compresses
    return np.where(pixels > 0, pixels + noise, 0).clip(0, 255).astype(np.uint8)


def _spreadsheet(rows: Sequence[tuple[str | int, ...]]) -> bytes:
    """The cells as a BIFF 2 sheet, the oldest .xls: a record for each cell, between a beginning and an end."""
    records = [struct.pack("<HHHH", 0x0009, 4, 7, 0x10)]
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            place = struct.pack("<HH3x", r, c)
            if isinstance(cell, str):
                kind, body = 0x0004, place + struct.pack("<B", len(cell)) + cell.encode("ascii")
            else:
                kind, body = 0x0003, place + struct.pack("<d", cell)
            records.append(struct.pack("<HH", kind, len(body)) + body)
    return b"".join([*records, struct.pack("<HH", 0x000A, 0)])
