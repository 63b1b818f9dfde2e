"""A synthetic stand-in for DIFaS, not real data: coloured blobs in the layout that `difas_bags` reads."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from samil_lite.arguments import at_least, checked
from samil_lite.data.fungi import FOREGROUND, SPECIES

BRIGHT = np.array([222, 214, 226], np.float32)  # an empty slide


@checked(n_images=at_least(1), seed=at_least(0))
def write_difas(
    folder: str | Path,
    n_images: int = 2,
    *,
    shape: tuple[int, int] = (96, 144),
    species: Sequence[str] = SPECIES,
    masks: bool = True,
    bits: int = 8,
    seed: int = 0,
) -> Path:
    """Writes a synthetic stand-in for DIFaS, not real data, in the layout that `difas_bags` expects.

    Every image shows one clump of cells on a bright ground. Species differ in the radius, the elongation and the stain
    of the cells, the two preparations in brightness, so that a model can learn something, and less of it from one
    preparation alone.

    Args:
        folder: made if it is not there.
        n_images: of each species and preparation; numbers are 1, 2, … and 11, 12, ….
        shape: height and width of an image, in pixels, at least 32.
        species: codes, from `SPECIES`.
        masks: whether the masks of the authors' code are written too.
        bits: 8 for compressed TIFF, 16 for TIFF as the originals are said to be (needs scikit-image).
        seed: the same seed writes the same images.

    Returns:
        The folder.
    """
    if not 1 <= n_images <= 10 or min(shape) < 32 or bits not in (8, 16):
        raise ValueError(f"expected 1 to 10 images, 32 pixels or more, 8 or 16 bits, got {n_images}, {shape}, {bits}")
    root = Path(folder)
    for code in species:
        (root / code).mkdir(parents=True, exist_ok=True)
        for number in (preparation * 10 + i + 1 for preparation in (0, 1) for i in range(n_images)):
            name = f"{code}{number}"
            rng = np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))
            pixels, mask = _cells(rng, shape, SPECIES.index(code), brightness=1 if number <= 10 else 0.9)
            _save(root / code / f"{name}.tif", pixels, bits)
            if masks:
                (root / "masks" / code).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(root / "masks" / code / f"{name}.png")
    return root


def _cells(
    rng: np.random.RandomState, shape: tuple[int, int], species: int, brightness: float
) -> tuple[np.ndarray, np.ndarray]:
    """An image (height, width, 3) and its mask (height, width), both uint8."""
    height, width = shape
    centre = np.array([width, height]) * rng.uniform(0.4, 0.6, 2)
    xy = centre + rng.normal(0, 0.13, (30, 2)) * [width, height]
    radius, elongation = 2.5 + 0.5 * (species % 3), 1 + 0.5 * (species // 3)
    angle = rng.uniform(0, np.pi, 30)
    y, x = np.mgrid[:height, :width]
    dx, dy = x[..., None] - xy[:, 0], y[..., None] - xy[:, 1]  # (height, width, cells)
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    cells = ((along / elongation) ** 2 + across**2 < radius**2).any(2)
    stain = np.array([90 + 8 * species, 60, 150 - 8 * species], np.float32)
    # Only multiples of 8: noise that still compresses.
    pixels = np.where(cells[..., None], stain, BRIGHT) * brightness + 8 * rng.randint(-1, 2, (height, width, 1))
    clump = (((x - centre[0]) / width) ** 2 + ((y - centre[1]) / height) ** 2) ** 0.5
    mask = np.where(clump < 0.25, FOREGROUND, np.where(clump > 0.35, 1, 0)).astype(np.uint8)
    return pixels.clip(0, 255).astype(np.uint8), mask


def _save(path: Path, pixels: np.ndarray, bits: int) -> None:
    if bits == 8:
        Image.fromarray(pixels).save(path, compression="tiff_adobe_deflate")
        return
    from tifffile import imwrite  # comes with scikit-image; Pillow writes no colour images of 16 bits

    imwrite(path, pixels.astype(np.uint16) * 257, photometric="rgb", compression="zlib")
