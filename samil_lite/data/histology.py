"""Histology: nuclei of colon tissue (CRCHistoPhenotypes) and patches of breast tissue (UCSB), stained by H&E."""

import re
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from samil_lite.bags import Bags
from samil_lite.data.arrays import read_mat
from samil_lite.data.images import check_room, data_folder, find_images, image_size, is_hidden, natural, read_rgb

NUCLEI = ("others", "epithelial", "fibroblast", "inflammatory")  # instance labels 0 … 3 of colon
COLON_SOURCE = "https://warwick.ac.uk/fac/cross_fac/tia/data/crchistolabelednucleihe"
BREAST_SOURCE = "https://bioimage.ucsb.edu/research/bio-segmentation"
WHITE, MOSTLY = 200, 0.75  # a patch is white if so large a part of its pixels has all three colours above 200


def colon_bags(folder: str | Path | None = None, size: int = 27) -> Bags:
    """Images of colon tissue as bags of nuclei: is there an epithelial one?

    A bag is one image of 500 × 500 pixels, an instance a square around the annotated centre of one nucleus, an
    instance label its type in `NUCLEI`: `bags.instance_labels == 1` tells the epithelial nuclei, the key instances. The
    bag label is 1 with any epithelial nucleus. Nothing is trained on instance labels. The official set has 100 images
    with 22,444 nuclei, 51 of them positive, and 1 to 796 nuclei in an image.

    A square that would reach over the border is moved inside, so that every pixel is of the image; its nucleus is then
    off the middle. `coordinates` keeps the annotated centre.

    Source: `Sirinukunwattana et al. (2016) <https://doi.org/10.1109/TMI.2016.2525803>`__, "released for research
    purpose only": ask for it at https://warwick.ac.uk/fac/cross_fac/tia/data/crchistolabelednucleihe; it must not be
    passed on. A folder has

    ::

        colon/CRCHistoPhenotypes_2016_04_28/Classification/
          img1/img1.bmp
          img1/img1_epithelial.mat  and _fibroblast, _inflammatory, _others: `detection` (n, 2), columns x and y
          img2/…

    Args:
        folder: that has `Classification`, or the one above it; None: `colon` in `$SAMIL_DATA` or, without that
            variable, in the user's cache folder.
        size: height and width of a square, in pixels.

    Returns:
        Bags of uint8 instances (N, 3, size, size), images in natural order (img2 before img10), within an image the
        types in the order of `NUCLEI`; coordinates (N, 2), float32, x and y in pixels.

    Raises:
        FileNotFoundError: if the folder, an image or a list of nuclei is not there.
        ValueError: if a file is broken, an image has no nucleus at all, or a nucleus lies outside of its image.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    images = _colon_images(folder)
    nuclei = [_nuclei(path, size) for path in images]  # every list is read before the first image is decoded
    crops = [_crops(_pixels(path), centres, size) for path, (centres, _) in zip(images, nuclei, strict=True)]
    kinds = [kind for _, kind in nuclei]
    return Bags.from_list(
        crops, [int((kind == 1).any()) for kind in kinds], kinds, [torch.from_numpy(xy) for xy, _ in nuclei]
    )


def colon_names(folder: str | Path | None = None) -> list[str]:
    """Names of the images, img1 and on, in the order of `colon_bags`; FileNotFoundError as there."""
    return [path.stem for path in _colon_images(folder)]


def breast_bags(folder: str | Path | None = None, drop_white: bool = True, size: int = 32, shrink: int = 1) -> Bags:
    """Images of breast tissue as bags of patches: benign or malignant?

    A bag is one image of 896 × 768 pixels, an instance one patch of a grid that begins in the upper left corner; pixels
    at the right and lower border that do not fill a patch are left out. The label is 1 if the file's name says
    malignant. The official set has 58 images, 26 of them malignant, with 672 patches of 32 × 32 each. They come from
    ten slides (`breast_slides`): images of one slide resemble each other, so folds must keep a slide together.

    With `drop_white` a patch is left out if at least 75 % of its pixels have red, green and blue all above 200; an
    image that is white all over keeps its darkest patch.

    Source: `Drelie Gelasca et al. (2008) <https://doi.org/10.1109/ICIP.2008.4712118>`__, the UCSB Bio-Segmentation
    benchmark, https://bioimage.ucsb.edu/research/bio-segmentation. No licence was seen, so it is not passed on here. A
    folder has the images, TIFF or PNG, in any folders below it:

    ::

        breast/Bisque/
          ytma10_010704_benign1_ccd.tif
          ytma10_010704_malignant1_ccd.tif
          …

    Args:
        folder: that has the images; None: `breast` in `$SAMIL_DATA` or, without that variable, in the user's cache.
        drop_white: whether to leave out white patches.
        size: height and width of a patch, in pixels.
        shrink: blocks of so many by so many pixels become one, their mean, before patches are cut; with 2 an official
            image has 168 patches of 32 × 32.

    Returns:
        Bags of uint8 instances (N, 3, size, size), images in natural order; coordinates (N, 2), float32, x and y of the
        patches' centres in pixels of the shrunk image; no instance labels, they are not known.

    Raises:
        FileNotFoundError: if the folder is not there or has no image.
        ValueError: if an image is broken, smaller than a patch, there twice, or its name has no slide and no label.
            Twice are also ytma10_010704_benign1_ccd.tif and ytma10_010704_benign1.tif, as masks of the nuclei are
            called: keep them in another folder.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    if shrink < 1:
        raise ValueError(f"shrink: expected at least 1, got {shrink}")
    images = _breast_images(folder)
    for path in images:
        check_room(path, image_size(path), size * shrink, "patches")
    patches, centres = zip(*(_grid(_shrunk(_pixels(path), shrink), size, drop_white) for path in images), strict=True)
    return Bags.from_list(patches, [int("malignant" in path.stem) for path in images], None, centres)


