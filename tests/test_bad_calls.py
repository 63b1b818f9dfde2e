"""Every documented function is called with arguments that make no sense: each must be named, none taken silently.

`python tests/test_bad_calls.py` makes all calls and counts what became of them (make fuzz); the test makes a sample. A
function that is added to book/api.md is called too: it takes its arguments from `COMMON` by their names, or needs an
entry in `OWN`.
"""

import importlib
import inspect
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import samil_lite as sl
from samil_lite import audit
from samil_lite.data.synthetic import write_features

API = Path(__file__).parents[1] / "book" / "api.md"
# Left out, each with tests of its own: figures that live in the page, checks of students' answers, what needs packages
# or data that are not everywhere, plain records, estimators (scikit-learn asks them to check in fit), frozen backbones,
# runs whose configuration `cells` has checked, and
# scores of records, whose tables have many columns.
LEFT_OUT = re.compile(
    r"explorables|widgets|checks\.|default_device|BagSource|FailedCellsError|onnx|report|score_figures"
    r"|data\.(histology|fungi|defungi|idrid|retina|musk|slides|download)|data\.features\.FeatureBags"
    r"|cross_validation\.CrossValidation|cards\.Card|backbones|sklearn|public_checkpoints|pretrained_lite"
    r"|experiments\.\w+\.(run|stored_folds)$|experiments\.(nuclei|scores|ledger)"
    r"|experiments\.(mnist|unit_tests|attributions)\.(summary|differences|scores)$|experiments\.tabular\.by_fold|viz\.(show|stepper)$|kernel_attention\.plan"
    r"|segments|checkpoints\.History|metrics\.Metrics|evaluation\.(Evaluation|ClassMetrics|Errors)|kernels\.(Kernel$|squared|dot|l1)"
)
NAMED = (ValueError, TypeError, IndexError, OSError, ImportError, FloatingPointError)


def documented() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions and classes of book/api.md, by the name without the package's."""
    for name, members in re.findall(
        r"automodule:: (\S+)\n +:members:((?:.*\n)(?: {2,}.*\n)*?)(?=\S|\n)", API.read_text()
    ):
        if LEFT_OUT.search(name):
            continue
        module = importlib.import_module(name)
        chosen = [one.strip() for one in members.split(",") if one.strip()]
        own = [n for n, x in vars(module).items() if getattr(x, "__module__", "") == name and not n.startswith("_")]
        for one in chosen or own:
            thing, full = getattr(module, one), f"{name}.{one}".removeprefix("samil_lite.")
            if callable(thing) and not LEFT_OUT.search(full) and not hasattr(thing, "_fields"):
                yield full, thing
    yield "bags.Bags", sl.Bags
    for method in ("from_list", "from_padded", "cat"):
        yield f"bags.Bags.{method}", getattr(sl.Bags, method)


def world(folder: Path) -> dict[str, Any]:
    """Arguments that go together, by their names."""
    torch.manual_seed(0)
    x = [torch.randn(n, 6) for n in (3, 4, 2, 5, 3, 4)]
    bags = sl.Bags.from_list(x, [0, 1] * 3, coordinates=[torch.rand(len(one), 2) for one in x])
    n, offsets = bags.n_instances, bags.offsets
    key = torch.zeros(n, dtype=torch.bool)
    key[offsets[:-1]] = True
    runs = pd.DataFrame({"model": ["a", "b"] * 4, "n": [1, 1, 2, 2] * 2, "auc": np.linspace(0.5, 0.9, 8)})
    write_features(folder / "slides")
    return {
        "bags": bags, "train": bags, "model": sl.build("gsa-abmilp", nn.Identity(), dim=6), "x": bags.instances,
        "h": bags.instances, "q": bags.instances, "k": bags.instances, "v": bags.instances, "offsets": offsets,
        "logits": torch.randn(6), "labels": bags.labels, "attention": torch.rand(n), "key": key, "n": n,
        "kinds": key[:, None], "indices": torch.tensor([0, 2]), "values": [1.0, 2.0, 4.0], "a": [1.0, 2.0, 4.0],
        "b": [1.0, 3.0, 2.0], "scores": torch.rand(n), "removed": torch.rand(n) > 0.9, "table": runs, "dim": 6,
        "encoder": nn.Identity(), "pool": sl.MeanPool(), "instances": bags.instances, "history": sl.History([1.0, 0.5]),
        "folder": folder / "slides", "path": folder / "new", "figures": [], "value": "auc", "by": "model",
        "n_classes": 1, "progress": False, "epochs": 1, "models": sl.build("abmilp", nn.Identity(), dim=6),
        "y": "auc", "tests": ["bag size"], "assumptions": ["standard"], "n_bags": [8], "seeds": [0], "repeats": [0],
        "batches": [bags, bags], "mask": torch.ones(2, 3, dtype=torch.bool), "name": "abmilp", "bag": bags[0],
        "n_folds": 2, "seed": 0, "kernel": "rbf", "width": 6, "names": ["a", "b"], "titles": ["t"], "p": [0.1, 0.9],
        "positive": [False, True], "train_auc": [0.9, 0.8], "test_auc": [0.9, 0.8], "build": lambda: None,
    }  # fmt: skip


