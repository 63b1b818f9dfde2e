"""Files that appear whole or not at all, under any number of writers; what a killed one left is cleared by the next."""

import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

STARTED = time.time()
ABANDONED = 24 * 3600  # seconds after which another machine's temporary file is taken for left behind


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it: a reader sees the old file or the new one.

    The temporary file is `.NAME.HOST.PID.RANDOM.part`, so threads, processes and machines that share the folder do not
    meet. The file gets the mode that the user's umask gives.

    Raises:
        OSError: if it cannot be written, as on a full disk; the message names `path`, and an old file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path.parent, path.name)
    part = path.parent / f".{path.name}.{_host()}.{os.getpid()}.{uuid4().hex[:12]}.part"
    try:
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the final name
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError):  # torch.save says "unexpected pos" of a full disk
            number = getattr(error, "errno", None) or errno.EIO
            raise OSError(number, f"cannot be written, is the disk full? ({error})", str(path)) from error
        raise


def clear_leftovers(folder: Path, name: str = "*") -> None:
    """Deletes the temporary files of `name` in a folder whose writers are gone."""
    for part in folder.glob(f".{name}.*.part"):
        if _is_left(part):
            part.unlink(missing_ok=True)


def _is_left(part: Path) -> bool:
    """Whether the process that wrote a temporary file has ended, as far as can be told from here."""
    try:
        written = part.stat().st_mtime
        _, host, pid, _, _ = part.name.rsplit(".", 4)
    except (FileNotFoundError, ValueError):
        return False  # another run cleared it, or it is none of ours
    if host != _host() or os.name == "nt" or not pid.isdigit():  # on Windows, to ask for a process would end it
        return written < time.time() - ABANDONED
    if int(pid) == os.getpid():
        return written < STARTED - 1  # a process before this one had the same number, as in containers
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return written < time.time() - ABANDONED


def _host() -> str:
    return socket.gethostname().replace(".", "-").replace("/", "-") or "host"