def breast_slides(folder: str | Path | None = None) -> list[str]:
    """The slide of each image, such as ytma10_010704, in the order of `breast_bags`; folds must not divide one.

    Raises:
        FileNotFoundError, ValueError: as `breast_bags`; images are not opened.
    """
    return [path.stem[: path.stem.index("_", path.stem.index("_") + 1)] for path in _breast_images(folder)]


def _colon_images(folder: str | Path | None) -> list[Path]:
    """The images, each with its four lists beside it."""
    root = data_folder(folder, "colon", COLON_SOURCE)
    found = [root] if root.name == "Classification" else sorted(root.glob("**/Classification"))
    found = [p for p in found if not any(map(is_hidden, p.relative_to(root).parts))]
    if len(found) != 1:
        raise FileNotFoundError(f"{root}: expected one folder Classification in it, found {len(found)}")
    folders = [p for p in found[0].iterdir() if p.is_dir() and not is_hidden(p.name)]
    if not folders:
        raise FileNotFoundError(f"{found[0]}: expected folders img1, img2, …, found none")
    images = []
    for one in sorted(folders, key=lambda p: natural(p.name)):
        path = find_images(one).get(one.name)
        if path is None:
            raise FileNotFoundError(f"{one / one.name}.bmp: no such image")
        for kind in NUCLEI:
            if not (one / f"{one.name}_{kind}.mat").is_file():
                raise FileNotFoundError(f"{one / one.name}_{kind}.mat: no such list of nuclei")
        images.append(path)
    return images


