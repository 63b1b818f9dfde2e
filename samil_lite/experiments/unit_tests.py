"""Algorithmic unit tests: a model, a test and a seed make one run. See `samil_lite.audit`."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd
from torch import nn

from samil_lite import audit
from samil_lite.arguments import check_each, checked, columns, expected_of, one_of
from samil_lite.experiments.settings import changed, check_gammas, check_models, check_numbers, starts
from samil_lite.metrics import difference, mean_interval
from samil_lite.models import MODELS, build

# Numbers of bags, epochs and the width are those of Raff and Holt (2023), whose bags come up to 32 a step.
SETTINGS: dict[str, Any] = {
    "n_train": 10_000, "n_test": 1_000, "epochs": 20, "bags_per_step": 32, "lr": 1e-3, "weight_decay": 1e-4,
    "width": 128, "committed": False,
}  # fmt: skip
TESTED = (*MODELS, "noisy-or")  # the last keeps the standard assumption by construction


def cells(
    tests: Sequence[str],
    models: Sequence[str],
    seeds: Sequence[int],
    gammas: Sequence[float] = (1.0,),
    **changes: Any,
) -> list[dict[str, Any]]:
    """Every combination, as configurations for `run`, seeds outermost.

    Args:
        tests: names of `audit.UNIT_TESTS`.
        models: names of `TESTED`.
        seeds: of the bags, the model's start and the training.
        gammas: where γ starts, for the models with self-attention.
        changes: replace entries of SETTINGS.
    """
    tests = check_each("tests", tests, expected_of(str, one_of(audit.UNIT_TESTS)))
    models, seeds, gammas = check_models(models, TESTED), check_numbers("seeds", seeds), check_gammas(gammas)
    settings = changed(SETTINGS, changes)
    return [
        {"test": test, "model": model, "seed": seed, **settings, **start}
        for seed, test, model in product(seeds, tests, models)
        for start in starts(model, gammas)
    ]


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Trains one model on one test; returns AUC, accuracy and loss on both of its sides."""
    width = config["width"]

    def make() -> nn.Module:
        if config["model"] == "noisy-or":
            return audit.noisy_or(audit.mlp(width), width)
        start = {"gamma": config["gamma"]} if "gamma" in config else {}
        return build(config["model"], audit.mlp(width), dim=width, hidden=width, **start)

    # Neither is drawn by the test of bag sizes: no line of the public notebook stands behind it.
    options = {} if config["test"] == "bag size" else {"committed": config["committed"]}
    row = audit.unit_test(
        make, config["test"], config["seed"], options=options, progress=False,
        **{name: config[name] for name in ("n_train", "n_test", "epochs", "bags_per_step", "lr", "weight_decay")},
    )  # fmt: skip
    return {name: value for name, value in row.items() if name not in ("test", "seed")}


@checked()
def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each test, form, number of training bags, model and start of γ.

    Returns:
        Those, the number of `runs`, mean AUC on both sides, the 95 % interval of the test's and, from two runs on, the
        verdict.
    """
    columns("table", table, "test", "committed", "n_train", "model", "train_auc", "test_auc")
    keys = ["test", "committed", "n_train", "model", *(["gamma"] if "gamma" in table else [])]
    rows = []
    for names, runs in table.groupby(keys, dropna=False, sort=False):
        row: dict[str, Any] = dict(zip(keys, names, strict=True))
        row |= {"runs": len(runs), "train_auc": runs["train_auc"].mean(), "test_auc": runs["test_auc"].mean()}
        if len(runs) > 1:
            _, row["low"], row["high"] = mean_interval(runs["test_auc"])
            row["verdict"] = audit.verdict(row["test"], list(runs["train_auc"]), list(runs["test_auc"]))
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=[*keys, "runs", "train_auc", "test_auc", "low", "high", "verdict"])


@checked()
def differences(table: pd.DataFrame, reference: str = "abmilp") -> pd.DataFrame:
    """How far each model's test AUC is from that of a reference on the same bags.

    Args:
        table: runs, as `load_table` gives them, one for each test, form, number of training bags, model and seed.
        reference: a model of `TESTED` without self-attention.

    Returns:
        A row for each test, form, number of training bags, other model and start of γ with two pairs at least, with
        the number of `pairs`, the mean `effect` and the ends `low` and `high` of its 95 % interval
        (`metrics.difference`).
    """
    columns("table", table, "test", "committed", "n_train", "model", "seed", "test_auc")
    of_model = ["model", *(["gamma"] if "gamma" in table else [])]
    where = ["test", "committed", "n_train"]
    rows: list[tuple[Any, ...]] = []
    for place, runs in table.groupby(where, sort=False):
        base = runs[runs["model"] == reference].set_index("seed")["test_auc"]
        for names, of in runs[runs["model"] != reference].groupby(of_model, dropna=False, sort=False):
            apart = of.set_index("seed")["test_auc"]
            if len(apart.index.intersection(base.index)) > 1:
                found = difference(apart, base)
                rows.append((*place, *names, *found))
    return pd.DataFrame(rows, columns=[*where, *of_model, "pairs", "effect", "low", "high"])