def own(w: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arguments of functions for which those of `world` are the wrong ones."""
    images = sl.data.mnist_bags(n_bags=2, mean_size=3)
    colours = sl.Bags((images.instances.expand(-1, 3, -1, -1) * 30 + 50).to(torch.uint8), images.offsets, images.labels)
    beta = [torch.full((2, 2), 0.5)]
    marks = {"attention": torch.rand(images.n_instances), "key": torch.rand(images.n_instances) > 0.5}
    data = {"data": ["musk1"], "models": ["abmilp"], "repeats": [0]}
    effects = w["table"].assign(effect=0.1, low=-0.1, high=0.3)
    predicted = sl.predictions(w["models"], w["bags"], groups=list("aabbcc"))
    return {
        "bags.Bags.from_list": {"bags": [torch.ones(2, 3)] * 2, "labels": [0, 1]},
        "bags.Bags.from_padded": {"x": torch.ones(2, 3, 4), "mask": w["mask"], "labels": torch.tensor([0, 1])},
        "viz.bag": {"bags": images, **marks}, "viz.describe_bag": {"bags": images, **marks},
        "viz.self_attention": {"weights": beta, "names": ["a", "b"], "titles": ["t"]},
        "viz.describe_self_attention": {"weights": beta, "names": ["a", "b"], "titles": ["t"]},
        "viz.curves": {"table": w["table"], "x": "n", "y": "auc", "by": "model"},
        "viz.describe_curves": {"table": w["table"], "x": "n", "y": "auc", "by": "model"},
        "viz.forest": {"names": ["a", "b"], "effects": [(0.1, 0.0, 0.2), (-0.1, -0.3, 0.1)], "label": "difference"},
        "viz.forests": {"table": effects, "by": "model", "groups": "n", "label": "auc"},
        "viz.describe_forests": {"table": effects, "by": "model", "groups": "n", "label": "auc"},
        "augment.normalise_lab": {"bags": colours}, "backbones.frozen_features": {
            "bags": colours, "backbone": nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "progress": False},
        "experiments.mnist.cells": {"assumptions": ["standard"], "models": ["abmilp"], "n_bags": [8], "seeds": [0]},
        "experiments.crossval.cells": {"data": ["colon"], "models": ["abmilp"], "repeats": [0], "folds": [0]},
        "experiments.photographs.cells": {"data": ["idrid"], "models": ["abmilp"], "repeats": [0]},
        "experiments.attributions.cells": {"data": ["colon"], "models": ["abmilp"], "seeds": [0]},
        "experiments.tabular.cells": data,
        "experiments.unit_tests.cells": {"tests": ["bag size"], "models": ["abmilp"], "seeds": [0]},
        "experiments.records.load_table": {"folder": sl.experiments.RESULTS / "tables_settings"},
        "metrics.check_labels": {"labels": w["labels"], "n_classes": 1},
        "scoring.score_table": {"table": predicted, "resamples": 100}, "predicting.by_group": {
            "table": sl.predictions(w["models"], w["bags"], groups=list("abcdef"))},
        "segments.segment_rank": {"x": torch.rand(w["n"]), "offsets": w["offsets"]}, "limits.Limited": {
            "bags": w["bags"], "max_instances": 3}, "cards.Ensemble": {"models": [w["models"]] * 2},
        "cross_validation.cross_validate": {
            "bags": w["bags"], "build": lambda: sl.build("abmilp", nn.Identity(), dim=6), "folds": 3, "epochs": 1,
            "progress": False},
        "audit.unit_test": {"build": lambda: audit.noisy_or(audit.mlp(4), 4), "name": "single concept", "n_train": 8,
            "n_test": 8, "epochs": 1, "progress": False},
        "experiments.grid.run_grid": {"cells": [{"i": 0}], "run": dict, "folder": w["path"].parent, "progress": False},
        "data.mnist.mnist_bags": {"n_bags": 4}, "data.features.feature_bags": {
            "folder": w["folder"], "table": w["folder"] / "labels.csv"},
        "evaluation.number_errors": {"predicted": torch.randn(6), "labels": torch.rand(6)},
        "saving.save": {"model": w["model"], "path": w["path"]}, "folds.make_folds": {
            "labels": w["labels"], "n_folds": 2, "seed": 0},
        "audit.mlp": {"hidden": 4}, "audit.attribution": {
            "model": w["model"], "bags": w["bags"], "method": "attention"},
        "audit.verdict": {"name": "bag size", "train_auc": [0.9, 0.8], "test_auc": [0.9, 0.8]},
        "audit.agreement": {"scores": [torch.rand(len(w["x"]))] * 2, "offsets": w["offsets"]}, "audit.noisy_or": {
            "encoder": nn.Identity(), "dim": 6},
        "export.geojson": {"bag": w["bag"], "values": torch.rand(3), "path": w["path"], "patch_size": 0.1},
        "export.csv": {"bag": w["bag"], "values": torch.rand(3), "path": w["path"], "patch_size": 0.1},
        "heatmap.heatmap": {"bag": w["bag"], "values": torch.rand(3), "patch_size": 0.1},
        "heatmap.describe_heatmap": {"bag": w["bag"], "values": torch.rand(3)},
        "heatmap.beta_row": {"model": w["model"], "bag": w["bag"], "patch": 0},
        "pooling.AttentionPool": {"dim": 6}, "encoders.LeNet5": {"width": 6}, "encoders.PatchCNN": {"width": 6},

    }  # fmt: skip


JUNK: dict[Any, list[Any]] = {
    int: ["x", None, 1.5, float("nan"), float("inf"), [1, 2], object()],
    float: ["x", None, float("nan"), [1, 2], object()],
    bool: ["no", None, 2, object()],
    str: [5, None, object(), ["a"]],
    torch.Tensor: ["x", None, 5, object(), [["a"]], torch.eye(3, dtype=torch.cfloat), torch.eye(3).to_sparse()],
    sl.Bags: ["x", None, 5, object(), torch.ones(3, 6), [torch.ones(3, 6)]],
    nn.Module: ["x", None, 5, object(), nn.Identity],
    Path: [5, None, object(), ""],
    pd.DataFrame: [5, None, "x", object(), pd.DataFrame(), pd.DataFrame({"other": [1]})],
}
KINDS = ("Tensor", "DataFrame", "Bags", "Module", "Path", "bool", "int", "float", "str")


def junk_for(name: str, parameter: inspect.Parameter, hint: Any, good: Any) -> list[Any]:
    """Values that cannot be right for a parameter of this annotation."""
    text = str(hint)
    if hint in (Any, inspect.Parameter.empty) and isinstance(good, sl.Bags):
        text = "Bags"
    found = [kind for kind in JUNK if kind.__name__ in KINDS and re.search(rf"\b{kind.__name__}\b", text)]
    is_list = any(word in text for word in ("Sequence", "Iterable", "list", "dict", "Mapping", "Callable", "Any]"))
    unsure = [object()] if found or is_list else []
    values = JUNK[found[0]] if len(found) == 1 and not is_list else unsure
    values = [x for x in values if not (x is None and ("None" in text or parameter.default is None))]
    if isinstance(good, torch.Tensor) and good.ndim and not is_list:
        values += [torch.cat([good, good[:1]])] if name in ("attention", "key", "labels", "offsets", "mask") else []
        values += [good * float("nan")] if good.is_floating_point() and name in ("attention", "logits") else []
    return values


def calls(full: str, function: Callable[..., Any], arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names of parameters and values that make no sense for them."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = get_type_hints(inspect.unwrap(target))
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        for value in junk_for(name, parameter, hints.get(name, Any), arguments.get(name, parameter.default)):
            yield name, value


def outcome(function: Callable[..., Any], arguments: dict[str, Any], name: str) -> str:
    """What becomes of a call: named, raw (an error that does not say which argument), or silent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**arguments)
    except NAMED as error:
        text = str(error)
        said = name in text or "expected" in text
        return "named" if said else f"raw: {type(error).__name__}: {text[:100]}"
    except Exception as error:
        return f"raw: {type(error).__name__}: {str(error)[:100]}"
    finally:
        mpl.pyplot.close("all")
    return "silent"


