"""Maps and models for other programs: GeoJSON for QuPath, CSV for the rest, ONNX for programs without PyTorch."""

import csv as csv_file
import io
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from samil_lite.arguments import A_BAG, above, checked
from samil_lite.heatmap import Values, as_maps, places, size_of_patches
from samil_lite.one_bag import OneBag, onnx
from samil_lite.writing import write_atomically

__all__ = ["OneBag", "csv", "geojson", "onnx"]
KINDS = ("detection", "annotation", "tile")


@checked(patch_size=above(0), bag=A_BAG)
def geojson(
    bag: Any,
    values: Values,
    path: str | Path,
    *,
    patch_size: float | None = None,
    downsample: float = 1.0,
    kind: str = "detection",
    classification: str | None = None,
    top: float | None = None,
) -> Path:
    """Writes the patches of a slide as squares with their numbers, for QuPath (drag the file onto the open slide).

    The file is a GeoJSON FeatureCollection as `QuPath <https://qupath.readthedocs.io/en/stable/docs/advanced/
    exporting_annotations.html>`__ writes and reads it since version 0.4: polygons in pixels of the slide's finest level
    from its upper left corner; in `properties` the `objectType`, `measurements` by name, which QuPath's measurement
    maps colour by, and a `color` by the first number's percentile.

    Args:
        bag: one slide with coordinates.
        values: one number for each patch, shape (n,), named attention; or several by name.
        path: of the file; it appears whole or not at all.
        patch_size: side of a patch in the unit of the coordinates; None as in `samil_lite.heatmap.heatmap`.
        downsample: pixels of the finest level in one unit of the coordinates; 1 for CLAM's and TRIDENT's.
        kind: "detection", which QuPath shows fast for many, "annotation", which can be edited, or "tile".
        classification: name of a class that all get, such as the predicted one.
        top: write only this share of the patches, those with the largest first number, such as 0.1.

    Returns:
        The path.

    Raises:
        ValueError: if the bag is not one slide with coordinates, numbers do not fit it, or an argument is not as above.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if not 0 < downsample < np.inf or (top is not None and not 0 < top <= 1):
        raise ValueError(f"downsample, top: expected above 0, and a share up to 1, got {downsample} and {top}")
    maps = _named(bag, values)
    side, corners = size_of_patches(bag, patch_size) * downsample, places(bag) * downsample
    first = next(iter(maps.values()))
    order = np.argsort(-first, kind="stable")[: len(first) if top is None else max(1, round(top * len(first)))]
    colours = _colours(first)
    features = []
    for i in np.sort(order):
        (x0, y0), (x1, y1) = (_short(corner) for corner in (corners[i], corners[i] + side))
        properties: dict[str, Any] = {
            "objectType": kind,
            "color": colours[i],
            "measurements": {name: float(x[i]) for name, x in maps.items()},
        }
        if classification is not None:
            properties["classification"] = {"name": str(classification), "color": colours[i]}
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
        name = uuid.uuid5(uuid.NAMESPACE_URL, f"{Path(path).name} {i} {x0} {y0}")  # the same map makes the same file
        features.append(
            {
                "type": "Feature",
                "id": str(name),
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": properties,
            }
        )
    content = json.dumps({"type": "FeatureCollection", "features": features})
    write_atomically(Path(path), lambda file: file.write(content.encode()))
    return Path(path)


@checked(patch_size=above(0), bag=A_BAG)
def csv(bag: Any, values: Values, path: str | Path, *, patch_size: float | None = None) -> Path:
    """Writes a row for each patch: x, y, size and its numbers. Arguments and errors as in `geojson`."""
    maps, side, corners = _named(bag, values), size_of_patches(bag, patch_size), places(bag)

    text = io.StringIO()
    writer = csv_file.writer(text, lineterminator="\n")
    writer.writerow(["x", "y", "size", *maps])
    for (x, y), numbers in zip(corners, zip(*maps.values(), strict=True), strict=True):
        writer.writerow([*_short(np.array([x, y, side])), *(float(number) for number in numbers)])
    write_atomically(Path(path), lambda file: file.write(text.getvalue().encode()))
    return Path(path)


def _named(bag: Any, values: Values) -> dict[str, np.ndarray]:
    return {name or "attention": x for name, x in as_maps(bag, values).items()}


def _colours(x: np.ndarray) -> list[list[int]]:
    """A colour for each number by its rank, red, green and blue to 255."""
    from matplotlib import colormaps

    ranks = np.searchsorted(np.sort(x), x, "right") / len(x)
    return [[round(255 * c) for c in rgb] for rgb in colormaps["cividis"](ranks)[:, :3].tolist()]


def _short(x: np.ndarray) -> list[float]:
    """Whole numbers without a point."""
    return [int(v) if v == int(v) else float(v) for v in x]
