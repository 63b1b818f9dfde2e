"""The door: what public functions ask of their arguments.

`@checked(lr=above(0))` looks at every argument before the function runs: at its type, which the annotation says, and
at its range, where a rule says one. Numbers are finite, whole numbers are whole, True is no number, and arrays and
lists are taken where a tensor is expected. What does not fit is a ValueError that names the argument, what was expected
and what was given. Functions in the path of every training step look for themselves, without the door.
"""

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


class Rule(NamedTuple):
    """What a value must satisfy beside its type; the text comes after "a number" or, without a space, in its place."""

    text: str
    holds: Callable[[Any], Any]


def at_least(least: float) -> Rule:
    return Rule(f" of at least {_short(least)}", lambda x: x >= least)


def above(limit: float) -> Rule:
    return Rule(f" above {_short(limit)}", lambda x: x > limit)


def between(low: float, high: float, ends: bool = True) -> Rule:
    """A range; without its `ends` if they make no sense, as those of a confidence level."""
    if ends:
        return Rule(f" from {_short(low)} to {_short(high)}", lambda x: low <= x <= high)
    return Rule(f" above {_short(low)} and below {_short(high)}", lambda x: low < x < high)


def one_of(choices: Iterable[str]) -> Rule:
    known = tuple(choices)
    return Rule(f"one of {', '.join(known)}", lambda x: not isinstance(x, str) or x in known)


A_BAG = Rule("Bags, or bags on disk", lambda x: hasattr(x, "n_instances") and not isinstance(x, type))


def filled() -> Rule:
    """Of a text, a list or a tensor: not empty."""
    return Rule(" that is not empty", lambda x: len(x.strip() if isinstance(x, str) else x) > 0)


def _short(x: float) -> str:
    return f"{x:,}" if isinstance(x, int) else f"{x:g}"


