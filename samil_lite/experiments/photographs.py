"""Cross-validation on photographs by frozen features: data set, backbone, split, model and repeat make one run."""

import hashlib
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from samil_lite.arguments import checked, columns
from samil_lite.audit import attribution, without
from samil_lite.backbones import frozen_features
from samil_lite.bags import Bags
from samil_lite.data.defungi import public_test
from samil_lite.encoders import Standardise
from samil_lite.experiments.crossval import base_cells
from samil_lite.experiments.settings import OF_PATCHES
from samil_lite.files import load_torch
from samil_lite.folds import make_folds, parts
from samil_lite.metrics import attention_auc, precision_at_k
from samil_lite.models import MILClassifier, build
from samil_lite.training import fit, predict
from samil_lite.writing import write_atomically

DATA = ("idrid", "defungi")
TRAINING: dict[str, Any] = {"epochs": 40, "patience": 8, "bags_per_step": 16, "lr": 5e-4, "weight_decay": 1e-3}
SETTINGS: dict[str, Any] = {
    "backbone": "efficientnet-lite0", "split": "grouped", "size": 64, "height": 512, "components": 128,
    "n_folds": 5, "n_validation": 1, "width": 64,
}  # fmt: skip
KINDS = ("MA", "HE", "EX", "SE")  # of lesions, in the order of `idrid.LESIONS`
SMALL = 0.01  # lesions that cover a smaller share of their patch count as small


def cells(
    data: Sequence[str],
    models: Sequence[str],
    repeats: Sequence[int],
    gammas: Sequence[float] = (1.0,),
    **changes: Any,
) -> list[dict[str, Any]]:
    """Every combination, as configurations for `run`; arguments as in `crossval.cells`, a cell has all folds."""
    if changes.get("split") == "public" and set(data) != {"defungi"}:
        raise ValueError(f"split: only defungi has a public one, data is {list(data)}")
    return base_cells(DATA, {**TRAINING, **SETTINGS}, data, models, repeats, gammas, changes)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Trains one model for each fold without it, and scores it on that fold.

    The fold after the tested one chooses the epoch. Features are standardised by the training bags. Stored are, for
    each fold, accuracy, the accuracy's mean over classes, AUC (of more than two classes: one against the others, mean)
    and validation loss; of two classes the logit of every bag; and on photographs with outlined lesions, how attention,
    gradient × input and leave-one-out find the patches that hold one.
    """
    bags, groups, areas = load(config["data"], *(config[name] for name in ("backbone", "size", "height", "components")))
    fold = instance_folds(bags, groups, config)  # (N,)
    found: dict[str, list[Any]] = {name: [] for name in ("accuracy", "balanced_accuracy", "auc", "validation_loss")}
    logits: dict[int, float] = {}
    lesions: list[dict[str, float | None]] = []
    for number in range(1 if config["split"] == "public" else config["n_folds"]):
        test, validation = parts(fold, number, config["n_folds"], config["n_validation"])  # (N,) each
        model, loss = _trained(config, bags, ~(test | validation), validation, number)
        tested, left = without(bags, ~test)
        output = predict(model, tested, bags_per_step=32).logits  # (B,) or (B, C)
        assert tested.labels is not None
        for name, value in {**fold_scores(output, tested.labels), "validation_loss": loss}.items():
            found[name].append(round(value, 4))
        places = left.nonzero().squeeze(1).tolist()
        if output.ndim == 1 and config["split"] not in OF_PATCHES:
            logits |= dict(zip(places, (round(x, 3) for x in output.tolist()), strict=True))
        if areas is not None:
            of_fold = lesion_scores(model, tested, areas[test])
            lesions += [{"bag": places[row.pop("bag")], "fold": number, **row} for row in of_fold]
    result: dict[str, Any] = dict(found)
    if logits:
        assert bags.labels is not None
        of_bag = {"labels": bags.labels.tolist(), "folds": fold[bags.offsets[:-1]].tolist()}
        result |= {"logits": [logits[b] for b in range(len(bags))], **of_bag}
    if lesions:
        result["lesions"] = {name: [row[name] for row in lesions] for name in lesions[0]}
    return result


def _trained(
    config: dict[str, Any], bags: Bags, train: Tensor, validation: Tensor, number: int
) -> tuple[MILClassifier, float]:
    """A model of the training patches at its best epoch, and its loss there on those of validation; masks (N,)."""
    seed = 1000 * config["repeat"] + number
    trained_on, chooser = without(bags, ~train)[0], without(bags, ~validation)[0]
    torch.manual_seed(seed)
    width = config["width"]
    encoder = nn.Sequential(Standardise.of(trained_on), nn.Linear(bags.instances.shape[1], width), nn.ReLU())
    assert bags.labels is not None
    n_classes = int(bags.labels.max()) + 1
    start = {"gamma": config["gamma"]} if "gamma" in config else {}
    model = build(config["model"], encoder, 1 if n_classes == 2 else n_classes, dim=width, hidden=width, **start)
    history = fit(model, trained_on, chooser, seed=seed, progress=False, **{name: config[name] for name in TRAINING})
    return model, min(history.validation_loss)


def instance_folds(bags: Bags, groups: Sequence[str], config: dict[str, Any]) -> Tensor:
    """The fold of each patch, shape (N,), as the split of the configuration says; the same for all models."""
    assert bags.labels is not None
    if config["split"] in OF_PATCHES:
        rng = torch.Generator().manual_seed(config["repeat"])
        fold = torch.randint(config["n_folds"], (bags.n_instances,), generator=rng)
        if config["split"] == "patches":
            return fold
        return torch.where(public_test(), 0, 1 + fold % (config["n_folds"] - 1))
    own = groups if config["split"] == "grouped" else None
    return make_folds(bags.labels, config["n_folds"], config["repeat"], own)[bags.bag_index]


@checked()
def fold_scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, its mean over the classes, and AUC, from logits (B,) or (B, C) and labels (B,)."""
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    if logits.ndim == 1:
        said, auc = (logits > 0).long(), roc_auc_score(labels, logits)
    else:
        p = logits.double().softmax(1).numpy()
        said, auc = logits.argmax(1), roc_auc_score(labels, p / p.sum(1, keepdims=True), multi_class="ovr")
    accuracy = float((said == labels).float().mean())
    return {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy_score(labels, said), "auc": float(auc)}