def examples(folder: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Every documented function with arguments that fit; a function of which some are not known gets none."""
    w = world(folder)
    special = own(w)
    found = {}
    for full, function in documented():
        parameters = inspect.signature(function).parameters.values()
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        arguments = special.get(full, {name: w[name] for name in needed if name in w})
        found[full] = (function, arguments)
    return found


def count(folder: Path, every: int = 1) -> tuple[Counter, list[str]]:
    """What became of all bad calls, or of one in so many, and those that were not named."""
    counts, bad = Counter(), []
    number = 0
    for full, (function, arguments) in examples(folder).items():
        for name, value in calls(full, function, arguments):
            number += 1
            if number % every:
                continue
            what = outcome(function, {**arguments, name: value}, name)
            counts[what.partition(":")[0]] += 1
            if what != "named":
                bad.append(f"{full}({name}={str(value)[:40]!r}) → {what}")
    return counts, bad


@pytest.mark.filterwarnings("ignore")
def test_the_arguments_fit_but_for_the_bad_one(tmp_path):
    """A call that fails anyhow would prove nothing."""
    broken = [
        f"{full}: {what}"
        for full, (function, arguments) in examples(tmp_path).items()
        if (what := outcome(function, arguments, "")) != "silent"
    ]
    assert broken == []


@pytest.mark.filterwarnings("ignore")
def test_bad_calls_are_named(tmp_path):
    counts, bad = count(tmp_path, every=3)
    assert counts.total() > 200
    assert len(bad) < 0.02 * counts.total(), "\n".join(bad)


if __name__ == "__main__":
    mpl.use("Agg")
    with tempfile.TemporaryDirectory() as place:
        totals, unnamed = count(Path(place))
    print(*unnamed, sep="\n")
    print(f"{totals.total()} bad calls: {dict(totals)}; not named: {100 * len(unnamed) / totals.total():.1f} %")
    sys.exit(len(unnamed) >= 0.02 * totals.total())
