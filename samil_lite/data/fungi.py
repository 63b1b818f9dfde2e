"""DIFaS: microscopic images of nine fungi, as bags of crops."""

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from samil_lite.bags import Bags
from samil_lite.data.images import check_chosen, check_room, data_folder, find_images, image_size, open_image, read_rgb
from samil_lite.extras import from_extra

SPECIES = ("CA", "CG", "CL", "CN", "CP", "CT", "MF", "SB", "SC")
SPECIES_NAMES = (
    "Candida albicans",
    "Candida glabrata",
    "Candida lusitaniae",
    "Cryptococcus neoformans",
    "Candida parapsilosis",
    "Candida tropicalis",
    "Malassezia furfur",
    "Saccharomyces boulardii",
    "Saccharomyces cerevisiae",
)
FOREGROUND = 2  # in the authors' masks: 0 unknown, 1 background, 2 foreground
SOURCE = "https://github.com/bziiuj/fungus (the article: https://doi.org/10.1371/journal.pone.0234806)"


class _Image(NamedTuple):
    path: Path
    mask: Path | None
    species: int
    number: int


def difas_bags(
    folder: str | Path | None = None,
    size: int = 250,
    n_patches: int = 16,
    *,
    seed: int = 0,
    stretch: tuple[float, float] | None = (5, 95),
    species: Sequence[str] = SPECIES,
    progress: bool = True,
) -> Bags:
    """Images of nine fungi from DIFaS, each a bag of square crops inside its foreground.

    A bag is one microscopic image, an instance one crop, the label the place of its species in `SPECIES`, 0 to 8
    (`SPECIES_NAMES` has the full names). The tenth code of the authors, BG for background, names crops and no image,
    so it is no label here. Crops may overlap. An image without foreground is an error, never silently background.

    The data are described in `Zieliński et al. (2020) <https://doi.org/10.1371/journal.pone.0234806>`__: two
    preparations of each species, see `difas_preparations`. The authors' code, https://github.com/bziiuj/fungus, links
    the images and has the masks; it states no terms for them, so ask before you pass any on. This loader was written
    after the file lists in that code and tested on a synthetic stand-in only (`samil_lite.data.synthetic.fungi`): the
    real files were not at hand. It expects ::

        difas/
            CA/CA1.tif … CA20.tif       species, and a number from 1; TIFF of 8 or 16 bits, PNG, JPEG or BMP
            CG/CG1.tif …                gaps in the numbers are fine (the authors' list has no CN5 and no CN15)
            …
            masks/CA/CA1.png …          optional, from the authors' code: 0 unknown, 1 background, 2 foreground

    Without the folder `masks`, the foreground is what is darker than Otsu's threshold of the sum of the channels.
    Threshold and percentiles are taken from a regular grid of about a million pixels.
    Crop centres are drawn without replacement from the foreground pixels whose crop lies inside the image.

    Args:
        folder: with the layout above; None: `difas` in `$SAMIL_DATA` or in the user's cache folder.
        size: height and width of a crop, in pixels; the authors' own loader has 250.
        n_patches: crops of an image; fewer where the foreground has fewer pixels.
        seed: of the drawing. The crops of an image depend on the seed and its name, not on what else is loaded.
        stretch: percentiles of an image that become 0 and 255, as the authors stretch contrast; None: none, and of 16
            bits the upper 8 are kept.
        species: codes to load, from `SPECIES`; labels stay the same.
        progress: whether to show a progress bar.

    Returns:
        B bags in the order of the labels, then of the numbers, with instances (N, 3, size, size), uint8, RGB; labels
        (B,) from 0 to 8; coordinates (N, 2), float32, the pixel (x, y) that the crop is centred on. About 0.5 GB as
        set.

    Raises:
        FileNotFoundError: if the folder, a species or a mask is not there.
        ValueError: if an argument is out of range, or a file is broken, misnamed, there twice, too small or without
            foreground; the message names the file. Headers of all files are checked before any image is decoded.
        ImportError: if scikit-image is not installed.
    """
    if size < 1 or n_patches < 1:
        raise ValueError(f"size and n_patches: expected at least 1, got {size} and {n_patches}")
    if stretch is not None and not (len(stretch) == 2 and 0 <= stretch[0] < stretch[1] <= 100):
        raise ValueError(f"stretch: expected two ascending percentiles from 0 to 100, got {stretch}")
    _otsu()
    images = _find(folder, species)
    for image in images:
        _check_sizes(image, size)
    # Room for all crops at once: a list of bags would need twice the memory when it is joined.
    crops = np.empty((len(images) * n_patches, 3, size, size), np.uint8)
    centres, offsets = [], [0]
    for image in tqdm(images, "DIFaS", unit="image", disable=not progress):
        pixels = read_rgb(image.path)
        # A seed of each image's own: the same crops, whichever other images are loaded.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{image.path.stem}".encode()))
        xy = _draw_centres(_foreground(image, pixels), size, n_patches, generator)
        if len(xy) == 0:
            raise ValueError(f"{image.path}: no foreground at least half a crop of {size} pixels from the border")
        x, y = (xy - size // 2).T
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(0, 1))  # (…, …, 3, size, size)
        crops[offsets[-1] : offsets[-1] + len(xy)] = _to_bytes(windows[y, x], pixels, stretch, image.path)
        centres.append(xy)
        offsets.append(offsets[-1] + len(xy))
    crops.resize((offsets[-1], *crops.shape[1:]), refcheck=False)  # gives back the room that was not needed
    return Bags(
        torch.from_numpy(crops),
        torch.tensor(offsets),
        torch.tensor([image.species for image in images]),
        coordinates=torch.from_numpy(np.concatenate(centres)).float(),
    )


