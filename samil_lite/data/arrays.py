"""Arrays from files of NumPy, MATLAB and HDF5, opened with care (see `samil_lite.files`)."""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from samil_lite.extras import from_extra
from samil_lite.files import MOST_TEXT, check_declared, naming, read_bytes, regular_size

MAT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MAT_MATRIX, MAT_COMPRESSED = 14, 15
MAT_NUMBERS = range(6, 16)  # classes of numeric arrays: double, single, int8 to uint64


def read_npy(path: Path) -> np.ndarray:
    """The array of a `.npy` file, mapped to memory; no object is unpickled.

    Raises:
        ValueError: if the file is broken or not as large as its header says.
    """
    size = regular_size(path)
    with naming(path, " is broken"), path.open("rb") as file:
        shape, order, dtype = _npy_header(file, size)
        x = np.memmap(path, dtype, "r", file.tell(), shape, order)
    return np.asarray(x)


def read_npz(path: Path, names: tuple[str, ...], what: str = " is broken") -> list[np.ndarray]:
    """The named arrays of a `.npz` file; no object is unpickled.

    Raises:
        ValueError: if the file is broken, lacks one, or an array is not as large as its header says.
    """
    size = regular_size(path)
    arrays = []
    with naming(path, what), zipfile.ZipFile(path) as archive:
        entries = [archive.getinfo(f"{name}.npy") for name in names]
        check_declared(path, sum(entry.file_size for entry in entries), size, "arrays")
        for entry in entries:
            data = io.BytesIO(archive.read(entry))
            shape, order, dtype = _npy_header(data, len(data.getbuffer()))
            flat = np.frombuffer(data.getbuffer(), dtype, math.prod(shape), data.tell())
            arrays.append(flat.reshape(shape, order=order))
    return arrays


def _npy_header(file: Any, size: int) -> tuple[tuple[int, ...], Any, np.dtype[Any]]:
    """Shape, order and type of the array that begins where the file stands afterwards, and ends it."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"expected the format 1.0 or 2.0, got {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.itemsize == 0 or any(n < 0 for n in shape):
        raise ValueError(f"expected numbers, got {dtype} of shape {shape}")
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"expected {dtype} of shape {shape}, got {size - file.tell():,} bytes")
    return shape, "F" if fortran else "C", dtype


def read_mat(path: Path, name: str) -> np.ndarray:
    """The real numeric matrix of this name in a MATLAB file of version 5, which MATLAB 5 to 7.2 write.

    It is read here, because SciPy's reader follows type numbers of damaged files out of its tables, which ends Python
    (https://github.com/scipy/scipy/pull/25349). The `format
    <https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf>`__ is a row of elements: a tag of type and
    size, then data; a matrix is an element of elements: flags, dimensions, name, numbers.

    Raises:
        ValueError: if the file is broken, of another version, or has no such matrix.
    """
    with naming(path, f": expected `{name}`, a matrix of numbers"):
        data = read_bytes(path)
        if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
            raise ValueError("not a MATLAB file of version 5")
        order = "<" if data[126:128] == b"IM" else ">"
        for kind, part in _mat_elements(data[128:], order):
            if kind == MAT_COMPRESSED:
                part = _inflated(part)
                kind, part = next(_mat_elements(part, order), (0, b""))
            if kind != MAT_MATRIX:
                raise ValueError(f"an element of type {kind}")
            elements = _mat_elements(part, order)
            (_, flags), (_, shape), (_, called) = (next(elements) for _ in range(3))
            if called.decode("ascii") != name:
                continue
            if (first := int(np.frombuffer(flags, order + "u4")[0])) & 0x800 or first & 0xFF not in MAT_NUMBERS:
                raise ValueError("it is complex, or no matrix of numbers")
            stored, numbers = next(elements)
            flat = np.frombuffer(numbers, order + MAT_TYPES[stored])
            return flat.reshape(np.frombuffer(shape, order + "i4").clip(0), order="F")
        raise ValueError("there is none of this name")


def _mat_elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and contents of each element."""
    at = 0
    while at < len(data):
        kind, size = (int(x) for x in np.frombuffer(data, order + "u4", 2, at))
        start = at + 8
        if kind >> 16:  # the small form: size and type in one word, up to four bytes of data in the next
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
        if start + size > len(data):
            raise ValueError(f"an element of {size:,} bytes, but {len(data) - start:,} are left")
        yield kind, data[start : start + size]
        end = start + size
        at = end if kind == MAT_COMPRESSED else max(-(-end // 8) * 8, at + 8)


def _inflated(data: bytes) -> bytes:
    """What was compressed, if it is whole."""
    stream = zlib.decompressobj()
    out = stream.decompress(data, MOST_TEXT)
    if not stream.eof:
        raise ValueError(f"compressed data that is cut off or larger than {MOST_TEXT:,} bytes")
    return out


@contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """An open HDF5 file.

    Raises:
        ValueError: if it cannot be read, there or inside the `with`.
        ImportError: if h5py is not installed.
    """
    regular_size(path)
    with from_extra("features", f"{path.name} needs h5py"):
        import h5py
    with naming(path, " is broken"), h5py.File(path, "r") as file:
        yield file


def h5_dataset(path: Path, file: Any, name: str) -> Any:
    """The dataset of this name, such as `features` or `20x/features`, or None; its numbers are read by indexing.

    Only what lies in this file is followed: links, virtual datasets and external storage can point at any other file.
    The size that it declares is compared with what is stored.

    Raises:
        ValueError: if it is not a dataset, lies elsewhere, or is declared larger than it can be.
    """
    import h5py

    place = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or (link := place.get(part, getlink=True)) is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{path}: {name} is a link to elsewhere; expected the numbers in the file itself")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        return None
    if place.is_virtual or place.external:
        raise ValueError(f"{path}: the numbers of {name} lie in other files; expected them in the file itself")
    declared, stored = math.prod(place.shape or (0,)) * place.dtype.itemsize, place.id.get_storage_size()
    check_declared(path, declared, stored, name)
    if place.chunks is not None:
        check_declared(path, math.prod(place.chunks) * place.dtype.itemsize, stored, f"a part of {name}")
    if declared > stored and place.id.get_create_plist().get_nfilters() == 0:
        raise ValueError(
            f"{path}: {name} of shape {place.shape} would be {declared:,} bytes, but {stored:,} are stored"
        )
    return place
