"""Settings of the experiments: each has the type of its default and a range; texts of the shell are read as such."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from samil_lite.arguments import Rule, above, at_least, check, check_each, expected_of, one_of
from samil_lite.efficientnet import NAMES
from samil_lite.models import KERNEL_OF, MODELS

Config = dict[str, Any]

# Of photographs: "grouped" keeps duplicates, exposures of one eye and samples in one fold; "photographs" divides them;
# "patches" deals out single patches, so that most photographs are on both sides; "public" is the split that DeFungi
# comes with, which does the same: one test part, and training patches of which a part like the tested one chooses the
# epoch.
OF_PATCHES = ("patches", "public")
SPLITS = ("grouped", "photographs", *OF_PATCHES)

COUNT = at_least(1)
RANGES: dict[str, Rule] = {
    "epochs": COUNT, "patience": COUNT, "bags_per_step": COUNT, "lr": above(0), "weight_decay": at_least(0),
    "gamma_lr": at_least(0), "gamma_weight_decay": at_least(0), "width": COUNT, "pool": one_of(("subset", "full")),
    "mean_size": COUNT, "std_size": at_least(0), "n_train": COUNT, "n_test": COUNT, "n_folds": at_least(3),
    "n_validation": COUNT, "at_most": COUNT, "at_once": COUNT, "shrink": COUNT, "stain": at_least(0),
    "size": COUNT, "height": COUNT, "components": COUNT,
    "split": one_of(SPLITS), "backbone": one_of(NAMES),
}  # fmt: skip
FRACTIONS = ("mean_size", "std_size")  # whole by default, which they need not be
# Numbers that are stored with a point, as in 1.0; others are stored as whole numbers if they are whole.
REAL = ("gamma", "gamma_lr", "gamma_weight_decay", "lr", "stain", "weight_decay")
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def changed(known: Config, changes: Config) -> Config:
    """The settings `known` with the values of `changes`.

    Raises:
        ValueError: if one has a name that is not known, another type than its default, or a value out of its range.
    """
    if unknown := set(changes) - set(known):
        raise ValueError(f"unknown settings {sorted(unknown)}; known are {sorted(known)}")
    checked = {name: check(name, x, expected_of(_type(name, known), RANGES.get(name))) for name, x in changes.items()}
    return normal({**known, **checked})


def from_text(known: Config, texts: dict[str, str]) -> Config:
    """Values as the shell gives them, in the types of the settings `known`; `changed` names those that do not fit."""
    values: Config = {}
    for name, text in texts.items():
        kind = _type(name, known) if name in known else str
        if kind is bool:
            values[name] = WORDS.get(text.lower(), text)
        else:
            values[name] = text if kind is str else _number(text)
    return values


def starts(model: str, gammas: Sequence[float]) -> list[Config]:
    """The starts of γ that a model has: one setting for each if it has self-attention, else one empty one."""
    return [{"gamma": gamma} for gamma in gammas] if model in KERNEL_OF else [{}]


def check_models(models: Sequence[str], known: Sequence[str] = MODELS) -> list[str]:
    return check_each("models", models, expected_of(str, one_of(known)))


def check_numbers(name: str, values: Sequence[int], least: int = 0) -> list[int]:
    """Whole numbers, at least one."""
    return check_each(name, values, expected_of(int, at_least(least)))


def check_gammas(gammas: Sequence[float]) -> list[float]:
    return check_each("gammas", gammas, expected_of(float))


def normal(config: Config) -> Config:
    """The configuration with every number in one form, so that 0 and 0.0, or NumPy's 0, make one record.

    Raises:
        ValueError: if a value cannot be in JSON, or is NaN or infinite.
    """
    return {name: _normal(name, value) for name, value in config.items()}


def _normal(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if not np.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}")
        if name in REAL:
            return float(value)
        return int(value) if float(value).is_integer() else value
    if isinstance(value, list | tuple):
        return [_normal(name, x) for x in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return normal(value)
    raise ValueError(f"{name}: expected a value that JSON can hold, got an object of type {type(value).__name__}")


def _type(name: str, known: Config) -> Any:
    """Type of a setting: that of its default; a number or None where the default is None."""
    if known[name] is None:
        return float | None
    return float if name in FRACTIONS else type(known[name])


def _number(text: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if value is None or isinstance(value, int | float) else text
