"""Cross-validation on bags: folds that keep patients together, a model for each, and tables of what they say."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from samil_lite.arguments import A_BAG, at_least, checked
from samil_lite.building import describe, differences
from samil_lite.cards import Card, Ensemble, attach, card_of
from samil_lite.checkpoints import History
from samil_lite.encoders import Standardise
from samil_lite.fingerprint import of_bags
from samil_lite.folds import as_folds, parts
from samil_lite.folds import make_folds as make_folds  # as chapters import it
from samil_lite.jobs import run_jobs
from samil_lite.predicting import P, class_names, groups_of, names_of, predictions
from samil_lite.saving import load, save
from samil_lite.scoring import choose_temperature, choose_threshold, score_table
from samil_lite.training import fit, predict, progress_bar

Build = Callable[[], nn.Module]
IN_MEMORY = 2**30  # bytes of features up to which bags on disk are read once for each fold, and not at every epoch


@dataclass(frozen=True)
class CrossValidation:
    """What a cross-validation found.

    Attributes:
        predictions: a row for each bag, by the model that had not seen it; see `samil_lite.predicting`.
        scores: of these, with intervals, by bag and by group; see `samil_lite.scoring.score_table`.
        models: one for each fold, each with its card: classes, width, threshold, course of training.
        validation: predictions for the bags that chose epoch, threshold and temperature; each bag once a fold.
    """

    predictions: pd.DataFrame
    scores: pd.DataFrame
    models: list[nn.Module]
    validation: pd.DataFrame

    @property
    def ensemble(self) -> Ensemble:
        """The models of all folds as one, for new bags. No score of it is known, since it has seen every bag here."""
        return Ensemble(self.models)

    @property
    def histories(self) -> list[History]:
        """The course of each fold's training."""
        return [History(**card_of(model).training["history"]) for model in self.models]  # type: ignore[index]


@checked(seed=at_least(0), bags=A_BAG)
def cross_validate(
    bags: Any,
    build: Build,
    *,
    groups: str | Sequence[Any] | None = None,
    folds: int | str | Path | Sequence[Any] = 5,
    n_validation: int = 1,
    threshold: str | float = "half",
    calibrate: bool = False,
    standardise: bool = False,
    seed: int = 0,
    folder: str | Path | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = True,
    **training: Any,
) -> CrossValidation:
    """Trains one model for each fold without it, and scores every bag by the model that had not seen it.

    The `n_validation` folds after the one tested choose the epoch, and threshold and temperature where these are asked
    for; the others train. Everything random follows from `seed` and the number of the fold, so neither workers nor
    interruptions change the result.

    Args:
        bags: labelled `Bags`, or bags on disk: up to a gigabyte of features is read once a fold; larger ones stay there
            and only the bags of a step are read.
        build: makes a model, new at every call, such as
            ``lambda: sl.build("abmilp", nn.Sequential(nn.Linear(768, 128), nn.ReLU()), dim=128)``.
        groups: bags of one group are never divided: a column of the bags' table, such as "patient", or one value for
            each bag.
        folds: how many, drawn over the groups with the classes spread evenly; or given ones: a column of the table, one
            value for each bag, or the path of a CSV with columns bag and fold, such as a `folds.csv` that this wrote.
        n_validation: folds that choose.
        threshold: rule of `samil_lite.scoring.choose_threshold` for two classes, or a probability.
        calibrate: whether to choose a temperature; see `samil_lite.scoring.choose_temperature`.
        standardise: whether features get mean 0 and deviation 1 over the training bags of each fold, by a first layer.
        seed: of the folds, of the models' starts and of the training.
        folder: where finished folds are kept; called again with the same arguments, only the others are trained, and
            a fold that was interrupted goes on.
        workers: processes.
        scheduler: address of a running Dask cluster in place of local processes; extra `cluster`.
        progress: whether to show a progress bar.
        training: arguments of `fit`: epochs, patience, lr, bags_per_step, …

    Returns:
        Tables and models; see `CrossValidation`.

    Raises:
        ValueError: if bags have no labels, folds or groups do not fit them, a class has fewer groups than there are
            folds, or the folder holds folds of another run; the message says what differs.
    """
    if reserved := set(training) & {"checkpoint", "validation", "train", "model"}:
        raise ValueError(f"{', '.join(sorted(reserved))}: cross_validate sets this itself")
    if bags.labels is None:
        raise ValueError("bags: expected labelled bags, these have no labels")
    if bags.labels.ndim != 1 or not bags.labels.eq(bags.labels.long()).all():
        raise ValueError(
            "bags: a cross-validation scores one class a bag, these have several labels a bag, or numbers; draw folds "
            "by samil_lite.cross_validation.make_folds, then fit and evaluate by each"
        )
    if scheduler is not None and workers != 1:
        raise ValueError(f"workers, scheduler: expected one of them, got {workers} and {scheduler!r}")
    choose_threshold([0.0, 1.0], [False, True], threshold)  # a rule that does not exist is said now, not after training
    group = None if groups is None else groups_of(bags, groups)
    fold = as_folds(bags, folds, group, seed)
    if not 1 <= n_validation <= int(fold.max()) - 1:
        raise ValueError(
            f"folds, n_validation: expected folds to choose and to train by beside the tested one, "
            f"got {int(fold.max()) + 1} and {n_validation}"
        )
    settings = {
        "n_validation": n_validation, "threshold": threshold, "calibrate": calibrate, "standardise": standardise,
        "seed": seed, "training": training, "data": fingerprint(bags, fold),
    }  # fmt: skip
    folder = None if folder is None else Path(folder)
    jobs = [(bags, build, fold, number, group, settings, folder) for number in range(int(fold.max()) + 1)]
    results: dict[int, Any] = {}
    with progress_bar(progress, total=len(jobs), desc="folds", unit="fold") as bar:
        for number, result in run_jobs(_run_fold, jobs, workers, scheduler):
            results[number] = result
            bar.update()
    models, tests, choosers = zip(*(results[number] for number in range(len(jobs))), strict=True)
    order = {name: b for b, name in enumerate(names_of(bags))}
    table = pd.concat(tests).sort_values("bag", key=lambda names: names.map(order)).reset_index(drop=True)
    if folder is not None:
        given = pd.DataFrame({"bag": names_of(bags), "fold": fold.tolist()})
        (given if group is None else given.assign(group=group)).to_csv(folder / "folds.csv", index=False)
    return CrossValidation(table, score_table(table), list(models), pd.concat(choosers, ignore_index=True))


