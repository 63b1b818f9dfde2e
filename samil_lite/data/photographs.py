"""Photographs as bags of patches on a grid: for data sets whose bag is one large image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from samil_lite.bags import Bags
from samil_lite.data.images import check_room, image_size, open_image, to_rgb


@dataclass(frozen=True)
class Grid:
    """How a photograph is cut; the grid is centred, and what does not fill a patch is left out on both sides.

    Attributes:
        size: height and width of a patch, in pixels.
        stride: from one patch to the next, in pixels.
        height: of the photograph after resizing (bilinear, the width in proportion); None leaves it as it is.
        max_black: a patch with a larger share of black pixels is dropped; None keeps every patch.
        black_level: brightest value, 0 to 255, that counts as black, in each channel.

    Raises:
        ValueError: if one is out of range.
    """

    size: int
    stride: int
    height: int | None
    max_black: float | None
    black_level: int

    def __post_init__(self) -> None:
        height = 1 if self.height is None else self.height
        if min(self.size, self.stride, height) < 1:
            raise ValueError(
                f"size, stride and height: expected at least 1, got {self.size}, {self.stride} and {self.height}"
            )
        if self.max_black is not None and not 0 <= self.max_black <= 1:
            raise ValueError(f"max_black: expected a share from 0 to 1 or None, got {self.max_black}")
        if not 0 <= self.black_level <= 255:
            raise ValueError(f"black_level: expected a value from 0 to 255, got {self.black_level}")

    def resized(self, path: Path) -> tuple[int, int]:
        """Width and height that a photograph will be brought to; large enough for a patch, else a ValueError."""
        width, old = image_size(path)
        shape = (width, old) if self.height is None else (max(1, round(width * self.height / old)), self.height)
        check_room(path, shape, self.size, "patches")
        return shape

    def n_cells(self, shape: tuple[int, int]) -> int:
        """How many patches a photograph of this width and height is cut into, black ones included."""
        columns, rows = ((side - self.size) // self.stride + 1 for side in shape)
        return columns * rows

    def cut(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Patches (n, channels, size, size) of pixels (height, width, channels), row by row, and centres (n, 2)."""
        first = [(side - self.size) % self.stride // 2 for side in pixels.shape[:2]]
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (self.size, self.size), axis=(0, 1))
        cells = windows[first[0] :: self.stride, first[1] :: self.stride]  # (rows, columns, channels, size, size)
        y, x = np.indices(cells.shape[:2]) * self.stride
        centres = np.stack([x + first[1], y + first[0]], -1).reshape(-1, 2) + (self.size - 1) / 2
        return cells.reshape(-1, *cells.shape[2:]), centres.astype(np.float32)


def photograph_bags(
    paths: Sequence[Path], labels: Tensor, grid: Grid, name: str, progress: bool
) -> tuple[Bags, list[np.ndarray]]:
    """One bag of patches for each photograph, and which cells of its grid they are.

    The headers of all photographs are checked before any is decoded.

    Args:
        paths: B files.
        labels: shape (B,).
        grid: how they are cut.
        name: of the data set, for the progress bar.
        progress: whether to show one.

    Returns:
        The bags, with instances (N, 3, size, size), uint8, RGB, and coordinates (N, 2), float32, the centres (x, y) in
        pixels of the resized photograph; and B arrays of booleans, True at the cells that were kept.

    Raises:
        FileNotFoundError: if a photograph is not there.
        ValueError: if one is broken, has more than 8 bits a channel, or is too small or all black.
    """
    shapes = [grid.resized(path) for path in paths]
    # Room for the patches of all images at once: a list of bags would need twice the memory when it is joined.
    patches = np.empty((sum(map(grid.n_cells, shapes)), 3, grid.size, grid.size), np.uint8)
    centres, offsets, cells = [], [0], []
    for path, shape in zip(tqdm(paths, name, unit="image", disable=not progress), shapes, strict=True):
        cut, xy = grid.cut(_read(path, shape))  # (n, 3, size, size), (n, 2)
        most = 1 if grid.max_black is None else grid.max_black
        kept = (cut <= grid.black_level).all(1).mean((1, 2)) <= most  # (n,)
        if not kept.any():
            raise ValueError(f"{path}: every patch is more than {grid.max_black:.0%} black")
        offsets.append(offsets[-1] + int(kept.sum()))
        patches[offsets[-2] : offsets[-1]] = cut[kept]
        centres.append(xy[kept])
        cells.append(kept)
    patches.resize((offsets[-1], *patches.shape[1:]), refcheck=False)  # gives back the room that was not needed
    coordinates = torch.from_numpy(np.concatenate(centres))
    return Bags(torch.from_numpy(patches), torch.tensor(offsets), labels, coordinates=coordinates), cells


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Pixels (height, width, 3), uint8, of an image brought to (width, height)."""
    with open_image(path) as image:
        rgb = to_rgb(image)
    return np.asarray(rgb if rgb.size == shape else rgb.resize(shape, Image.Resampling.BILINEAR))
