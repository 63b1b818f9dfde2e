"""The parts of bags: tensors of what users hand over, checked, with errors that name the argument."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samil_lite.arguments import check, expected_of, shown

Array = Tensor | np.ndarray
TENSOR = expected_of(Tensor)


def check_instances(name: str, x: Tensor) -> int:
    if x.ndim < 2 or (len(x) > 0 and x.numel() == 0):
        raise ValueError(f"{name}: expected shape (N, …), at least one number in each instance, got {tuple(x.shape)}")
    if x.dtype == torch.uint8:
        return len(x)
    if not x.is_floating_point():
        raise ValueError(f"{name}: expected floating-point or uint8 instances, got {x.dtype}; convert with .float()")
    if x.detach().sum().isfinite():  # then every part is; this takes no memory, unlike a mask of all
        return len(x)
    finite = torch.isfinite(x)
    if not finite.all():
        row = int((~finite).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"{name}: expected finite values, but instance {row} holds NaN or infinity")
    return len(x)


def check_integers(name: str, x: Tensor, length: int, which: str) -> None:
    if x.is_floating_point() or x.shape != (length,):
        raise ValueError(f"{name}: expected {length} integers, {which}, got {x.dtype} of shape {tuple(x.shape)}")


def numbered(labels: Any, classes: Sequence[Any]) -> list[int]:
    """The place of each label among the classes."""
    order, found = list(classes), labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if isinstance(classes, str) or not order or len(set(order)) < len(order):
        raise ValueError(f"classes: expected each class once, got {shown(classes)}")
    if unknown := [label for label in found if label not in order]:
        raise ValueError(f"labels: expected {', '.join(map(str, order))}, the classes, got {unknown[0]!r}")
    return [order.index(label) for label in found]


def as_names(names: Any, n: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not hasattr(names, "__len__") or len(names) != n:
        raise ValueError(f"names: expected {n} names, one for each bag, got {shown(names)}")
    return tuple(map(str, names))


def as_classes(classes: Any, labels: Tensor | None) -> tuple[str, ...] | None:
    """Names of classes; None where they are no more than the numbers."""
    if classes is None:
        return None
    found = () if isinstance(classes, str) else tuple(map(str, classes))
    if len(found) < 1 or len(set(found)) < len(found):
        raise ValueError(f"classes: expected the name of each class once, got {shown(classes)}")
    if labels is not None and labels.ndim == 1 and int(labels.max()) >= len(found):
        raise ValueError(f"classes: expected at least {int(labels.max()) + 1} names for these labels, got {found}")
    return None if found == tuple(map(str, range(len(found)))) else found


def label_tensor(labels: Any) -> Tensor:
    try:
        return check("labels", labels, TENSOR)  # type: ignore[no-any-return]
    except ValueError as error:
        raise ValueError(f"{error}; say classes=(…) in the order of their numbers if these are names") from None


def as_labels(x: Tensor, n: int) -> Tensor:
    """Labels, whole numbers as 64-bit integers, others as 32-bit floats; a single column is a vector."""
    x = x.squeeze(1) if x.ndim == 2 and x.shape[1] == 1 else x
    if x.ndim not in (1, 2) or len(x) != n or x.numel() == 0:
        raise ValueError(f"labels: expected {n} integers, one for each bag, got {x.dtype} of shape {tuple(x.shape)}")
    if x.is_floating_point():
        if not x.isfinite().all():
            raise ValueError("labels: expected finite numbers, got NaN or infinity")
        return x.float()
    if (x < 0).any():
        raise ValueError(f"labels: expected classes 0, 1, …, got {int(x.min())}; number them from 0")
    return x.long()


def check_coordinates(x: Tensor, n: int) -> None:
    if x.shape != (n, 2):
        raise ValueError(f"coordinates: expected shape ({n}, 2), got {tuple(x.shape)}")
    if x.dtype == torch.bool or not x.isfinite().all():
        what = "booleans" if x.dtype == torch.bool else "NaN or infinity"
        raise ValueError(f"coordinates: expected finite numbers, got {what}")


def as_tensors(name: str, parts: Any) -> list[Tensor]:
    """One tensor for each bag; an error says which one is none."""
    if isinstance(parts, str | bytes | dict) or not hasattr(parts, "__iter__"):
        raise ValueError(f"{name}: expected a list with one array for each bag, got {shown(parts)}")
    return [check(f"{name}[{i}]", part, TENSOR) for i, part in enumerate(parts)]


def flatten(name: str, parts: Sequence[Array] | None, bags: list[Tensor]) -> Tensor | None:
    """Joins one array for each bag; their lengths must be those of the bags."""
    if parts is None:
        return None
    tensors = [part.to(bags[0].device) for part in as_tensors(name, parts)]
    lengths, expected = [len(part) if part.ndim else 1 for part in tensors], [len(bag) for bag in bags]
    if lengths != expected or len({part.shape[1:] for part in tensors}) > 1:
        raise ValueError(f"{name}: expected one array for each bag, of lengths {expected}, got {lengths}")
    return torch.cat(tensors)
