"""Cross-validation on small sets of images: a data set, a model, a repeat and a fold make one run."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from samil_lite.augment import Dihedral, StainJitter, normalise_lab
from samil_lite.bags import Bags
from samil_lite.encoders import PatchCNN
from samil_lite.experiments.records import RESULTS, write_record
from samil_lite.metrics import attention_auc, attention_entropy, bag_metrics, precision_at_k, top_share
from samil_lite.models import KERNEL_OF, build
from samil_lite.training import fit, predict

DATA = {"colon": 27, "breast": 32}  # name: height and width of its patches
TRAINING: dict[str, Any] = {"epochs": 40, "patience": 12, "bags_per_step": 4, "lr": 1e-4, "weight_decay": 5e-4}
# Training sees so many instances of a bag at most, drawn anew in every epoch; validation and test see all.
SETTINGS: dict[str, Any] = {"n_folds": 10, "grouped": False, "at_most": 32, "lab": True, "stain": 0.02}
FOLDS = RESULTS / "folds"
SCORES = ("accuracy", "precision", "recall", "f_score", "auc")


class Subsampled:
    """Bags of which each look takes a random subset of at most `at_most` instances a bag, on PyTorch's generator."""

    def __init__(self, bags: Bags, at_most: int) -> None:
        self.bags, self.at_most = bags, at_most
        self.labels, self.n_instances = bags.labels, bags.n_instances

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, key: Tensor) -> Bags:
        bags = self.bags[key]
        lottery = torch.rand(bags.n_instances)  # (N,)
        order = (bags.bag_index + lottery).argsort()  # (N,), bag after bag, shuffled within each
        place = torch.arange(bags.n_instances) - bags.offsets[:-1][bags.bag_index]  # (N,), 0, 1, … in each bag
        rows = order[place < self.at_most]
        offsets = torch.cat([bags.offsets[:1], bags.sizes.clamp_max(self.at_most).cumsum(0)])
        return Bags(bags.instances[rows], offsets, bags.labels)


