import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import samil_lite as sl
from samil_lite.data import synthetic
from samil_lite.sklearn import InstanceTransformer, MILClassifier, as_bags

sklearn_version = tuple(map(int, sklearn.__version__.split(".")[:2]))
FAST = {"epochs": 3, "width": 8, "hidden": 8, "random_state": 0, "device": "cpu"}


def made(n=40, seed=0):
    """Bags of a few instances; in positive ones, one is shifted. The scale of features is far from 1."""
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(rng.integers(3, 9), 4)) for _ in range(n)]
    y = np.array(["no", "yes"] * (n // 2))
    for bag, label in zip(X, y, strict=True):
        bag[0, 0] += 5 * (label == "yes")
        bag *= [100, 1, 0.01, 1]
    return X, y, np.repeat(np.arange(n // 4), 4)


@pytest.mark.skipif(sklearn_version < (1, 6), reason="check_estimator tells its results from scikit-learn 1.6 on")
def test_scikit_learns_own_checks():
    """Arrays (B, d) are bags of one instance each, so all checks make sense but those named here."""
    found = check_estimator(MILClassifier(**FAST, validation=0), on_skip=None, on_fail=None)
    odd = {row["check_name"]: row["exception"] for row in found if row["status"] not in ("passed", "skipped")}
    assert odd == {}
    assert sum(row["status"] == "passed" for row in found) > 40


def test_grid_search_with_groups_and_a_scaler_over_instances():
    X, y, groups = made()
    pipeline = make_pipeline(
        InstanceTransformer(StandardScaler()),
        MILClassifier(**{**FAST, "epochs": 40}, lr=1e-2, validation=0.25),
    )
    search = GridSearchCV(pipeline, {"milclassifier__model": ["abmilp", "embedding-mean"]}, cv=GroupKFold(2))
    search.fit(X, y, groups=groups)
    assert search.best_score_ > 0.8
    assert search.score(*made(seed=1)[:2]) > 0.8
    p = search.predict_proba(X)
    assert p.shape == (40, 2)
    assert np.allclose(p.sum(1), 1)
    assert (search.predict(X) == np.array(["no", "yes"])[p.argmax(1)]).all()


def test_all_forms_of_bags_are_the_same():
    X, y, _ = made(12)
    bags = sl.Bags.from_list([x.astype(np.float32) for x in X], (y == "yes").astype(int))
    rows = pd.DataFrame(np.concatenate(X), index=np.repeat([f"m{b}" for b in range(12)], [len(x) for x in X]))
    expected = MILClassifier(**FAST).fit(X, y).predict_proba(X)
    for form in (tuple(X), bags, list(bags), rows, [torch.from_numpy(x) for x in X]):
        assert np.allclose(MILClassifier(**FAST).fit(form, y).predict_proba(form), expected)
    own = MILClassifier(**FAST).fit(bags)
    assert own.classes_.tolist() == [0, 1]
    assert np.allclose(own.predict_proba(bags), expected)
    cube = np.zeros((3, 5, 4))
    assert as_bags(cube).sizes.tolist() == [5, 5, 5]


def test_bags_on_disk(tmp_path):
    folder = synthetic.write_features(tmp_path, n_bags=12, width=8, mean_size=8)
    slides = sl.data.feature_bags(folder, folder / "labels.csv")
    model = MILClassifier(**FAST).fit(slides, groups=slides.group("patient"))
    assert model.classes_.tolist() == ["normal", "tumor"]
    assert np.allclose(model.predict_proba(slides), MILClassifier(**FAST).fit(
        slides[:], np.array(slides.classes)[slides.labels], groups=slides.group("patient")
    ).predict_proba(slides[:]))  # fmt: skip
    path = sl.save(model.model_, tmp_path / "m.safetensors")
    assert sl.predictions(sl.load(path), slides)["p_tumor"].tolist() == pytest.approx(model.predict_proba(slides)[:, 1])


def test_three_classes_attention_and_clone():
    X, _, _ = made(12)
    model = clone(MILClassifier("iqsa-abmilp", **FAST)).fit(X, [3, 1, 2] * 4)
    assert model.classes_.tolist() == [1, 2, 3]
    assert model.predict_proba(X).shape == (12, 3)
    weights = model.attention(X)
    assert [len(w) for w in weights] == [len(x) for x in X]
    assert np.allclose([w.sum() for w in weights], 1)


def test_groups_are_not_divided_by_the_validation_part():
    _, y, groups = made(40)
    model = MILClassifier(**FAST, validation=0.3)
    model.classes_ = np.unique(y)
    for seed in range(5):
        chooser = model._chooser(torch.tensor(y == "yes").long(), groups, seed).numpy()
        assert 0 < chooser.sum() < 20
        assert all(len(set(chooser[groups == g])) == 1 for g in groups)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([], [], "X"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], [0, 1], r"bags\[1\]"),
        ([np.zeros((2, 3)), np.zeros((2, 3))], [0, 1, 1], "y: expected 2 labels"),
        ([np.zeros((2, 3)), np.full((2, 3), np.nan)], [0, 1], "NaN"),
        ([np.zeros((2, 3)), np.zeros((2, 3))], [1, 1], "two classes or more"),
        ([np.zeros((2, 3)), np.zeros((2, 3))], None, "y: requires y"),
    ],
)
def test_what_cannot_be_learned(X, y, message):
    with pytest.raises(ValueError, match=message):
        MILClassifier(**FAST).fit(X, y)
