"""Cross-validation on small sets of images: a data set, a model, a repeat and a fold make one run."""

import json
from collections.abc import Collection, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samil_lite.arguments import check_each, expected_of, one_of
from samil_lite.augment import Dihedral, StainJitter, normalise_lab
from samil_lite.bags import Bags
from samil_lite.checkpoints import History
from samil_lite.encoders import PatchCNN
from samil_lite.experiments import nuclei
from samil_lite.experiments.records import RESULTS, own_results, write_record
from samil_lite.experiments.settings import changed, check_gammas, check_models, check_numbers, starts
from samil_lite.files import read_bytes
from samil_lite.fingerprint import digest
from samil_lite.folds import make_folds, parts
from samil_lite.models import MILClassifier, build
from samil_lite.segments import segment_rank
from samil_lite.training import fit, predict

DATA = {"colon": 27, "breast": 32}  # name: height and width of its patches
TRAINING: dict[str, Any] = {"epochs": 20, "patience": 8, "bags_per_step": 2, "lr": 5e-4, "weight_decay": 5e-4}
# Training sees at most `at_most` instances of a bag, drawn anew in every epoch; validation a fixed draw of four times
# as many, the test all. `n_validation` folds choose the epoch.
SETTINGS: dict[str, Any] = {
    "n_folds": 10, "n_validation": 2, "grouped": False, "at_most": 32, "lab": False, "stain": 0.02, "shrink": 1,
}  # fmt: skip
# Chosen by validation loss (book/results/images_settings). Few images need many small steps, and shrunk ones show a
# patch's surroundings.
OF_DATA: dict[str, dict[str, Any]] = {
    "colon": {},
    "breast": {"epochs": 25, "patience": 10, "bags_per_step": 1, "lr": 2e-4, "at_most": 64, "shrink": 2},
}


class Subsampled:
    """Bags of which each look takes a random subset of at most `at_most` instances a bag, on PyTorch's generator."""

    def __init__(self, bags: Bags, at_most: int) -> None:
        self.bags, self.at_most = bags, at_most
        self.labels, self.n_instances = bags.labels, bags.n_instances

    def __len__(self) -> int:
        return len(self.bags)

    def digest(self) -> str:
        return digest(self.bags.instances, self.bags.offsets, self.at_most)

    def __getitem__(self, key: Tensor) -> Bags:
        bags = self.bags[key]
        rows = segment_rank(torch.rand(bags.n_instances), bags.offsets) < self.at_most  # (N,)
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
        changes: replace entries of TRAINING, SETTINGS and OF_DATA.
    """
    data, repeats = check_each("data", data, expected_of(str, one_of(DATA))), check_numbers("repeats", repeats)
    folds = None if folds is None else check_numbers("folds", folds)
    return [
        {**cell, "fold": fold}
        for repeat in repeats
        for d in data
        for cell in base_cells(
            DATA, {**TRAINING, **SETTINGS, **OF_DATA.get(d, {})}, [d], models, [repeat], gammas, changes
        )
        for fold in _tested(folds, cell["n_folds"])
    ]


def _tested(folds: Sequence[int] | None, n_folds: int) -> Sequence[int]:
    """The folds to test on; a ValueError if there is no fold of one of the numbers."""
    if folds is None:
        return range(n_folds)
    if max(folds) >= n_folds:
        raise ValueError(
            f"folds: expected numbers from 0 to {n_folds - 1}, since n_folds is {n_folds}, got {max(folds)}"
        )
    return folds


def base_cells(
    known_data: Collection[str],
    known: dict[str, Any],
    data: Sequence[str],
    models: Sequence[str],
    repeats: Sequence[int],
    gammas: Sequence[float],
    changes: dict[str, Any],
) -> list[dict[str, Any]]:
    """Every combination of data set, model, start of γ and repeat, with the settings `known` after `changes`."""
    settings = changed(known, changes)
    models, gammas, repeats = check_models(models), check_gammas(gammas), check_numbers("repeats", repeats)
    data = check_each("data", data, expected_of(str, one_of(known_data)))
    n_folds, n_validation = settings["n_folds"], settings["n_validation"]
    if not 1 <= n_validation <= n_folds - 2:
        raise ValueError(
            f"n_folds, n_validation: expected folds to choose the epoch and to train on beside the tested one, "
            f"got {n_folds} and {n_validation}"
        )
    return [
        {"data": d, "model": m, "repeat": r, **settings, **start}
        for r, d, m in product(repeats, data, models)
        for start in starts(m, gammas)
    ]


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Trains one model without one fold, and scores it on that fold.

    The folds after the one tested, a fifth of the bags as set, choose the epoch by their loss. (The public code leaves
    four or five images for this.) Stored are the logits of the tested bags, for `scores`, and, where instance labels
    are known and the model has attention, how attention and self-attention relate to them in each positive bag.
    """
    model, history, places, tested = trained(config)
    output = predict(model, tested, bags_per_step=4)
    assert tested.labels is not None
    result = {
        "bags": places,
        "labels": tested.labels.tolist(),
        "logits": [round(x, 4) for x in output.logits.tolist()],
        "validation_loss": min(history.validation_loss),
        "best_epoch": history.best_epoch,
        "epochs_run": len(history.train_loss),
    }
    if tested.instance_labels is not None and output.attention is not None and bool(tested.labels.any()):
        positive = tested[tested.labels == 1]
        result |= nuclei.attention_scores(model, positive)
        if model.self_attention is not None:
            result |= nuclei.neighbours(model, positive)
        if config["fold"] == 0:
            result["example"] = nuclei.example(model, positive[0])
    return result


