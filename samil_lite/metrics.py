"""Scores of bags, scores of attention, and intervals for their means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from samil_lite.arguments import at_least, between, checked, shown, warn
from samil_lite.segments import bag_index, check_offsets, segment_max, segment_rank, segment_sum

if TYPE_CHECKING:
    import pandas as pd  # only a name here: importing the package needs no pandas


@dataclass(frozen=True)
class Metrics:
    """Scores of a model on a set of bags; precision, recall, F-score and AUC of three classes or more are macro means.

    A class that no bag was called has no precision; the macro mean leaves it out, while it counts 0 in the F-score.
    A score that is not defined (AUC without both classes, precision without a positive prediction, recall without
    a positive bag) is NaN, and a warning says why.
    """

    accuracy: float
    precision: float
    recall: float
    f_score: float
    auc: float
    loss: float


def check_labels(labels: Tensor | None, n_classes: int) -> Tensor:
    """The labels, if a model with `n_classes` (1 for binary) can be trained or scored on them, else a ValueError."""
    if labels is None:
        raise ValueError("labels: expected one for each bag, but these bags have none")
    highest = max(n_classes - 1, 1)
    if labels.ndim == 2:
        if labels.shape[1] != n_classes or not ((labels >= 0) & (labels <= 1)).all():
            raise ValueError(
                f"labels: for several labels a bag, expected {n_classes} columns (n_classes) of numbers from 0 to 1, "
                f"got {shown(labels)}"
            )
        return labels
    if not labels.eq(labels.long()).all() or int(labels.min()) < 0:
        raise ValueError("labels: expected classes 0, 1, …, got other numbers; give `fit` a loss, such as nn.MSELoss()")
    if int(labels.max()) > highest:
        raise ValueError(
            f"labels: a model with n_classes={n_classes} expects 0 to {highest}, got {int(labels.max())}; "
            "build the model with n_classes=the number of classes"
        )
    return labels


def bag_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over bags of the negative log-likelihood: binary for logits (B,), categorical for (B, C).

    Labels of shape (B, C), several for each bag, are binary each.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ValueError(f"logits: expected a floating-point tensor (B,) or (B, C), got {shown(logits)}")
    if not isinstance(labels, Tensor) or labels.layout != torch.strided or labels.is_complex():
        raise ValueError(f"labels: expected a tensor of one number for each bag, got {shown(labels)}")
    if labels.shape[:1] != logits.shape[:1]:
        raise ValueError(f"labels: expected {len(logits)}, one for each row of logits, got {shown(labels)}")
    if logits.ndim == 1 or labels.ndim == 2:
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return torch.nn.functional.cross_entropy(logits, labels.long())


@checked()
def bag_metrics(logits: Tensor, labels: Tensor) -> Metrics:
    """All scores of `Metrics` from logits (B,) or (B, C) and labels (B,)."""
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score  # slow to import

    logits, labels = as_scored(logits, labels, many=True)
    y = labels.numpy()
    if logits.ndim == 1:
        classes, scores = 2, logits.double().numpy()
        predicted = (scores > 0).astype(int)
    else:
        classes, probabilities = logits.shape[1], logits.double().softmax(1).numpy()
        predicted = probabilities.argmax(1)
        scores = probabilities[:, 1] if classes == 2 else probabilities
    precision, recall, f_score, _ = precision_recall_fscore_support(
        y, predicted, average="binary" if classes == 2 else "macro", zero_division=np.nan
    )
    auc = roc_auc_score(y, scores, multi_class="ovr") if len(np.unique(y)) == classes else np.nan
    for name, value, reason in (
        ("AUC", auc, f"needs bags of all {classes} classes"),
        ("precision", precision, "needs a positive prediction"),
        ("recall", recall, "needs a positive bag"),
    ):
        if np.isnan(value):
            warn(f"{name} is not defined on these {len(y)} bags: it {reason}")
    return Metrics(
        accuracy=float((predicted == y).mean()),
        precision=float(precision),
        recall=float(recall),
        f_score=float(f_score),
        auc=float(auc),
        loss=float(bag_loss(logits, labels)),
    )


@checked(precision=between(0, 1))
def recall_at_precision(logits: Tensor, labels: Tensor, precision: float = 0.9) -> float:
    """The largest recall that a threshold reaches whose precision is at least `precision`.

    The threshold is chosen on these very bags, so it is what a reader could reach, not what a rule set before reaches.
    Logits and labels (B,). Returns 0 if no threshold is so precise, NaN without a positive bag.
    """
    from sklearn.metrics import precision_recall_curve

    logits, labels = as_scored(logits, labels)
    if not labels.any():
        return float("nan")
    reached, recall, _ = precision_recall_curve(labels.numpy(), logits.double().numpy())
    return float(recall[:-1][reached[:-1] >= precision].max(initial=0))  # the last point has no threshold


@checked(n_bins=at_least(1))
def calibration_error(logits: Tensor, labels: Tensor, n_bins: int = 5) -> float:
    r"""Mean distance of probabilities from frequencies, :math:`\sum_m \frac{B_m}{B} \lvert \bar y_m - \bar p_m \rvert`.

    Bags are sorted by the probability of a positive label and cut into bins of as equal numbers as can be; in bin m,
    :math:`\bar p_m` is the mean probability and :math:`\bar y_m` the share of positive bags. Even a perfect model
    does not get 0 on few bags. After `Naeini et al. (2015) <https://doi.org/10.1609/aaai.v29i1.9602>`__.

    Args:
        logits: shape (B,).
        labels: shape (B,).
        n_bins: at most as many as there are bags.
    """
    logits, labels = as_scored(logits, labels)
    if n_bins > len(logits):
        raise ValueError(f"n_bins: expected at most {len(logits)}, the number of bags, got {n_bins}")
    order = logits.argsort(stable=True)
    bins = zip(logits[order].double().sigmoid().tensor_split(n_bins), labels[order].tensor_split(n_bins), strict=True)
    return float(sum(abs(p.sum() - y.sum()) for p, y in bins) / len(logits))


@checked()
def attention_auc(attention: Tensor, key: Tensor, offsets: Tensor) -> np.ndarray:
    """How well attention ranks the key instances of each bag first.

    For each bag, the probability that a key instance drawn at random has a larger weight than another instance drawn
    at random, ties counting one half: 1 is perfect, 0.5 is chance.

    Args:
        attention: weights, shape (N,).
        key: booleans, True at key instances, shape (N,).
        offsets: where each bag begins, shape (B + 1,).

    Returns:
        One AUC for each bag, shape (B,); NaN where a bag has key instances only, or none.
    """
    _check_attention(attention, offsets)
    _check_key(key, attention)
    bag = bag_index(offsets, len(attention)).cpu().numpy()  # (N,)
    # One group for each weight that occurs in a bag, in ascending order, bag after bag.
    groups, group = np.unique(np.stack([bag, attention.double().cpu().numpy()], 1), axis=0, return_inverse=True)
    keys, others = (np.bincount(group.ravel(), x.cpu().numpy(), len(groups)) for x in (key, ~key))  # in each group
    of_bag = groups[:, 0].astype(int)
    n_keys, n_others = (np.bincount(of_bag, x, len(offsets) - 1) for x in (keys, others))  # (B,)
    before = (n_others.cumsum() - n_others)[of_bag]  # in the bags before this one
    below = others.cumsum() - others / 2 - before  # others with a smaller weight, and half of those with the same
    with np.errstate(invalid="ignore"):  # 0/0 where a bag has only one kind
        return np.asarray(np.bincount(of_bag, keys * below, len(offsets) - 1) / (n_keys * n_others))


@checked()
def precision_at_k(attention: Tensor, key: Tensor, offsets: Tensor) -> Tensor:
    """Of the k instances of each bag with the largest weights, the share that are key instances; k: how many it has.

    Arguments as in `attention_auc`. Returns one share for each bag, shape (B,); NaN where a bag has no key instance.
    """
    _check_attention(attention, offsets)
    _check_key(key, attention)
    k = segment_sum(key.float(), offsets)  # (B,)
    hits = key & (segment_rank(attention, offsets) < k[bag_index(offsets, len(key))])  # (N,)
    return segment_sum(hits.float(), offsets) / k


@checked(share=between(0, 1))
def top_share(attention: Tensor, offsets: Tensor, share: float = 0.1) -> Tensor:
    """How much of the attention goes to the instances with the largest weights, a `share` of each bag, rounded up.

    Returns one number for each bag, shape (B,): 1 if they get all of it, about `share` if weights are even.
    """
    _check_attention(attention, offsets)
    n_top = (offsets.diff() * share - 1e-4).ceil()  # (B,)
    top = segment_rank(attention, offsets) < n_top[bag_index(offsets, len(attention))]  # (N,)
    return segment_sum(attention * top, offsets)


@checked()
def attention_entropy(attention: Tensor, offsets: Tensor) -> Tensor:
    r"""Entropy of the weights over that of even weights, :math:`-\sum_i a_i \log a_i / \log n`.

    Returns one number for each bag, shape (B,): 1 for even weights, 0 if one instance has all; NaN for one instance.
    """
    _check_attention(attention, offsets)
    terms = -torch.special.xlogy(attention, attention)  # (N,)
    return segment_sum(terms, offsets) / offsets.diff().log()


@checked()
def weakest_key(attention: Tensor, kinds: Tensor, offsets: Tensor) -> Tensor:
    r"""How much attention the worst served kind of key instance gets, in units of the even weight 1/n.

    .. math::
        n \, \min_c \max_{i \text{ of kind } c} a_i

    For presence bags the kinds are 9 and 7: above 1 means that at least one 9 and one 7 stand out, below 1 that one of
    the two digits gets less than an instance would get by even weights.

    Args:
        attention: weights, shape (N,).
        kinds: booleans, shape (N, C), True where instance i is of kind c.
        offsets: where each bag begins, shape (B + 1,).

    Returns:
        One number for each bag, shape (B,); NaN where the bag lacks a kind.
    """
    _check_attention(attention, offsets)
    if kinds.dtype != torch.bool or kinds.ndim != 2 or len(kinds) != len(attention):
        raise ValueError(
            f"kinds: expected booleans of shape ({len(attention)}, C), got {kinds.dtype} {tuple(kinds.shape)}"
        )
    best = segment_max(torch.where(kinds, attention[:, None], -torch.inf), offsets)  # (B, C)
    weakest = best.min(1).values * offsets.diff()  # (B,)
    return torch.where(weakest == -torch.inf, torch.nan, weakest)


@checked(level=between(0, 1, ends=False), ratio=at_least(0))
def mean_interval(
    values: Sequence[float] | np.ndarray, level: float = 0.95, ratio: float = 0.0
) -> tuple[float, float, float]:
    r"""Mean of runs and its confidence interval, :math:`\bar x \pm t_{n-1} \sqrt{1/n + r} \, s` (Student).

    Independent runs have r = 0. The folds of a cross-validation share most of their training bags, so they are not
    independent and :math:`s / \sqrt n` is too small; then r is the number of test bags over that of training bags,
    after `Nadeau and Bengio (2003) <https://doi.org/10.1023/A:1024068626366>`__.

    Args:
        values: one number for each run, or for each fold, at least two.
        level: probability that the interval covers the true mean, if runs vary normally.
        ratio: the number r above.

    Returns:
        mean, lower end, upper end.
    """
    from scipy import stats

    x = _runs("values", values)
    half = stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) * np.sqrt(1 / len(x) + ratio)
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


@checked(level=between(0, 1, ends=False))
def paired_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    r"""Mean of the differences a − b of paired runs, and its bootstrap confidence interval.

    Percentiles of the mean over resampled pairs. With n pairs plain percentiles are too narrow, by
    :math:`\sqrt{(n-1)/n}` and because they take the normal quantile for Student's; so they are taken at
    :math:`\Phi(\mp t_{n-1} \sqrt{n/(n-1)})`, the expanded percentile interval of
    `Hesterberg (2015) <https://doi.org/10.1080/00031305.2015.1089789>`__. With five pairs it excludes zero only if all,
    or nearly all, differences have one sign.

    Args:
        a: one number for each run.
        b: the numbers of the runs that they are compared with, in the same order.
        level: probability that the interval covers the true mean.

    Returns:
        mean, lower end, upper end. The same input gives the same interval.
    """
    from scipy import stats

    first, second = _runs("a", a), _runs("b", b)
    if first.shape != second.shape:
        raise ValueError(f"b: expected {len(first)} runs, one for each of a, got {len(second)}")
    x, n = first - second, len(first)
    expanded = stats.norm.cdf(stats.t.ppf((1 + level) / 2, n - 1) * np.sqrt(n / (n - 1)))
    rows = np.random.default_rng(0).integers(n, size=(20_000, n))  # resampled pairs
    low, high = np.quantile(x[rows].mean(1), [1 - expanded, expanded])
    return float(x.mean()), float(low), float(high)


class Difference(NamedTuple):
    """How far paired runs are apart: their number, the mean difference, and the ends of its 95 % interval."""

    pairs: int
    effect: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says, always in these words: above zero, below zero, or no clear difference."""
        return "above zero" if self.low > 0 else "below zero" if self.high < 0 else "no clear difference"

    def __str__(self) -> str:
        numbers = f"{self.effect:+.3f} ({self.low:+.3f} to {self.high:+.3f}), {self.pairs} pairs"
        return f"{numbers.replace('-', '−')}: {self.verdict}"


