"""Synthetic stand-ins in the layouts of colon and breast: random dots on a pink ground. Not real data."""

from pathlib import Path

import numpy as np
from PIL import Image

from samil_lite.arguments import at_least, checked
from samil_lite.data.histology import NUCLEI

PINK, PURPLE = np.array([225, 180, 205]), np.array([110, 70, 150])


@checked(n_images=at_least(1), seed=at_least(0))
def write_colon(folder: str | Path, n_images: int = 6, side: int = 120, n_nuclei: int = 12, seed: int = 0) -> Path:
    """Writes a synthetic stand-in for CRCHistoPhenotypes: square images with dots for nuclei. Not real data.

    Every second image, the first one included, has epithelial nuclei: larger, darker dots, next to each other. The
    other types are small dots anywhere. Lists of nuclei are as in the official set, `detection` in .mat files.

    Args:
        folder: where to write; made if it is not there.
        n_images: number of images.
        side: height and width of an image, in pixels.
        n_nuclei: nuclei in an image.
        seed: the same seed gives the same files.

    Returns:
        The folder.
    """
    from scipy.io import savemat

    folder, rng = Path(folder), np.random.RandomState(seed)
    for number in range(1, n_images + 1):
        kinds = rng.choice([0, 2, 3], n_nuclei)
        centres = rng.uniform(4, side - 5, (n_nuclei, 2))
        if number % 2:
            group = np.arange(max(1, n_nuclei // 3))
            kinds[group] = 1
            centres[group] = rng.uniform(side / 4, side * 3 / 4, 2) + rng.normal(0, side / 16, (len(group), 2))
            centres = centres.clip(4, side - 5)
        pixels = _ground(rng, side, side)
        for centre, kind in zip(centres, kinds, strict=True):
            _dot(pixels, centre, *((7, 0.9) if kind == 1 else (3, 0.6)))
        one = folder / "CRCHistoPhenotypes_2016_04_28" / "Classification" / f"img{number}"
        one.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(one / f"img{number}.bmp")
        for label, kind in enumerate(NUCLEI):
            savemat(one / f"img{number}_{kind}.mat", {"detection": centres[kinds == label]})
    return folder


@checked(n_images=at_least(1), seed=at_least(0))
def write_breast(folder: str | Path, n_images: int = 6, size: tuple[int, int] = (96, 64), seed: int = 0) -> Path:
    """Writes a synthetic stand-in for the UCSB images: dots on pink, the left edge white. Not real data.

    Every second image is called malignant and has a dense group of large dots. Two images in a row share a slide.

    Args:
        folder: where to write; made if it is not there.
        n_images: number of images.
        size: width and height of an image, in pixels.
        seed: the same seed gives the same files.

    Returns:
        The folder.
    """
    folder, rng = Path(folder), np.random.RandomState(seed)
    (folder / "Bisque").mkdir(parents=True, exist_ok=True)
    width, height = size
    for number in range(n_images):
        malignant, pixels = number % 2 == 1, _ground(rng, height, width)
        for centre in rng.uniform(0, 1, (12, 2)) * size:
            _dot(pixels, centre, 3, 0.5)
        if malignant:
            for centre in rng.normal(0, 8, (8, 2)) + rng.uniform(0.4, 0.8, 2) * size:
                _dot(pixels, centre, 6, 0.9)
        pixels[:, : width // 3] = 245  # nothing on the slide here
        name = f"ytma{10 + number // 2}_0107{number // 2:02}_{'malignant' if malignant else 'benign'}{number + 1}_ccd"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "Bisque" / f"{name}.tif")
    return folder


def _ground(rng: np.random.RandomState, height: int, width: int) -> np.ndarray:
    return PINK + rng.normal(0, 6, (height, width, 3))


def _dot(pixels: np.ndarray, centre: np.ndarray, radius: float, strength: float) -> None:
    """Draws a purple disc of this radius around (x, y), in place."""
    y, x = np.indices(pixels.shape[:2])
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    pixels[inside] += strength * (PURPLE - pixels[inside])
