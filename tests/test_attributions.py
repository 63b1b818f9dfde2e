"""Attributions against key instances: on a model whose terms are known, and tiny trainings of both data sets."""

import pandas as pd
import pytest
import torch
from torch import nn

import samil_lite as sl
from samil_lite.experiments import attributions, crossval, mnist


def test_scores_of_a_model_that_reads_one_number():
    """The mean of the first number: gradient × input is that number, and what is left out is missed by it."""
    model = sl.build("embedding-mean", nn.Identity(), dim=2)
    nn.init.zeros_(model.classifier.bias)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([[2.0, 0.0]]))
    bags = sl.Bags(torch.tensor([[3.0, 0], [-1, 5], [-2, 1], [4, 0], [1, 1]]), torch.tensor([0, 3, 5]))
    key = torch.tensor([True, False, False, True, False])
    found = attributions.scores(model, bags, key)
    assert found["bags"] == 2
    assert found["share"] == pytest.approx((1 / 3 + 1 / 2) / 2, abs=1e-4)
    assert found["gradient_auc"] == found["leave-one-out_auc"] == 1
    assert found["attention_auc"] == 0.5  # even weights
    assert attributions.scores(sl.build("embedding-max", nn.Identity(), dim=2), bags, key)["attention_auc"] is None


def test_cells_are_the_trainings_of_the_other_experiments():
    names = ["abmilp", "gsa-abmilp"]
    cells = attributions.cells(["mnist", "colon"], names, [0, 3])
    assert [(c["data"], c["model"], c["seed"]) for c in cells[-2:]] == [("colon", name, 3) for name in names]
    assert {k: v for k, v in cells[-1].items() if k != "seed"} in crossval.cells(["colon"], names, [0], [1.0])
    assert {k: v for k, v in cells[0].items() if k != "data"} in mnist.cells(["standard"], ["abmilp"], [200], [0])
    with pytest.raises(ValueError, match="data"):
        attributions.cells(["breast"], ["abmilp"], [0])


def test_runs_of_both_and_their_summary(monkeypatch, tmp_path):
    monkeypatch.setenv("SAMIL_RESULTS", str(tmp_path))
    kinds = [torch.arange(4) % 3 * (b % 2) for b in range(12)]
    patches = [(torch.rand(4, 3, 27, 27) * 255).to(torch.uint8) for _ in kinds]
    bags = sl.Bags.from_list(patches, torch.arange(12) % 2, kinds)
    monkeypatch.setattr(crossval, "load", lambda *_: (bags, None))
    monkeypatch.setattr(crossval.nuclei, "attention_scores", None)  # nothing but the training is needed
    tiny = {"epochs": 1, "n_folds": 3, "n_validation": 1, "at_most": 4}
    colon = [{**c, **tiny} for c in attributions.cells(["colon"], ["lsa-abmilp", "embedding-max"], [0, 1])]
    small = {"epochs": 1, "n_test": 12, "width": 8, "n_bags": 8, "mean_size": 3, "pool": "subset"}
    digits = [{**c, **small} for c in attributions.cells(["mnist"], ["abmilp"], [0])]
    table = pd.DataFrame([{**cell, **attributions.run(cell)} for cell in [*colon, *digits]])
    assert table["bags"].tolist() == [2, 2, 2, 2, 6]
    found = attributions.summary(table).set_index(["data", "model"])
    assert found["runs"].tolist() == [2, 2, 1]
    laplace = found.loc[("colon", "lsa-abmilp")]
    assert laplace["gradient_more"] == pytest.approx(laplace["gradient_auc"] - laplace["attention_auc"])
    assert laplace["gradient_low"] <= laplace["gradient_more"] <= laplace["gradient_high"]
    assert found.drop(("colon", "lsa-abmilp"))["gradient_more"].isna().all()  # no attention, or one training
