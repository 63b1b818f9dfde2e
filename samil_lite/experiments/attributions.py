"""Attention, gradient × input and leave-one-out against the key instances of data sets where these are known.

A training makes one run; of lesions the records of `photographs` say the same. See `samil_lite.audit.attribution`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from samil_lite import metrics
from samil_lite.arguments import check_each, checked, columns, expected_of, one_of
from samil_lite.audit import METHODS, attribution
from samil_lite.bags import Bags
from samil_lite.data import KEY_DIGITS
from samil_lite.experiments import crossval, mnist
from samil_lite.experiments.nuclei import EPITHELIAL
from samil_lite.experiments.settings import check_numbers
from samil_lite.metrics import attention_auc
from samil_lite.models import MILClassifier
from samil_lite.training import predict

DATA = ("mnist", "colon")
MOST = 50  # positive test bags that are looked at
AUCS = tuple(f"{method}_auc" for method in METHODS)


def cells(
    data: Sequence[str], models: Sequence[str], seeds: Sequence[int], gammas: Sequence[float] = (1.0,)
) -> list[dict[str, Any]]:
    """Every combination, as configurations for `run`, seeds outermost: the trainings of `mnist` and `crossval`.

    Args:
        data: "mnist" (standard assumption, 200 training bags) or "colon".
        models: names that `build` knows.
        seeds: of MNIST the seeds; of colon the numbers of the tested folds, below 10.
        gammas: where γ starts, for the models with self-attention.
    """
    data, seeds = check_each("data", data, expected_of(str, one_of(DATA))), check_numbers("seeds", seeds)
    found = []
    for seed in seeds:
        for name in data:
            if name == "mnist":
                found += [{"data": name, **cell} for cell in mnist.cells(["standard"], models, [200], [seed], gammas)]
            else:
                found += [{**cell, "seed": seed} for cell in crossval.cells([name], models, [0], gammas, [seed])]
    return found


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Trains one model and scores its attributions on positive test bags, `MOST` at most.

    Returns:
        `auc` of the labels of all test bags; the number of `bags` looked at and their mean share of key instances; and
        for each of `audit.METHODS` the mean over bags of its AUC for key instances, None without attention.
    """
    from sklearn.metrics import roc_auc_score

    if config["data"] == "mnist":
        model, _, test = mnist.trained(config)
        keys = KEY_DIGITS[config["assumption"]]
    else:
        model, *_, test = crossval.trained(config)
        keys = (EPITHELIAL,)
    assert test.labels is not None
    output = predict(model, test, bags_per_step=4)
    result: dict[str, Any] = {"auc": _rounded(roc_auc_score(test.labels, output.logits))}
    positive = test[test.labels == 1][:MOST]
    kinds = positive.instance_labels
    assert kinds is not None
    if positive.instances.dtype == torch.uint8:
        positive = replace(positive, instances=positive.instances / 255)  # as the encoder does
    return result | scores(model, positive, torch.isin(kinds, torch.tensor(keys)))


def scores(model: MILClassifier, bags: Bags, key: Tensor) -> dict[str, Any]:
    """How well the attributions of a model rank the key instances of each bag, a mean over bags.

    Args:
        model: with one logit.
        bags: B bags with N instances, positive ones.
        key: booleans, shape (N,), True at key instances.
    """
    share = torch.stack([of_bag.float().mean() for of_bag in key.split(bags.sizes.tolist())]).mean()
    result: dict[str, Any] = {"bags": len(bags), "share": _rounded(share)}
    has_attention = predict(model, bags[:1]).attention is not None
    for method in METHODS:
        result[f"{method}_auc"] = None
        if method != "attention" or has_attention:
            found = attention_auc(attribution(model, bags, method), key, bags.offsets)
            result[f"{method}_auc"] = _rounded(np.nanmean(found))
    return result


def _rounded(x: Any) -> float | None:
    return None if np.isnan(float(x)) else round(float(x), 4)


@checked()
def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each data set and model: means over seeds, and how far the methods are apart on the same trainings.

    Returns:
        Columns `data`, `model`, `runs`, `auc`, one for each of `AUCS`, and `gradient_more`, `gradient_low`,
        `gradient_high`, `leave-one-out_more`, …: the method's AUC minus attention's with its 95 % interval, NaN where
        there is no attention or one run only.
    """
    columns("table", table, "data", "model", "seed", "auc", *AUCS)
    rows = []
    for (data, model), runs in table.groupby(["data", "model"], sort=False):
        by_seed = runs.set_index("seed")[list(AUCS)].astype(float)
        row: dict[str, Any] = {"data": data, "model": model, "runs": len(runs), "auc": runs["auc"].mean()}
        row |= by_seed.mean().to_dict()
        for method in METHODS[1:]:
            row |= dict.fromkeys([f"{method}_{end}" for end in ("more", "low", "high")], np.nan)
            if by_seed["attention_auc"].notna().sum() > 1:
                d = metrics.difference(by_seed[f"{method}_auc"], by_seed["attention_auc"])
                row |= {f"{method}_more": d.effect, f"{method}_low": d.low, f"{method}_high": d.high}
        rows.append(row)
    return pd.DataFrame(rows)