def lesion_scores(model: MILClassifier, bags: Bags, areas: Tensor) -> list[dict[str, Any]]:
    """For each photograph whose lesions are outlined: how well a model's attributions find the patches with one.

    A patch is a key instance if it holds a pixel of a lesion. For one kind of lesion, and for small and large ones
    (`SMALL`), the key instances are the patches with that kind and the others those without any lesion.

    Args:
        model: any model of this package.
        bags: photographs as patches.
        areas: share of each patch that each kind of lesion covers, shape (N, 4); NaN where lesions were not outlined.

    Returns:
        A row for each outlined photograph: the place of its `bag`, `share` of its patches with a lesion, AUCs `auc_any`
        (attention), `auc_MA`, …, `auc_small`, `auc_large`, `auc_gradient`, `auc_leave-one-out`, and attention's
        `precision_at_k`; None where it is not defined.
    """
    rows = []
    for number in torch.unique(bags.bag_index[~areas.isnan().any(1)]).tolist():
        bag, own = bags[number], areas[bags.bag_index == number]  # (1 bag), (n, 4)
        largest = own.amax(1)  # (n,)
        key, none = largest > 0, largest == 0
        row: dict[str, Any] = {"bag": number, "share": _rounded(key.float().mean())}
        kinds = {"any": key} | {kind: own[:, i] > 0 for i, kind in enumerate(KINDS)}
        kinds |= {"small": key & (largest < SMALL), "large": largest >= SMALL}
        attention = model(bag).attention
        attention = None if attention is None else attention.detach().cpu()
        for kind, chosen in kinds.items():
            row[f"auc_{kind}"] = _auc(attention, chosen, chosen | none)
        row["precision_at_k"] = None
        if attention is not None and key.any():
            row["precision_at_k"] = _rounded(precision_at_k(attention, key, bag.offsets)[0])
        for method in ("gradient", "leave-one-out"):
            row[f"auc_{method}"] = _auc(attribution(model, bag, method), key, torch.ones_like(key))
        rows.append(row)
    return rows


def _auc(scores: Tensor | None, key: Tensor, among: Tensor) -> float | None:
    if scores is None or not 0 < int(key.sum()) < int(among.sum()):
        return None
    value = attention_auc(scores[among], key[among], torch.tensor([0, int(among.sum())]))
    return _rounded(torch.as_tensor(value).squeeze())


