"""Files that are too large to ship: found in a folder of the user's, or downloaded once, and always verified."""

import os
from collections.abc import Sequence
from pathlib import Path


def data_root() -> Path:
    """The folder of all data sets: `$SAMIL_DATA` or, without that variable, the user's cache folder."""
    if root := os.environ.get("SAMIL_DATA"):
        return Path(root)
    import pooch  # at first use: it brings tqdm's notebook form, which warns where ipywidgets is missing

    return Path(pooch.os_cache("samil_lite"))


def fetch(folder: str, name: str, sha256: str, mirrors: Sequence[str]) -> Path:
    """Path of a file whose contents are known to be right.

    The file is taken from `$SAMIL_DATA/folder/name` if the environment variable SAMIL_DATA is set and the file is
    there. Otherwise it is downloaded, into the same place or, without SAMIL_DATA, into the user's cache folder. A
    download is written under another name and renamed after its SHA-256 sum was found right.

    Args:
        folder: of the data set, such as "mnist".
        name: of the file.
        sha256: of its contents, hexadecimal.
        mirrors: addresses of folders that have the file, tried in order.

    Raises:
        ValueError: if the file is there but its contents are not the right ones.
        OSError: if it is not there and cannot be downloaded or written; the message says how to provide it.
    """
    import pooch  # at first use, as above

    path = data_root() / folder / name
    if path.exists():
        if (found := pooch.file_hash(str(path))) != sha256:
            raise ValueError(
                f"{path} is damaged or not the original: expected SHA-256 {sha256}, got {found}; "
                "delete it to download it again"
            )
        return path
    failures = []
    for mirror in mirrors:
        try:
            pooch.retrieve(f"{mirror}/{name}", known_hash=sha256, fname=name, path=path.parent, progressbar=True)
            return path
        except Exception as error:  # each mirror fails in its own way, and the next one may still work
            failures.append(f"  {mirror}: {type(error).__name__}: {error}")
    raise OSError(
        f"cannot get {name} into {path.parent}. Put the file there yourself, or set SAMIL_DATA to a folder that has "
        f"{folder}/{name}. What was tried:\n" + "\n".join(failures)
    )
