"""The two small trained models of the figure "digits": an AbMILP and an SA-AbMILP that share a LeNet5, in 8 bits.

`tools/train_digits.py` trained them and says how. The page computes with the same numbers as the package does here.
"""

import base64
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samil_lite.encoders import LeNet5
from samil_lite.models import MILClassifier, build

WEIGHTS = Path(str(files(__name__.rpartition(".")[0]).joinpath("digits.npz")))


def empty_models() -> dict[str, MILClassifier]:
    """AbMILP and SA-AbMILP (dot product, γ from 1) of width 64, with one encoder for both, before training."""
    encoder = LeNet5(width=64)
    return {
        "abmilp": build("abmilp", encoder, hidden=64),
        "sa-abmilp": build("sa-abmilp", encoder, hidden=64, gamma=1.0),
    }


def digit_models(path: Path = WEIGHTS) -> dict[str, MILClassifier]:
    """The trained models by name, with weights rounded to 8 bits; they share their encoder."""
    models = empty_models()
    with np.load(path, allow_pickle=False) as arrays:
        for name, model in models.items():
            labels = {key: key if key.startswith("encoder") else f"{name}.{key}" for key in model.state_dict()}
            model.load_state_dict({key: _widen(arrays[x], arrays[f"{x}/scale"]) for key, x in labels.items()})
            model.eval()
    return models


def round_to_8_bits(weight: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers from −127 to 127 in the shape of the weight, and the scale of each row (of all, without rows)."""
    rows = weight.reshape(len(weight), -1) if weight.ndim > 1 else weight.reshape(1, -1)
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    whole = (rows / scale).round().to(torch.int8).reshape(weight.shape)
    return whole.numpy(), scale.squeeze(1).numpy()


def packed(path: Path = WEIGHTS) -> dict[str, Any]:
    """All weights for a page: for each its shape, and where in the two base64 strings its numbers and scales begin."""
    with np.load(path, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if not name.endswith("/scale")]
        shapes = {name: list(arrays[name].shape) for name in names}
        whole = np.concatenate([arrays[name].ravel() for name in names])
        scales = np.concatenate([arrays[f"{name}/scale"] for name in names])
    return {"shapes": shapes, "whole": _base64(whole.astype(np.int8)), "scales": _base64(scales.astype("<f4"))}


def tray() -> list[dict[str, Any]]:
    """The first digit of each kind on MNIST's test side, of 7s and 9s two: its name and its 784 bytes in base64."""
    from samil_lite.data.mnist import subset_pool

    _, _, images, digits = subset_pool()
    return [
        {"digit": digit, "pixels": _base64(images[index])}
        for digit in (9, 7, 0, 1, 2, 3, 4, 5, 6, 8)
        for index in _first(digits, digit)
    ]


def _first(digits: np.ndarray, digit: int) -> Iterator[int]:
    yield from np.flatnonzero(digits == digit)[: 2 if digit in (7, 9) else 1].tolist()


def _widen(whole: np.ndarray, scale: np.ndarray) -> torch.Tensor:
    rows = whole.reshape(len(scale), -1) * scale[:, None].astype(np.float64)
    return torch.from_numpy(rows.reshape(whole.shape)).float()


def _base64(x: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()
