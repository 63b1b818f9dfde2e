"""Training by several processes at once, started by PyTorch's `torchrun`: who does what, and how they agree.

Each process, a rank, has the whole model and a share of the bags of every step. With w ranks and b bags in a step,

    ∇ = Σ_r (n_r / b) ∇_r,  Σ_r n_r = b,

where rank r has n_r of the bags and ∇_r is the gradient of their mean loss. So the ranks together take the step that
one process takes on all b bags, whether they have equally many bags or not.
"""

import atexit
import os
from dataclasses import asdict, dataclass
from io import BytesIO

import torch
from torch import Tensor, distributed, nn

from samil_lite.checkpoints import History, TrainingRun


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

    def gather(self, rows: Tensor, at: Tensor, n: int) -> Tensor:
        """The rows of all ranks as one tensor of n rows, this one's at the places `at`."""
        if self.count == 1:
            return rows
        whole = rows.new_zeros(n, *rows.shape[1:])
        whole[at] = rows
        return self.sum(whole)

    def start_alike(self, run: TrainingRun) -> None:
        """Gives all ranks the weights of rank 0, and what it read from its checkpoint."""
        if self.count == 1:
            return
        box: list[bytes | None] = [None]
        if self.rank == 0:
            state = {"model": run.model.state_dict(), "optimiser": run.optimiser.state_dict(), "best": run.best}
            torch.save({**state, "history": asdict(run.history)}, buffer := BytesIO())
            box = [buffer.getvalue()]
        distributed.broadcast_object_list(box, src=0)
        first = next(run.model.parameters())
        state = torch.load(BytesIO(box[0] or b""), map_location=first.device, weights_only=True)
        run.model.load_state_dict(state["model"])
        run.optimiser.load_state_dict(state["optimiser"])
        run.history, run.best = History(**state["history"]), state["best"]

    def spread_buffers(self, model: nn.Module) -> None:
        """Gives all ranks the buffers of rank 0, such as the running means of a normalisation."""
        if self.count > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


def joined() -> Ranks:
    """This process among those of its run; joins them if `torchrun` started it and nobody has joined them yet.

    They stay together until the process ends: groups made one after the other could meet each other's addresses.
    """
    if not distributed.is_available():
        return Ranks()
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # torchrun numbers those of a machine from 0
        distributed.init_process_group()
        atexit.register(distributed.destroy_process_group)
    return Ranks(distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else Ranks()
