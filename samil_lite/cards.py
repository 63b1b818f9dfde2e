"""What a model's numbers do not say: names of its classes, width, threshold; and several models as one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from samil_lite.bags import Bags
from samil_lite.models import MILOutput


@dataclass(frozen=True)
class Card:
    """What a model's numbers do not say. Fields that nobody knows are None.

    Attributes:
        classes: names of the classes, in the order of the logits; for one logit, of the negative and the positive one.
        width: number of features of an instance.
        threshold: the positive class is predicted from this probability on; two classes only.
        temperature: the logits are divided by it before they become probabilities.
        extractor: the network that made the features.
        magnification: of the patches, such as "20x" or "0.5 µm per pixel".
        patch_size: side of a patch, in pixels of the slide's finest level.
        training: settings and course of the training, and a digest of the data.
        scores: how good it was, and on what.
        notes: anything else.
        versions: of Python and the packages, noted when the model is saved.
    """

    classes: tuple[str, ...] | None = None
    width: int | None = None
    threshold: float | None = None
    temperature: float = 1.0
    extractor: str | None = None
    magnification: str | None = None
    patch_size: float | None = None
    training: dict[str, Any] | None = None
    scores: dict[str, Any] | None = None
    notes: str | None = None
    versions: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            classes = tuple(map(str, self.classes))
            if len(classes) < 2 or len(set(classes)) != len(classes):
                raise ValueError(f"classes: expected two names or more, each once, got {classes}")
            object.__setattr__(self, "classes", classes)
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a probability, got {self.threshold}")


class Ensemble(nn.Module):
    r"""Several models as one: the mean of their probabilities, and of their attention.

    .. math:: P(y \mid \text{bag}) = \frac{1}{M} \sum_m P_m(y \mid \text{bag})

    Its logits are those of the mean probabilities, so it stands wherever a model does, as in `predict`. Each member's
    logits are divided by the temperature on its card first.

    Args:
        models: of the same number of classes; members whose cards name other classes or another width are refused.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        if not models:
            raise ValueError("models: expected at least one, got none")
        self.members = nn.ModuleList(models)
        cards = [card_of(model) for model in models]
        for name, values in (
            ("n_classes", [getattr(model, "n_classes", 1) for model in models]),
            ("classes", [card.classes for card in cards]),
            ("width", [card.width for card in cards]),
        ):
            if len(set(values)) > 1:
                raise ValueError(f"models: expected members that agree in {name}, got {values}")
        self.n_classes: int = getattr(models[0], "n_classes", 1)
        thresholds = [card.threshold for card in cards if card.threshold is not None]
        threshold = sum(thresholds) / len(thresholds) if len(thresholds) == len(cards) else None
        attach(self, replace(cards[0], threshold=threshold, temperature=1.0))

    def forward(self, bags: Bags) -> MILOutput:
        """Classifies each bag; embeddings and β are those of single members, so they are None here."""
        outputs = [model(bags) for model in self.members]
        temperatures = [card_of(model).temperature for model in self.members]
        log_p = torch.stack(  # (M, B, C)
            [log_probabilities(o.logits, t) for o, t in zip(outputs, temperatures, strict=True)]
        )
        mean = log_p.logsumexp(0)  # (B, C), without the 1/M, which cancels
        logits = mean[:, 1] - mean[:, 0] if self.n_classes == 1 else mean - mean.logsumexp(1, keepdim=True)
        attention = None
        if all(output.attention is not None for output in outputs):
            attention = torch.stack([output.attention for output in outputs]).mean(0)  # (N,)
        return MILOutput(logits, attention)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Logarithms of the probabilities of all classes, (B, C) with C ≥ 2, from logits (B,) or (B, C)."""
    logits = logits / temperature
    if logits.ndim == 1:
        logits = torch.stack([torch.zeros_like(logits), logits], 1)
    return logits.log_softmax(1)


def card_of(model: nn.Module) -> Card:
    """The model's card; an empty one if it has none."""
    return vars(model).get("card") or Card()


def attach(model: nn.Module, card: Card) -> nn.Module:
    """Gives the model this card, and returns it."""
    if card.classes is not None and len(card.classes) != max(2, getattr(model, "n_classes", 1)):
        raise ValueError(
            f"classes: expected {max(2, getattr(model, 'n_classes', 1))} names for this model, got {card.classes}"
        )
    vars(model)["card"] = card
    return model


def know_classes(model: nn.Module, *sources: Any) -> None:
    """Notes on the model's card what the classes of the training bags are called, if they have names.

    Args:
        model: that is to be trained.
        sources: the training bags, then others, such as those of validation; None is left out.

    Raises:
        ValueError: if two of them, or the model from an earlier training, name other classes or in another order.
    """
    n = max(2, getattr(model, "n_classes", 1))
    named = {"model": card_of(model).classes}
    for name, bags in zip(("train", "validation"), sources, strict=False):
        labels = getattr(bags, "labels", None)
        if labels is not None and labels.ndim == 1 and not labels.is_floating_point():
            named[name] = getattr(bags, "classes", None)
    known = {name: tuple(classes) for name, classes in named.items() if classes is not None}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{name} {classes}" for name, classes in known.items())
        raise ValueError(f"classes: expected one order of classes, got {told}; say classes=(…) where bags are made")
    if "train" in known and card_of(model).classes is None and len(known["train"]) == n:
        attach(model, replace(card_of(model), classes=known["train"]))


def labels_of(model: nn.Module, bags: Any) -> Tensor | None:
    """The labels of bags as numbers of the model's classes, by the names of both where both have them.

    Raises:
        ValueError: if the bags have a class that the model was not trained on.
    """
    labels: Tensor | None = bags.labels
    own, classes = getattr(bags, "classes", None), card_of(model).classes
    if labels is None or labels.ndim != 1 or own is None or classes is None or tuple(own) == classes:
        return labels
    present = [own[c] for c in labels.unique().long().tolist()]
    if unknown := [name for name in present if name not in classes]:
        raise ValueError(
            f"bags: they have the class {', '.join(unknown)}, the model was trained on {', '.join(classes)}"
        )
    numbers = [classes.index(name) if name in classes else -1 for name in own]
    return torch.tensor(numbers, device=labels.device)[labels.long()]


def class_names_of(model: nn.Module, bags: Any, n: int) -> tuple[str, ...]:
    """Names of n classes: of the model, else of the bags, else their numbers.

    Raises:
        ValueError: if the bags have more classes than the model.
    """
    found = card_of(model).classes or getattr(bags, "classes", None) or tuple(map(str, range(n)))
    if len(found) > n:
        raise ValueError(f"bags: the model has {n} classes, these bags have {len(found)}: {', '.join(found)}")
    return tuple(found) + tuple(map(str, range(len(found), n)))
