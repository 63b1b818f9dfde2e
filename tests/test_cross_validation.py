import pandas as pd
import pytest
import torch
from torch import nn

import samil_lite as sl
from samil_lite.data import synthetic
from samil_lite.folds import as_folds, make_folds, parts

FAST = {"epochs": 2, "lr": 5e-3, "progress": False}


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """24 slides of 12 patients, two classes."""
    folder = synthetic.write_features(tmp_path_factory.mktemp("slides"), n_bags=24, width=8, mean_size=10)
    return sl.data.feature_bags(folder, folder / "labels.csv")


def build(name="abmilp"):
    return sl.build(name, nn.Sequential(nn.Linear(8, 8), nn.ReLU()), dim=8, hidden=8)


def build_other():
    return build("gsa-abmilp")


def test_every_bag_is_tested_once_by_a_model_that_has_not_seen_its_patient(slides):
    run = sl.cross_validate(slides, build, groups="patient", folds=3, **FAST)
    table = run.predictions
    assert table["bag"].tolist() == list(slides.names)
    assert table["group"].tolist() == slides.group("patient").tolist()
    assert table.groupby("group")["fold"].nunique().max() == 1
    assert table["label"].tolist() == [slides.classes[y] for y in slides.labels]
    torch.testing.assert_close(torch.tensor(table["p_normal"] + table["p_tumor"]), torch.ones(24).double())
    fold = torch.tensor(table["fold"])
    for number, model in enumerate(run.models):
        own = sl.predictions(model, slides.subset(fold == number))
        assert own["p_tumor"].tolist() == pytest.approx(table["p_tumor"][(fold == number).numpy()].tolist(), abs=1e-6)
        assert model.card.classes == slides.classes
        assert model.card.width == 8
    assert set(run.scores["unit"]) == {"bag", "group"}
    assert len(run.histories[0].train_loss) == 2
    assert len(run.validation) == 24


def test_a_killed_run_goes_on_and_another_run_is_refused(slides, tmp_path):
    first = sl.cross_validate(slides, build, folds=3, folder=tmp_path, **FAST)
    (tmp_path / "fold_1.safetensors").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    again = sl.cross_validate(slides, build, folds=3, folder=tmp_path, **FAST)
    pd.testing.assert_frame_equal(first.predictions, again.predictions)
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in kept.items())
    assert not list(tmp_path.glob("*.pt"))
    with pytest.raises(ValueError, match=r"of another run.*lr 0.005 and 0.1"):
        sl.cross_validate(slides, build, folds=3, folder=tmp_path, **{**FAST, "lr": 0.1})
    with pytest.raises(ValueError, match=r"of another run.*data"):  # as many bags and instances, other labels
        sl.cross_validate(slides[torch.arange(24)], build, folds=3, folder=tmp_path, **FAST)
    with pytest.raises(ValueError, match=r"of another run.*self_attention None and KernelSelfAttention"):
        sl.cross_validate(slides, build_other, folds=3, folder=tmp_path, **FAST)
    with pytest.raises(ValueError, match=r"of another run.*seed 0 and 1"):
        sl.cross_validate(slides, build, folds=tmp_path / "folds.csv", folder=tmp_path, seed=1, **FAST)


def test_processes_change_nothing(slides):
    bags = slides[:]
    one, two = (sl.cross_validate(bags, build, folds=3, workers=n, **FAST) for n in (1, 2))
    pd.testing.assert_frame_equal(one.predictions, two.predictions, atol=1e-5)


