"""Models on disk with all that is needed to use them: safetensors, and a JSON header that says what they are.

::

    model.safetensors
      header     format, a digest, and for each model: how it is built, and its card (classes, width, threshold, …)
      0.…, 1.…   the numbers of each model, named as in its `state_dict`

Nothing in such a file is ever executed: a model is built from a fixed list of parts (`PARTS`), and its numbers are read
as numbers.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samil_lite.arguments import at_least, checked
from samil_lite.bags import Bags
from samil_lite.building import construct, describe, differences
from samil_lite.cards import Card, Ensemble, attach, card_of
from samil_lite.writing import write_atomically

FORMAT = 1


@checked(width=at_least(1))
def save(
    model: nn.Module | Sequence[nn.Module],
    path: str | Path,
    *,
    bags: Any = None,
    classes: Sequence[str] | None = None,
    width: int | None = None,
    **card: Any,
) -> Path:
    """Saves a model, or several as an ensemble, with what is needed to use them; see `samil_lite.saving` for the file.

    Args:
        model: a model of `build`, made of the package's parts and PyTorch's usual layers; a list of them, or an
            `Ensemble`. A part of your own class is stored by its name and numbers: `load` then needs a model built
            by you.
        path: of the file, usually `….safetensors`; it appears whole or not at all.
        bags: those it was trained on; they tell classes and width.
        classes: names of the classes, in the order of the logits.
        width: number of features of an instance; by default that of the first linear layer.
        card: other fields of `Card`, such as extractor="resnet18", magnification="20x", threshold=0.4. What the model
            has on a card already, from `cross_validate` or `load`, is kept.

    Returns:
        The path.

    Raises:
        ValueError: if a field is not known, classes or width do not fit the model, or something cannot be written as
            JSON.
    """
    models = list(model) if isinstance(model, Ensemble | list | tuple) else [model]
    if unknown := set(card) - {f.name for f in fields(Card)}:
        raise ValueError(f"{', '.join(sorted(unknown))}: expected fields of a card, {', '.join(_FIELDS)}")
    classes = getattr(bags, "classes", None) if classes is None else classes
    given = {**card, "classes": classes, "width": width, "versions": _versions()}
    if len(models) > 1 and (isinstance(model, Ensemble) or card.get("threshold") is not None):
        given.setdefault("threshold", card_of(model).threshold if isinstance(model, Ensemble) else None)
    given = {name: value for name, value in given.items() if value is not None}
    entries, tensors = [], {}
    for number, member in enumerate(models):
        if not isinstance(member, nn.Module):
            raise ValueError(f"model: expected a model or a list of models, got {type(member).__name__}")
        own = replace(card_of(member), **given)
        own = replace(own, width=_checked_width(member, bags, own.width))
        attach(member, own)
        entries.append({"build": describe(member), "card": asdict(own)})
        for name, x in member.state_dict().items():
            tensors[f"{number}.{name}"] = x.detach().cpu().contiguous().clone()  # two names may share numbers
    try:
        about = json.dumps({"format": FORMAT, "models": entries}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"card: expected values that JSON can hold; {error}") from error
    return _write(Path(path), tensors, about)


@checked()
def load(path: str | Path, model: nn.Module | None = None, device: torch.device | str = "cpu") -> nn.Module:
    """Loads what `save` wrote: the model, or the `Ensemble` of several, in evaluation mode and with its card.

    Args:
        path: of the file.
        model: a model that you built; its numbers are replaced. Needed only if the file's has parts that this package
            does not know. It must be built as the file's: another kernel, width or layer is an error.
        device: where it is put.

    Returns:
        The model; `model.card` says what its classes are called and all else that is known.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or was changed, was made by a newer version, or does not fit `model`; the
            message names both sides.
    """
    entries, tensors = _read(Path(path))
    if model is not None and len(entries) > 1:
        raise ValueError(f"model: {path} holds {len(entries)} models, expected None")
    models = []
    for number, entry in enumerate(entries):
        state = {name.partition(".")[2]: x for name, x in tensors.items() if name.partition(".")[0] == str(number)}
        try:
            card = Card(**entry["card"])
            told = entry["build"]
            built = _built(path, told, state) if model is None else _fitting(path, told, state, model)
            for name, x in built.state_dict(keep_vars=True).items():
                x.data = x.data.to(state[name].dtype)
            built.load_state_dict(state)
            attach(built, card)
        except (TypeError, KeyError, AttributeError, RuntimeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged, or made by a newer version: {error}") from error
        models.append(built.to(device).eval())
    return models[0] if len(models) == 1 else Ensemble(models).eval()


def _built(path: str | Path, told: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """A model as the file says."""
    with torch.device("meta"):  # a header that asks for terabytes gets none
        _check_shapes(path, construct(told, f"{path}: "), state)
    with torch.random.fork_rng(devices=[]):  # loading draws nothing that others would miss
        return construct(told)


def _fitting(path: str | Path, told: dict[str, Any], state: dict[str, Tensor], model: nn.Module) -> nn.Module:
    """The user's model, if it is built as the file says."""
    if found := differences(told, describe(model)):
        raise ValueError(f"{path} holds another model than the one given (file, given): {'; '.join(found)}")
    _check_shapes(path, model, state)
    return model


def _check_shapes(path: str | Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    expected = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    found = {name: tuple(x.shape) for name, x in state.items()}
    if expected != found:
        odd = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        what = ", ".join(f"{name} {expected.get(name)} and {found.get(name)}" for name in odd[:5])
        raise ValueError(f"{path} is damaged: its header and its numbers disagree (header, numbers): {what}")


def _checked_width(model: nn.Module, bags: Any, given: int | None) -> int | None:
    """Width of the instances: of the first linear layer, which what was given must fit."""
    first = next((m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)), None)
    told = first.in_features if isinstance(first, nn.Linear) else None
    of_bags = getattr(bags, "width", None) or (bags.instances.shape[1] if isinstance(bags, Bags) else None)
    for name, value in (("width", given), ("bags", of_bags)):
        if told is not None and value is not None and value != told:
            raise ValueError(f"{name}: the model's first layer takes {told} features, got {value}")
    return told or given or of_bags


def _versions() -> dict[str, str]:
    from samil_lite import __version__

    return {"samil_lite": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _digest(about: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the header and of all numbers. It finds damage and carelessness; it is no signature."""
    found = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        x = tensors[name].contiguous()
        found.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        found.update(x.reshape(-1).view(torch.uint8).numpy().data if x.numel() else b"")
    return found.hexdigest()


def _write(path: Path, tensors: dict[str, Tensor], about: str) -> Path:
    from safetensors.torch import save as to_bytes

    content = to_bytes(tensors, {"samil_lite": about, "sha256": _digest(about, tensors)})
    write_atomically(path, lambda file: file.write(content))
    return path


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What the header says of each model, and all numbers, checked by the digest."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"path: {path} is not there; expected a file that sl.save wrote")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read: expected a file that sl.save wrote; {error}") from error
    if "samil_lite" not in header:
        raise ValueError(f"{path} was not written by sl.save: it has no header that says what its numbers are")
    about = header["samil_lite"]
    if header.get("sha256") != _digest(about, tensors):
        raise ValueError(f"{path} was changed after it was saved: its digest does not fit its content")
    try:
        told = json.loads(about)
        version, entries = told["format"], told["models"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its header cannot be read; {error}") from error
    if version != FORMAT or not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} has format {version}, this version reads {FORMAT}; update samil-lite")
    return entries, tensors


_FIELDS = tuple(f.name for f in fields(Card))
