"""Predictions by name: a table with a row for each bag.

Its columns are `bag`, and where they are known `group`, `fold` and `label`; `predicted`; one column `p_…` for each
class, its probability; for two classes `threshold`, from which on the second is predicted; for several models `spread`,
the standard deviation over them of the predicted class' probability.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from samil_lite.arguments import A_BAG, above, checked
from samil_lite.cards import Card, Ensemble, card_of, class_names_of, labels_of, log_probabilities
from samil_lite.training import predict

P = "p_"  # before the name of a class, in the column of its probability


@checked(temperature=above(0), bags=A_BAG)
def predictions(
    models: nn.Module | Sequence[nn.Module],
    bags: Any,
    *,
    groups: str | Sequence[Any] | None = None,
    threshold: float | None = None,
    temperature: float | None = None,
) -> pd.DataFrame:
    """What a model, or the mean of several, says of each bag, in a table by name; see `samil_lite.predicting`.

    Bags whose classes have names get them numbered as the model has them, whatever their own order, so a cohort that
    lacks a class is scored rightly.

    Args:
        models: a model, a list of them, or what `load` gave. Classes, threshold and temperature come from its card.
        bags: `Bags`, or bags on disk; with labels or without.
        groups: name of a column of the bags' table, or one value for each bag, such as its patient.
        threshold: the second of two classes is predicted from this probability on; None: that of the card, or 0.5.
        temperature: the logits are divided by it; None: that of the card, or 1.

    Returns:
        One row for each bag, in their order.

    Raises:
        ValueError: if the bags' width or a class of theirs is not what the model was trained on; both are named.
    """
    whole = models if isinstance(models, nn.Module) else Ensemble(models)
    members, card = (list(whole) if isinstance(whole, Ensemble) else [whole]), card_of(whole)
    check_fit(card, bags)
    temperatures = [card_of(model).temperature if temperature is None else temperature for model in members]
    each = torch.stack(  # (M, B, C)
        [log_probabilities(predict(m, bags).logits, t).exp() for m, t in zip(members, temperatures, strict=True)]
    ).double()
    p = each.mean(0).numpy()  # (B, C)
    classes = class_names_of(whole, bags, p.shape[1])
    table = pd.DataFrame({"bag": names_of(bags)})
    if groups is not None:
        table["group"] = groups_of(bags, groups)
    if bags.labels is not None:
        table["label"] = np.array(classes, dtype=object)[_labels_in(whole, bags, len(classes))]
    if threshold is None:
        threshold = 0.5 if card.threshold is None else card.threshold
    called = (p[:, 1] >= threshold).astype(int) if len(classes) == 2 else p.argmax(1)
    table["predicted"] = np.array(classes, dtype=object)[called]
    for c, name in enumerate(classes):
        table[P + name] = p[:, c]
    if len(classes) == 2:
        table["threshold"] = float(threshold)
    if len(members) > 1:
        table["spread"] = each.std(0).numpy()[np.arange(len(p)), called]
    return table


def check_fit(card: Card, bags: Any) -> None:
    """Raises ValueError unless the bags have the width on the card."""
    instances = getattr(bags, "instances", None)
    width = getattr(bags, "width", None) or (instances.shape[1] if instances is not None else None)
    if card.width is not None and width is not None and card.width != width:
        raise ValueError(
            f"bags: the model was trained on {card.width} features an instance, these bags have {width}; "
            f"features must come from the same network{f', {card.extractor}' if card.extractor else ''}"
        )


def names_of(bags: Any) -> list[str]:
    """Names of the bags; bag_0, bag_1, … if they have none."""
    names = getattr(bags, "names", None)
    return [f"bag_{b}" for b in range(len(bags))] if names is None else list(map(str, names))


def groups_of(bags: Any, groups: str | Sequence[Any]) -> list[str]:
    """The group of each bag, as text, from a column of the bags' table or as given."""
    if isinstance(groups, str):
        if not hasattr(bags, "group"):
            raise ValueError(f"groups: these bags have no table with a column {groups!r}; give one value for each bag")
        groups = bags.group(groups)
    if len(groups) != len(bags):
        raise ValueError(f"groups: expected {len(bags)} values, one for each bag, got {len(groups)}")
    if any(pd.isna(value) for value in groups):
        raise ValueError(
            f"groups: expected a value for each bag, bag {[pd.isna(g) for g in groups].index(True)} has none"
        )
    return [str(value).strip() for value in groups]


def _labels_in(model: nn.Module, bags: Any, n: int) -> np.ndarray:
    """The labels as numbers of the model's n classes, (B,)."""
    found = labels_of(model, bags)
    assert found is not None
    labels: np.ndarray = found.cpu().numpy()
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise ValueError(
            f"bags: a table of predictions needs one class for each bag, got labels {labels.dtype} {labels.shape}; "
            "for other targets use predict and evaluate"
        )
    if labels.max() >= n:
        raise ValueError(f"bags: label {labels.max()} is none of the model's classes 0 to {n - 1}")
    return labels


@checked()
def by_group(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a row for each group: the mean of its bags' probabilities, decided anew.

    Raises:
        ValueError: if there is no column `group`, or the bags of a group have several labels.
    """
    if "group" not in table:
        raise ValueError(f"table: expected a column group, got {', '.join(table.columns)}")
    classes = class_names(table)
    parts = {P + name: "mean" for name in classes} | {n: "mean" for n in ("threshold",) if n in table}
    for name in ("label", "fold"):
        if name in table:
            several = table.groupby("group")[name].nunique()
            if (several > 1).any():
                raise ValueError(
                    f"groups: the bags of {several.idxmax()} have several values of {name}; it cannot be scored as one"
                )
            parts[name] = "first"
    found = table.groupby("group", sort=False).agg(parts).reset_index()
    p = found[[P + name for name in classes]].to_numpy()
    called = (p[:, 1] >= found["threshold"]).to_numpy().astype(int) if len(classes) == 2 else p.argmax(1)
    return found.assign(predicted=np.array(classes, dtype=object)[called])


def class_names(table: pd.DataFrame) -> list[str]:
    """The classes of a table of predictions, in the order of its columns."""
    return [str(column).removeprefix(P) for column in table.columns if str(column).startswith(P)]
