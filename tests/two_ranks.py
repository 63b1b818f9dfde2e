"""What test_ranks.py starts twice under torchrun, by two processes: the first time one of them is killed on its way."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

import samil_lite as sl
from samil_lite import training
from samil_lite.metrics import bag_loss
from samil_lite.ranks import joined

SETTINGS = {"epochs": 3, "bags_per_step": 3, "lr": 1e-2, "device": "cpu"}


def bags(n: int, seed: int, more: int = 1) -> sl.Bags:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(2 + more * (b % 3), 5, generator=generator, dtype=torch.float64) for b in range(n)]
    return sl.Bags.from_list(parts, torch.arange(n) % 2)


TRAIN, VALIDATION = bags(11, 0), bags(5, 1)  # steps of 3, 3, 3, 2; neither number can be halved
UNEQUAL = bags(11, 2, more=40)  # 2, 42 or 82 instances


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return sl.build("lsa-abmilp", nn.Sequential(nn.Linear(5, 4), nn.Tanh()), dim=4, hidden=3, gamma=1).double()


def gradients(n: int) -> list[torch.Tensor]:
    """Those of the mean loss of n bags, each rank on its share, summed; one parameter has none anywhere."""
    one = model(0)
    one.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    ranks = joined()
    mine = ranks.share(torch.arange(n))
    if len(mine):
        (bag_loss(one(TRAIN[mine]).logits, TRAIN.labels[mine]) * len(mine) / n).backward()
    ranks.sum_gradients(one)
    assert one.unused.grad is None
    return [p.grad for p in one.parameters() if p.grad is not None]


def main(folder: Path, kill: bool) -> None:
    rank = int(os.environ["RANK"])
    if kill:

        def epoch_or_death(*arguments, usual=training._train_epoch):
            epoch = arguments[-1]
            if (epoch, rank) == (2, 1):
                os.kill(os.getpid(), signal.SIGKILL)
            return usual(*arguments)

        training._train_epoch = epoch_or_death
    shown = []
    training.progress_bar = lambda show, bar=training.progress_bar, **options: (
        shown.append(show) or bar(False, **options)
    )
    trained = model(rank)  # ranks that start apart
    history = sl.fit(trained, TRAIN, VALIDATION, **SETTINGS, checkpoint=folder / f"run_of_{rank}.pt")
    assert shown == [rank == 0]
    again = model(rank)  # a second run of the same processes
    alone = sl.fit(again, TRAIN, **{**SETTINGS, "bags_per_step": 1, "epochs": 1})  # rank 1 has nothing to do
    limited = model(rank)
    few = sl.fit(limited, UNEQUAL, **SETTINGS, max_instances=6)
    found = {
        "gradients": {n: gradients(n) for n in (1, 2, 3, 11)},
        "weights": trained.state_dict(),
        "again": again.state_dict(),
        "limited": limited.state_dict(),
        "losses": [history.train_loss, history.validation_loss, alone.train_loss, few.train_loss],
    }
    torch.save(found, folder / f"found_{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "kill")