def difference(a: "pd.Series[float]", b: "pd.Series[float]") -> Difference:
    """The runs a minus the runs b, paired by their index (such as the seed), with the interval of `paired_interval`.

    Every difference of independent runs in the book comes from here. Folds of a cross-validation are not independent;
    `samil_lite.experiments.scores.compare` has theirs.

    Args:
        a: one number for each run.
        b: the numbers of the runs that they are compared with; runs that only one has are left out, so is NaN.

    Raises:
        ValueError: if an index occurs twice, or fewer than two pairs are left.
    """
    for name, runs in (("a", a), ("b", b)):
        if runs.index.has_duplicates:
            raise ValueError(f"{name}: expected one run for each {runs.index.name or 'index'}, got several")
    apart = (a - b).dropna()
    if len(apart) < 2:
        raise ValueError(f"a, b: expected at least two pairs of runs with the same index, got {len(apart)}")
    return Difference(len(apart), *paired_interval(apart.tolist(), [0.0] * len(apart)))


def as_scored(logits: Tensor, labels: Tensor, many: bool = False) -> tuple[Tensor, Tensor]:
    """Logits and labels on the CPU, if they go together and no logit is NaN, which would rank anywhere."""
    shapes = "(B,) or (B, C)" if many else "(B,)"
    if logits.ndim not in ((1, 2) if many else (1,)) or not logits.is_floating_point() or logits.numel() == 0:
        raise ValueError(f"logits: expected floating-point numbers of shape {shapes}, got {shown(logits)}")
    if not logits.isfinite().all():
        raise ValueError("logits: expected finite numbers, got NaN or infinity; are the model's weights finite?")
    if labels.shape != logits.shape[:1] or not labels.eq(labels.long()).all():
        raise ValueError(f"labels: expected {len(logits)} integers, one for each row of logits, got {shown(labels)}")
    highest = 1 if logits.ndim == 1 else logits.shape[1] - 1
    if not 0 <= int(labels.min()) <= int(labels.max()) <= highest:
        raise ValueError(f"labels: expected 0 to {highest}, got {int(labels.min())} to {int(labels.max())}")
    return logits.detach().cpu(), labels.cpu().long()


def _check_attention(attention: Tensor, offsets: Tensor) -> None:
    if attention.ndim != 1 or not attention.is_floating_point() or not attention.isfinite().all():
        what = "NaN or infinity" if attention.ndim == 1 and attention.is_floating_point() else shown(attention)
        raise ValueError(f"attention: expected finite floating-point weights of shape (N,), got {what}")
    check_offsets(offsets, len(attention))


def _check_key(key: Tensor, attention: Tensor) -> None:
    if key.dtype != torch.bool or key.shape != attention.shape:
        raise ValueError(
            f"key: expected booleans of shape {tuple(attention.shape)}, got {key.dtype} {tuple(key.shape)}"
        )


def _runs(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"{name}: expected at least two runs, one finite number each, got {shown(x)}")
    return x
