"""Figures of a table of predictions: ROC, precision against recall, calibration, each with an interval."""

import warnings
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from samil_lite.predicting import P, class_names

GRID = np.linspace(0, 1, 101)
BLUE = "#0173b2"  # of the colour-blind palette
Curve = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # of labels, probabilities and weights, on GRID


def roc(table: pd.DataFrame, positive: str | None = None, resamples: int = 200) -> Figure:
    """Recall against the share of false alarms, the mean over folds, with a 95 % band over resampled groups.

    Args:
        table: as `samil_lite.predictions` or `cross_validate` make it, with labels.
        positive: the class against the others; the last if None.
        resamples: of the groups, or of the bags where there are none.
    """
    figure, axis = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
    axis.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    _band(axis, table, positive, _roc_curve, resamples)
    axis.set(xlabel="false alarms among the others", ylabel="recall", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    return figure


def precision_recall(table: pd.DataFrame, positive: str | None = None, resamples: int = 200) -> Figure:
    """Precision against recall, the mean over folds, with a band and, dotted, the share of positive bags; as `roc`."""
    figure, axis = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
    y = table["label"] == (positive or class_names(table)[-1])
    axis.axhline(y.mean(), color="0.7", linestyle=":")
    _band(axis, table, positive, _precision_curve, resamples)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    return figure


def calibration(table: pd.DataFrame, positive: str | None = None, n_bins: int = 5) -> Figure:
    """How often bags are positive whose probability is so and so: bins of equal numbers, with Wilson's 95 % intervals.

    On the dotted line probabilities can be taken at their word.
    """
    y, p = _positive(table, positive)
    figure, axis = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
    axis.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    for chosen in np.array_split(np.argsort(p, kind="stable"), min(n_bins, len(p))):
        n, share = len(chosen), y[chosen].mean()
        z = 1.96
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        axis.plot([p[chosen].mean()] * 2, [middle - half, middle + half], color=BLUE)
        axis.plot(p[chosen].mean(), share, "o", color=BLUE)
    axis.set(
        xlabel="mean probability", ylabel="share of positive bags", xlim=(0, 1), ylim=(-0.01, 1.01), aspect="equal"
    )
    return figure


def _positive(table: pd.DataFrame, positive: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each bag is positive, and its probability."""
    classes = class_names(table)
    positive = classes[-1] if positive is None else positive
    if positive not in classes or "label" not in table:
        raise ValueError(f"positive: expected one of {', '.join(classes)} and a table with labels, got {positive!r}")
    return (table["label"] == positive).to_numpy(), table[P + positive].to_numpy(float)


def _band(axis: Axes, table: pd.DataFrame, positive: str | None, curve: Curve, resamples: int) -> None:
    y, p = _positive(table, positive)
    fold = table["fold"].to_numpy() if "fold" in table else np.zeros(len(table))
    cluster = pd.factorize(table["group"])[0] if "group" in table else np.arange(len(table))
    n = cluster.max() + 1

    def mean(weights: np.ndarray) -> np.ndarray:
        """Over the folds that have both classes."""
        curves = []
        for number in np.unique(fold):
            own = (fold == number) & (weights > 0)
            if 0 < y[own].sum() < own.sum():
                curves.append(curve(y[own], p[own], weights[own]))
        return np.mean(curves, axis=0) if curves else np.full(len(GRID), np.nan)

    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample without both classes
        low, high = np.nanquantile([mean(draw[cluster].astype(float)) for draw in draws], [0.025, 0.975], axis=0)
    axis.fill_between(GRID, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axis.plot(GRID, mean(np.ones(len(y))), color=BLUE)


def _roc_curve(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(y, p, sample_weight=weights, drop_intermediate=False)
    return np.asarray(np.interp(GRID, false, true))


def _precision_curve(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(y, p, sample_weight=weights)
    place = np.searchsorted(recall[::-1], GRID - 1e-9).clip(max=len(recall) - 1)  # the first point that reaches it
    return np.asarray(precision[::-1][place])
