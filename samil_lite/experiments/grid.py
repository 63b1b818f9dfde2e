"""Grids of independent runs, here or on a cluster: what has a record is done, and a failure stops no other run."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from samil_lite.arguments import checked
from samil_lite.experiments.records import (
    keep_buffers,
    note_failure,
    origin,
    read_record,
    record_path,
    write_record,
)
from samil_lite.experiments.settings import Config, normal
from samil_lite.extras import from_extra
from samil_lite.training import progress_bar
from samil_lite.writing import clear_leftovers

Run = Callable[[Config], dict[str, Any]]
Done = tuple[Config, str | None]  # a cell that has ended, and its error if it failed


class FailedCellsError(RuntimeError):
    """Some cells of a grid have no record, because they failed; the others were run."""


@checked()
def run_grid(
    cells: Sequence[Config],
    run: Run,
    folder: str | Path,
    workers: int = 1,
    progress: bool = True,
    scheduler: str | None = None,
) -> None:
    """Runs every cell that has no record yet, and writes its record.

    A cell that fails, or whose worker dies, stops no other: its error is written beside the records, as `….failed`, and
    the next start tries it again. On a Dask cluster this process writes the records as they come in. A cell whose
    worker is lost runs again on another one, and has one record in the end.

    Args:
        cells: configurations, JSON values only; a record's name is the hash of its configuration.
        run: from a configuration to what was measured, JSON values only; a function of a module, for the workers.
        folder: where records are, created if missing.
        workers: processes, -1 for one on each core; each computes on one thread unless there is one process only.
        progress: whether to show a progress bar, with the time left.
        scheduler: address of a running Dask cluster, such as tcp://host:8786, in place of local processes. Its workers
            need this package, the data, and one thread each; extra `cluster`.

    Raises:
        ValueError: if a cell holds what JSON cannot, `workers` is no such number, or both it and `scheduler` are given.
        FailedCellsError: at the end, if cells failed; the message has their number and the first one's error.
        ImportError: if `scheduler` is given and Dask is missing.
    """
    folder = Path(folder)
    if workers != -1 and workers < 1:
        raise ValueError(f"workers: expected a whole number of at least 1, or -1 for all cores, got {workers}")
    if scheduler is not None and workers != 1:
        raise ValueError(f"workers, scheduler: expected one of them, got {workers} and {scheduler!r}")
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    wanted = {record_path(folder, cell): cell for cell in map(normal, cells)}  # a cell that is there twice runs once
    missing = [cell for path, cell in wanted.items() if not path.exists() or isinstance(read_record(path), str)]
    done = (
        _on_cluster(run, missing, folder, scheduler) if scheduler else _on_this_machine(run, missing, folder, workers)
    )
    failed = []
    with progress_bar(progress, total=len(wanted), initial=len(wanted) - len(missing), unit="run") as bar:
        for cell, error in done:
            bar.update()
            if error is not None:
                failed.append(f"{error}, in {cell}")
    if failed:
        raise FailedCellsError(
            f"{len(failed)} of {len(wanted)} cells failed, see the .failed files in {folder}. The first: {failed[0]}"
        )


def _on_this_machine(run: Run, cells: list[Config], folder: Path, workers: int) -> Iterator[Done]:
    """Every process writes its own records; the results say only that one is finished."""
    from joblib import Parallel, delayed, effective_n_jobs
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads = torch.get_num_threads() if workers == 1 else 1
    made = origin(threads)  # once: what runs is the code that is loaded now, whatever is committed meanwhile
    left = {record_path(folder, cell): cell for cell in cells}
    while left:
        jobs = (delayed(_run_cell)(run, cell, folder, threads, made) for cell in list(left.values()))
        try:
            for cell, error in Parallel(n_jobs=workers, return_as="generator_unordered")(jobs):
                del left[record_path(folder, cell)]
                yield cell, error
            return
        except TerminatedWorkerError:
            for path in [path for path in left if not isinstance(read_record(path), str)]:
                yield left.pop(path), None  # finished, but not yet told
            # Which cell ended its worker is not known: joblib has handed out two for each worker, in order.
            for path in list(left)[: 2 * effective_n_jobs(workers)]:
                yield left[path], _alone(run, left[path], folder, made)
                del left[path]


def _alone(run: Run, cell: Config, folder: Path, made: dict[str, Any]) -> str | None:
    """Runs a cell in a process of its own; its error, if it fails or the process dies."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    executor = ProcessPoolExecutor(max_workers=1)
    try:
        _, error = executor.submit(_run_cell, run, cell, folder, 1, made).result()
    except TerminatedWorkerError as death:
        return note_failure(folder, cell, death)
    finally:
        executor.shutdown()
    return error  # type: ignore[no-any-return]


def _on_cluster(run: Run, cells: list[Config], folder: Path, scheduler: str) -> Iterator[Done]:
    """The cluster computes, this process writes: the workers may have other disks."""
    with from_extra("cluster", "scheduler needs Dask"):
        from distributed import Client, as_completed
    with Client(scheduler, set_as_default=False) as client:
        futures = client.map(_measure_there, [run] * len(cells), cells, pure=False, retries=2)
        of = dict(zip(futures, cells, strict=True))
        for future in as_completed(futures, loop=client.loop):
            error = future.exception()  # of the run, or of a cluster that lost its workers too often
            if error is None:
                write_record(record_path(folder, of[future]), future.result())
            yield of[future], None if error is None else note_failure(folder, of[future], error)
            future.release()


def _measure_there(run: Run, config: Config) -> dict[str, Any]:
    return _measure(run, config, 1, origin(1))


def _run_cell(run: Run, config: Config, folder: Path, threads: int, made: dict[str, Any]) -> Done:
    try:
        write_record(record_path(folder, config), _measure(run, config, threads, made))
    except Exception as error:
        return config, note_failure(folder, config, error)
    return config, None


def _measure(run: Run, config: Config, threads: int, made: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(threads)
    keep_buffers()
    start = time.perf_counter()
    record = {"config": config, "result": run(config), **made}
    record["seconds"] = round(time.perf_counter() - start, 2)
    return record