def _rounded(x: Any) -> float | None:
    return None if np.isnan(float(x)) else round(float(x), 4)


@cache
def load(data: str, backbone: str, size: int, height: int, components: int) -> tuple[Bags, list[str], Tensor | None]:
    """Frozen features of a data set, the group of each bag, and, of IDRiD, the areas of lesions (`lesion_areas`).

    Features are computed once and kept in the user's cache folder; what is returned are their first principal
    components over all patches (no label is used). Patches of DeFungi have the size of its files.
    """
    from samil_lite import data as sets
    from samil_lite.data import idrid

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that two grades were given to one photograph: said by the chapter
        table = sets.idrid_table() if data == "idrid" else sets.defungi_table()
        path = features_path(data, backbone, size, height, table)
        if not path.exists():
            bags = sets.idrid_bags(size=size, height=height) if data == "idrid" else sets.defungi_bags()
            store_features(frozen_features(bags, backbone), path)
        state = load_torch(path)
        bags = Bags(**{**state, "instances": principal_components(state["instances"].float(), components)})
        areas = idrid.lesion_areas(bags, size, height=height) if data == "idrid" else None
    return bags, table["group"].tolist(), areas


def principal_components(x: Tensor, n: int) -> Tensor:
    """The first n principal components (N, n) of the rows of x (N, d)."""
    x = x - x.mean(0)
    directions = torch.linalg.eigh((x.T @ x).double())[1][:, -n:].flip(1)  # (d, n), largest first
    directions = directions * directions.sum(0).sign()  # a sign that does not depend on the machine
    components: Tensor = x @ directions.float()
    return components


def features_path(data: str, backbone: str, size: int, height: int, table: pd.DataFrame) -> Path:
    """Where frozen features are kept: the name tells what they are of."""
    import pooch

    name = f"{data}_{backbone}" + (f"_{size}_{height}" if data == "idrid" else "")
    return Path(pooch.os_cache("samil_lite")) / "features" / f"{name}_{_digest(table)}.pt"


def _digest(table: pd.DataFrame) -> str:
    """A digest of which files the bags are made of, and how large these are."""
    paths = [[path] if isinstance(path, Path) else path for path in table["path" if "path" in table else "paths"]]
    text = "\n".join(f"{path.name} {path.stat().st_size}" for files in paths for path in files)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def store_features(features: Bags, path: Path) -> None:
    """Writes bags of features, in half precision."""
    state = {name: getattr(features, name) for name in ("offsets", "labels", "instance_labels", "coordinates")}
    state = {name: x for name, x in state.items() if x is not None} | {"instances": features.instances.half()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: torch.save(state, file))


@checked()
def by_fold(table: pd.DataFrame) -> pd.DataFrame:
    """The runs with one row for each fold, as `scores.fold_difference` takes them, with means over its lesions."""
    columns("table", table, "n_folds", "accuracy", "balanced_accuracy", "auc", "validation_loss")
    rows = []
    for run in table.to_dict("records"):
        lesions = run.pop("lesions", None)
        per_photograph = pd.DataFrame(lesions) if isinstance(lesions, dict) else None
        for fold in range(len(run["auc"])):
            own = {k: run[k][fold] for k in ("accuracy", "balanced_accuracy", "auc", "validation_loss")}
            row = {**run, "fold": fold, **own}
            if per_photograph is not None:
                chosen = per_photograph[per_photograph["fold"] == fold].drop(columns=["bag", "fold"])
                means = chosen.apply(pd.to_numeric).mean()
                row |= {f"lesion_{name}": value for name, value in means.items()}
            rows.append(row)
    return pd.DataFrame(rows)


@checked()
def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each data set, backbone, split, model and start of γ: means over repeats and folds."""
    folds = by_fold(table)
    keys = ["data", "backbone", "split", "model", *(["gamma"] if "gamma" in folds else [])]
    wanted = ["accuracy", "balanced_accuracy", "auc", "validation_loss"]
    wanted += [name for name in folds if str(name).startswith("lesion_")]
    found = folds.groupby(keys, dropna=False, sort=False)[wanted].mean().reset_index()
    repeats = folds.groupby(keys, dropna=False, sort=False)["repeat"].nunique().to_numpy()
    return found.assign(repeats=repeats)
