"""Scores of tables of predictions, with intervals by bag and by patient; thresholds and temperatures by a rule."""

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from samil_lite.arguments import at_least, between, checked
from samil_lite.cards import log_probabilities
from samil_lite.predicting import P, by_group, class_names

RULES = ("half", "youden", "f_score", "recall>=…", "precision>=…")
Weighted = dict[tuple[str, str], np.ndarray]  # name of the score and class: its value under each row of weights


def choose_threshold(p: Any, positive: Any, rule: str | float = "half") -> float:
    """A threshold on the probability of the positive class, by a rule, from bags kept for this.

    ================== ==============================================================================
    rule               the threshold
    ================== ==============================================================================
    a number           itself
    "half"             0.5
    "youden"           of the largest recall + specificity
    "f_score"          of the largest F-score
    "recall>=0.95"     the largest that still finds 95 % of the positive bags
    "precision>=0.9"   of the largest recall among those of at least this precision; if there is none,
                       above all bags, with a warning
    ================== ==============================================================================

    It lies half-way between the probabilities of the bags that it divides.

    Args:
        p: probabilities, shape (B,).
        positive: booleans, shape (B,).
        rule: see above.
    """
    if isinstance(rule, int | float):
        if not 0 <= rule <= 1:
            raise ValueError(f"threshold: expected a probability or one of {', '.join(RULES)}, got {rule}")
        return float(rule)
    at_least = re.fullmatch(r"\s*(recall|precision)\s*>=\s*(0?\.\d+|1(?:\.0*)?|0)\s*", str(rule))
    if rule not in ("half", "youden", "f_score") and at_least is None:
        raise ValueError(f"threshold: expected a probability or one of {', '.join(RULES)}, got {rule!r}")
    if rule == "half":
        return 0.5
    p, positive = np.asarray(p, float), np.asarray(positive, bool)
    if positive.all() or not positive.any():
        warnings.warn(f"threshold: {rule} needs bags of both classes to choose by; 0.5 is taken", stacklevel=2)
        return 0.5
    values = np.unique(p)
    cuts = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2, [(values[-1] + 1) / 2]])  # ascending
    called = p >= cuts[:, None]  # (K, B)
    hits = (called & positive).sum(1)
    recall = hits / positive.sum()
    with np.errstate(invalid="ignore"):
        precision = np.where(called.any(1), hits / called.sum(1), 1.0)
    if rule == "youden":
        merit = recall - (called & ~positive).sum(1) / (~positive).sum()
    elif rule == "f_score":
        merit = 2 * hits / (called.sum(1) + positive.sum())
    else:
        assert at_least is not None
        least = float(at_least[2])
        merit = (
            np.where(recall >= least, cuts, -1) if at_least[1] == "recall" else np.where(precision >= least, recall, -1)
        )
        if at_least[1] == "precision" and merit.max() <= 0:
            warnings.warn(f"threshold: no threshold reaches {rule} on the bags to choose by", stacklevel=2)
    best = np.flatnonzero(merit == merit.max())
    return float(cuts[best[len(best) // 2]])


@checked()
def choose_temperature(logits: Tensor, labels: Tensor) -> float:
    r"""The T > 0 of the lowest mean loss of logits / T, from bags kept for this; it changes no order of bags.

    After `Guo et al. (2017) <https://arxiv.org/abs/1706.04599>`__. Few bags that are all right would drive T to 0, so
    the targets are not quite certain: :math:`(n_c + 1) / (n_c + 2)` for the class c of n_c bags, the rest shared by
    the others, after `Platt (1999) <https://www.researchgate.net/publication/2594015>`__.

    Args:
        logits: (B,) or (B, C).
        labels: (B,).
    """
    from scipy.optimize import minimize_scalar

    n_classes = 2 if logits.ndim == 1 else logits.shape[1]
    counts = labels.bincount(minlength=n_classes)[labels].double()  # (B,)
    doubt = 1 / (counts + 2)
    targets = (doubt / (n_classes - 1))[:, None].repeat(1, n_classes)  # (B, C)
    targets[torch.arange(len(labels)), labels] = 1 - doubt

    def loss(log_t: float) -> float:
        return float(-(targets * log_probabilities(logits.double(), float(np.exp(log_t)))).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


@checked(level=between(0, 1, ends=False), resamples=at_least(100), seed=at_least(0))
def score_table(table: pd.DataFrame, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Scores of a table of predictions, with intervals, by bag and, where there are groups, by group.

    Intervals are the bootstrap's: groups are drawn with replacement, all bags of one together, or bags where there are
    no groups; percentiles are widened for small numbers as in `samil_lite.metrics.paired_interval`. They say how the
    scores would vary with other patients, not with another training. Where all resamples agree, on 0 or 1, the end is
    that of the exact binomial interval. With folds, AUC and average precision compare bags within a fold, whose model
    is one, and are the mean over the folds that have both classes.

    For two classes precision, recall, F-score and specificity are those of the second class. For more they are
    given for each class and as the mean of the classes ("macro"), AUC and average precision of each class against the
    others.

    Args:
        table: as `predictions` makes it, with labels.
        level: probability of the intervals.
        resamples: how many.
        seed: the same seed gives the same intervals.

    Returns:
        Columns `unit` ("bag" or "group"), `n`, `score`, `class`, `value`, `low`, `high`.

    Raises:
        ValueError: if the table has no labels.
    """
    if "label" not in table:
        raise ValueError(f"table: expected a column label to score by, got {', '.join(map(str, table.columns))}")
    if not 0 < level < 1 or resamples < 100:
        raise ValueError(f"level, resamples: expected a probability and at least 100, got {level} and {resamples}")
    units = [("bag", table)]
    if "group" in table and table["group"].nunique() < len(table):
        try:
            units.append(("group", by_group(table)))
        except ValueError as error:
            warnings.warn(f"scores are by bag alone: {error}", stacklevel=2)
    rows = []
    for unit, one in units:
        clusters = pd.factorize(one["group"])[0] if "group" in one else np.arange(len(one))
        for (score, name), value, low, high in _intervals(one, clusters, level, resamples, seed):
            rows.append(
                {"unit": unit, "n": len(one), "score": score, "class": name, "value": value, "low": low, "high": high}
            )
    return pd.DataFrame(rows)


def _intervals(
    table: pd.DataFrame, clusters: np.ndarray, level: float, resamples: int, seed: int
) -> Iterator[tuple[tuple[str, str], float, float, float]]:
    """Each score with its interval."""
    from scipy import stats

    n = int(clusters.max()) + 1
    measure = _measures(table)
    once = measure(np.ones((1, len(table))))
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)  # (R, n)
    chunks = [measure(part[:, clusters].astype(float)) for part in np.array_split(draws, -(-resamples // 200))]
    ends = [(1 - level) / 2, (1 + level) / 2]
    if n > 1:
        ends = list(stats.norm.cdf(stats.t.ppf(ends, n - 1) * np.sqrt(n / (n - 1))))
    for key, values in once.items():
        value, all_of = float(values[0]), np.concatenate([chunk[key] for chunk in chunks])
        all_of = all_of[np.isfinite(all_of)]
        low, high = np.quantile(all_of, ends) if len(all_of) and n > 1 else (np.nan, np.nan)
        if len(all_of) and np.ptp(all_of) == 0 and value in (0, 1):
            end = ((1 - level) / 2) ** (1 / n)
            low, high = (end, 1.0) if value == 1 else (0.0, 1 - end)
        yield key, value, float(low), float(high)


def _measures(table: pd.DataFrame) -> Callable[[np.ndarray], Weighted]:
    """A function from weights (R, B) of the bags to the scores under each row of them."""
    classes = class_names(table)
    y, called = (table[c].map({name: i for i, name in enumerate(classes)}).to_numpy() for c in ("label", "predicted"))
    p = table[[P + name for name in classes]].to_numpy(float)  # (B, C)
    fold = table["fold"].to_numpy() if "fold" in table else np.zeros(len(table))
    parts = [np.flatnonzero(fold == number) for number in pd.unique(fold)]
    ordered = range(1, 2) if len(classes) == 2 else range(len(classes))
    true = y[:, None] == np.arange(len(classes))  # (B, C)
    squares, log_loss = ((p - true) ** 2).sum(1), -np.log(np.maximum((p * true).sum(1), 1e-12))

    def measure(w: np.ndarray) -> Weighted:
        total = w.sum(1)
        found: Weighted = {("accuracy", ""): w @ (called == y) / total}
        of_class: dict[str, list[np.ndarray]] = {}
        recalls = [_ratio(w @ ((called == c) & (y == c)), w @ (y == c)) for c in range(len(classes))]
        found["balanced_accuracy", ""] = _mean(recalls)
        for c in ordered:
            hits, chosen, there = w @ ((called == c) & (y == c)), w @ (called == c), w @ (y == c)
            ranked = [_ranking(w[:, part], p[part, c], y[part] == c) for part in parts]
            values = {
                "precision": _ratio(hits, chosen), "recall": _ratio(hits, there),
                "f_score": _ratio(2 * hits, chosen + there),
                "specificity": _ratio(w @ ((called != c) & (y != c)), w @ (y != c)),
                "auc": _mean([a for a, _ in ranked]), "average_precision": _mean([b for _, b in ranked]),
            }  # fmt: skip
            for score, value in values.items():
                of_class.setdefault(score, []).append(value)
        for score, of in of_class.items():
            if len(classes) > 2:
                found[score, "macro"] = _mean(of)
            found |= {(score, classes[c]): value for c, value in zip(ordered, of, strict=True)}
        found["brier", ""] = w @ squares / total / (2 if len(classes) == 2 else 1)
        found["log_loss", ""] = w @ log_loss / total
        return found

    return measure


def _ranking(w: np.ndarray, p: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision under weights (R, b), (R,) each; NaN where a class has no weight."""
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.diff(p[order], prepend=-np.inf))  # of groups of equal p, ascending
    yes = np.add.reduceat(w[:, order] * positive[order], starts, axis=1)  # (R, G)
    no = np.add.reduceat(w[:, order] * ~positive[order], starts, axis=1)
    all_yes, all_no = yes.sum(1), no.sum(1)
    auc = _ratio((yes * (no.cumsum(1) - no / 2)).sum(1), all_yes * all_no)
    found = yes[:, ::-1].cumsum(1)
    precision = _ratio(found, found + no[:, ::-1].cumsum(1))
    average = _ratio((yes[:, ::-1] * np.nan_to_num(precision)).sum(1), np.where(all_no > 0, all_yes, 0))
    return auc, average


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 0, a / b, np.nan)


def _mean(values: list[np.ndarray]) -> np.ndarray:
    """Mean over those that are defined."""
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    return _ratio(np.where(known, stacked, 0).sum(0), known.sum(0))