def _run_fold(
    bags: Any, build: Build, fold: Tensor, number: int, group: list[str] | None, settings: dict[str, Any],
    folder: Path | None,
) -> tuple[nn.Module, pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """The model of one fold, and its tables of the tested bags and of those that chose."""
    test, validation = parts(fold, number, int(fold.max()) + 1, settings["n_validation"])
    path = None if folder is None else folder / f"fold_{number}.safetensors"
    if hasattr(bags, "paths") and 4 * bags.n_instances * bags.width <= IN_MEMORY:
        bags = bags[:]
    if path is not None and path.exists():
        model = _finished(path, build, settings)
    else:
        model = _trained(bags, build, ~(test | validation), validation, number, settings, path)
    tables = []
    for chosen in (test, validation):
        own = None if group is None else [g for g, c in zip(group, chosen.tolist(), strict=True) if c]
        names = np.array(names_of(bags))[chosen.numpy()]
        table = predictions(model, subset(bags, chosen), groups=own).assign(bag=names)
        table.insert(1, "fold", number)
        tables.append(table)
    return model, tables[0], tables[1]


def _trained(
    bags: Any, build: Build, train: Tensor, validation: Tensor, number: int, settings: dict[str, Any], path: Path | None
) -> nn.Module:
    """A model trained on the bags of one mask, with what the other chooses; stored at the path, if there is one."""
    seed = 1000 * settings["seed"] + number
    trained_on, chooser = subset(bags, train), subset(bags, validation)
    model = _start(build, seed, trained_on if settings["standardise"] else None)
    checkpoint = None if path is None else path.with_suffix(".pt")
    options = {"progress": False, "seed": seed, **settings["training"]}
    history = fit(model, trained_on, chooser, checkpoint=checkpoint, **options)
    output, labels = predict(model, chooser), chooser.labels.cpu()
    card = Card(
        classes=getattr(bags, "classes", None),
        width=getattr(bags, "width", None) or (bags.instances.shape[1] if bags.instances.ndim == 2 else None),
        temperature=choose_temperature(output.logits, labels) if settings["calibrate"] else 1.0,
        training={"settings": _json(settings), "history": asdict(history), "fold": number},
    )
    attach(model, card)
    table = predictions(model, chooser)
    classes = class_names(table)
    if len(classes) == 2:
        positive = (table["label"] == classes[1]).to_numpy()
        card = replace(card, threshold=choose_threshold(table[P + classes[1]], positive, settings["threshold"]))
    attach(model.cpu(), card)
    if path is not None:
        save(model, path)
        assert checkpoint is not None
        checkpoint.unlink(missing_ok=True)
    return model


def _start(build: Build, seed: int, bags: Any) -> nn.Module:
    """A new model of this seed, behind a layer that standardises as these bags do, if there are any."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    if not isinstance(model, nn.Module):
        raise ValueError(f"build: expected a function that makes a model, it made {type(model).__name__}")
    if bags is not None:
        model.encoder = nn.Sequential(Standardise.of(bags), model.encoder)  # type: ignore[arg-type]
    return model


def _finished(path: Path, build: Build, settings: dict[str, Any]) -> nn.Module:
    """The stored model of a fold, if it is of this run."""
    model = load(path)
    own = _start(build, 0, None)
    if settings["standardise"]:
        own.encoder = nn.Sequential(Standardise(card_of(model).width or 1), own.encoder)  # type: ignore[arg-type]
    there = {"settings": (card_of(model).training or {}).get("settings"), "model": _json(describe(model))}
    here = {"settings": _json(settings), "model": _json(describe(own))}
    if other := [text for name in here for text in differences(there[name], here[name], name)]:
        raise ValueError(
            f"folder: {path} is of another run (there, here): {'; '.join(other)}. Give another folder, or delete it"
        )
    return model


def subset(bags: Any, mask: Tensor) -> Any:
    """The chosen bags; those on disk stay there."""
    return bags.subset(mask) if hasattr(bags, "subset") else bags[mask]


def fingerprint(bags: Any, fold: Tensor) -> str:
    """A digest of the bags' names, labels, folds and content; of bags on disk, of their files' sizes and times."""
    found = hashlib.sha256(json.dumps([names_of(bags), bags.labels.tolist(), fold.tolist()]).encode())
    found.update(of_bags(bags)["contents"].encode())
    return found.hexdigest()[:16]


def _json(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as JSON gives them back; functions by their names, what else it cannot hold as text."""

    def text(x: Any) -> str:
        return f"{x.__module__}.{x.__qualname__}" if hasattr(x, "__qualname__") else str(x)

    return json.loads(json.dumps(settings, default=text))  # type: ignore[no-any-return]
