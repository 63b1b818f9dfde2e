"""Runs a student's answer for the checks, and says in words what is wrong with what comes out."""

import inspect
from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

Function = Callable[..., Any]


class CheckError(AssertionError):
    """An answer does not have a property that it should have."""


class Unanswered(CheckError, NotImplementedError):  # noqa: N818
    """Nothing is filled in yet."""


def difference(value: Any, expected: Any, tolerance: float, strict: bool = True) -> str:
    """How a value differs from the expected one, in words; empty if it does not."""
    if isinstance(expected, tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(expected):
            return f"there should be {len(expected)} results, not {describe(value)}"
        found = [difference(v, e, tolerance, strict) for v, e in zip(value, expected, strict=True)]
        return next((f"result {i}: {problem}" for i, problem in enumerate(found, 1) if problem), "")
    if isinstance(expected, (bool, np.bool_)) or not isinstance(expected, (Tensor, np.ndarray, list, Number)):
        same = isinstance(value, Tensor) and value.numel() == 1 and isinstance(expected, (bool, np.bool_))
        value = value.item() if same or isinstance(value, np.bool_) else value
        fits = isinstance(value, bool) if isinstance(expected, (bool, np.bool_)) else True
        return "" if fits and value == expected else f"should be {expected!r}, not {value!r}"[:300]
    if strict and isinstance(expected, Tensor):
        if not isinstance(value, Tensor):
            return f"the result should be a torch tensor, not {describe(value)}"
        if value.dtype != expected.dtype:
            return f"the numbers should be of type {expected.dtype}, not {value.dtype}; keep the type of the arguments"
    try:
        a, b = (torch.as_tensor(x).detach().cpu() for x in (value, expected))
    except (TypeError, ValueError, RuntimeError):
        return f"expected numbers, not {describe(value)}"
    if a.dtype == torch.bool != b.dtype:
        return f"expected numbers, not {describe(value)}"
    if a.shape != b.shape:
        return f"the shape should be {tuple(b.shape)}, not {tuple(a.shape)}"
    a, b = a.double(), b.double()
    close = torch.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return ""
    first = [int(i) for i in (~close).nonzero()[0]]
    place = f"number {first}" if first else "the number"
    more = f"; {int((~close).sum())} of {close.numel()} are wrong" if close.numel() > 1 else ""
    return f"{place} should be {float(b[tuple(first)]):.6g}, but is {float(a[tuple(first)]):.6g}{more}"


def run(f: Function, arguments: Sequence[Any]) -> Any:
    """f of the arguments; an error in it, no result, or changed arguments become a CheckError."""
    before = [a.detach().clone() if isinstance(a, Tensor) else repr(a) for a in arguments]
    try:
        y = f(*arguments)
    except CheckError:
        raise
    except NotImplementedError as error:
        raise Unanswered("nothing is filled in yet") from error
    except Exception as error:
        text = f"for {names(f, arguments)} it stops with {type(error).__name__}: {str(error)[:200]}"
        hints = {
            "numpy()": "compute with torch, so that gradients can flow",
            "in-place": "do not change an argument in place",
        }
        hint = next((f"; {hint}" for text_of, hint in hints.items() if text_of in str(error)), "")
        raise CheckError(text + hint + globals_hint(f)) from error
    for name, a, b in zip(parameters(f, len(arguments)), arguments, before, strict=False):
        if not _unchanged(a, b):
            raise CheckError(f"the function changes its argument {name} in place; work on a copy")
    return filled(y, "the result")


def _unchanged(a: Any, before: Any) -> bool:
    if not isinstance(before, Tensor):
        return bool(repr(a) == before)
    return bool(a.shape == before.shape and torch.equal(a.detach().nan_to_num(), before.nan_to_num()))


def filled(value: Any, what: str) -> Any:
    """The value, if there is one."""
    if value is None or value is Ellipsis:
        raise Unanswered(f"{what} is {value}: nothing is filled in yet, or a return is missing")
    return value


def tensor(value: Any, what: str) -> Tensor:
    """The value without its graph, if it is a tensor."""
    if not isinstance(filled(value, what), Tensor):
        raise CheckError(f"{what} should be a torch tensor, not {describe(value)}")
    return value.detach()  # type: ignore[no-any-return]


def as_list(y: Any) -> list[Any]:
    """The results of a function, which may be one or several."""
    return list(y) if isinstance(y, (tuple, list)) else [y]


def parameters(f: Function, n: int) -> list[str]:
    """The names of n arguments of f; numbers where it does not tell."""
    try:
        known = list(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        known = []
    return known if len(known) == n else [str(i) for i in range(1, n + 1)]


def names(f: Function, arguments: Sequence[Any]) -> str:
    """The arguments in words: `h of shape (6, 2), r = 0.5 (torch.float32)`."""
    words = []
    for name, a in zip(parameters(f, len(arguments)), arguments, strict=True):
        small = not isinstance(a, Tensor) or (a.numel() <= 8 and not a.is_floating_point())
        value = a.tolist() if isinstance(a, Tensor) else a
        words.append(f"{name} = {str(value)[:80]}" if small else f"{name} of shape {tuple(a.shape)}")
    types = {a.dtype for a in arguments if isinstance(a, Tensor) and a.is_floating_point()}
    return ", ".join(words) + "".join(f" in {t}" for t in types) if words else "no arguments"


def globals_hint(f: Function, depth: int = 2) -> str:
    """A hint where the function, or one that it calls, reads a tensor of the notebook in place of its arguments."""
    code, space = getattr(f, "__code__", None), getattr(f, "__globals__", {})
    for name in code.co_names if code else ():
        if isinstance(space.get(name), Tensor):
            return f"; it reads the notebook's variable {name}: use the arguments only"
        if depth and inspect.isfunction(space.get(name)) and (hint := globals_hint(space[name], depth - 1)):
            return hint
    return ""


def describe(value: object) -> str:
    """A value of the wrong kind in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}"
    article = "an" if type(value).__name__[:1] in "aeiou" else "a"
    return f"{article} {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (list, tuple, dict)) else "")
