"""Jobs: one function on many arguments, here, in processes, or on a Dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from samil_lite.extras import from_extra


def run_jobs(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], workers: int = 1, scheduler: str | None = None
) -> Iterator[tuple[int, Any]]:
    """The number and the result of each job, as they finish: here, in processes, or on a Dask cluster."""
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    if scheduler is not None:
        with from_extra("cluster", "scheduler needs Dask"):
            from distributed import Client, as_completed
        with Client(scheduler, set_as_default=False) as client:
            futures = {client.submit(function, *job, pure=False, retries=2): i for i, job in enumerate(jobs)}
            for future in as_completed(list(futures), loop=client.loop):
                yield futures[future], future.result()
        return
    from joblib import Parallel, delayed

    threads = 1 if workers > 1 else torch.get_num_threads()
    yield from Parallel(n_jobs=workers, return_as="generator_unordered")(
        delayed(_numbered)(function, number, job, threads) for number, job in enumerate(jobs)
    )


def _numbered(function: Callable[..., Any], number: int, job: tuple[Any, ...], threads: int) -> tuple[int, Any]:
    torch.set_num_threads(threads)
    return number, function(*job)
