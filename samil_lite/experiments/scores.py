"""Tables from the runs of a cross-validation: scores of each model, and differences between models."""

import warnings
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch

from samil_lite.arguments import checked, columns
from samil_lite.experiments.crossval import SETTINGS, TRAINING
from samil_lite.metrics import (
    as_scored,
    attention_auc,
    bag_metrics,
    calibration_error,
    mean_interval,
    recall_at_precision,
)
from samil_lite.segments import segment_mean, segment_sum

SCORES = ("accuracy", "precision", "recall", "f_score", "auc", "recall_at_precision", "calibration")
OF_IMAGES = ("attention_auc", "precision_at_k", "top_tenth", "entropy", "to_kind")  # one number for each positive image
DIFFERENCE = ("pairs", "difference", "low", "high")


@checked()
def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of every model, repeat by repeat: those of all bags, each tested by the model that had not seen it.

    A repeat counts when all of its folds are there. The AUC compares logits within each fold, since the folds' models
    differ, and is the mean over the folds that have both classes. Recall at a precision of 0.9 and calibration error
    (`samil_lite.metrics`) take the logits of all folds together.

    Returns:
        One row for each data set, model, start of γ, other setting that varies, and repeat, with the columns `SCORES`.
    """
    columns("table", table, "model", "repeat", "n_folds", "labels", "logits")
    keys = [*_settings(table), "repeat"]
    return pd.DataFrame(
        {**dict(zip(keys, names, strict=True)), **_scores(runs)}
        for names, runs in fold_scores(table).groupby(keys, dropna=False)
        if len(runs) == runs["n_folds"].iloc[0]
    )


@checked()
def over_repeats(table: pd.DataFrame) -> pd.DataFrame:
    r"""Mean and standard error of each score of `summary` over the repeats, from the runs.

    Repeats share their bags, so this error says how much folds and starts matter, not how other bags would do. Where
    there is one repeat, the error is that of a jackknife which leaves out a fold's bags at a time:
    :math:`\sqrt{\frac{F-1}{F} \sum_f (s_{-f} - \bar s)^2}` over the F folds.

    Returns:
        One row for each data set, model, start of γ and other setting that varies, with `repeats` and, for each score,
        its mean and, named `…_error`, the error.
    """
    scores, table = summary(table), fold_scores(table)
    if scores.empty:
        return scores
    keys = _settings(table)
    rows = []
    for names, repeats in scores.groupby(keys, dropna=False, sort=False):
        setting = dict(zip(keys, names, strict=True))
        found = repeats[list(SCORES)]
        errors = (
            found.sem()
            if len(found) > 1
            else _jackknife(_chosen(table, setting | {"repeat": repeats["repeat"].iloc[0]}))
        )
        both = {column: x for n in SCORES for column, x in ((n, found[n].mean()), (f"{n}_error", errors[n]))}
        rows.append({**setting, "repeats": len(found), **both})
    vary = [name for name in keys if name in ("data", "model", "gamma") or scores[name].nunique() > 1]
    return pd.DataFrame(rows).drop(columns=[name for name in keys if name not in vary])


def _scores(runs: pd.DataFrame) -> dict[str, float]:
    """The scores of the bags of several folds, as `fold_scores` gives them."""
    logits, labels = (torch.tensor(runs[column].sum()) for column in ("logits", "labels"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NaN says it
        found = asdict(bag_metrics(logits, labels))
    found["auc"] = float(runs["auc"].mean())
    found["recall_at_precision"] = recall_at_precision(logits, labels)
    found["calibration"] = calibration_error(logits, labels, min(5, len(labels)))
    return {name: found[name] for name in SCORES}


def _jackknife(runs: pd.DataFrame) -> pd.Series:
    """Standard error of each score, from leaving out one fold at a time."""
    without = pd.DataFrame([_scores(runs[runs["fold"] != fold]) for fold in runs["fold"]])  # (F, scores)
    return without.std(ddof=0) * np.sqrt(len(runs) - 1)


@checked()
def fold_scores(table: pd.DataFrame) -> pd.DataFrame:
    """The runs with the `accuracy`, `auc` and `recall` of each fold's bags, and means of the scores of its images.

    AUC is NaN where a fold has one class only, recall where it has no positive bag.
    """
    columns("table", table, "labels", "logits")
    if table.empty:
        return table.assign(accuracy=[], auc=[], recall=[])
    sizes = torch.tensor([len(labels) for labels in table["labels"]], dtype=torch.long)
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])  # (runs + 1,)
    logits, labels = (torch.tensor([*chain(*table[c])], dtype=torch.double) for c in ("logits", "labels"))  # (bags,)
    logits, labels = as_scored(logits, labels)
    positive, called = labels == 1, logits > 0
    found = {
        "accuracy": segment_mean((called == positive).double(), offsets),
        "auc": attention_auc(logits, positive, offsets),  # as if a run were a bag and its positive bags key instances
        "recall": segment_sum((called & positive).double(), offsets) / segment_sum(positive.double(), offsets),
    }
    means = {name: table[name].map(_mean) for name in OF_IMAGES if name in table}
    return table.assign(**found, **means)


@checked()
def fold_difference(
    scored: pd.DataFrame, a: dict[str, Any], b: dict[str, Any] | None, value: str
) -> tuple[int, float, float, float] | None:
    """How far runs `a` are from runs `b` on the folds that both have.

    Args:
        scored: runs, as `fold_scores` gives them.
        a: settings that choose one run for each fold, such as {"model": "sa-abmilp", "gamma": 1.0}.
        b: the same for the runs that they are compared with; None compares `a` with zero.
        value: the column compared.

    Returns:
        Number of pairs, mean difference, and the ends of its 95 % interval, corrected because folds share training bags
        (`mean_interval`); None below two pairs.
    """
    columns("scored", scored, "repeat", "fold", "n_folds", "n_validation", value)
    x = _one_a_fold(scored, a)[value].dropna()
    y = 0 * x if b is None else _one_a_fold(scored, b)[value].dropna()
    folds = x.index.intersection(y.index)
    if len(folds) < 2:
        return None
    tested = 1 / scored["n_folds"].iloc[0]
    trained = 1 - tested * (1 + scored["n_validation"].iloc[0])
    # AUCs of few bags are simple fractions: a mean can lie between two printed digits, where the order of sums decides.
    mean, low, high = (round(end, 12) for end in mean_interval(x[folds] - y[folds], ratio=tested / trained))
    return len(folds), mean, low, high


@checked()
def compare(table: pd.DataFrame, value: str = "auc", reference: str = "abmilp") -> pd.DataFrame:
    """How far each model is from the reference on the same folds.

    Args:
        table: runs, one for each fold, as `load_table` gives them; of musk as `tabular.by_fold` gives them.
        value: "auc", "accuracy", "recall" or a score in OF_IMAGES.
        reference: a model without self-attention.

    Returns:
        One row for each data set, other setting that varies, model and start of γ, with the columns DIFFERENCE, as
        `fold_difference` computes them.
    """
    scored = fold_scores(table)
    columns("table", scored, "data", "model", "repeat", "fold", value)
    of_model = [name for name in ("model", "gamma") if name in table]
    shared = [name for name in _settings(table) if name not in of_model]
    rows = []
    for where, runs in scored.groupby(shared, dropna=False):
        for names, _ in runs[runs["model"] != reference].groupby(of_model, dropna=False):
            model = dict(zip(of_model, names, strict=True))
            found = fold_difference(runs, model, {"model": reference}, value)
            if found is not None:
                rows.append(dict(zip(shared, where, strict=True)) | model | dict(zip(DIFFERENCE, found, strict=True)))
    return pd.DataFrame(rows)


@checked()
def trial_losses(table: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Validation losses of runs with other settings beside those of the chosen settings, on the same folds.

    Args:
        table: runs with the chosen settings, as `load_table` gives them.
        trials: runs with others; those without a run of the same model, start of γ and folds in `table` are left out.

    Returns:
        One row for each data set and change of settings, with `data`, `changed` (such as "lr 0.001"), the number of
        `models` and `runs`, the mean `loss` of the trials and the mean loss `chosen` of their partners.
    """
    for name, runs in (("table", table), ("trials", trials)):
        columns(name, runs, "data", "model", "repeat", "n_folds", "n_validation", "validation_loss")
    same = ["data", "model", "gamma", "repeat", "fold", "grouped", "n_folds", "n_validation"]
    pairs = trials.merge(table, on=[name for name in same if name in table], suffixes=("", "_chosen"))
    names = [name for name in (*TRAINING, *SETTINGS) if f"{name}_chosen" in pairs]
    pairs["changed"] = [
        ", ".join(f"{name} {run[name]}" for name in names if run[name] != run[f"{name}_chosen"])
        for run in pairs.to_dict("records")
    ]
    return pairs.groupby(["data", "changed"], as_index=False).agg(
        models=("model", "nunique"),
        runs=("model", "size"),
        loss=("validation_loss", "mean"),
        chosen=("validation_loss_chosen", "mean"),
    )


def _one_a_fold(scored: pd.DataFrame, setting: dict[str, Any]) -> pd.DataFrame:
    """The runs with these settings by repeat and fold."""
    runs = _chosen(scored, setting).set_index(["repeat", "fold"])
    if runs.index.has_duplicates:
        raise ValueError(f"table: expected one run of {setting} for each fold, got more")
    return runs


def _chosen(table: pd.DataFrame, setting: dict[str, Any]) -> pd.DataFrame:
    for name, value in setting.items():
        table = table[table[name].isna() if pd.isna(value) else table[name] == value]
    return table


def _settings(table: pd.DataFrame) -> list[str]:
    return [name for name in ("data", "model", "gamma", *TRAINING, *SETTINGS) if name in table]


def _mean(values: Any) -> float:
    """Mean of a list in which None stands for undefined; NaN for no list."""
    known = [x for x in values if x is not None] if isinstance(values, list) else []
    return float(np.mean(known)) if known else np.nan
