"""`evaluate`: how good a model is on labelled bags, for classes, each of them, several labels a bag, or numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from samil_lite.arguments import at_least, checked, shown
from samil_lite.cards import class_names_of, labels_of
from samil_lite.metrics import Metrics, as_scored, bag_loss, bag_metrics, check_labels
from samil_lite.training import BagSource, predict


@dataclass(frozen=True)
class ClassMetrics:
    """Scores of one class against the others, or of one of several labels.

    Attributes:
        name: of the class.
        n: bags of it.
        precision: of the bags called so, the share that is.
        recall: of its bags, the share that is called so; also called sensitivity.
        specificity: of the other bags, the share that is not called so.
        f_score: the harmonic mean of precision and recall.
        auc: the probability that a bag of it is ranked above another one.
    """

    name: str
    n: int
    precision: float
    recall: float
    specificity: float
    f_score: float
    auc: float


@dataclass(frozen=True)
class Evaluation(Metrics):
    """`Metrics`, and in `by_class` the scores of each class against the others, or of each of several labels."""

    by_class: tuple[ClassMetrics, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Errors:
    """How far predicted numbers are from the labels.

    Attributes:
        mean_absolute: mean of the distances, in the unit of the labels.
        root_mean_square: square root of the mean of their squares, in the same unit.
        r2: share of the labels' variance that is explained: 1 is perfect, 0 is their mean for every bag.
        rank_correlation: Spearman's.
        n: bags.
    """

    mean_absolute: float
    root_mean_square: float
    r2: float
    rank_correlation: float
    n: int


@overload
def evaluate(model: nn.Module, bags: BagSource, bags_per_step: int | None = ..., *, numbers: None = ...) -> Any: ...
@overload
def evaluate(
    model: nn.Module, bags: BagSource, bags_per_step: int | None = ..., *, numbers: Literal[False]
) -> Evaluation: ...
@overload
def evaluate(
    model: nn.Module, bags: BagSource, bags_per_step: int | None = ..., *, numbers: Literal[True]
) -> Errors: ...
@checked(bags_per_step=at_least(1))
def evaluate(
    model: nn.Module, bags: BagSource, bags_per_step: int | None = None, *, numbers: bool | None = None
) -> Evaluation | Errors:
    """Accuracy, precision, recall, F-score, AUC and mean loss of a model on labelled bags, and those of each class.

    Bags whose classes have names are scored by them, whatever their own order of classes, where the model was trained
    on names. Intervals: `sl.score_table(sl.predictions(model, bags))`.

    Args:
        model: maps `Bags` to `MILOutput`; a bag is called positive when its probability is above one half.
        bags: labelled bags: one class each, several yes-or-no labels each, or numbers.
        bags_per_step: how many bags go through the model at a time; None: as for `predict`.
        numbers: whether labels are numbers that the logits should meet, not classes. None: if any is no whole number.

    Returns:
        `Evaluation`, whose `by_class` has the scores of each class, or of each of several labels; for numbers `Errors`.
        A score that is not defined on these bags is NaN, with a warning that says why.

    Raises:
        ValueError: if the bags have no labels, or labels that the model does not know.
    """
    if bags.labels is None:
        check_labels(None, 1)
    assert bags.labels is not None
    if numbers is None:
        numbers = bags.labels.ndim == 1 and not bags.labels.eq(bags.labels.long()).all()
    if numbers:
        return number_errors(predict(model, bags, bags_per_step).logits, bags.labels.cpu())
    try:
        labels = check_labels(labels_of(model, bags), getattr(model, "n_classes", 1))
    except ValueError as error:
        if bags.labels.is_floating_point() and bags.labels.ndim == 1:
            raise ValueError(f"{error}; if they are no classes, say numbers=True") from error
        raise
    logits = predict(model, bags, bags_per_step).logits
    names = class_names_of(model, bags, logits.shape[1] if logits.ndim == 2 else 2)
    whole = (bag_metrics if labels.ndim == 1 else label_metrics)(logits, labels.cpu())
    return Evaluation(**vars(whole), by_class=class_metrics(logits, labels.cpu(), names))


def label_metrics(logits: Tensor, labels: Tensor) -> Metrics:
    """Means over several yes-or-no labels, (B, L) as the logits; of each score over the labels that have it."""
    each = class_metrics(logits, labels)
    means = {
        name: float(np.nanmean(values)) if np.isfinite(values := [getattr(one, name) for one in each]).any() else np.nan
        for name in ("precision", "recall", "f_score", "auc")
    }
    right = (logits > 0).cpu() == (labels > 0.5).cpu()
    return Metrics(accuracy=float(right.double().mean()), **means, loss=float(bag_loss(logits, labels)))


@checked()
def class_metrics(logits: Tensor, labels: Tensor, names: Sequence[str] | None = None) -> tuple[ClassMetrics, ...]:
    """Scores of each class against the others; what is not defined is NaN.

    Args:
        logits: (B,), the second class is predicted above 0; (B, C), the class of the largest; or for several labels a
            bag (B, L), each is predicted above 0.
        labels: (B,); or several yes-or-no labels a bag, (B, L).
        names: of the classes or labels; their numbers if None.
    """
    if labels.ndim == 2:
        if logits.shape != labels.shape or not logits.isfinite().all():
            raise ValueError(f"logits: expected finite numbers of shape {tuple(labels.shape)}, got {shown(logits)}")
        p, called, true = (x.detach().cpu().double().numpy() for x in (logits, (logits > 0).float(), labels > 0.5))
    else:
        logits, labels = as_scored(logits, labels, many=True)
        two = torch.stack([-logits, logits], 1) if logits.ndim == 1 else logits.double().softmax(1)  # (B, C)
        p = two.double().numpy()
        called, true = (np.eye(p.shape[1])[x.numpy()] for x in (two.argmax(1), labels))
    names = [*map(str, range(p.shape[1]))] if names is None else names
    if len(names) != p.shape[1]:
        raise ValueError(f"names: expected {p.shape[1]}, one for each class or label, got {shown(names)}")
    return tuple(_of_class(str(name), *columns) for name, *columns in zip(names, p.T, called.T, true.T, strict=True))


def _of_class(name: str, p: np.ndarray, called: np.ndarray, true: np.ndarray) -> ClassMetrics:
    from sklearn.metrics import roc_auc_score  # slow to import

    called, true = called > 0.5, true > 0.5
    hits, chosen, there = int((called & true).sum()), int(called.sum()), int(true.sum())
    others = len(true) - there

    def share(a: int, b: int) -> float:
        return a / b if b else float("nan")

    return ClassMetrics(
        name=name, n=there, precision=share(hits, chosen), recall=share(hits, there),
        specificity=share(int((~called & ~true).sum()), others), f_score=share(2 * hits, chosen + there),
        auc=float(roc_auc_score(true, p)) if there and others else float("nan"),
    )  # fmt: skip


@checked()
def number_errors(predicted: Tensor, labels: Tensor) -> Errors:
    """How far predicted numbers (B,) are from labels (B,); r2 and the rank correlation of equal numbers are NaN."""
    from scipy.stats import spearmanr

    if predicted.shape != labels.shape or predicted.ndim != 1 or not predicted.isfinite().all():
        raise ValueError(
            f"predicted: expected {len(labels)} finite numbers, one for each bag, got {shown(predicted)}; "
            "build the model with n_classes=1"
        )
    x, y = (part.detach().cpu().double().numpy() for part in (predicted, labels))
    squares, varied = float(((x - y) ** 2).mean()), float(y.var())
    both = np.ptp(x) > 0 and np.ptp(y) > 0
    return Errors(
        mean_absolute=float(abs(x - y).mean()),
        root_mean_square=squares**0.5,
        r2=1 - squares / varied if varied > 0 else float("nan"),
        rank_correlation=float(spearmanr(x, y).statistic) if both else float("nan"),
        n=len(y),
    )
