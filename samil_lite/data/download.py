"""Files that are too large to ship: found in a folder of the user's, or downloaded once, and always verified."""

import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from samil_lite.files import regular_size

PATIENCE = 30  # seconds that a mirror has beside those that SLOWEST would take
SLOWEST = 10_000  # bytes a second


def data_root() -> Path:
    """The folder of all data sets: `$SAMIL_DATA` or, without that variable, the user's cache folder."""
    if root := os.environ.get("SAMIL_DATA"):
        return Path(root)
    import pooch  # at first use: it brings tqdm's notebook form, which warns where ipywidgets is missing

    return Path(pooch.os_cache("samil_lite"))


def fetch(folder: str, name: str, sha256: str, mirrors: Sequence[str], most: int = 2**25) -> Path:
    """Path of a file whose contents are known to be right.

    The file is taken from `$SAMIL_DATA/folder/name` if the environment variable SAMIL_DATA is set and the file is
    there. Otherwise it is downloaded, into the same place or, without SAMIL_DATA, into the user's cache folder. A
    download is written under another name and renamed after its SHA-256 sum was found right. A mirror that sends more
    than `most` bytes, or on the whole fewer than ten thousand a second, is given up for the next one.

    Args:
        folder: of the data set, such as "mnist".
        name: of the file.
        sha256: of its contents, hexadecimal.
        mirrors: addresses of folders that have the file, tried in order.
        most: bytes that the file may have.

    Raises:
        ValueError: if the file is there but its contents are not the right ones.
        OSError: if it is not there and cannot be downloaded or written; the message says how to provide it.
    """
    import pooch  # at first use, as above

    path = data_root() / folder / name
    if path.exists():
        regular_size(path)
        if (found := pooch.file_hash(str(path))) != sha256:
            raise ValueError(
                f"{path} is damaged or not the original: expected SHA-256 {sha256}, got {found}; "
                "delete it to download it again"
            )
        return path
    failures = []
    for mirror in mirrors:
        try:
            pooch.retrieve(
                f"{mirror}/{name}",
                known_hash=sha256,
                fname=name,
                path=path.parent,
                downloader=lambda url, file, _: _download(url, Path(file), name, most),
            )
            return path
        except Exception as error:  # each mirror fails in its own way, and the next one may still work
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
                raise OSError(error.errno, f"{os.strerror(error.errno)}, while it was downloaded", str(path)) from error
            failures.append(f"  {mirror}: {type(error).__name__}: {error}")
    raise OSError(
        f"cannot get {name} into {path.parent}. Put the file there yourself, or set SAMIL_DATA to a folder that has "
        f"{folder}/{name}. What was tried:\n" + "\n".join(failures)
    )


def _download(url: str, path: Path, name: str, most: int) -> None:
    """Writes what an address sends to a file.

    A thread reads, since a timeout of the connection begins anew with each byte that comes; this one looks at the
    clock.

    Raises:
        OSError: if it cannot be read or written, is too slow, or is larger than `most`.
    """
    parts: queue.Queue[bytes | Exception | None] = queue.Queue(8)
    given_up = threading.Event()
    threading.Thread(target=_read, args=(url, parts, given_up), daemon=True).start()
    end, received = time.monotonic() + PATIENCE, 0
    try:
        with path.open("wb") as file, tqdm(desc=name, unit="B", unit_scale=True) as bar:
            while (part := _next(parts, end + received / SLOWEST)) is not None:
                received += len(part)
                if received > most:
                    raise OSError(f"more than {most:,} bytes")
                file.write(part)
                bar.update(len(part))
    finally:
        given_up.set()


def _next(parts: "queue.Queue[Any]", end: float) -> bytes | None:
    """The next part that was read, None at the end."""
    try:
        part: bytes | Exception | None = parts.get(timeout=max(0, end - time.monotonic()))
    except queue.Empty:
        raise TimeoutError(f"less than {SLOWEST:,} bytes a second, beside {PATIENCE} seconds of patience") from None
    if isinstance(part, Exception):
        raise part
    return part


def _read(url: str, parts: "queue.Queue[Any]", given_up: threading.Event) -> None:
    import requests  # pooch brings it

    def put(part: bytes | Exception | None) -> None:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                parts.put(part, timeout=1)
                return

    try:
        with requests.get(url, stream=True, timeout=PATIENCE) as response:
            response.raise_for_status()
            for part in response.iter_content(2**16):
                put(part)
                if given_up.is_set():
                    return
        put(None)
    except Exception as error:  # told to the one who waits
        put(error)