def cells(
    data: Sequence[str],
    models: Sequence[str],
    repeats: Sequence[int],
    gammas: Sequence[float] = (0.0, 1.0),
    folds: Sequence[int] | None = None,
    **changes: Any,
) -> list[dict[str, Any]]:
    """Every combination, as configurations for `run`, repeats outermost.

    Args:
        data: names in DATA.
        models: names that `build` knows.
        repeats: each has folds of its own, the same for all models.
        gammas: where γ starts, for the models with self-attention; other models have one cell.
        folds: numbers of the folds to test on; all if None.
        changes: replace entries of TRAINING and SETTINGS.
    """
    known = {**TRAINING, **SETTINGS}
    if unknown := set(changes) - set(known):
        raise ValueError(f"unknown settings {sorted(unknown)}; known are {sorted(known)}")
    if unknown := set(data) - set(DATA):
        raise ValueError(f"data: unknown {sorted(unknown)}; known are {sorted(DATA)}")
    settings = {name: changes.get(name, value) for name, value in known.items()}
    return [
        {"data": d, "model": m, "repeat": r, "fold": f, **settings, **start}
        for r, d, m in product(repeats, data, models)
        for start in ([{"gamma": gamma} for gamma in gammas] if m in KERNEL_OF else [{}])
        for f in (range(settings["n_folds"]) if folds is None else folds)
    ]


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Trains one model without one fold, and scores it on that fold.

    The fold after the one tested, a tenth of the bags, chooses the epoch by its loss. (The public code leaves four or
    five images for this.) Stored are the logits of the tested bags, for `summary`, and, where instance labels are known
    and the model has attention, how attention relates to them in each positive bag: see `samil_lite.metrics`.
    """
    bags, groups = load(config["data"], config["lab"])
    fold = stored_folds(config, bags, groups)  # (B,)
    test, validation = fold == config["fold"], fold == (config["fold"] + 1) % config["n_folds"]
    seed = 1000 * config["repeat"] + config["fold"]
    torch.manual_seed(seed)
    augment = nn.Sequential(StainJitter(config["stain"]), Dihedral())
    start = {"gamma": config["gamma"]} if "gamma" in config else {}
    model = build(config["model"], PatchCNN(DATA[config["data"]], augment=augment), **start)
    train = Subsampled(bags[~(test | validation)], config["at_most"])
    settings = {name: config[name] for name in TRAINING}
    history = fit(model, train, bags[validation], seed=seed, progress=False, **settings)
    tested = bags[test]
    output = predict(model, tested, bags_per_step=4)
    assert tested.labels is not None
    result = {
        "bags": test.nonzero().squeeze(1).tolist(),
        "labels": tested.labels.tolist(),
        "logits": [round(x, 4) for x in output.logits.tolist()],
        "validation_loss": min(history.validation_loss),
        "best_epoch": history.best_epoch,
        "epochs_run": len(history.train_loss),
    }
    if tested.instance_labels is not None and output.attention is not None:
        result |= _attention_scores(output.attention, tested)
    return result


def _attention_scores(attention: Tensor, bags: Bags) -> dict[str, list[float | None]]:
    """For each positive bag: how attention ranks the epithelial nuclei, how concentrated it is; None if undefined."""
    assert bags.instance_labels is not None
    key = bags.instance_labels == 1
    scores = {
        "attention_auc": attention_auc(attention, key, bags.offsets),
        "precision_at_k": precision_at_k(attention, key, bags.offsets),
        "top_tenth": top_share(attention, bags.offsets),
        "entropy": attention_entropy(attention, bags.offsets),
    }
    positive = bags.labels == 1
    return {
        name: [round(x, 4) if np.isfinite(x) else None for x in torch.as_tensor(values)[positive].tolist()]
        for name, values in scores.items()
    }


@cache
def load(data: str, lab: bool) -> tuple[Bags, list[str] | None]:
    """The bags of a data set from `SAMIL_DATA`, and the slide of each where it is known."""
    from samil_lite.data import breast_bags, breast_slides, colon_bags

    bags = colon_bags() if data == "colon" else breast_bags()
    return normalise_lab(bags) if lab else bags, breast_slides() if data == "breast" else None


def stored_folds(config: dict[str, Any], bags: Bags, groups: list[str] | None) -> Tensor:
    """The fold of each bag, shape (B,), from the file of this data set; made and written at the first call.

    Raises:
        ValueError: if grouped folds are asked for without groups, or the file is of another number of bags.
    """
    assert bags.labels is not None
    name = "{data}_{n_folds}".format(**config) + ("_grouped" if config["grouped"] else "")
    path = FOLDS / f"{name}_{config['repeat']}.json"
    if config["grouped"] and groups is None:
        raise ValueError(f"grouped: {config['data']} has no groups")
    if not path.exists():
        fold = make_folds(bags.labels, config["n_folds"], config["repeat"], groups if config["grouped"] else None)
        write_record(path, {"fold": fold.tolist()})
    fold = torch.tensor(json.loads(path.read_text())["fold"])
    if len(fold) != len(bags):
        raise ValueError(f"{path} has folds for {len(fold)} bags, {config['data']} has {len(bags)}")
    return fold


def make_folds(labels: Tensor, n_folds: int, seed: int, groups: Sequence[str] | None = None) -> Tensor:
    """A number of 0 … n_folds − 1 for each bag, shape (B,), classes spread evenly; a group is never divided."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(n_folds, shuffle=True, random_state=seed)
    fold = torch.empty(len(labels), dtype=torch.long)
    for number, (_, test) in enumerate(splitter.split(np.zeros(len(labels)), labels.numpy(), groups)):
        fold[test] = number
    return fold


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of every model, repeat by repeat: those of all bags, each tested by the model that had not seen it.

    A repeat counts when all of its folds are there. The AUC compares logits within each fold, since the folds' models
    differ, and is the mean over the folds that have both classes.

    Returns:
        One row for each data set, model, start of γ, other setting that varies, and repeat, with the columns `SCORES`.
    """
    from sklearn.metrics import roc_auc_score

    settings = [n for n in ("data", "model", "gamma", *TRAINING, *SETTINGS) if n in table]
    rows = []
    for names, runs in table.groupby([*settings, "repeat"], dropna=False):
        if len(runs) < runs["n_folds"].iloc[0]:
            continue
        logits, labels = (torch.tensor(runs[column].sum()) for column in ("logits", "labels"))
        scores = asdict(bag_metrics(logits, labels))
        folds = [(y, x) for y, x in zip(runs["labels"], runs["logits"], strict=True) if 0 < sum(y) < len(y)]
        scores["auc"] = float(np.mean([roc_auc_score(y, x) for y, x in folds])) if folds else np.nan
        rows.append({**dict(zip([*settings, "repeat"], names, strict=True)), **{n: scores[n] for n in SCORES}})
    return pd.DataFrame(rows)


def over_repeats(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error of each score over the repeats, from the rows of `summary`; NaN with one repeat.

    Repeats share their bags, so the standard error says how much folds and starts matter, not how other bags would do.
    """
    if scores.empty:
        return scores
    keys = [name for name in scores.columns if name not in ("repeat", *SCORES)]
    groups = scores.groupby(keys, dropna=False, sort=False)[list(SCORES)]
    errors = groups.sem().add_suffix("_error")
    table = groups.mean().join(errors).join(groups.size().rename("repeats")).reset_index()
    vary = [name for name in keys if name in ("data", "model", "gamma") or scores[name].nunique() > 1]
    return table[[*vary, "repeats", *(column for name in SCORES for column in (name, f"{name}_error"))]]
