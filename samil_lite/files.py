"""The door for files from outside: every one is opened by a function here, in `data.arrays` or in `data.images`.

A file is measured before it is read. It must be a regular file, since a pipe would be waited for without end, and what
it declares must fit into it: compressed to a thousandth at most, and no more than `MOST` bytes in all. Whatever a
reader raises of a damaged file becomes a ValueError that names it.
"""

import gzip
import io
import pickle
import pickletools
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import pandas as pd

MOST = 16 * 2**30  # bytes that one file may declare; 200,000 patches of 2,560 numbers are 2 GB
MOST_TEXT = 2**28  # bytes of a table
ALWAYS = 2**24  # bytes that any file may declare, however small
RATIO = 1100  # gzip's limit is 1,032


def regular_size(path: Path) -> int:
    """Size of a regular file, in bytes.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is a folder, a pipe or a device.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise ValueError(f"{path}: expected a file, got {kinds.get(stat.S_IFMT(found.st_mode), 'a device')}")
    return found.st_size


def check_declared(path: Path, declared: int, stored: int, what: str) -> None:
    """Raises ValueError if a compressed file says that it holds more bytes than it can, or than `MOST`."""
    if declared > MOST or declared > max(ALWAYS, RATIO * stored):
        raise ValueError(
            f"{path}: says that it holds {declared:,} bytes of {what} in {stored:,}; expected at most {MOST:,} and "
            f"{RATIO:,} times as many"
        )


@contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Makes a ValueError that names the file of whatever a reader raises: each breaks in its own way.

    What names the file already passes, and so does a package that is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a reader's remark on a damaged file is no news beside this
            yield
    except ImportError:
        raise
    except Exception as error:
        if isinstance(error, ValueError | FileNotFoundError | PermissionError) and str(path) in str(error):
            raise
        raise ValueError(f"{path}{what}: {error or type(error).__name__}") from error


def read_bytes(path: Path, most: int = MOST_TEXT) -> bytes:
    """All of a file of at most so many bytes."""
    if (size := regular_size(path)) > most:
        raise ValueError(f"{path}: expected at most {most:,} bytes, got {size:,}")
    return path.read_bytes()


def read_csv(path: Path, **options: Any) -> "pd.DataFrame":
    """`pandas.read_csv` of a file in UTF-8, with or without a mark of its byte order."""
    import pandas as pd  # at first use, since it is slow to import

    with naming(path, " is not a readable CSV"), warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more cells than the header has
        return pd.read_csv(io.StringIO(read_bytes(path).decode("utf-8-sig")), **options)


def read_gzip(path: Path, most: int = MOST_TEXT) -> bytes:
    """What a gzip file holds, if it is whole and of at most so many bytes."""
    with naming(path, " is broken"), gzip.GzipFile(fileobj=io.BytesIO(read_bytes(path))) as file:
        data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"expected at most {most:,} bytes in it")
    return data


def load_torch(path: Path, device: torch.device | str = "cpu", what: str = " is broken", mapped: bool = True) -> Any:
    """`torch.load` that runs no code and allocates no more than the file holds.

    Args:
        path: of a file that `torch.save` wrote, in its present format or that before PyTorch 1.6.
        device: where the tensors go.
        what: what to say of a file that cannot be read.
        mapped: whether an archive is mapped to memory, so that its numbers are read at first use.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is damaged, holds more than tensors and plain values, or is no such file.
    """
    size = regular_size(path)
    with naming(path, what), path.open("rb") as file:
        start = file.read(4)
        archive = start == b"PK\x03\x04"
        if archive:
            sizes = _check_stored(file, size)
        elif start[:1] == b"\x80":  # a tar file, the third format, would run code in PyTorch before 2.6
            _check_old(file, size)
        else:
            raise ValueError("expected a file that torch.save wrote")
        try:
            state = torch.load(path, map_location=device, weights_only=True, mmap=archive and mapped)
        except pickle.UnpicklingError as error:  # its text advises to load it with weights_only=False
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            if not found:
                raise ValueError("its index is damaged") from error
            array = "numpy" in found[1]
            what, other = ("a NumPy array", "torch.from_numpy(array)") if array else (found[1], "tensors")
            raise ValueError(
                f"it holds {what}, which is not loaded, as it could run code; if you trust it, store it anew as {other}"
            ) from error
        for x in tensors_in(state):
            if x.layout != torch.strided or x.is_nested or x.is_meta:
                raise ValueError("expected dense tensors, got one that is sparse, nested or meta")
            held = x.untyped_storage().nbytes()
            if archive and x.device.type == "cpu" and held not in sizes:  # a number was changed in the index
                raise ValueError(f"a tensor of {held:,} bytes has no entry of that size")
            if x.numel() * x.element_size() > max(ALWAYS, held):  # by a stride of 0
                raise ValueError(f"a tensor of shape {tuple(x.shape)} repeats {held:,} bytes")
        return state


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    """All tensors in dictionaries, lists and tuples."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from tensors_in(part)


def _check_stored(file: Any, size: int) -> set[int]:
    """Sizes of the entries of an archive; none may be compressed, since their bytes are mapped as they are."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"its entry {entry.filename} is compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError(f"its entries are larger than its {size:,} bytes")
    return {entry.file_size for entry in entries}


def _check_old(file: Any, size: int) -> None:
    """No number in the index of the old format may exceed the size of the file: the reader would allocate it."""
    file.seek(0)
    for part in range(4):  # a magic number, a version, the system, then the object
        for _, argument, _ in pickletools.genops(file):
            if part == 3 and isinstance(argument, int) and argument > max(size, 2**16):
                raise ValueError(f"it says that it holds {argument:,} numbers, in {size:,} bytes")