def trained(config: dict[str, Any]) -> tuple[MILClassifier, History, list[int], Bags]:
    """The model of a configuration at its best epoch, how its training went, and the tested bags with their places."""
    bags, groups = load(config["data"], config["lab"], config["shrink"])
    fold = stored_folds(config, bags, groups)  # (B,)
    test, validation = parts(fold, config["fold"], config["n_folds"], config["n_validation"])  # (B,) each
    seed = 1000 * config["repeat"] + config["fold"]
    torch.manual_seed(seed)
    augment = nn.Sequential(StainJitter(config["stain"]), Dihedral())
    start = {"gamma": config["gamma"]} if "gamma" in config else {}
    model = build(config["model"], PatchCNN(DATA[config["data"]], augment=augment), **start)
    train = Subsampled(bags[~(test | validation)], config["at_most"])
    chooser = Subsampled(bags[validation], 4 * config["at_most"])[torch.arange(int(validation.sum()))]
    settings = {name: config[name] for name in TRAINING}
    history = fit(model, train, chooser, seed=seed, progress=False, **settings)
    return model, history, test.nonzero().squeeze(1).tolist(), bags[test]


@cache
def load(data: str, lab: bool, shrink: int) -> tuple[Bags, list[str] | None]:
    """The bags of a data set from `SAMIL_DATA`, and the slide of each where it is known; colon is never shrunk."""
    from samil_lite.data import breast_bags, breast_slides, colon_bags

    bags = colon_bags() if data == "colon" else breast_bags(shrink=shrink)
    return normalise_lab(bags) if lab else bags, breast_slides() if data == "breast" else None


def stored_folds(config: dict[str, Any], bags: Bags, groups: list[str] | None) -> Tensor:
    """The fold of each bag, shape (B,), from the file of this data set, our own or published; else made and written.

    Raises:
        ValueError: if grouped folds are asked for without groups, or the file is of another number of bags.
    """
    assert bags.labels is not None
    name = "{data}_{n_folds}".format(**config) + ("_grouped" if config["grouped"] else "")
    own, published = (f / "folds" / f"{name}_{config['repeat']}.json" for f in (own_results(), RESULTS))
    path = published if published.exists() and not own.exists() else own
    if config["grouped"] and groups is None:
        raise ValueError(f"grouped: {config['data']} has no groups")
    if not path.exists():
        fold = make_folds(bags.labels, config["n_folds"], config["repeat"], groups if config["grouped"] else None)
        write_record(path, {"fold": fold.tolist()})
    return _read_folds(path, len(bags), config)


def _read_folds(path: Path, n_bags: int, config: dict[str, Any]) -> Tensor:
    """The fold of each bag from a file, if it has one for each, and each is a fold."""
    try:
        fold = torch.tensor(json.loads(read_bytes(path))["fold"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it to draw folds anew") from error
    if fold.shape != (n_bags,):
        raise ValueError(f"{path} has folds for {len(fold)} bags, {config['data']} has {n_bags}")
    if fold.is_floating_point() or sorted(set(fold.tolist())) != list(range(config["n_folds"])):
        raise ValueError(f"{path}: expected the folds 0 to {config['n_folds'] - 1}, got {sorted(set(fold.tolist()))}")
    return fold