def checked(**rules: Rule) -> Callable[[F], F]:
    """Decorator of a public function: checks each argument by its annotation and its rule, and converts it if needed.

    Raises:
        ValueError: from the decorated function: an argument is not what it should be; the message names it.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        expected: dict[str, Expected] = {}

        @wraps(function)
        def door(*args: Any, **kwargs: Any) -> Any:
            if not expected:  # at the first call: reading annotations would make importing slower
                expected.update(_expectations(function, signature, rules))
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                if name in expected:
                    bound.arguments[name] = check(name, value, expected[name], signature.parameters[name].default)
            return function(*bound.args, **bound.kwargs)

        return door  # type: ignore[return-value]

    return decorate


Reader = Callable[[Any], Any]  # gives the value, converted if need be; raises TypeError or ValueError if it is no such


class Expected(NamedTuple):
    """The kinds of values that an argument takes, each with its name and reader, and the rule that holds for all."""

    kinds: tuple[tuple[str, Reader], ...]
    rule: Rule | None = None


def expected_of(annotation: Any, rule: Rule | None = None) -> Expected:
    """What a value of this annotation, under this rule, must be."""
    return Expected(tuple(_kinds(annotation)), rule)


def check(name: str, value: Any, expected: Expected, default: Any = inspect.Parameter.empty) -> Any:
    """The value, converted if need be. The default itself is always taken.

    Raises:
        ValueError: if it is of none of the kinds, or the rule does not hold; the message names the argument.
    """
    if value is default:
        return value
    kinds, rule = expected
    for text, read in kinds:
        try:
            found = read(value)
            if rule is None or text == "None" or rule.holds(found):
                return found
        except (TypeError, ValueError, OverflowError, RuntimeError):
            continue
    texts = [text for text, _ in kinds]
    if rule is not None:
        texts[0] = texts[0] + rule.text if rule.text.startswith(" ") else rule.text
    text = " or ".join(texts)
    raise ValueError(f"{name}: expected {text}, got {shown(value)}{_hint(value, rule)}")


def check_each(name: str, values: Any, expected: Expected) -> list[Any]:
    """The items of a list, one at least; an error says which one does not fit."""
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__") or len(values) == 0:
        raise ValueError(f"{name}: expected a list of at least one, got {shown(values)}")
    return [check(f"{name}[{i}]", value, expected) for i, value in enumerate(values)]


def shown(value: Any) -> str:
    """A value in a message: small ones as they are, large ones by what they are."""
    if isinstance(value, Tensor | np.ndarray) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        kind = "a tensor" if isinstance(value, Tensor) else "an array"
        if value.ndim == 0 and isinstance(value, Tensor) and value.layout == torch.strided:
            return f"{kind} of one number" if value.is_meta else f"{kind}, {value.item()!r}"
        if isinstance(value, Tensor) and value.layout != torch.strided:
            kind = "a sparse tensor"
        return f"{kind} of {str(value.dtype).removeprefix('torch.')}, shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself, not an object of it"
    if isinstance(value, bool | int | float | complex | str | bytes | NoneType | np.generic | Path):
        return repr(value) if len(repr(value)) < 80 else f"{repr(value)[:76]} …"
    if isinstance(value, list | tuple | dict | set | range):
        return repr(value) if len(repr(value)) < 80 else f"a {type(value).__name__} of {len(value)}"
    return f"an object of type {type(value).__name__}"


def columns(name: str, table: Any, *needed: str) -> None:
    """Raises ValueError unless the table has the columns, with the nearest name where one is missing."""
    there = list(map(str, table.columns))
    for column in needed:
        if column not in table:
            near = get_close_matches(column, there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            found = ", ".join(there[:8]) + (" …" if len(there) > 8 else "") or "none"
            raise ValueError(f"{name}: expected a column {column!r}, got {found}{hint}")


def warn(message: str) -> None:
    """A warning that points to the line outside this package that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "samil_lite":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _expectations(function: Callable[..., Any], signature: inspect.Signature, rules: dict[str, Rule]) -> Any:
    if unknown := rules.keys() - signature.parameters.keys():
        raise TypeError(f"{function.__qualname__} has no arguments {sorted(unknown)}")
    hints = get_type_hints(function)
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: expected_of(hints[name], rules.get(name))
        for name, parameter in signature.parameters.items()
        if name in hints and parameter.kind not in variable
    }


