"""The bags of each step, on the device where they are needed; those on disk are read ahead."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from samil_lite.bags import Bags


def batches(source: Any, steps: Sequence[Tensor], device: torch.device) -> Iterator[Bags | None]:
    """The chosen bags of each step, on `device`; None for a step that chooses none.

    A source that says `read_ahead = True` is read in a thread while the step before computes, so two steps' bags are in
    memory. For CUDA it reads into pinned memory, from where the card fetches by itself. Only a source without random
    numbers of its own may say so: they would be drawn from PyTorch's generator while the model draws its dropout.

    Args:
        source: what training takes its bags from.
        steps: numbers of the bags of each step.
        device: where the bags are wanted.
    """
    if not getattr(source, "read_ahead", False):
        for chosen in steps:
            yield source[chosen].to(device) if len(chosen) else None
        return

    def read(chosen: Tensor) -> Bags | None:
        bags: Bags | None = source[chosen] if len(chosen) else None
        return bags.pin_memory() if bags is not None and device.type == "cuda" else bags

    with ThreadPoolExecutor(1, thread_name_prefix="reading") as reader:
        coming: deque[Future[Bags | None]] = deque()
        for step in range(len(steps) + 1):
            if step < len(steps):
                coming.append(reader.submit(read, steps[step]))
            if step > 0:
                yield _moved(coming.popleft().result(), device)


def _moved(bags: Bags | None, device: torch.device) -> Bags | None:
    return None if bags is None else bags.to(device)
