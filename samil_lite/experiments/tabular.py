"""Cross-validation on musk: all folds of a repeat are trained at once, as one batch of models."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from samil_lite.arguments import checked, columns
from samil_lite.bags import Bags
from samil_lite.experiments.crossval import base_cells, stored_folds
from samil_lite.folds import parts
from samil_lite.models import build

DATA = ("musk1", "musk2")
# Of four learning rates from 3e-4 to 1e-2 the mean validation losses on musk1 lie within 2 % of each other
# (book/results/tables_settings): a large one, which needs few epochs.
TRAINING: dict[str, Any] = {"epochs": 150, "patience": 20, "lr": 3e-3, "weight_decay": 1e-3}
SETTINGS: dict[str, Any] = {"n_folds": 10, "n_validation": 2, "width": 64, "at_once": 10}


def cells(
    data: Sequence[str],
    models: Sequence[str],
    repeats: Sequence[int],
    gammas: Sequence[float] = (0.0, 1.0),
    **changes: Any,
) -> list[dict[str, Any]]:
    """Every combination, as configurations for `run`; arguments as in `crossval.cells`, a cell has all folds."""
    cells = base_cells(DATA, {**TRAINING, **SETTINGS}, data, models, repeats, gammas, changes)
    return [{**cell, "grouped": False} for cell in cells]


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Trains one model for each fold, and gives every bag the logit of the model that had not seen it.

    As in `crossval.run` the folds after the tested one choose the epoch. An epoch is one step on all training bags.
    Columns are standardised by the training bags of each fold.
    """
    bags = load(config["data"])
    assert bags.labels is not None
    fold = stored_folds(config, bags, None)  # (B,)
    number = torch.arange(config["n_folds"])[:, None]  # (F, 1)
    test, validation = parts(fold, number, config["n_folds"], config["n_validation"])  # (F, B) each
    trained = [
        _train(config, bags, numbers, validation[numbers], ~(test | validation)[numbers])
        for numbers in number.squeeze(1).split(config["at_once"])
    ]
    logits, losses, epochs = (torch.cat(x) for x in zip(*trained, strict=True))  # (F, B), (F,), (F,)
    return {
        "folds": fold.tolist(),
        "labels": bags.labels.tolist(),
        "logits": [round(x, 4) for x in (logits * test).sum(0).tolist()],
        "validation_loss": losses.mean().item(),
        "best_epochs": epochs.tolist(),
    }


def _train(
    config: dict[str, Any], bags: Bags, numbers: Tensor, validation: Tensor, train: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The models of F folds at once, masks (F, B): logits (F, B) at each one's best epoch, its loss and number (F,)."""
    assert bags.labels is not None
    models = [_model(config, bags.instances.shape[1], int(fold)) for fold in numbers]
    parameters, _ = stack_module_state(models)  # (F, …) each
    mean, deviation = _statistics(bags, train)  # (F, D) each

    def forward(parameters: dict[str, Tensor], mean: Tensor, deviation: Tensor) -> Tensor:
        x = (bags.instances - mean) / deviation  # (N, D)
        data = SimpleNamespace(instances=x, offsets=bags.offsets)  # Bags would look at values, which vmap forbids
        return functional_call(models[0], parameters, (data,)).logits  # type: ignore[no-any-return]  # (B,)

    optimiser = torch.optim.Adam(parameters.values(), lr=config["lr"], weight_decay=config["weight_decay"])
    labels = bags.labels.float().expand_as(train)  # (F, B)
    best_logits, best = torch.zeros(train.shape), torch.full((len(train),), torch.inf)  # (F, B), (F,)
    best_epoch = torch.zeros(len(train), dtype=torch.long)  # (F,)
    for epoch in range(config["epochs"] + 1):
        logits = vmap(forward)(parameters, mean, deviation)  # (F, B), after `epoch` steps
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")  # (F, B)
        of_validation = (loss.detach() * validation).sum(1) / validation.sum(1)  # (F,)
        better = of_validation < best
        best = torch.where(better, of_validation, best)
        best_logits = torch.where(better[:, None], logits.detach(), best_logits)
        best_epoch = torch.where(better, epoch, best_epoch)
        if not loss.detach().isfinite().all():
            broken = int(numbers[int((~loss.detach().isfinite()).any(1).nonzero()[0])])
            raise FloatingPointError(f"the loss of fold {broken} was not finite in epoch {epoch}; try a lower lr")
        if epoch - int(best_epoch.max()) >= config["patience"]:
            break
        optimiser.zero_grad()
        ((loss * train).sum(1) / train.sum(1)).sum().backward()  # models share nothing, so each gets its own gradient
        optimiser.step()
    return best_logits, best, best_epoch


def _model(config: dict[str, Any], columns: int, fold: int) -> nn.Module:
    torch.manual_seed(1000 * config["repeat"] + fold)
    encoder = nn.Sequential(nn.Linear(columns, config["width"]), nn.ReLU())
    start = {"gamma": config["gamma"]} if "gamma" in config else {}
    return build(config["model"], encoder, dim=config["width"], hidden=config["width"], **start)


def _statistics(bags: Bags, train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column over the instances of the training bags, masks (F, B): (F, D) each."""
    weights = train[:, bags.bag_index].to(bags.instances.dtype)  # (F, N)
    weights = weights / weights.sum(1, keepdim=True)
    mean = weights @ bags.instances  # (F, D)
    square = weights @ bags.instances.square()  # (F, D)
    return mean, (square - mean.square()).clamp_min(1e-6).sqrt()


def load(data: str) -> Bags:
    """musk1 or musk2."""
    from samil_lite.data.musk import musk_bags

    return musk_bags(int(data[-1]))


@checked()
def by_fold(table: pd.DataFrame) -> pd.DataFrame:
    """The runs with one row for each fold, as `scores.summary` takes them."""
    columns("table", table, "n_folds", "folds", "labels", "logits")
    rows = []
    for run in table.to_dict("records"):
        for fold in range(run["n_folds"]):
            chosen = [b for b, f in enumerate(run["folds"]) if f == fold]
            rows.append({**run, "fold": fold, **{k: [run[k][b] for b in chosen] for k in ("labels", "logits")}})
    return pd.DataFrame(rows)
