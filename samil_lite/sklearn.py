"""Multiple-instance learning in scikit-learn's way: a classifier of bags, and scalers that work on their instances.

X is a list of arrays (n_b, d), one for each bag; an array (B, n, d) of bags of one size; an array (B, d), whose rows
are bags of one instance; a data frame of instances, with the name of its bag in the index; `Bags`; or bags on disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import nn

from samil_lite.bags import Bags
from samil_lite.cards import Card, attach, log_probabilities
from samil_lite.cross_validation import subset
from samil_lite.folds import make_folds
from samil_lite.models import KERNEL_OF, build
from samil_lite.training import fit as train
from samil_lite.training import predict as output_of


@dataclass(eq=False, repr=False)
class MILClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A model of `samil_lite.build` on features, as a scikit-learn classifier of bags.

    A linear layer with ReLU, self-attention if the model has it, pooling, a linear classifier; trained by
    `samil_lite.fit`. A share of the training bags chooses the epoch, with the groups kept together where `fit` is given
    groups. For folds that keep patients together, give `GridSearchCV.fit` the same `groups` and a group splitter.

    Args:
        model: name that `build` knows.
        width: of the first layer.
        hidden: width of the attention's hidden layer.
        gamma: where γ starts, for models with self-attention.
        epochs: at most.
        patience: epochs without improvement before training stops.
        lr: learning rate.
        weight_decay: L2 penalty.
        bags_per_step: bags per gradient step.
        validation: share of the bags that choose the epoch; 0: none, all train and the last epoch is kept.
        random_state: seed of the start, of the order of bags and of the validation part.
        device: where to train; None: the accelerator if there is one.
        class_weight: "balanced", a dictionary of the weight of each class, or a list in sorted order; see
            `samil_lite.fit`, as for `sampling`.
        sampling: "balanced", as many training bags of every class; None: each bag once an epoch.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_: number of features of an instance.
        model_: the trained model; `samil_lite.save` takes it.
        history_: the course of training.
    """

    model: str = "abmilp"
    width: int = 64
    hidden: int = 64
    gamma: float = 1.0
    epochs: int = 100
    patience: int | None = 20
    lr: float = 1e-3
    weight_decay: float = 1e-4
    bags_per_step: int = 8
    validation: float = 0.2
    random_state: int | None = None
    device: str | None = None
    class_weight: str | Sequence[float] | Mapping[Any, float] | None = None
    sampling: str | None = None

    def fit(self, X: Any, y: Any = None, groups: Sequence[Any] | None = None) -> Self:
        """Trains on bags X with one label each; `groups`, one for each bag, are not divided by the validation part.

        Without y, the labels that `Bags` or bags on disk have are taken.
        """
        bags = as_bags(X)
        y = _labels(bags, y)
        if len(y) != len(bags):
            raise ValueError(f"y: expected {len(bags)} labels, one for each bag, got {len(y)}")
        self.classes_, numbers_ = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: this classifier needs two classes or more, got one class, {self.classes_[0]!r}")
        self.n_features_in_ = _width(bags)
        labelled = _Labelled(bags, torch.from_numpy(numbers_.astype(np.int64)))
        seed = int(np.random.RandomState(self.random_state).randint(2**31 - 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            options = {"gamma": self.gamma} if self.model in KERNEL_OF else {}
            encoder = nn.Sequential(nn.Linear(self.n_features_in_, self.width), nn.ReLU())
            n_classes = 1 if len(self.classes_) == 2 else len(self.classes_)
            self.model_ = build(self.model, encoder, n_classes, self.width, self.hidden, **options)
        chooser = self._chooser(labelled.labels, groups, seed)
        self.history_ = train(
            self.model_,
            labelled if chooser is None else labelled.subset(~chooser),
            None if chooser is None else labelled.subset(chooser),
            epochs=self.epochs, lr=self.lr, weight_decay=self.weight_decay, bags_per_step=self.bags_per_step,
            patience=None if chooser is None else self.patience, seed=seed, device=self.device, progress=False,
            class_weight=self._class_weight(), sampling=self.sampling,
        )  # fmt: skip
        classes = tuple(map(str, self.classes_))
        attach(self.model_, Card(classes=classes, width=self.n_features_in_))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, (B, C), in the order of `classes_`."""
        check_is_fitted(self)
        bags = as_bags(X)
        if _width(bags) != self.n_features_in_:
            raise ValueError(
                f"X has {_width(bags)} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input"
            )
        return log_probabilities(output_of(self.model_, bags).logits.double()).exp().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each bag, (B,)."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])

    def attention(self, X: Any) -> list[np.ndarray]:
        """The attention weights of each bag, B arrays (n_b,)."""
        check_is_fitted(self)
        bags = as_bags(X)
        weights = output_of(self.model_, bags).attention
        if weights is None:
            raise ValueError(f"model: {self.model} has no attention")
        return [part.numpy() for part in weights.split(bags.sizes.tolist())]

    def _class_weight(self) -> str | Sequence[float] | None:
        if not isinstance(self.class_weight, Mapping):
            return self.class_weight
        if unknown := [c for c in self.class_weight if c not in self.classes_]:
            raise ValueError(f"class_weight: expected the classes {self.classes_.tolist()}, got {unknown[0]!r}")
        return [float(self.class_weight.get(c, 1.0)) for c in self.classes_]

    def _chooser(self, labels: torch.Tensor, groups: Sequence[Any] | None, seed: int) -> torch.Tensor | None:
        """A mask of the bags that choose the epoch, one of 1/validation folds; None without, or for a rare class."""
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation: expected a share of the bags below 1, got {self.validation}")
        if self.validation == 0:
            return None
        unit = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        smallest = min(len(np.unique(unit[labels.numpy() == c])) for c in range(len(self.classes_)))
        n_folds = min(max(2, round(1 / self.validation)), smallest)
        if n_folds < 2:  # a class of one bag cannot be on both sides
            return None
        return make_folds(labels, n_folds, seed % 2**31, None if groups is None else list(groups)) == 0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        tags.classifier_tags.poor_score = True  # of bags of one instance, on a handful of them
        tags.non_deterministic = self.random_state is None
        return tags


class InstanceTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer of rows, such as `StandardScaler`, fitted on the instances of all bags and applied to each.

    Args:
        transformer: of arrays (N, d).
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fits a copy of the transformer on all instances."""
        bags = as_bags(X)[:]
        self.transformer_ = clone(self.transformer).fit(bags.instances.numpy())
        self.n_features_in_ = bags.instances.shape[1]
        return self

    def transform(self, X: Any) -> list[np.ndarray]:
        """The bags with their instances transformed: B arrays."""
        check_is_fitted(self)
        bags = as_bags(X)[:]
        if bags.instances.shape[1] != self.n_features_in_:
            raise ValueError(f"X: expected {self.n_features_in_} features, got {bags.instances.shape[1]}")
        rows = np.asarray(self.transformer_.transform(bags.instances.numpy()), np.float32)
        return np.split(rows, bags.offsets[1:-1].numpy())


class _Labelled:
    """Bags with other labels; those on disk stay there."""

    def __init__(self, bags: Any, labels: torch.Tensor) -> None:
        self.bags, self.labels, self.n_instances = bags, labels, bags.n_instances

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, key: Any) -> Bags:
        chosen = self.bags[key]
        return Bags(chosen.instances, chosen.offsets, self.labels[key])

    def subset(self, mask: torch.Tensor) -> Any:
        if isinstance(self.bags, Bags):
            return self[mask]
        return _Labelled(subset(self.bags, mask), self.labels[mask])


def as_bags(X: Any) -> Any:
    """`Bags`, or bags on disk as they are, from what the module says X may be."""
    if isinstance(X, Bags) or hasattr(X, "paths"):
        return X
    if isinstance(X, pd.DataFrame) and not (isinstance(X.index, pd.RangeIndex) or X.index.is_unique):
        order = pd.factorize(X.index.get_level_values(0))[0]
        rows = X.to_numpy(np.float32)[np.argsort(order, kind="stable")]
        return Bags.from_list(np.split(rows, np.bincount(order).cumsum()[:-1]))
    if isinstance(X, list | tuple) and X and all(isinstance(bag, Bags) for bag in X):  # what slicing a list leaves
        return Bags.cat(list(X))
    if isinstance(X, list | tuple) and X and np.ndim(X[0]) == 2:
        return Bags.from_list([_numbers(bag) for bag in X])
    rows = _numbers(X)
    if rows.ndim == 1:
        raise ValueError(f"X: expected bags, got an array of shape {rows.shape}. Reshape your data")
    if 0 in rows.shape:
        what = "sample(s)" if len(rows) == 0 else "feature(s)"
        raise ValueError(f"X: 0 {what} (shape={rows.shape}) while a minimum of 1 is required.")
    return Bags.from_list(list(rows[:, None] if rows.ndim == 2 else rows))


def _numbers(x: Any) -> np.ndarray:
    if hasattr(x, "toarray"):
        raise TypeError("X: sparse data was passed, but dense data is required; use .toarray()")
    x = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    if np.iscomplexobj(x):
        raise ValueError("X: Complex data not supported")
    return np.asarray(x, np.float32)


def _labels(bags: Any, y: Any) -> Any:
    if y is None:
        own = getattr(bags, "labels", None)
        if own is None:
            raise ValueError("y: requires y to be passed, but the target y is None, and the bags have no labels")
        names = getattr(bags, "classes", None)
        return own.cpu().numpy() if names is None else np.array(names, dtype=object)[own.cpu().numpy()]
    y = np.asarray(y.cpu() if isinstance(y, torch.Tensor) else y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("y: Input y contains NaN or infinity.")
    check_classification_targets(y)
    return y


def _width(bags: Any) -> int:
    return int(getattr(bags, "width", None) or bags.instances.shape[1])
