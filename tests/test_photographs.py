"""Cross-validation on photographs: on features made here, of which the answers are known."""

import warnings

import numpy as np
import pytest
import torch

from samil_lite import Bags
from samil_lite.data.idrid import LESIONS
from samil_lite.experiments import photographs
from samil_lite.experiments.settings import changed


@pytest.fixture
def made(monkeypatch):
    """Forty bags of five patches, told by their first number; the lesions of ten are known, and are those patches."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    x = torch.randn(200, 6, generator=rng)
    key = torch.zeros(40, 5, dtype=torch.bool)
    key[labels == 1, 0] = True
    x[key.flatten(), 0] += 8
    areas = torch.full((200, 4), torch.nan)
    outlined = (torch.arange(40) < 20)[:, None].expand(-1, 5).flatten() & labels.repeat_interleave(5).bool()
    areas[outlined] = 0
    areas[outlined & key.flatten(), 0] = 0.5
    bags = Bags(x, torch.arange(41) * 5, labels)
    groups = [str(b // 4) for b in range(40)]
    monkeypatch.setattr(photographs, "load", lambda *_: (bags, groups, areas))
    return bags, groups


def config(**changes):
    (cell,) = photographs.cells(["idrid"], ["abmilp"], [0], epochs=15, lr=0.01, width=8, **changes)
    return cell


def test_a_run_scores_every_fold_and_finds_the_lesions(made):
    result = photographs.run(config())
    assert len(result["auc"]) == len(result["validation_loss"]) == 5
    assert np.mean(result["auc"]) > 0.9
    assert len(result["logits"]) == len(result["labels"]) == 40
    lesions = result["lesions"]
    assert len(lesions["bag"]) == 10
    assert np.mean(lesions["auc_any"]) > 0.8
    assert np.mean(lesions["auc_leave-one-out"]) > 0.8
    assert set(lesions["share"]) == {0.2}
    assert lesions["auc_HE"] == [None] * 10  # no patch has a haemorrhage
    assert lesions["auc_large"] == lesions["auc_MA"] == lesions["auc_any"]


def test_grouped_folds_divide_no_group_and_single_patches_divide_photographs(made):
    bags, groups = made
    grouped = photographs.instance_folds(bags, groups, config()).view(40, 5)
    assert (grouped == grouped[:, :1]).all()
    assert all(len({int(f) for f, g in zip(grouped[:, 0], groups, strict=True) if g == group}) == 1 for group in groups)
    divided = photographs.instance_folds(bags, groups, config(split="photographs")).view(40, 5)
    assert (divided == divided[:, :1]).all()
    patches = photographs.instance_folds(bags, groups, config(split="patches")).view(40, 5)
    assert (patches != patches[:, :1]).any(1).sum() > 30


def test_five_classes_and_rows_for_each_fold(made):
    table = photographs.fold_scores(torch.eye(5).repeat(2, 1) * 4, torch.arange(5).repeat(2))
    assert table == {"accuracy": 1.0, "balanced_accuracy": 1.0, "auc": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import pandas as pd

        runs = pd.DataFrame([{**config(), **photographs.run(config())}])
    folds = photographs.by_fold(runs)
    assert list(folds["fold"]) == [0, 1, 2, 3, 4]
    assert folds["lesion_auc_any"].mean() > 0.8
    assert photographs.summary(runs)["repeats"].tolist() == [1]


def test_principal_components_keep_what_varies_most():
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 0.1, 4.0, 0.1, 0.1])
    z = photographs.principal_components(x, 2)
    assert z.shape == (300, 2)
    torch.testing.assert_close(z.std(0), x[:, [0, 2]].std(0), rtol=0.02, atol=0)


def test_kinds_of_lesions_are_those_of_the_loader():
    assert tuple(LESIONS) == photographs.KINDS


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="split"):
        photographs.cells(["idrid"], ["abmilp"], [0], split="by chance")
    with pytest.raises(ValueError, match="backbone"):
        changed(photographs.SETTINGS, {"backbone": "vgg"})


def test_the_public_split_has_one_test_part(made, monkeypatch):
    bags, groups = made
    test = torch.rand(200, generator=torch.Generator().manual_seed(1)) < 0.2
    monkeypatch.setattr(photographs, "public_test", lambda: test)
    (cell,) = photographs.cells(["defungi"], ["abmilp"], [0], split="public", epochs=1, width=8)
    fold = photographs.instance_folds(bags, groups, cell)
    assert torch.equal(fold == 0, test)
    assert set(fold[~test].tolist()) == {1, 2, 3, 4}
    result = photographs.run(cell)
    assert len(result["auc"]) == 1
    assert "logits" not in result
    import pandas as pd

    assert photographs.by_fold(pd.DataFrame([{**cell, **result}]))["fold"].tolist() == [0]
    with pytest.raises(ValueError, match="split: only defungi has a public one"):
        photographs.cells(["defungi", "idrid"], ["abmilp"], [0], split="public")
