"""What tells one run from another: the data by its contents, the model by its classes, options and shapes."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samil_lite.bags import Bags

# Attributes of modules that change how the numbers are computed, not which: a run may go on with others.
FREE = ("training", "chunk_size", "backend", "out_features")


def of_bags(bags: Any) -> dict[str, Any]:
    """Numbers of bags and instances, and digests of labels and contents.

    Contents are instances and offsets, about a second a gigabyte. A source that has a method `digest` says itself what
    its contents are, as bags on disk do by sizes and times of their files; of another source, everything that it holds
    counts: bags, arrays, lists, texts and paths.
    """
    labels = None if bags.labels is None else digest(bags.labels)
    return {"bags": len(bags), "instances": bags.n_instances, "labels": labels, "contents": _contents(bags)}


def of_model(model: nn.Module) -> list[str]:
    """A line for each part, with its class and options, and one for each parameter and buffer, with its shape."""
    lines = [f"{name or 'model'}: {_described(module)}" for name, module in model.named_modules()]
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, x in tensors:
            fixed = ", not trained" if kind == "parameter" and not x.requires_grad else ""
            lines.append(f"{kind} {name}: {tuple(x.shape)}, {str(x.dtype).removeprefix('torch.')}{fixed}")
    return lines


def digest(*parts: Any) -> str:
    """A short text that is another one if any number, type, shape or text of the parts is."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor | np.ndarray):
            x = torch.as_tensor(part).detach().cpu().contiguous()
            found.update(f"{x.dtype} {tuple(x.shape)} ".encode())
            found.update(x.reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(f"{type(part).__name__} {part!r} ".encode())
    return found.hexdigest()[:16]


def _contents(bags: Any) -> str:
    if isinstance(bags, Bags):
        return digest(bags.instances, bags.offsets)
    if hasattr(bags, "digest"):
        return str(bags.digest())
    held = [
        (name, _contents(x) if isinstance(x, Bags) or hasattr(x, "digest") else x)
        for name, x in sorted(getattr(bags, "__dict__", {}).items())
        if isinstance(x, Bags | Tensor | np.ndarray | list | tuple | str | Path) or hasattr(x, "digest")
    ]
    return digest(type(bags).__qualname__, *(part for pair in held for part in pair))


def _described(module: nn.Module) -> str:
    kind = type(module)
    options = [
        f"{name}={getattr(value, '__qualname__', value)}"
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name not in FREE and (_is_plain(value) or hasattr(value, "__qualname__"))
    ]
    return f"{kind.__module__}.{kind.__qualname__}({module.extra_repr()}) {', '.join(options)}".rstrip()


def _is_plain(x: Any) -> bool:
    return isinstance(x, bool | int | float | str | None) or (isinstance(x, tuple) and all(map(_is_plain, x)))
