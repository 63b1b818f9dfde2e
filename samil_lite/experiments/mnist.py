"""MNIST bags: a model, an assumption, a number of training bags and a seed make one run."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from samil_lite import metrics
from samil_lite.arguments import check_each, checked, columns, expected_of, one_of
from samil_lite.bags import Bags
from samil_lite.checkpoints import History
from samil_lite.data import KEY_DIGITS, mnist_bags
from samil_lite.encoders import LeNet5
from samil_lite.experiments.settings import changed, check_gammas, check_models, check_numbers, starts
from samil_lite.kernels import KERNELS
from samil_lite.metrics import Difference, attention_auc, bag_metrics, paired_interval, weakest_key
from samil_lite.models import KERNEL_OF, MODELS, MILClassifier, build
from samil_lite.training import fit, predict

TRAINING: dict[str, Any] = {"epochs": 60, "patience": 15, "bags_per_step": 8, "lr": 5e-4, "weight_decay": 1e-4}
BAGS: dict[str, Any] = {"pool": "full", "mean_size": 10, "std_size": 2, "n_test": 1000, "width": 500}
# Of models with self-attention only; None: as for the other parameters.
SELF_ATTENTION: dict[str, Any] = {"gamma_lr": None, "gamma_weight_decay": None, "log_scores": False}
# The paper's learning rate and batch. How long it trained is not known: here patience decides.
PAPER: dict[str, Any] = {"lr": 1e-5, "bags_per_step": 1, "epochs": 200, "patience": 25}
LAYER = "abmilp + layer"  # the remedy of chapter 4: a hidden layer between what is pooled and the logit
TESTED = (*MODELS, LAYER)

DIFFERENCE = ("difference", "low", "high")  # columns of `summary`


def cells(
    assumptions: Sequence[str],
    models: Sequence[str],
    n_bags: Sequence[int],
    seeds: Sequence[int],
    gammas: Sequence[float] = (0.0, 1.0),
    **changes: Any,
) -> list[dict[str, Any]]:
    """Every combination, as configurations for `run`, seeds outermost, so that early results are whole figures.

    Runs of one assumption, number of bags and seed share their bags, so models are compared in pairs.

    Args:
        assumptions: "standard", "presence", "threshold".
        models: names that `build` knows, and `LAYER`.
        n_bags: numbers of training bags.
        seeds: of the bags and of the model's start.
        gammas: where γ starts, for the models with self-attention; other models have one cell.
        changes: replace entries of TRAINING, BAGS and SELF_ATTENTION.
    """
    models, gammas = check_models(models, TESTED), check_gammas(gammas)
    assumptions = check_each("assumptions", assumptions, expected_of(str, one_of(KEY_DIGITS)))
    n_bags, seeds = check_numbers("n_bags", n_bags, 4), check_numbers("seeds", seeds)  # one of four validates
    settings = changed({**TRAINING, **BAGS, **SELF_ATTENTION}, changes)
    plain = {name: value for name, value in settings.items() if name not in SELF_ATTENTION}
    return [
        {"assumption": a, "model": m, "n_bags": n, "seed": s, **(settings if m in KERNEL_OF else plain), **start}
        for s, n, a, m in product(seeds, n_bags, assumptions, models)
        for start in starts(m, gammas)
    ]


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Trains one model and scores it on test bags.

    One validation bag for every four training bags chooses the epoch, by its loss; they are drawn from training
    digits that no training bag uses. Over the positive test bags: `attention_auc` and `weakest_key` are means,
    `every_key_stands_out` is the share in which `weakest_key` is above 1; see `samil_lite.metrics`. `example` has the
    digits of the first one and the weights that they get, the same bag for all models of a seed.
    """
    assumption = config["assumption"]
    model, history, test = trained(config)
    output = predict(model, test)
    assert test.labels is not None
    result = {
        **asdict(bag_metrics(output.logits, test.labels)),
        "validation_loss": min(history.validation_loss),
        "best_epoch": history.best_epoch,
        "epochs_run": len(history.train_loss),
    }
    for name, values in history.scalars.items():  # γ and the raw α after each epoch
        result[name.rpartition(".")[2] + "_path"] = _rounded(torch.tensor(values))
    if output.attention is not None and test.instance_labels is not None:
        is_positive = test.labels == 1  # (B,)
        positive = test[is_positive]
        attention = output.attention[is_positive[test.bag_index]]  # (N of positive bags,)
        assert positive.instance_labels is not None
        kinds = positive.instance_labels[:, None] == torch.tensor(KEY_DIGITS[assumption])  # (N, 1 or 2 digits)
        weakest = weakest_key(attention, kinds, positive.offsets)
        result["attention_auc"] = float(np.nanmean(attention_auc(attention, kinds.any(1), positive.offsets)))
        result["weakest_key"] = float(weakest.mean())
        result["every_key_stands_out"] = float((weakest > 1).float().mean())
        result["example"] = _example(model, positive[0])
    return result


