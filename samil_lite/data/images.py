"""Files of images that the user provides: where they are, which there are, and their pixels."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from samil_lite.data.download import data_root
from samil_lite.extras import from_extra
from samil_lite.files import check_declared, naming, regular_size

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
FORMATS = ("TIFF", "PNG", "JPEG", "BMP")  # what is inside; of others, one would start a program (PostScript)
MOST_PIXELS = 2**26  # of an image; Messidor's have 2**21.7, those of DIFaS 2**24.3


def data_folder(folder: str | Path | None, name: str, source: str) -> Path:
    """The folder of a data set that the user has to provide.

    Args:
        folder: what the user gave; None: `name` in `$SAMIL_DATA` or, without it, in the user's cache folder.
        name: of the data set's folder.
        source: address where the files are to be had, for the message.

    Raises:
        FileNotFoundError: if it is not there.
    """
    folder = data_root() / name if folder is None else Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder. Get the files from {source}, and give their folder or set SAMIL_DATA to the "
            f"folder that has {name}/"
        )
    return folder


def check_chosen(name: str, chosen: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raises ValueError unless the argument `name` chooses at least one of the known codes or names, each once."""
    if unknown := [one for one in chosen if one not in known]:
        raise ValueError(f"{name}: expected {what}s from {', '.join(known)}, got {unknown[0]!r}")
    if len(set(chosen)) != len(chosen) or not chosen:
        raise ValueError(f"{name}: expected at least one {what}, each once, got {list(chosen)}")


def find_images(folder: Path) -> dict[str, Path]:
    """Images in a folder by their name without suffix, in natural order (2 before 10).

    Raises:
        ValueError: if two images differ in their suffix alone.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
        if path.suffix.lower() not in IMAGE_SUFFIXES or is_hidden(path.name):
            continue
        if path.stem in found:
            raise ValueError(f"{path}: the same image is there as {found[path.stem].name}; keep one of them")
        found[path.stem] = path
    return found


def is_hidden(name: str) -> bool:
    """Whether a file or a folder of this name was left by a system or an editor: .DS_Store, ._img1.bmp, __MACOSX."""
    return name.startswith((".", "__MACOSX"))


def natural(name: str) -> list[tuple[int, str]]:
    """Key that sorts names by the numbers in them: CA2 before CA10."""
    return [(int(part or -1), "") if i % 2 else (0, part) for i, part in enumerate(re.split(r"(\d+)", name))]


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An open image, TIFF, PNG, JPEG or BMP by what it contains, whose pixels are not decoded yet.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no such image, is declared larger than `MOST_PIXELS` or than its file can hold, or breaks
            inside the `with`.
    """
    stored = regular_size(path)
    with naming(path, ": cannot be decoded"), Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"expected at most {MOST_PIXELS:,} pixels, got {width} × {height}")
        check_declared(path, width * height * len(image.getbands()), stored, "pixels")
        yield image


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, from its header alone.

    Raises:
        ValueError: if the file is no image, or a TIFF shorter than its header says.
    """
    with open_image(path) as image:
        tags = getattr(image, "tag_v2", {})  # of a TIFF: where each strip begins (273), and how long it is (279)
        end = max((a + n for a, n in zip(tags.get(273, ()), tags.get(279, ()), strict=True)), default=0)
        size = image.size
    if end > path.stat().st_size:
        raise ValueError(f"{path}: truncated, {path.stat().st_size} of at least {end} bytes")
    return size


def check_room(path: Path, shape: tuple[int, int], size: int, what: str) -> None:
    """Raises ValueError unless an image of this width and height has room for a crop, or what it is called."""
    width, height = shape
    if min(shape) < size:
        raise ValueError(f"{path}: {width} × {height} pixels, too small for {what} of {size} × {size}")


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in red, green and blue of 8 bits each.

    Raises:
        ValueError: if it has larger numbers, which Pillow would cut off at 255 or to their upper 8 bits.
    """
    raw = [
        str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in getattr(image, "tile", [])
    ]  # such as RGB;16B
    if image.mode[0] in "IF" or any(re.search(r"(?<!BGR);(16|32)", one) for one in raw):
        raise ValueError(f"expected 8 bits a channel, got Pillow's mode {image.mode} from {', '.join(raw)}")
    return image.convert("RGB")


def read_rgb(path: Path) -> np.ndarray:
    """Pixels of an image, (height, width, 3): uint16 for a TIFF of 16 bits, else uint8.

    Raises:
        ValueError: if it cannot be decoded, or has more than 8 bits and is no TIFF.
    """
    with open_image(path) as image:
        if max(getattr(image, "tag_v2", {}).get(258, (8,))) <= 8:  # bits of each channel
            return np.asarray(to_rgb(image))
        shape = image.size[::-1]
    return _sixteen_bits(path, shape)


def _sixteen_bits(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels of a TIFF of 16 bits, uint16, which Pillow would cut down to 8."""
    with from_extra("histology", "TIFF files of 16 bits need scikit-image"):
        from tifffile import TiffFile
    with naming(path, ": cannot be decoded"), TiffFile(path) as file:
        page = file.pages[0]  # a series could name other files
        squeezed = tuple(n for n in page.shape if n != 1)
        if page.dtype != np.uint16 or squeezed not in (shape, (*shape, 3), (*shape, 4)):
            raise ValueError(f"expected 3 channels of uint16, got {page.dtype} of shape {page.shape}")
        pixels = page.asarray().reshape(squeezed)
    return np.repeat(pixels[:, :, None], 3, 2) if pixels.ndim == 2 else pixels[:, :, :3]