def _kinds(annotation: Any) -> list[tuple[str, Reader]]:
    """Name and reader of each kind of value that an annotation allows."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        if Path in parts or torch.device in parts:
            parts = tuple(part for part in parts if part is not str)  # a text stands for a path or a device
        kinds = [kind for part in parts for kind in _kinds(part)]
        return sorted(kinds, key=lambda kind: kind[0] == "None")  # last in messages
    if annotation in SIMPLE:
        return [SIMPLE[annotation]]
    if annotation is Any or isinstance(annotation, TypeVar):
        return [("anything", lambda x: x)]
    if origin is Literal:
        return [(f"one of {', '.join(map(repr, parts))}", lambda x: parts[parts.index(x)])]
    if origin is not None and issubclass(origin, Mapping):
        return [("a dictionary", lambda x: _instance(x, Mapping))]
    if origin is Callable:
        return [("a function", _callable)]
    if origin is not None:
        return [_list_of(parts[0] if parts else Any)]
    if getattr(annotation, "_is_protocol", False):
        return [(PROTOCOLS.get(annotation.__name__, annotation.__name__), lambda x: _like(x, annotation))]
    name = annotation.__name__
    article = "" if name.endswith("s") else "an " if name[0] in "AEIOUaeiou" else "a "
    return [(f"{article}{name}", lambda x: _instance(x, annotation))]


def _list_of(part: Any) -> tuple[str, Reader]:
    """Anything that can be counted and gone through; its items are read too, unless it is an array."""
    kinds = _kinds(part)

    def read(x: Any) -> Any:
        if isinstance(x, str | bytes | Mapping) or not hasattr(x, "__len__") or not hasattr(x, "__iter__"):
            raise TypeError
        if isinstance(x, Tensor | np.ndarray) or getattr(x, "dtype", None) is not None:
            if np.ndim(x) < 1:
                raise TypeError
            return x
        return [check("", item, Expected(tuple(kinds))) for item in x]

    items = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts", SIMPLE[Tensor][0]: "tensors"}
    return f"a list of {items.get(kinds[0][0], kinds[0][0])}", read


def _callable(x: Any) -> Any:
    if not callable(x):
        raise TypeError
    return x


def _instance(x: Any, kind: type) -> Any:
    if not isinstance(x, kind):
        raise TypeError
    return x


def _like(x: Any, protocol: type) -> Any:
    """Has the members of the protocol, and is no tensor, array or list, which have some of them by chance."""
    members = [name for name in vars(protocol) if not name.startswith("_") or name in ("__len__", "__getitem__")]
    if isinstance(x, Tensor | np.ndarray | list | tuple | type) or not all(hasattr(x, name) for name in members):
        raise TypeError
    return x


def _flag(x: Any) -> bool:
    if not isinstance(x, bool | np.bool_):
        raise TypeError
    return bool(x)


def _number(x: Any) -> float:
    if isinstance(x, Tensor | np.ndarray) and x.ndim == 0:
        x = x.item()
    if isinstance(x, bool | np.bool_) or not isinstance(x, int | float | np.number) or not math.isfinite(x):
        raise TypeError
    return float(x)


def _whole(x: Any) -> int:
    if isinstance(x, int | np.integer) and not isinstance(x, bool):
        return int(x)
    if not _number(x).is_integer():
        raise ValueError
    return int(x)


def _text(x: Any) -> str:
    if not isinstance(x, str):
        raise TypeError
    return str(x)


def _tensor(x: Any) -> Tensor:
    """A tensor, or what becomes one without guessing: arrays, series, lists of numbers. Dense ones only."""
    if not isinstance(x, Tensor):
        if isinstance(x, str | bytes | Mapping | NoneType) or not hasattr(x, "__len__"):
            raise TypeError
        array = x if isinstance(x, list | tuple) else np.asarray(x)
        if isinstance(array, np.ndarray) and not array.flags.writeable:  # of a data frame, or mapped from a file
            array = array.copy()
        x = torch.as_tensor(array)
    if x.layout != torch.strided or x.is_complex() or x.is_quantized:
        raise TypeError
    tensor: Tensor = x
    return tensor


def _array(x: Any) -> np.ndarray:
    array = np.asarray(x)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise TypeError
    return array


def _path(x: Any) -> Path:
    if not isinstance(x, str | Path) or not str(x).strip() or "\0" in str(x):
        raise TypeError
    return Path(x)


def _device(x: Any) -> torch.device:
    if not isinstance(x, torch.device | str):
        raise TypeError
    device = torch.device(x)
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(device.type)
    if backend is not None and not backend.is_available():
        raise ValueError
    return device


PROTOCOLS = {"BagSource": "Bags, or an object that makes the chosen ones when needed"}
SIMPLE: dict[Any, tuple[str, Reader]] = {
    bool: ("True or False", _flag),
    int: ("a whole number", _whole),
    float: ("a number", _number),
    str: ("a text", _text),
    Tensor: ("a tensor (dense, of real numbers)", _tensor),
    np.ndarray: ("an array", _array),
    Path: ("a path", _path),
    torch.device: ("a device that this machine has, such as 'cpu'", _device),
    NoneType: ("None", lambda x: _instance(x, NoneType)),
}


def _hint(value: Any, rule: Rule | None) -> str:
    """The nearest of the choices, if a text is none of them."""
    if rule is None or not rule.text.startswith("one of ") or not isinstance(value, str):
        return ""
    near = get_close_matches(value, rule.text.removeprefix("one of ").split(", "), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