def difas_preparations(folder: str | Path | None = None, species: Sequence[str] = SPECIES) -> Tensor:
    """The preparation (0 or 1) that each bag of `difas_bags` comes from, shape (B,), in the same order.

    Images of one preparation look alike, so folds should keep them together: train on one preparation, test on the
    other. The authors' file lists split images by number, 1 to 10 and from 11 on; this function takes that split for
    the two preparations, since the file names say no more.

    Raises:
        FileNotFoundError, ValueError: as `difas_bags`; images are not opened.
    """
    return torch.tensor([int(image.number > 10) for image in _find(folder, species)])


def _otsu() -> Callable[[np.ndarray], Any]:
    """The function that finds the grey that best parts dark from bright."""
    with from_extra("histology", "the DIFaS loader needs scikit-image"):
        from skimage.filters import threshold_otsu
    return threshold_otsu


def _find(folder: str | Path | None, species: Sequence[str]) -> list[_Image]:
    """All images, by species and number; what is missing or misnamed is named."""
    check_chosen("species", species, SPECIES, "code")
    root = data_folder(folder, "difas", SOURCE)
    images = []
    for label in sorted(SPECIES.index(code) for code in species):
        code = SPECIES[label]
        found = find_images(root / code) if (root / code).is_dir() else {}
        if not found:
            raise FileNotFoundError(f"{root / code}: expected images of {SPECIES_NAMES[label]}, {code}1.tif and on")
        for stem, path in found.items():
            if not (match := re.fullmatch(code + r"([1-9]\d*)", stem)):
                raise ValueError(f"{path}: expected a name such as {code}1{path.suffix} in the folder {code}")
            mask = root / "masks" / code / f"{stem}.png" if (root / "masks").is_dir() else None
            if mask and not mask.is_file():
                raise FileNotFoundError(f"{mask}: no such mask, but {root / 'masks'} has others")
            images.append(_Image(path, mask, label, int(match[1])))
    return images


def _check_sizes(image: _Image, size: int) -> None:
    width, height = image_size(image.path)
    check_room(image.path, (width, height), size, "crops")
    if image.mask and image_size(image.mask) != (width, height):
        raise ValueError(f"{image.mask}: expected {width} × {height} pixels, as {image.path.name} has")


def _foreground(image: _Image, pixels: np.ndarray) -> np.ndarray:
    """Which pixels belong to fungi, (height, width)."""
    if image.mask is None:
        grey = pixels[:, :, 0].astype(np.uint32) + pixels[:, :, 1] + pixels[:, :, 2]  # much faster than .sum(2)
        return np.asarray(grey < _otsu()(_sample(grey).astype(np.float32)))
    with open_image(image.mask) as file:
        mask = np.asarray(file)
    if mask.ndim != 2 or mask.max() > FOREGROUND:
        raise ValueError(f"{image.mask}: expected one channel of 0, 1 and 2 (unknown, background, foreground)")
    return np.asarray(mask == FOREGROUND)


def _draw_centres(foreground: np.ndarray, size: int, n: int, generator: torch.Generator) -> np.ndarray:
    """At most n foreground pixels (x, y), shape (n, 2), whose crop lies inside the image."""
    before = size // 2
    height, width = (side - size + 1 for side in foreground.shape)
    allowed = np.flatnonzero(foreground[before : before + height, before : before + width])
    if len(allowed) <= max(100_000, 64 * n):
        places = torch.randperm(len(allowed), generator=generator)[:n].numpy()
    else:  # to shuffle millions takes seconds; of 2n draws from that many, n differ for certain, in effect
        draws = torch.randint(len(allowed), (2 * n,), generator=generator).numpy()
        places = draws[np.sort(np.unique(draws, return_index=True)[1])[:n]]
    chosen = allowed[places]
    return np.stack([chosen % width, chosen // width], 1) + before


def _to_bytes(crops: np.ndarray, pixels: np.ndarray, stretch: tuple[float, float] | None, path: Path) -> np.ndarray:
    """Crops as uint8; percentiles are those of the whole image."""
    if stretch is None:
        return crops if crops.dtype == np.uint8 else (crops >> 8).astype(np.uint8)
    low, high = np.percentile(_sample(pixels), stretch)
    if low == high:
        raise ValueError(
            f"{path}: no contrast, percentiles {stretch} are both {low:g}; stretch=None leaves it as it is"
        )
    values = np.arange(np.iinfo(crops.dtype).max + 1)  # a table: fewer numbers than the crops have
    return np.asarray(np.rint(((values - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)[crops])


def _sample(pixels: np.ndarray) -> np.ndarray:
    """Every pixel of a regular grid of about a million: percentiles and thresholds need no more of 20 million."""
    step = max(1, round((pixels.shape[0] * pixels.shape[1] / 1e6) ** 0.5))
    return pixels[::step, ::step]