def test_standardised_features_threshold_and_temperature_travel_with_the_model(slides, tmp_path):
    run = sl.cross_validate(
        slides, build, folds=3, standardise=True, calibrate=True, threshold="youden", folder=tmp_path, **FAST
    )
    train = slides.subset(torch.tensor(run.predictions["fold"].to_numpy() == 2))[:].instances
    layer = run.models[0].encoder[0]  # fold 0 is tested, 1 chooses, 2 trains
    torch.testing.assert_close(layer.mean, train.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.deviation, train.std(0, correction=0), atol=1e-5, rtol=1e-4)
    assert all(model.card.temperature != 1 and 0 < model.card.threshold < 1 for model in run.models)
    sl.save(run.ensemble, tmp_path / "all.safetensors")
    before, after = sl.predictions(run.ensemble, slides), sl.predictions(sl.load(tmp_path / "all.safetensors"), slides)
    pd.testing.assert_frame_equal(before, after)
    members = torch.tensor([sl.predictions(model, slides)["p_tumor"].tolist() for model in run.models])
    torch.testing.assert_close(torch.tensor(before["p_tumor"]).float(), members.mean(0), atol=1e-5, rtol=1e-5)


def test_three_classes(slides):
    bags = slides[:]
    bags = sl.Bags(bags.instances, bags.offsets, torch.arange(24) % 3)
    run = sl.cross_validate(bags, build_three, folds=4, **FAST)
    assert [c for c in run.predictions if c.startswith("p_")] == ["p_0", "p_1", "p_2"]
    scores = run.scores.set_index(["score", "class"])["value"]
    one = scores["recall"].drop("macro")
    assert scores["recall", "macro"] == pytest.approx(one.mean())
    assert scores["balanced_accuracy", ""] == pytest.approx(one.mean())


def build_three():
    return sl.build("abmilp", nn.Sequential(nn.Linear(8, 8), nn.ReLU()), dim=8, hidden=8, n_classes=3)


def test_given_folds(slides, tmp_path):
    groups = list(slides.group("patient"))
    given = ["b" if b % 4 < 2 else "a" for b in range(24)]  # patients have two slides in a row
    assert as_folds(slides, given, groups, 0).tolist() == [int(name == "b") for name in given]
    pd.DataFrame({"bag": slides.names, "fold": [f"{b % 11}" for b in range(24)]}).iloc[::-1].to_csv(tmp_path / "f.csv")
    assert as_folds(slides, tmp_path / "f.csv", None, 0).tolist() == [b % 11 for b in range(24)]
    with pytest.raises(ValueError, match="group patient_1 is in several folds"):
        as_folds(slides, [b % 2 for b in range(24)], groups, 0)
    with pytest.raises(ValueError, match="expected 24 values"):
        as_folds(slides, [0, 1], None, 0)
    pd.DataFrame({"bag": slides.names[1:], "fold": 0}).to_csv(tmp_path / "f.csv")
    with pytest.raises(ValueError, match="lacks 1 of 24 bags, slide_1"):
        as_folds(slides, tmp_path / "f.csv", None, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 2}, "folds, n_validation: expected folds to choose"),
        ({"folds": 13, "groups": "patient"}, "class 0 has only 6 groups; got 13"),
        ({"threshold": "best"}, "threshold: expected a probability or one of half"),
        ({"groups": "patients"}, "column 'patients'"),
        ({"groups": [1, 2]}, "groups: expected 24 values, one for each bag, got 2"),
        ({"checkpoint": "x"}, "checkpoint: cross_validate sets this itself"),
        ({"workers": 0}, "workers"),
    ],
)
def test_arguments_that_cannot_be_right(slides, options, message):
    with pytest.raises(ValueError, match=message):
        sl.cross_validate(slides, build, **{"folds": 3, **FAST, **options})


