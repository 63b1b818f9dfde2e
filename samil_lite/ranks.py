"""Training by several processes at once, started by PyTorch's `torchrun`: who does what, and how they agree.

Each process, a rank, has the whole model and a share of the bags of every step. With w ranks and b bags in a step,

    ∇ = Σ_r (n_r / b) ∇_r,  Σ_r n_r = b,

where rank r has n_r of the bags and ∇_r is the gradient of their mean loss. So the ranks together take the step that
one process takes on all b bags, whether they have equally many bags or not.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Ranks:
    """This process among all of a run: one of one unless `torchrun` started more.

    Attributes:
        rank: number of this process, from 0; only rank 0 writes files and shows progress.
        count: how many processes there are, on all machines.
    """

    rank: int = 0
    count: int = 1

    def share(self, chosen: Tensor) -> Tensor:
        """Every `count`-th of the numbers, the first few ranks have one more; may be empty."""
        return chosen[self.rank :: self.count]

    def sum(self, x: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, in place."""
        if self.count > 1:
            distributed.all_reduce(x)
        return x

    def sum_gradients(self, model: nn.Module) -> None:
        """Replaces every gradient by its sum over the ranks; one that no rank has stays None."""
        if self.count == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        has = torch.tensor(
            [p.grad is not None for p in parameters], dtype=parameters[0].dtype, device=parameters[0].device
        )
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        everything = self.sum(torch.cat([has, *(part.flatten().to(has.dtype) for part in parts)]))  # one message
        has, *sums = everything.split([len(has), *(p.numel() for p in parameters)])
        for p, found, total in zip(parameters, has.tolist(), sums, strict=True):
            p.grad = total.view_as(p).to(p.dtype) if found else None

    def from_first(self, state: Any) -> Any:
        """What rank 0 has in the place of `state`; tensors must be on the CPU."""
        box = [state]
        if self.count > 1:
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def spread_buffers(self, model: nn.Module) -> None:
        """Gives all ranks the buffers of rank 0, such as the running means of a normalisation."""
        if self.count > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The processes of this run; joins them if `torchrun` started this one and nobody has joined them yet."""
    ours = distributed.is_available() and distributed.is_torchelastic_launched() and not distributed.is_initialized()
    if ours:
        if torch.cuda.is_available():
            torch.cuda.set_device(local_device())
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        joined = distributed.is_available() and distributed.is_initialized()
        yield Ranks(distributed.get_rank(), distributed.get_world_size()) if joined else Ranks()
    finally:
        if ours:
            distributed.destroy_process_group()


def local_device() -> torch.device:
    """The card of this process: `torchrun` numbers those of a machine from 0."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
