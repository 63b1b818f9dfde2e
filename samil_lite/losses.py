"""What training makes small: the likelihood of the labels, weighted by class if asked for, or a loss of the user's."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from samil_lite.arguments import above, check_each, expected_of, shown
from samil_lite.fingerprint import of_model
from samil_lite.metrics import bag_loss, check_labels

Loss = Callable[[Tensor, Tensor], Tensor]


def criterion(
    loss: Loss | None, class_weight: str | Sequence[float] | None, n_classes: int, labels: Sequence[Tensor | None]
) -> tuple[Loss, Any]:
    """The mean loss of bags as a function of their logits and labels, and what a checkpoint knows it by.

    Args:
        loss: the user's; None: the negative log-likelihood, `samil_lite.metrics.bag_loss`.
        class_weight: "balanced", or a weight for each class; None: all bags count alike.
        n_classes: of the model.
        labels: of the training bags, and of the validation bags if there are any.

    Raises:
        ValueError: if bags have no labels, or such as the loss cannot take; or both a loss and weights are given.
    """
    if loss is not None:
        if class_weight is not None:
            raise ValueError("loss, class_weight: expected one of them; a loss of your own can weight classes itself")
        if any(y is None for y in labels):
            raise ValueError("labels: expected one for each bag, but these bags have none")
        known = of_model(loss) if isinstance(loss, nn.Module) else getattr(loss, "__qualname__", type(loss).__name__)
        return lambda logits, y: _one_number(loss, logits, y), known
    checked = [check_labels(y, n_classes) for y in labels]
    if class_weight is None:
        return bag_loss, None
    weights = _weights(class_weight, checked[0], max(n_classes, 2))  # (C,)

    def weighted(logits: Tensor, y: Tensor) -> Tensor:
        y, of_bag = y.long(), weights.to(logits)[y.long()]  # (B,), (B,)
        if logits.ndim == 1:
            return binary_cross_entropy_with_logits(logits, y.to(logits.dtype), weight=of_bag)
        return (cross_entropy(logits, y, reduction="none") * of_bag).mean()

    return weighted, weights.tolist()


def _weights(class_weight: str | Sequence[float], labels: Tensor, n_classes: int) -> Tensor:
    """Weight of each class, (C,); balanced ones are B / (C · number of bags of the class)."""
    if labels.ndim != 1:
        raise ValueError("class_weight: expected bags with one class each, got several labels a bag")
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight: expected 'balanced' or a weight for each class, got {class_weight!r}")
        counts = torch.bincount(labels.cpu().long(), minlength=n_classes)
        if (counts == 0).any():
            raise ValueError(f"class_weight: class {int(counts.argmin())} has no training bag, so it has no weight")
        return len(labels) / (n_classes * counts.float())
    found = check_each("class_weight", class_weight, expected_of(float, above(0)))
    if len(found) != n_classes:
        raise ValueError(f"class_weight: expected {n_classes} weights, one for each class, got {len(found)}")
    return torch.tensor(found)


def drawn_order(labels: Tensor, balanced: bool, seed: int) -> Tensor:
    """The numbers of the bags of one epoch, B in all, in the order in which training sees them.

    Every bag once; or `balanced`, as many of each class: of a rare one all bags several times, of a frequent one some.

    Args:
        labels: (B,).
        balanced: see above.
        seed: the same one gives the same order.
    """
    random = torch.Generator().manual_seed(seed)
    if not balanced:
        return torch.randperm(len(labels), generator=random)
    members = [(labels.cpu() == c).nonzero().squeeze(1) for c in labels.unique().tolist()]
    counts = [len(part) for part in torch.arange(len(labels)).tensor_split(len(members))]
    drawn = []
    for own, n in zip(members, counts, strict=True):
        rounds = [own[torch.randperm(len(own), generator=random)] for _ in range(-(-n // len(own)))]
        drawn += [torch.cat(rounds)[:n]] if rounds else []
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=random)]


def check_sampling(sampling: str | None, labels: Tensor | None) -> bool:
    """Whether the bags of an epoch are drawn with as many of each class.

    Raises:
        ValueError: if `sampling` is neither None nor "balanced", or the bags have not one class each.
    """
    if sampling is None:
        return False
    if sampling != "balanced":
        raise ValueError(f"sampling: expected None or 'balanced', got {sampling!r}")
    if labels is None or labels.ndim != 1 or not labels.eq(labels.long()).all():
        raise ValueError("sampling: expected bags with one class each, to draw as many of each class")
    return True


def _one_number(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    try:
        found = loss(logits, labels.to(logits.dtype) if labels.is_floating_point() else labels)
    except (RuntimeError, ValueError, TypeError) as error:
        what = f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} of {labels.dtype}"
        raise ValueError(f"loss: it cannot take {what}: {error}") from error
    if not isinstance(found, Tensor) or found.ndim > 0 or not found.is_floating_point():
        raise ValueError(
            f"loss: expected a function of logits and labels that gives one number, it gave {shown(found)}"
        )
    return found
