"""Grids of independent runs: one JSON record for each, written atomically, so that a killed grid just goes on."""

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from samil_lite.extras import from_extra
from samil_lite.models import KERNEL_OF
from samil_lite.training import progress_bar

Config = dict[str, Any]
Run = Callable[[Config], dict[str, Any]]
REPOSITORY = Path(__file__).parents[2] / "book" / "results"
# The published records, to be read: the repository's, or those that come with an installed package.
RESULTS = REPOSITORY if REPOSITORY.is_dir() else Path(__file__).parent / "published"


def own_results() -> Path:
    """Where runs write: `SAMIL_RESULTS` if set, else the repository's folder, else results/ in the working folder."""
    chosen = os.environ.get("SAMIL_RESULTS")
    return Path(chosen) if chosen else REPOSITORY if REPOSITORY.is_dir() else Path("results")


def run_grid(
    cells: Sequence[Config],
    run: Run,
    folder: str | Path,
    workers: int = 1,
    progress: bool = True,
    scheduler: str | None = None,
) -> None:
    """Runs every cell that has no record yet, and writes its record.

    On a Dask cluster this process writes the records as they come in. A cell whose worker is lost runs again on
    another one, and has one record in the end.

    Args:
        cells: configurations, JSON values only; a record's name is the hash of its configuration.
        run: from a configuration to what was measured, JSON values only; a function of a module, for the workers.
        folder: where records are, created if missing.
        workers: processes; each computes on one thread if there are several.
        progress: whether to show a progress bar, with the time left.
        scheduler: address of a running Dask cluster, such as tcp://host:8786, in place of local processes. Its workers
            need this package, the data, and one thread each; extra `cluster`.

    Raises:
        ValueError: if both `workers` and `scheduler` are given.
        ImportError: if `scheduler` is given and Dask is missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in cells if not record_path(folder, cell).exists()]
    if scheduler is not None and workers != 1:
        raise ValueError(f"workers, scheduler: expected one of them, got {workers} and {scheduler!r}")
    done = (
        _on_cluster(run, missing, folder, scheduler) if scheduler else _on_this_machine(run, missing, folder, workers)
    )
    with progress_bar(progress, total=len(cells), initial=len(cells) - len(missing), unit="run") as bar:
        for _ in done:
            bar.update()


def _on_this_machine(run: Run, cells: list[Config], folder: Path, workers: int) -> Iterator[None]:
    """Every process writes its own records; the results say only that one is finished."""
    from joblib import Parallel, delayed

    threads = 1 if workers > 1 else torch.get_num_threads()
    made = origin(threads)  # once: what runs is the code that is loaded now, whatever is committed meanwhile
    jobs = (delayed(_run_cell)(run, cell, folder, threads, made) for cell in cells)
    return iter(Parallel(n_jobs=workers, return_as="generator_unordered")(jobs))


def _on_cluster(run: Run, cells: list[Config], folder: Path, scheduler: str) -> Iterator[None]:
    """The cluster computes, this process writes: the workers may have other disks."""
    with from_extra("cluster", "scheduler needs Dask"):
        from distributed import Client, as_completed
    with Client(scheduler, set_as_default=False) as client:
        futures = client.map(_measure_there, [run] * len(cells), cells, pure=False, retries=2)
        for future in as_completed(futures, loop=client.loop):
            config, record = future.result()
            write_record(record_path(folder, config), record)
            future.release()
            yield


def _measure_there(run: Run, config: Config) -> tuple[Config, dict[str, Any]]:
    return config, _measure(run, config, 1, origin(1))


def changed(known: Config, changes: Config) -> Config:
    """The settings `known` with the values of `changes`; a ValueError if it has a name that is not known."""
    if unknown := set(changes) - set(known):
        raise ValueError(f"unknown settings {sorted(unknown)}; known are {sorted(known)}")
    return {**known, **changes}


def starts(model: str, gammas: Sequence[float]) -> list[Config]:
    """The starts of γ that a model has: one setting for each if it has self-attention, else one empty one."""
    return [{"gamma": gamma} for gamma in gammas] if model in KERNEL_OF else [{}]


def record_path(folder: Path, config: Config) -> Path:
    """Where the record of a configuration is: named by its hash."""
    text = json.dumps(config, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def load_table(folder: str | Path) -> pd.DataFrame:
    """All records of a folder: one row for each run, one column for each setting and each measured number.

    Raises:
        FileNotFoundError: if the folder has no record.
    """
    records = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    if not records:
        raise FileNotFoundError(f"{folder} has no records; python -m samil_lite.experiments makes them")
    return pd.DataFrame([{**r["config"], **r["result"], "seconds": r["seconds"]} for r in records])


def keep_buffers() -> None:
    """Lets this process keep the large buffers that it frees, where the system's C library is glibc.

    It would give them back and ask for them again at every step of training: up to a third of the time of MNIST runs.
    """
    with contextlib.suppress(OSError, AttributeError):  # no such library, or not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no buffer of its own mapping
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the end of the heap stays


def _run_cell(run: Run, config: Config, folder: Path, threads: int, made: dict[str, Any]) -> None:
    write_record(record_path(folder, config), _measure(run, config, threads, made))


def _measure(run: Run, config: Config, threads: int, made: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(threads)
    keep_buffers()
    start = time.perf_counter()
    record = {"config": config, "result": run(config), **made}
    record["seconds"] = round(time.perf_counter() - start, 2)
    return record


def write_record(path: Path, record: dict[str, Any]) -> Path:
    """Writes a record as JSON: the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")  # not *.json: a torn file is never taken for a record
    part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)
    return path


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