def test_names_of_classes_decide_not_their_numbers(slides, tmp_path):
    """A cohort whose classes are numbered otherwise, or lacks one, is scored by name."""
    model = build()
    sl.save(model, tmp_path / "m.safetensors", bags=slides)
    model = sl.load(tmp_path / "m.safetensors")
    full = sl.predictions(model, slides, groups="patient")
    folder, table = slides.paths[0].parent, slides.table
    tumors = table[table["label"] == "tumor"]
    only = sl.data.feature_bags(folder, tumors, allow_unlisted=True)  # its class 0 is tumor
    found = sl.predictions(model, only)
    assert set(found["label"]) == {"tumor"}
    assert found["p_tumor"].tolist() == pytest.approx(full["p_tumor"][full["label"] == "tumor"].tolist(), abs=1e-6)
    other = sl.data.feature_bags(folder, table.replace("tumor", "cancer"))
    with pytest.raises(ValueError, match="they have the class cancer, the model was trained on normal, tumor"):
        sl.predictions(model, other)
    with pytest.raises(ValueError, match="trained on 8 features an instance, these bags have 9"):
        sl.predictions(model, sl.Bags.from_list([torch.zeros(3, 9)]))


def test_test_validation_and_training_share_no_bag():
    fold = make_folds(torch.arange(12) % 2, 6, seed=0)
    test, validation = parts(fold, torch.arange(6)[:, None], 6, 2)  # (6, 12) each
    assert (test.sum(0) == 1).all()
    assert (validation.sum(0) == 2).all()
    assert not (test & validation).any()
    assert torch.equal(test[2], parts(fold, 2, 6, 2)[0])


def test_folds_are_even_and_groups_stay_whole():
    labels = torch.arange(60) % 2
    fold = make_folds(labels, 10, seed=0)
    assert fold.bincount().tolist() == [6] * 10
    assert all(labels[fold == f].sum() == 3 for f in range(10))
    assert not torch.equal(fold, make_folds(labels, 10, seed=1))
    groups = [str(b // 5) for b in range(60)]
    grouped = make_folds(labels, 4, seed=0, groups=groups)
    for group in set(groups):
        assert len({int(f) for f, g in zip(grouped, groups, strict=True) if g == group}) == 1


def test_grouped_folds_are_the_same_on_every_version_of_scikit_learn():
    """Ten groups of 1 to 10 bags: folds written down once, and even, as they are only if counts stay with groups."""
    group, labels = torch.arange(10).repeat_interleave(torch.arange(1, 11)), torch.arange(55) % 2
    fold = make_folds(labels, 3, seed=0, groups=group.tolist())
    starts = torch.tensor([0, 1, 3, 6, 10, 15, 21, 28, 36, 45])  # the first bag of each group
    assert fold[starts].tolist() == [2, 1, 0, 1, 2, 1, 0, 0, 1, 2]
    assert fold.bincount().tolist() == [18, 21, 16]


def test_bags_that_stay_on_disk_give_the_same(slides, monkeypatch):
    held = sl.cross_validate(slides, build, groups="patient", folds=3, standardise=True, **FAST)
    monkeypatch.setattr("samil_lite.cross_validation.IN_MEMORY", 0)
    on_disk = sl.cross_validate(slides, build, groups="patient", folds=3, standardise=True, **FAST)
    pd.testing.assert_frame_equal(held.predictions, on_disk.predictions)
    assert held.models[0].card.classes == on_disk.models[0].card.classes == slides.classes


def test_a_loss_of_ones_own_is_known_by_its_name(slides, tmp_path):
    options = {"folds": 3, "folder": tmp_path, **FAST}
    first = sl.cross_validate(slides, build, loss=squares, **options)
    again = sl.cross_validate(slides, build, loss=squares, **options)
    pd.testing.assert_frame_equal(again.predictions, first.predictions)
    with pytest.raises(ValueError, match=r"loss .*squares' and None"):
        sl.cross_validate(slides, build, class_weight="balanced", **options)


def squares(logits, labels):
    return (logits.sigmoid() - labels.float()).square().mean()


def test_attention_by_slide(slides):
    """Of all slides at once, and cut into one for each."""
    attention = sl.predict(build(), slides).attention
    assert [len(part) for part in slides.split(attention)] == slides.sizes.tolist()
    with pytest.raises(ValueError, match=r"expected 236 rows"):
        slides.split(attention[1:])