def trained(config: dict[str, Any]) -> tuple[MILClassifier, History, Bags]:
    """The model of a configuration at its best epoch, how its training went, and the test bags."""
    seed, assumption = config["seed"], config["assumption"]
    sizes = {"train": config["n_bags"], "validation": config["n_bags"] // 4, "test": config["n_test"]}
    bags = {
        split: mnist_bags(
            assumption, n, split, seed, mean_size=config["mean_size"], std_size=config["std_size"], pool=config["pool"]
        )
        for split, n in sizes.items()
    }
    torch.manual_seed(seed)
    start = {"gamma": config["gamma"]} if "gamma" in config else {}
    if config.get("log_scores"):
        start["kernel"] = KERNELS[KERNEL_OF[config["model"]]](log_scores=True)  # type: ignore[call-arg]
    has_layer = config["model"] == LAYER
    model = build("abmilp" if has_layer else config["model"], LeNet5(config["width"]), **start)
    if has_layer:
        model.classifier = nn.Sequential(nn.Linear(model.dim, 128), nn.Tanh(), nn.Linear(128, 1))  # type: ignore[assignment]
    history = fit(
        model, bags["train"], bags["validation"],
        gamma_lr=config.get("gamma_lr"), gamma_weight_decay=config.get("gamma_weight_decay"),
        seed=seed, progress=False, **{name: config[name] for name in TRAINING},
    )  # fmt: skip
    return model, history, bags["test"]


@torch.no_grad()
def _example(model: MILClassifier, bag: Bags) -> dict[str, Any]:
    """Digits, attention and, where there is one, β of one bag, rounded: small enough for a record."""
    output = model(bag.to(next(model.parameters()).device), return_weights=True)
    assert bag.instance_labels is not None
    assert output.attention is not None
    example = {"digits": bag.instance_labels.tolist(), "attention": _rounded(output.attention)}
    if output.self_attention is not None:
        example["self_attention"] = [_rounded(row) for row in output.self_attention[0]]
    return example


def _rounded(x: torch.Tensor) -> list[float]:
    return [round(value, 4) for value in x.tolist()]


def difference(
    table: pd.DataFrame, model: str, other: str, assumption: str, gamma: float = 1.0, n_bags: int = 200,
    value: str = "auc",
) -> Difference:  # fmt: skip
    """How far one model is from another on the same bags; printed, it says how sure that is.

    Args:
        table: runs, as `load_table` gives them, one for each assumption, number of bags, model, start of γ and seed.
        model: its runs with this start of γ, if it has self-attention.
        other: the model that it is compared with; with self-attention also with this start of γ.
        assumption: "standard", "presence" or "threshold".
        gamma: start of γ.
        n_bags: training bags.
        value: the column that is compared.
    """
    where = table[(table["assumption"] == assumption) & (table["n_bags"] == n_bags)]

    def of(name: str) -> pd.Series:
        runs = where[(where["model"] == name) & ((where["gamma"] == gamma) | (name not in KERNEL_OF))]
        return runs.set_index("seed")[value]

    return metrics.difference(of(model), of(other))


@checked()
def summary(table: pd.DataFrame, reference: pd.DataFrame | None = None, value: str = "auc") -> pd.DataFrame:
    """Mean and standard error of every setting, and how far it is from AbMILP on the same bags.

    Args:
        table: runs, as `load_table` gives them.
        reference: AbMILP's runs, one for each assumption, number of bags and seed; those of `table` if None.
        value: the column that is compared.

    Returns:
        One row for each assumption, number of bags, model, start of γ and other setting that varies, with the number
        of runs, `mean`, `standard_error`, the number of `pairs` with AbMILP, the mean `difference` over them and the
        ends `low` and `high` of its 95 % interval (`paired_interval`); NaN with fewer than two.

    Raises:
        ValueError: if AbMILP has two runs for one assumption, number of bags and seed.
    """
    columns("table", table, "assumption", "n_bags", "model", "seed", value)
    reference = table[table["model"] == "abmilp"] if reference is None else reference
    columns("reference", reference, "assumption", "n_bags", "seed", value)
    baseline = reference.set_index(["assumption", "n_bags", "seed"])[value]
    if baseline.index.has_duplicates:
        raise ValueError("reference: expected one AbMILP run for each assumption, number of bags and seed, got more")
    settings = [name for name in {**TRAINING, **BAGS, **SELF_ATTENTION} if name in table]
    vary = [name for name in settings if table[name].nunique() > 1]
    keys = ["assumption", "n_bags", "model", *(["gamma"] if "gamma" in table else []), *vary]
    rows = []
    for names, runs in table.groupby(keys, dropna=False, sort=False):
        pairs = runs.join(baseline.rename("baseline"), on=["assumption", "n_bags", "seed"]).dropna(subset="baseline")
        row: dict[str, Any] = dict(zip(keys, names, strict=True))
        row |= {"runs": len(runs), "mean": runs[value].mean(), "standard_error": runs[value].sem(), "pairs": len(pairs)}
        if len(pairs) > 1 and row["model"] != "abmilp":
            interval = paired_interval(pairs[value], pairs["baseline"])
            row |= dict(zip(DIFFERENCE, interval, strict=True))
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=[*keys, "runs", "mean", "standard_error", "pairs", *DIFFERENCE])
