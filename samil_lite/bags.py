"""Bags: a ragged batch of bags of instances."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samil_lite.arguments import check, checked, expected_of, shown, warn
from samil_lite.bag_parts import (
    TENSOR,
    Array,
    as_classes,
    as_labels,
    as_names,
    as_tensors,
    check_coordinates,
    check_instances,
    check_integers,
    flatten,
    label_tensor,
    numbered,
)
from samil_lite.segments import bag_index, check_offsets, pad

Key = int | slice | str | Sequence[int] | Sequence[str] | Array  # what bags are chosen by
PARTS = ("instances", "offsets", "labels", "instance_labels", "coordinates")  # fields that are tensors
BATCHES = expected_of(Sequence[Any])


@dataclass(frozen=True, eq=False, repr=False)
class Bags:
    """A ragged batch: all instances of all bags in one flat tensor, and where each bag begins.

    Bag b holds the instances offsets[b] … offsets[b + 1] - 1, the layout that variable-length
    attention calls `cu_seqlens`. No padding is stored, so no layer can attend to padding by mistake. Arrays and lists
    become tensors, and labels 64-bit integers.

    Args:
        instances: floating point, finite, or bytes (uint8) of images; shape (N, …): N instances in all, any shape each.
        offsets: integers, shape (B + 1,), first 0, last N, ascending.
        labels: integers ≥ 0 or booleans, shape (B,); or finite numbers of another kind, shape (B,), or several for each
            bag, (B, L), for which `fit` has a loss. None for bags whose label is not known.
        instance_labels: integers, shape (N,); None where they are not known. Never used for training.
        coordinates: finite numbers, shape (N, 2), where in its image each instance lies; None where there is no such.
        names: of the bags, B texts, such as those of slides; `bags["slide_7"]` is that bag.
        classes: names of the classes 0, 1, …; None if the labels are their numbers.

    Raises:
        ValueError: if a shape, a type or a value is not as above; the message names the argument.
    """

    instances: Tensor
    offsets: Tensor
    labels: Tensor | None = None
    instance_labels: Tensor | None = None
    coordinates: Tensor | None = None
    names: Sequence[str] | None = None
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            if (x := getattr(self, part)) is not None or part in ("instances", "offsets"):
                object.__setattr__(self, part, check(part, x, TENSOR))
        n = check_instances("instances", self.instances)
        check_offsets(self.offsets, n)
        if self.labels is not None:
            object.__setattr__(self, "labels", as_labels(self.labels, len(self.offsets) - 1))
        if self.instance_labels is not None:
            check_integers("instance_labels", self.instance_labels, n, "one for each instance")
        if self.coordinates is not None:
            check_coordinates(self.coordinates, n)
        for part in PARTS:
            if (x := getattr(self, part)) is not None and x.device != self.device:
                raise ValueError(f"{part}: expected a tensor on {self.device}, as the instances, got {x.device}")
        object.__setattr__(self, "names", as_names(self.names, len(self)))
        object.__setattr__(self, "classes", as_classes(self.classes, self.labels))

    @staticmethod
    def from_list(
        bags: Sequence[Array],
        labels: Array | Sequence[int] | None = None,
        instance_labels: Sequence[Array] | None = None,
        coordinates: Sequence[Array] | None = None,
        classes: Sequence[Any] | None = None,
        names: Sequence[Any] | None = None,
    ) -> "Bags":
        """Batch from a list of bags, one array of shape (n_b, …) each.

        Args:
            bags: B arrays that agree in everything but their first dimension.
            labels: B labels: classes 0, 1, …, other numbers, or with `classes` any of those.
            instance_labels: B vectors of n_b integers.
            coordinates: B arrays of shape (n_b, 2).
            classes: what the labels are, in the order of their numbers, such as ("MSS", "MSI-H"), (-1, 1) or (1, 2, 3);
                the last of two is the positive one.
            names: B names of the bags.

        Raises:
            ValueError: if there is no bag, a bag is empty, or bags do not agree; the message says which.
        """
        if classes is not None and labels is not None:
            labels = numbered(labels, classes)
        tensors = as_tensors("bags", bags)
        if not tensors:
            raise ValueError("bags: expected at least one bag, got an empty list")
        for i, bag in enumerate(tensors):
            if bag.ndim < 2 or len(bag) == 0:
                raise ValueError(f"bags[{i}]: expected at least one instance, shape (n, …), got {tuple(bag.shape)}")
            if bag.shape[1:] != tensors[0].shape[1:] or bag.dtype != tensors[0].dtype:
                raise ValueError(
                    f"bags[{i}]: expected instances like those of bags[0], "
                    f"{tensors[0].dtype} of shape {tuple(tensors[0].shape[1:])}, "
                    f"got {bag.dtype} of shape {tuple(bag.shape[1:])}"
                )
            check_instances(f"bags[{i}]", bag)
        if all(bag.ndim == 3 and len(bag) == 1 for bag in tensors):
            warn(
                f"bags: each is one instance of shape {tuple(tensors[0].shape[1:])}; if these are features (1, n, d) "
                "of n instances, give bag[0] of each"
            )
        sizes = torch.tensor([0] + [len(bag) for bag in tensors])
        return Bags(
            torch.cat(tensors),
            sizes.cumsum(0).to(tensors[0].device),
            None if labels is None else label_tensor(labels).to(tensors[0].device),
            flatten("instance_labels", instance_labels, tensors),
            flatten("coordinates", coordinates, tensors),
            None if names is None else list(names),
            None if classes is None else list(classes),
        )

    @staticmethod
    def from_frame(
        frame: Any,
        bag: str,
        label: str | None = None,
        features: Sequence[str] | None = None,
        coordinates: tuple[str, str] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> "Bags":
        """Batch from a table that has a row for each instance, and a column that says of which bag it is.

        Args:
            frame: a pandas data frame. The bags come in the order in which they first appear, so that
                `frame[bag].unique()` are their names, and their instances in the order of the rows; the rows of a bag
                need not be together.
            bag: column of the bag.
            label: column of the bag's label, the same in all of its rows: 0 and 1, or 0 to C - 1, or names, numbered in
                sorted order. None: the bags have no labels.
            features: columns of numbers, which become float32; None: all others.
            coordinates: columns of x and y.
            classes: names of all classes in the order of their numbers.

        Raises:
            ValueError: if a column is missing, is no column of finite numbers, or a bag has none or two labels.
        """
        from samil_lite.tables import parts_of_frame  # at first use, since pandas is slow to import

        return Bags(**parts_of_frame(frame, bag, label, features, coordinates, classes))

    @staticmethod
    @checked()
    def from_padded(x: Tensor, mask: Tensor, labels: Tensor | None = None) -> "Bags":
        """Batch from padded bags x of shape (B, n_max, …) and a mask (B, n_max), True at real instances."""
        if mask.dtype != torch.bool or mask.ndim != 2 or mask.shape != x.shape[:2]:
            raise ValueError(
                f"mask: expected booleans of shape {tuple(x.shape[:2])}, got {mask.dtype} of {tuple(mask.shape)}"
            )
        sizes = mask.sum(1)
        return Bags(x[mask], torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]), labels)

    @staticmethod
    def cat(batches: Sequence["Bags"]) -> "Bags":
        """One batch with the bags of all `batches`, in order. A field that one of them lacks is dropped.

        Raises:
            ValueError: if there is none, or they differ in device, in the shape of an instance or in their classes.
        """
        batches = batches if isinstance(batches, list | tuple) else list(check("batches", batches, BATCHES))
        if not batches:
            raise ValueError("batches: expected at least one batch, got an empty list")
        for i, batch in enumerate(batches):
            if not isinstance(batch, Bags) or batch.device != batches[0].device:
                what = f"Bags on {batches[0].device}, as batches[0]" if i else "Bags"
                raise ValueError(f"batches[{i}]: expected {what}, got {shown(batch)}")
        shapes = {tuple(batch.instances.shape[1:]) for batch in batches}
        if len(shapes) > 1:
            raise ValueError(f"batches: expected instances of one shape, got {sorted(shapes)}")
        starts = torch.tensor([0] + [batch.n_instances for batch in batches]).cumsum(0).tolist()
        offsets = [batch.offsets[1:] + start for batch, start in zip(batches, starts, strict=False)]
        joined: dict[str, Any] = {"offsets": torch.cat([batches[0].offsets[:1], *offsets])}
        for name in ("instances", "labels", "instance_labels", "coordinates"):
            parts = [getattr(batch, name) for batch in batches]
            joined[name] = None if any(part is None for part in parts) else torch.cat(parts)
        names = [batch.names for batch in batches]
        joined["names"] = None if None in names else tuple(name for part in names for name in part or ())
        joined["classes"] = _same_classes(batches)
        return _trusted(**joined)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Padded instances (B, n_max, …), zero where there is none, and the mask (B, n_max), True at instances."""
        return pad(self.instances, self.offsets)

    @checked()
    def to(self, device: torch.device | str) -> "Bags":
        """The same bags on another device."""
        later = torch.device(device).type == "cuda"  # what comes next on the card waits for it, this process need not
        return self._each(lambda x: x.to(device, non_blocking=later))

    def pin_memory(self) -> "Bags":
        """The same bags in memory that a CUDA card reads by itself, while the processor goes on."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Bags":
        """The same bags, with each tensor as the function makes it."""
        parts = {name: None if (x := getattr(self, name)) is None else function(x) for name in PARTS}
        return _trusted(**parts, names=self.names, classes=self.classes)

    @property
    def device(self) -> torch.device:
        return self.instances.device

    @property
    def sizes(self) -> Tensor:
        """Number of instances of each bag, shape (B,)."""
        return self.offsets.diff()

    @property
    def n_instances(self) -> int:
        """Number of instances in all bags, N."""
        return len(self.instances)

    @property
    def bag_index(self) -> Tensor:
        """Number of the bag that each instance belongs to, shape (N,)."""
        return bag_index(self.offsets, self.n_instances)

    @checked()
    def split(self, x: Tensor) -> list[Tensor]:
        """Cuts a tensor with one row for each instance into one tensor for each bag, as for attention weights."""
        if x.ndim < 1 or len(x) != self.n_instances:
            raise ValueError(f"x: expected {self.n_instances} rows, one for each instance, got {shown(x)}")
        return list(x.split(self.sizes.tolist()))

    def __len__(self) -> int:
        """Number of bags, B."""
        return len(self.offsets) - 1

    def __getitem__(self, key: Key) -> "Bags":
        """The chosen bags, as a batch again: `bags[3]` holds one bag; slices, lists and masks work as in NumPy.

        A name, or a list of names, chooses the bags that are called so.
        """
        chosen = chosen_bags(key, len(self), self.device, self.names)  # (b,)
        sizes = self.sizes[chosen]
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        # Row r of chosen bag c lies at (where c begins here) + (how far r is from where c begins in the result).
        shift = torch.repeat_interleave(self.offsets[chosen] - offsets[:-1], sizes)
        rows = torch.arange(len(shift), device=self.device) + shift

        def take(x: Tensor | None, index: Tensor) -> Tensor | None:
            return None if x is None else x[index]

        return _trusted(
            instances=self.instances[rows],
            offsets=offsets,
            labels=take(self.labels, chosen),
            instance_labels=take(self.instance_labels, rows),
            coordinates=take(self.coordinates, rows),
            names=None if self.names is None else tuple(self.names[b] for b in chosen.tolist()),
            classes=self.classes,
        )

    def __iter__(self) -> Iterator["Bags"]:
        return (self[b] for b in range(len(self)))

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.instances.shape[1:]))
        classes = "no labels" if self.labels is None else _told(self.labels, self.classes)
        return (
            f"Bags({len(self)} bags of {int(self.sizes.min())} to {int(self.sizes.max())} instances, "
            f"{self.n_instances} in all, {shape} {str(self.instances.dtype).removeprefix('torch.')}, {classes})"
        )


def chosen_bags(key: Key, n: int, device: torch.device | str = "cpu", names: Sequence[str] | None = None) -> Tensor:
    """Numbers of the bags, of n, that an integer, a slice, integers, a mask or names choose, shape (b,).

    Raises:
        IndexError: if a number is out of range or no integer, no bag is chosen, or not just one has the name.
    """
    if isinstance(key, str):
        key = [key]
    if isinstance(key, list | tuple | np.ndarray) and len(key) and all(isinstance(name, str) for name in key):
        key = _named(list(map(str, key)), names)
    if not isinstance(key, slice):
        key = _numbers(key)
    try:
        chosen = np.arange(n)[key].flatten()  # (b,)
    except (IndexError, TypeError) as error:  # the second: a slice from 0.5, say
        raise IndexError(f"bag {key} of {n}: {error}") from None
    if len(chosen) == 0:
        raise IndexError(f"bags[{key}]: expected at least one bag to be chosen of {n}")
    return torch.from_numpy(chosen).to(device)


def _named(keys: list[str], names: Sequence[str] | None) -> list[int]:
    """The number of the bag of each name."""
    if names is None:
        raise IndexError(f"bags[{keys[0]!r}]: these bags have no names; choose by number, or give names=… to make them")
    for key in keys:
        if (times := names.count(key)) != 1:
            near = get_close_matches(key, names, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near and not times else ""
            raise IndexError(f"bags[{key!r}]: expected one bag of this name, there are {times} of {len(names)}{hint}")
    return [names.index(key) for key in keys]


def _numbers(key: Any) -> np.ndarray:
    """What bags are chosen by, as an array of integers or a mask."""
    try:
        array = key.cpu().numpy() if isinstance(key, Tensor) else np.asarray(key)
    except (TypeError, ValueError):
        raise IndexError(f"bags[…]: expected integers, a slice or a mask, got {shown(key)}") from None
    is_number = array.dtype.kind in "iu" or (array.dtype.kind == "b" and array.ndim > 0)  # fractions would be cut off
    if array.size and not is_number:
        raise IndexError(f"bags[{key!r}]: expected integers, a slice or a mask, got {shown(key)}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise IndexError(f"bags[{key!r}]: expected the numbers of bags, got {array.max()}")
    return array if array.dtype == bool else array.astype(np.int64)


def _trusted(**values: Any) -> Bags:
    """Bags made of parts of checked Bags: checking every instance for NaN again would cost more than the work."""
    bags = object.__new__(Bags)
    for name, value in values.items():
        object.__setattr__(bags, name, value)
    return bags


def _told(labels: Tensor, classes: Sequence[str] | None = None) -> str:
    if labels.ndim == 2:
        return f"{labels.shape[1]} labels a bag"
    if labels.is_floating_point():
        return f"labels from {labels.min():g} to {labels.max():g}"
    return f"labels { {n if classes is None else classes[n]: count for n, count in _counts(labels)} }"


def _counts(labels: Tensor) -> list[tuple[int, int]]:
    values, counts = labels.unique(return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def _same_classes(batches: Sequence["Bags"]) -> tuple[str, ...] | None:
    found = {batch.classes for batch in batches}
    if len(found - {None}) > 1:
        raise ValueError(
            "batches: expected one order of classes, got "
            f"{' and '.join(map(str, sorted(found - {None}, key=str)))}; say classes=(…) where the bags are made"
        )
    return None if None in found else next(iter(found))  # type: ignore[return-value]
