"""Cross-validation on generated bags in the place of the real images."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score

import samil_lite as sl
from samil_lite.experiments import crossval, load_table, run_grid, scores

TINY = {"n_folds": 3, "n_validation": 1, "epochs": 1, "at_most": 4, "lab": False, "stain": 0.0}
LABELS = torch.arange(12) % 2


def generated() -> sl.Bags:
    """Twelve bags of 5 to 8 patches; in positive ones the patches of kind 1 are brighter."""
    generator = torch.Generator().manual_seed(0)
    sizes = 5 + torch.arange(12) % 4
    kinds = [torch.arange(n) % 3 * y for n, y in zip(sizes.tolist(), LABELS.tolist(), strict=True)]
    patches = [
        (torch.rand(len(k), 3, 27, 27, generator=generator) * 100 + 150 * (k == 1)[:, None, None, None]).to(torch.uint8)
        for k in kinds
    ]
    return sl.Bags.from_list(patches, LABELS, kinds, [torch.rand(len(k), 2) for k in kinds])


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch, tmp_path):
    monkeypatch.setattr(crossval, "load", lambda *_: (generated(), [str(b // 3) for b in range(12)]))
    monkeypatch.setenv("SAMIL_RESULTS", str(tmp_path))


def test_every_bag_is_tested_once_and_folds_are_shared(tmp_path):
    cells = crossval.cells(["colon"], ["abmilp", "lsa-abmilp", "embedding-max"], [0], **TINY)
    assert len(cells) == 3 * (1 + 2 + 1)
    run_grid(cells, crossval.run, tmp_path / "runs", progress=False)
    table = load_table(tmp_path / "runs")
    folds = json.loads((tmp_path / "folds" / "colon_3_0.json").read_text())["fold"]
    for _, runs in table.groupby(["model", "gamma"], dropna=False):
        assert sorted(runs["bags"].sum()) == list(range(12))
        for run in runs.itertuples():
            assert [folds[b] for b in run.bags] == [run.fold] * len(run.bags)
            assert run.labels == LABELS[run.bags].tolist()
    with_attention = table[table["model"] != "embedding-max"]
    for name in ("attention_auc", "precision_at_k", "top_tenth", "entropy"):
        values = with_attention[name].sum()
        assert len(values) == 3 * 6  # three variants, six positive bags
        assert all(0 <= x <= 1 for x in values)
    examples = with_attention.dropna(subset="example")
    assert set(examples["fold"]) == {0}
    assert examples["example"].map(lambda e: str(e["epithelial"])).nunique() == 1  # the same image
    laplace = table[table["model"] == "lsa-abmilp"]
    for decay in laplace["decay"]:
        assert all(sum(pairs) > 0 for pairs in decay["pairs"])


def test_summary_by_hand():
    same = {"data": "colon", "model": "abmilp", "n_folds": 2}
    runs = [
        {**same, "repeat": 0, "fold": 0, "labels": [1, 0, 1], "logits": [2.0, 1.0, 0.5]},
        {**same, "repeat": 0, "fold": 1, "labels": [0, 1], "logits": [-3.0, -2.0]},
        {**same, "repeat": 1, "fold": 0, "labels": [0, 1], "logits": [0.1, 0.2]},
    ]
    result = scores.summary(pd.DataFrame(runs))
    assert len(result) == 1  # the second repeat lacks a fold
    row = result.iloc[0]
    assert row["recall_at_precision"] == pytest.approx(1 / 3)  # the two highest are 1 and 0: only one is found safely
    labels, logits = np.array([1, 0, 1, 0, 1]), np.array([2, 1, 0.5, -3, -2])
    assert row["accuracy"] == pytest.approx(accuracy_score(labels, logits > 0))
    assert row["auc"] == pytest.approx((roc_auc_score(labels[:3], logits[:3]) + 1) / 2)


def test_scores_of_folds_are_those_of_scikit_learn():
    """Ties, a fold with one class, one without positive bags, logits that float32 cannot tell apart."""
    labels = [[1, 0, 1, 0], [1, 1], [0, 0, 0], [0, 1]]
    logits = [[0.5, 0.5, -1.0, -2.0], [1.0, -1.0], [1.0, -1.0, 0.0], [1.0, 1 + 1e-12]]
    table = pd.DataFrame({"labels": labels, "logits": logits})
    found = scores.fold_scores(table)
    assert found["accuracy"].tolist() == [
        accuracy_score(y, np.array(x) > 0) for y, x in zip(labels, logits, strict=True)
    ]
    assert found["recall"].tolist() == pytest.approx([0.5, 0.5, np.nan, 1], nan_ok=True)
    of_both = [roc_auc_score(labels[i], logits[i]) for i in (0, 3)]
    assert found["auc"].tolist() == pytest.approx([of_both[0], np.nan, np.nan, of_both[1]], nan_ok=True)
    none = scores.fold_scores(table[:0])
    assert len(none) == 0
    assert {"accuracy", "auc", "recall"} <= set(none)
    with pytest.raises(ValueError, match="logits: expected finite numbers"):
        scores.fold_scores(pd.DataFrame({"labels": [[1, 0]], "logits": [[np.nan, 1.0]]}))


def test_one_repeat_has_the_error_of_a_jackknife():
    runs = [
        {"data": "colon", "model": "abmilp", "n_folds": 3, "repeat": 0, "fold": f, "labels": [1, 0], "logits": logits}
        for f, logits in enumerate([[1.0, -1.0], [1.0, 2.0], [-1.0, -2.0]])
    ]
    (row,) = scores.over_repeats(pd.DataFrame(runs)).itertuples()
    accuracies = np.array([1, 0.5, 0.5])  # of a mean the jackknife gives the usual standard error
    assert (row.repeats, row.accuracy) == (1, pytest.approx(2 / 3))
    assert row.accuracy_error == pytest.approx(accuracies.std(ddof=1) / np.sqrt(3))
    twice = pd.DataFrame([*runs, *({**run, "repeat": 1, "logits": [1.0, -1.0]} for run in runs)])
    (row,) = scores.over_repeats(twice).itertuples()
    assert row.accuracy_error == pytest.approx(np.std([2 / 3, 1], ddof=1) / np.sqrt(2))


def test_comparison_pairs_the_folds():
    def runs(model: str, gamma: float, auc_of_fold: list[float]) -> list[dict]:
        """Two positives and two negatives a fold, ranked so that the AUC is 0.5, 0.75 or 1."""
        logits = {1.0: [4, 3, 2, 1], 0.75: [4, 2, 3, 1], 0.5: [4, 1, 3, 2]}
        shared = {"data": "colon", "repeat": 0, "n_folds": 3, "n_validation": 1, "labels": [1, 1, 0, 0]}
        return [
            {**shared, "model": model, "gamma": gamma, "fold": f, "logits": logits[auc]}
            for f, auc in enumerate(auc_of_fold)
        ]

    table = pd.DataFrame([*runs("abmilp", np.nan, [0.5, 0.75, 0.5]), *runs("sa-abmilp", 1.0, [1.0, 0.75, 0.75])])
    (row,) = scores.compare(table).itertuples()
    differences = [0.5, 0, 0.25]
    assert (row.model, row.gamma, row.pairs, row.difference) == ("sa-abmilp", 1.0, 3, 0.25)
    half = 4.302653 * np.std(differences, ddof=1) * np.sqrt(1 / 3 + 1)  # one fold tests, one trains
    assert (row.low, row.high) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-5)
    assert len(scores.compare(table[table["fold"] == 0])) == 0  # one pair has no interval
    with pytest.raises(ValueError, match=r"expected one run of .* for each fold"):
        scores.compare(pd.concat([table, table]))


def test_a_tie_of_a_printed_digit_does_not_hang_on_the_order_of_sums():
    shared = {"data": "colon", "n_folds": 10, "n_validation": 2}
    auc = {"a": [0.1, 0.2, 0.3, -0.565], "b": [0.3, -0.565, 0.2, 0.1]}  # both of mean 0.00875
    shown = set()
    for values in auc.values():
        runs = [{**shared, "model": "a", "repeat": 0, "fold": f, "auc": x} for f, x in enumerate(values)]
        found = scores.fold_difference(pd.DataFrame(runs), {"model": "a"}, None, "auc")
        assert found is not None
        shown.add(found[1])
    assert shown == {0.00875}


def test_trials_are_compared_on_the_same_folds():
    def run(model: str, fold: int, loss: float, lr: float, lab: bool = False, n_validation: int = 2) -> dict:
        gamma = 1.0 if model == "sa-abmilp" else np.nan
        shared = {"data": "colon", "repeat": 0, "grouped": False, "n_folds": 10, "n_validation": n_validation}
        return {**shared, "model": model, "gamma": gamma, "fold": fold, "lr": lr, "lab": lab, "validation_loss": loss}

    chosen = [run(m, f, loss, 0.1) for m, f, loss in (("abmilp", 0, 1.0), ("abmilp", 1, 2.0), ("sa-abmilp", 0, 4.0))]
    trials = [
        run("abmilp", 0, 1.5, 0.2),
        run("sa-abmilp", 0, 2.5, 0.2),
        run("abmilp", 1, 3.0, 0.1, lab=True),
        run("abmilp", 2, 9.0, 0.2),  # no partner
        run("abmilp", 0, 9.0, 0.1, n_validation=1),  # its loss is of other bags
    ]
    found = scores.trial_losses(pd.DataFrame(chosen), pd.DataFrame(trials))
    assert found.to_dict("records") == [
        {"data": "colon", "changed": "lab True", "models": 1, "runs": 1, "loss": 3.0, "chosen": 2.0},
        {"data": "colon", "changed": "lr 0.2", "models": 2, "runs": 2, "loss": 2.0, "chosen": 2.5},
    ]


def test_grouped_folds_of_a_run(tmp_path):
    (cell,) = crossval.cells(["breast"], ["abmilp"], [0], folds=[0], **{**TINY, "grouped": True})
    _, groups = crossval.load("breast", False, 1)
    fold = crossval.stored_folds(cell, generated(), groups)
    assert len({(groups[b], int(fold[b])) for b in range(12)}) == 4  # each of the four groups in one fold
    assert (tmp_path / "folds" / "breast_3_grouped_0.json").exists()


def test_a_look_takes_a_random_part_of_each_bag():
    bags = generated()
    part = crossval.Subsampled(bags, 6)
    torch.manual_seed(0)
    first, second = part[torch.tensor([3, 0])], part[torch.tensor([3, 0])]
    assert first.sizes.tolist() == [6, 5]
    assert first.labels.tolist() == [1, 0]
    whole = bags[3].instances.flatten(1).unique(dim=0)
    seen = first[0].instances.flatten(1).unique(dim=0)
    assert len(seen) == 6  # none twice
    assert len(torch.cat([whole, seen]).unique(dim=0)) == len(whole)  # all of this bag
    assert not torch.equal(first.instances, second.instances)
    assert len(part) == 12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: crossval.cells(["colon"], ["abmilp"], [0], epoch=3), r"unknown settings \['epoch'\]"),
        (lambda: crossval.cells(["colon"], ["abmilp"], [0], n_folds=3), "n_folds, n_validation: .* got 3 and 2"),
        (
            lambda: crossval.cells(["lung"], ["abmilp"], [0]),
            r"data\[0\]: expected one of colon, breast, got 'lung'",
        ),
        (
            lambda: crossval.stored_folds(
                crossval.cells(["colon"], ["abmilp"], [0], grouped=True)[0], generated(), None
            ),
            "grouped: colon has no groups",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_folds_of_other_bags_are_not_taken(tmp_path):
    cell = crossval.cells(["colon"], ["abmilp"], [0], **TINY)[0]
    crossval.stored_folds(cell, generated(), None)
    with pytest.raises(ValueError, match="has folds for 12 bags, colon has 11"):
        crossval.stored_folds(cell, generated()[:11], None)
