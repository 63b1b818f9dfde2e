"""Folds: which bags are tested, which choose and which train, groups kept whole and classes spread evenly."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samil_lite.arguments import at_least, checked
from samil_lite.files import read_csv
from samil_lite.predicting import groups_of, names_of


def as_folds(bags: Any, folds: int | str | Path | Sequence[Any], groups: list[str] | None, seed: int) -> Tensor:
    """The number 0, 1, … of the fold of each bag, shape (B,): drawn, or as given; see `cross_validate`."""
    if isinstance(folds, int):
        return make_folds(bags.labels, folds, seed, groups)
    if isinstance(folds, str | Path) and Path(folds).suffix == ".csv":
        table = read_csv(Path(folds), dtype=str)
        if not {"bag", "fold"} <= set(table.columns):
            raise ValueError(f"folds: {folds} has no columns bag and fold, but {', '.join(table.columns)}")
        stored = dict(zip(table["bag"], table["fold"], strict=True))
        if missing := [name for name in names_of(bags) if name not in stored]:
            raise ValueError(f"folds: {folds} lacks {len(missing)} of {len(bags)} bags, {', '.join(missing[:5])}")
        values: Sequence[Any] = [stored[name] for name in names_of(bags)]
    else:
        values = groups_of(bags, folds)  # type: ignore[arg-type]
    names = sorted(set(map(str, values)), key=lambda name: (len(name), name))  # 2 before 10
    fold = torch.tensor([names.index(str(value)) for value in values])
    if groups is not None:
        for group in dict.fromkeys(groups):
            own = sorted({names[f] for f, g in zip(fold.tolist(), groups, strict=True) if g == group})
            if len(own) > 1:
                raise ValueError(f"folds: the group {group} is in several folds, {', '.join(own)}")
    return fold


@checked(n_folds=at_least(2), seed=at_least(0))
def make_folds(labels: Tensor, n_folds: int, seed: int, groups: Sequence[Any] | None = None) -> Tensor:
    """A number of 0 … n_folds − 1 for each bag, shape (B,), classes spread evenly; a group is never divided.

    Raises:
        ValueError: if a class has fewer groups, or bags, than there are folds.
    """
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    unit = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]  # (B,)
    y = labels.cpu().numpy()
    is_class = y.ndim == 1 and y.dtype.kind in "iub"
    for c in np.unique(y) if is_class else []:
        if (n := len(np.unique(unit[y == c]))) < n_folds:
            what = "bags" if groups is None else "groups"
            raise ValueError(f"folds: expected at most {n}, since class {c} has only {n} {what}; got {n_folds}")
    if groups is None:
        splitter: Any = (StratifiedKFold if is_class else KFold)(n_folds, shuffle=True, random_state=seed)
    else:  # shuffled here: scikit-learn before 1.7 shuffles class counts without the groups that they belong to
        unit = np.random.RandomState(seed).permutation(unit.max() + 1).argsort()[unit]
        splitter = (StratifiedGroupKFold if is_class else GroupKFold)(n_folds)
    fold = torch.empty(len(labels), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class is small: checked above, by groups
        for number, (_, test) in enumerate(splitter.split(np.zeros(len(y)), y, unit)):
            fold[test] = number
    return fold


def parts(fold: Tensor, number: Tensor | int, n_folds: int, n_validation: int) -> tuple[Tensor, Tensor]:
    """Which bags are tested, those of fold `number`, and which choose, those of the `n_validation` folds after it.

    Args:
        fold: of each bag, shape (B,).
        number: of the tested fold; or several, shape (F, 1).
        n_folds: how many folds there are.
        n_validation: how many choose.

    Returns:
        Two masks, shape (B,) or (F, B).
    """
    after = (fold - number) % n_folds
    return after == 0, (after > 0) & (after <= n_validation)
