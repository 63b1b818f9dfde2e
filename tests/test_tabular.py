"""Many folds at once on generated tables: the same as one at a time, and no look at the tested bags."""

import pytest
import torch
from ragged import offsets_of

import samil_lite as sl
from samil_lite.experiments import load_table, run_grid, scores, tabular

TINY = {"n_folds": 3, "n_validation": 1, "epochs": 12, "width": 6}
LABELS = torch.arange(12) % 2


def generated(labels: torch.Tensor = LABELS) -> sl.Bags:
    """Twelve bags of 2 to 5 rows; positive ones have a row with a large first column."""
    sizes = (2 + torch.arange(12) % 4).tolist()
    x = torch.randn(sum(sizes), 5, generator=torch.Generator().manual_seed(0))
    x[offsets_of(sizes)[:-1][LABELS == 1], 0] += 4
    return sl.Bags(x, offsets_of(sizes), labels)


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch, tmp_path):
    monkeypatch.setattr(tabular, "load", lambda data: generated())
    monkeypatch.setenv("SAMIL_RESULTS", str(tmp_path))


@pytest.mark.parametrize("model", ["abmilp", "gsa-abmilp", "lsa-abmilp", "embedding-max"])
def test_folds_together_are_folds_alone(model):
    together, alone = (
        tabular.run(tabular.cells(["musk1"], [model], [0], gammas=[1], at_once=n, **TINY)[0]) for n in (3, 1)
    )
    assert together["logits"] == pytest.approx(alone["logits"], abs=2e-3)
    assert together["validation_loss"] == pytest.approx(alone["validation_loss"], abs=1e-3)
    assert together["folds"] == alone["folds"]


def test_labels_of_the_tested_bags_are_not_used(monkeypatch):
    (cell,) = tabular.cells(["musk1"], ["abmilp"], [0], **TINY)
    before = tabular.run(cell)
    tested = torch.tensor(before["folds"]) == 0
    monkeypatch.setattr(tabular, "load", lambda data: generated(torch.where(tested, 1 - LABELS, LABELS)))
    after = tabular.run(cell)
    same = [a == b for a, b in zip(before["logits"], after["logits"], strict=True)]
    assert torch.tensor(same)[tested].all()
    assert not torch.tensor(same)[~tested].all()  # the other models trained on these labels


def test_columns_are_standardised_by_training_bags_only():
    bags, train = generated(), (torch.arange(12) < 7)[None]
    mean, deviation = tabular._statistics(bags, train)
    seen = bags[:7].instances
    torch.testing.assert_close(mean[0], seen.mean(0))
    torch.testing.assert_close(deviation[0], seen.std(0, correction=0))


def test_records_and_summary(tmp_path):
    cells = tabular.cells(["musk1"], ["abmilp", "sa-abmilp"], [0, 1], **TINY)
    assert len(cells) == 2 * (1 + 2)
    run_grid(cells, tabular.run, tmp_path / "runs", progress=False)
    rows = tabular.by_fold(load_table(tmp_path / "runs"))
    assert len(rows) == 3 * len(cells)
    assert all(
        sorted(run["labels"].sum()) == sorted(LABELS)
        for _, run in rows.groupby(["model", "gamma", "repeat"], dropna=False)
    )
    summary = scores.summary(rows)
    assert len(summary) == len(cells)
    assert summary["auc"].between(0, 1).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"unknown settings \['depth'\]"):
        tabular.cells(["musk1"], ["abmilp"], [0], depth=3)
    with pytest.raises(ValueError, match=r"data\[0\]: expected one of musk1, musk2, got 'musk3'"):
        tabular.cells(["musk3"], ["abmilp"], [0])