def _nuclei(image: Path, size: int) -> tuple[np.ndarray, Tensor]:
    """Centres (n, 2), float32, x and y, and types (n,) of the nuclei of one image."""
    width, height = image_size(image)
    check_room(image, (width, height), size, "squares")
    centres, kinds = [], []
    for number, kind in enumerate(NUCLEI):
        path = image.with_name(f"{image.stem}_{kind}.mat")
        found = read_mat(path, "detection")
        if found.size and (found.ndim != 2 or found.shape[1] != 2):
            raise ValueError(f"{path}: expected `detection` of shape (n, 2), got {found.dtype} of {found.shape}")
        found = found.astype(np.float32).reshape(-1, 2)  # (n, 2); MATLAB writes "none" as (0, 2) or (0, 0)
        outside = ~((found >= 0) & (found <= [width, height])).all(1)
        if outside.any():
            raise ValueError(f"{path}: nucleus {found[outside][0].tolist()} is outside of {width} × {height} pixels")
        centres.append(found)
        kinds.append(torch.full((len(found),), number))
    if not sum(map(len, centres)):
        raise ValueError(f"{image}: has no nucleus, its four lists are empty")
    return np.concatenate(centres), torch.cat(kinds)


def _pixels(path: Path) -> np.ndarray:
    """Pixels of an image of 8 bits a channel, as both official sets have: (height, width, 3), uint8."""
    pixels = read_rgb(path)
    if pixels.dtype != np.uint8:
        raise ValueError(f"{path}: expected 8 bits a channel, got {pixels.dtype}")
    return pixels


def _shrunk(pixels: np.ndarray, shrink: int) -> np.ndarray:
    """Means over blocks of an image (height, width, 3), uint8; pixels that do not fill a block are left out."""
    if shrink == 1:
        return pixels
    rows, columns = pixels.shape[0] // shrink, pixels.shape[1] // shrink
    blocks = pixels[: rows * shrink, : columns * shrink].reshape(rows, shrink, columns, shrink, 3)
    return np.asarray(np.rint(blocks.mean((1, 3))).astype(np.uint8))  # (rows, columns, 3)


def _crops(pixels: np.ndarray, centres: np.ndarray, size: int) -> np.ndarray:
    """Squares around centres (n, 2) of an image (height, width, 3), moved inside: (n, 3, size, size)."""
    height, width = pixels.shape[:2]
    corners = np.rint(centres - (size - 1) / 2).astype(int).clip(0, [width - size, height - size])  # (n, 2)
    windows = sliding_window_view(pixels, (size, size), axis=(0, 1))  # (height - …, width - …, 3, size, size)
    return np.asarray(windows[corners[:, 1], corners[:, 0]])  # (n, 3, size, size)


def _breast_images(folder: str | Path | None) -> list[Path]:
    root = data_folder(folder, "breast", BREAST_SOURCE)
    images: dict[str, Path] = {}
    for one in (root, *sorted(p for p in root.rglob("*") if p.is_dir())):
        if any(map(is_hidden, one.relative_to(root).parts)):
            continue
        for stem, path in find_images(one).items():
            name = re.match(r"ytma\d+_\d+_(benign|malignant)\d+", stem)
            if not name:
                raise ValueError(f"{path}: expected a name such as ytma10_010704_benign1_ccd{path.suffix}")
            if name[0] in images:  # a copy, or a mask of it
                raise ValueError(f"{path}: the same image is there as {images[name[0]]}; keep one of them")
            images[name[0]] = path
    if not images:
        raise FileNotFoundError(f"{root}: expected images such as ytma10_010704_benign1_ccd.tif, found none")
    return sorted(images.values(), key=lambda path: natural(path.stem))


def _grid(pixels: np.ndarray, size: int, drop_white: bool) -> tuple[np.ndarray, np.ndarray]:
    """Patches (n, 3, size, size) of an image (height, width, 3), row by row, and their centres (n, 2), x and y."""
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    patches = pixels[: rows * size, : columns * size].reshape(rows, size, columns, size, 3)
    patches = patches.transpose(0, 2, 4, 1, 3).reshape(-1, 3, size, size)  # (rows · columns, 3, size, size)
    y, x = np.divmod(np.arange(rows * columns), columns)
    centres = (np.stack([x, y], 1) * size + (size - 1) / 2).astype(np.float32)  # (n, 2)
    if not drop_white:
        return patches, centres
    keep = (patches.min(1) > WHITE).mean((1, 2)) < MOSTLY  # (n,)
    if not keep.any():
        keep[patches.mean((1, 2, 3)).argmin()] = True
    return patches[keep], centres[keep]
