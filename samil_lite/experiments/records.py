"""Records of runs: one JSON file for each, written whole or not at all and named by the hash of its configuration."""

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import subprocess
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from samil_lite.arguments import checked, warn
from samil_lite.experiments.settings import Config, normal
from samil_lite.files import read_bytes
from samil_lite.writing import write_atomically

FAILED = ".failed"  # ending of the files that tell of cells without a record
REPOSITORY = Path(__file__).parents[2] / "book" / "results"
# The published records, to be read: the repository's, or those that come with an installed package.
RESULTS = REPOSITORY if REPOSITORY.is_dir() else Path(__file__).parent / "published"


def own_results() -> Path:
    """Where runs write: `SAMIL_RESULTS` if set, else the repository's folder, else results/ in the working folder."""
    chosen = os.environ.get("SAMIL_RESULTS")
    return Path(chosen) if chosen else REPOSITORY if REPOSITORY.is_dir() else Path("results")


def record_path(folder: Path, config: Config) -> Path:
    """Where the record of a configuration is: named by the hash of its settings, numbers in one form."""
    text = json.dumps(normal(config), sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


@checked()
def load_table(folder: str | Path) -> pd.DataFrame:
    """All records of a folder: one row for each run, one column for each setting and each measured number.

    A file that is no record, torn, or not named by its configuration is left out, with a warning that names it; the
    grid makes its record again.

    Raises:
        FileNotFoundError: if the folder has no record.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: {folder} is not a folder; python -m samil_lite.experiments makes records")
    found = {path: read_record(path) for path in sorted(folder.glob("[!.]*.json"))}
    bad = {path.name: reason for path, reason in found.items() if isinstance(reason, str)}
    records = [record for record in found.values() if not isinstance(record, str)]
    if not records:
        what = "".join(f"; {name}: {reason}" for name, reason in list(bad.items())[:3])
        raise FileNotFoundError(f"{folder} has no records{what}; python -m samil_lite.experiments makes them")
    for name, reason in bad.items():
        warn(f"{folder / name} is left out: {reason}")
    return pd.DataFrame([{**r["config"], **r["result"], "seconds": r["seconds"]} for r in records])


def read_record(path: Path) -> dict[str, Any] | str:
    """The record of a file, or why it is none."""
    try:
        record = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        return f"it cannot be read ({error})"
    if not isinstance(record, dict) or not all(isinstance(record.get(part), dict) for part in ("config", "result")):
        return "it is no record: expected a configuration and a result"
    if not isinstance(record.get("seconds"), int | float):
        return "it is no whole record: expected the seconds that it took"
    try:
        name = record_path(path.parent, record["config"]).name
    except ValueError as error:
        return f"its configuration is none ({error})"
    if name != path.name:
        return f"its name is not the hash of its configuration, {name}: it was renamed, or its settings were changed"
    return record


def write_record(path: Path, record: dict[str, Any]) -> Path:
    """Writes a record as JSON: the file appears whole or not at all. An earlier failure is forgotten."""
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    path.with_suffix(FAILED).unlink(missing_ok=True)
    return path


def note_failure(folder: Path, config: Config, error: BaseException) -> str:
    """Writes what failed and why beside the records; returns the error as one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    lines = traceback.format_exception(error)
    note = json.dumps({"config": config, "error": text, "traceback": lines}, indent=1, sort_keys=True, default=str)
    write_atomically(record_path(folder, config).with_suffix(FAILED), lambda file: file.write(note.encode()))
    return text


def keep_buffers() -> None:
    """Lets this process keep the large buffers that it frees, where the system's C library is glibc.

    It would give them back and ask for them again at every step of training: up to a third of the time of MNIST runs.
    """
    with contextlib.suppress(OSError, AttributeError):  # no such library, or not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no buffer of its own mapping
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the end of the heap stays


def origin(threads: int) -> dict[str, Any]:
    """Where and with what records are made."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "*.py"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout else "") if commit.returncode == 0 else None,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {threads} threads",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("numpy", "torch")}},
    }
