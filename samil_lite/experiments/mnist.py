"""MNIST bags: a model, an assumption, a number of training bags and a seed make one run."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import torch

from samil_lite.data import KEY_DIGITS, mnist_bags
from samil_lite.encoders import LeNet5
from samil_lite.metrics import attention_auc
from samil_lite.models import build
from samil_lite.training import evaluate, fit, predict

TRAINING: dict[str, Any] = {"epochs": 60, "patience": 15, "bags_per_step": 8, "lr": 5e-4, "weight_decay": 1e-4}
BAGS: dict[str, Any] = {"pool": "full", "mean_size": 10, "std_size": 2, "n_test": 1000, "width": 500}


def cells(
    assumptions: Sequence[str], models: Sequence[str], n_bags: Sequence[int], seeds: Sequence[int], **changes: Any
) -> list[dict[str, Any]]:
    """Every combination, as configurations for `run`; `changes` replace entries of TRAINING and BAGS.

    Runs of one assumption, number of bags and seed share their bags, so models are compared in pairs.
    """
    if unknown := set(changes) - set(TRAINING | BAGS):
        raise ValueError(f"unknown settings {sorted(unknown)}; known are {sorted(TRAINING | BAGS)}")
    return [
        {"assumption": a, "model": m, "n_bags": n, "seed": s, **TRAINING, **BAGS, **changes}
        for s, a, m, n in product(
            seeds, assumptions, models, n_bags
        )  # seeds outermost: early results are whole figures
    ]


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Trains one model and scores it on test bags.

    One validation bag for every four training bags chooses the epoch, by its loss; they are drawn from training
    digits that no training bag uses. `attention_auc` is the mean over positive test bags.
    """
    seed, assumption = config["seed"], config["assumption"]
    sizes = {"train": config["n_bags"], "validation": config["n_bags"] // 4, "test": config["n_test"]}
    bags = {
        split: mnist_bags(
            assumption, n, split, seed, mean_size=config["mean_size"], std_size=config["std_size"], pool=config["pool"]
        )
        for split, n in sizes.items()
    }
    torch.manual_seed(seed)
    model = build(config["model"], LeNet5(config["width"]))
    history = fit(
        model, bags["train"], bags["validation"], seed=seed, progress=False,
        **{name: config[name] for name in TRAINING},
    )  # fmt: skip
    result = {
        **asdict(evaluate(model, bags["test"])),
        "validation_loss": min(history.validation_loss),
        "best_epoch": history.best_epoch,
        "epochs_run": len(history.train_loss),
    }
    positive = bags["test"][bags["test"].labels == 1]
    attention = predict(model, positive).attention
    if attention is not None and positive.instance_labels is not None:
        key = torch.isin(positive.instance_labels, torch.tensor(KEY_DIGITS[assumption]))
        result["attention_auc"] = float(np.nanmean(attention_auc(attention, key, positive.offsets)))
    return result
