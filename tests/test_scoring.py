import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from samil_lite.predicting import by_group
from samil_lite.scoring import choose_temperature, choose_threshold, score_table


def made(n=60, classes=("no", "yes"), seed=0, **columns):
    """A table of predictions with ties."""
    rng = np.random.default_rng(seed)
    y = rng.integers(len(classes), size=n)
    logits = rng.normal(size=(n, len(classes))).round(1)
    logits[np.arange(n), y] += 1
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = np.array(classes, dtype=object)
    called = (p[:, 1] >= 0.5).astype(int) if len(classes) == 2 else p.argmax(1)
    table = pd.DataFrame({"bag": [f"b{i}" for i in range(n)], "label": names[y], "predicted": names[called]})
    return table.assign(**{f"p_{name}": p[:, c] for c, name in enumerate(classes)}, threshold=0.5, **columns)


def values(table):
    return score_table(table, resamples=200).query("unit == 'bag'").set_index(["score", "class"])


def test_scores_of_two_classes_are_those_of_scikit_learn():
    table = made()
    y, p, called = table["label"] == "yes", table["p_yes"], table["predicted"] == "yes"
    found = values(table)["value"]
    assert found["auc", "yes"] == pytest.approx(metrics.roc_auc_score(y, p))
    assert found["average_precision", "yes"] == pytest.approx(metrics.average_precision_score(y, p))
    assert found["accuracy", ""] == pytest.approx(metrics.accuracy_score(y, called))
    assert found["balanced_accuracy", ""] == pytest.approx(metrics.balanced_accuracy_score(y, called))
    assert found["precision", "yes"] == pytest.approx(metrics.precision_score(y, called))
    assert found["recall", "yes"] == pytest.approx(metrics.recall_score(y, called))
    assert found["specificity", "yes"] == pytest.approx(metrics.recall_score(~y, ~called))
    assert found["f_score", "yes"] == pytest.approx(metrics.f1_score(y, called))
    assert found["brier", ""] == pytest.approx(metrics.brier_score_loss(y, p))
    assert found["log_loss", ""] == pytest.approx(metrics.log_loss(y, p))


def test_scores_of_three_classes_are_those_of_scikit_learn():
    table = made(classes=("a", "b", "c"))
    y, p = table["label"], table[["p_a", "p_b", "p_c"]].to_numpy()
    found = values(table)["value"]
    assert found["auc", "macro"] == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr"))
    assert found["f_score", "macro"] == pytest.approx(metrics.f1_score(y, table["predicted"], average="macro"))
    for c, name in enumerate("abc"):
        assert found["auc", name] == pytest.approx(metrics.roc_auc_score(y == name, p[:, c]))
        assert found["recall", name] == pytest.approx(metrics.recall_score(y == name, table["predicted"] == name))


def test_auc_compares_within_folds():
    table = made(80, fold=np.arange(80) % 4)
    shifted = table.assign(p_yes=table["p_yes"] * (table["fold"] + 1) / 4)  # each fold's model has a scale of its own
    mean = np.mean([metrics.roc_auc_score(t["label"] == "yes", t["p_yes"]) for _, t in table.groupby("fold")])
    assert values(table)["value"]["auc", "yes"] == pytest.approx(mean)
    assert values(shifted)["value"]["auc", "yes"] == pytest.approx(mean)


def test_intervals_cover_as_often_as_they_say():
    """Accuracy of 60 bags in 20 patients whose three bags are all right or all wrong; the truth is 0.8."""
    rng = np.random.default_rng(0)
    covered = {"bags": 0, "patients": 0}
    for _ in range(150):
        right = np.repeat(rng.random(20) < 0.8, 3)
        table = pd.DataFrame({"bag": range(60), "label": "yes", "predicted": np.where(right, "yes", "no")})
        table = table.assign(p_no=0.5, p_yes=0.5, threshold=0.5)
        for name, t in (("bags", table), ("patients", table.assign(group=np.repeat(np.arange(20), 3)))):
            with np.errstate(all="ignore"):
                row = values(t).loc[("accuracy", "")]
            covered[name] += row["low"] <= 0.8 <= row["high"]
    assert covered["patients"] / 150 > 0.9
    assert covered["bags"] / 150 < 0.8  # as if the bags of a patient were independent


def test_a_perfect_score_has_an_interval():
    table = made(20)
    table = table.assign(predicted=table["label"], p_yes=(table["label"] == "yes") * 1.0)
    row = values(table).loc[("accuracy", "")]
    assert (row["value"], row["high"]) == (1, 1)
    assert row["low"] == pytest.approx(0.025 ** (1 / 20))


def test_scores_by_patient_are_of_mean_probabilities():
    table = made(40, group=np.arange(40) // 2)
    table["label"] = table["label"].iloc[::2].repeat(2).to_numpy()
    mean = by_group(table)
    assert mean["p_yes"].tolist() == pytest.approx(table.groupby("group")["p_yes"].mean().tolist())
    scores = score_table(table, resamples=200).set_index(["unit", "score", "class"])
    expected = metrics.roc_auc_score(mean["label"] == "yes", mean["p_yes"])
    assert scores["value"]["group", "auc", "yes"] == pytest.approx(expected)
    assert scores["n"]["group", "auc", "yes"] == 20
    with pytest.warns(UserWarning, match="by bag alone.*several values of label"):
        score_table(made(40, group=np.arange(40) // 2), resamples=200)


@given(st.integers(0, 10**6))
def test_thresholds_keep_their_promise(seed):
    rng = np.random.default_rng(seed)
    p, y = rng.random(30).round(1), rng.random(30) < 0.4
    y[:2] = True, False
    for rule, measure in (("recall>=0.8", metrics.recall_score), ("f_score", metrics.f1_score)):
        threshold = choose_threshold(p, y, rule)
        here = measure(y, p >= threshold)
        if rule == "f_score":
            assert here == pytest.approx(max(measure(y, p >= t, zero_division=0) for t in np.append(p, 1.1)))
        else:
            assert here >= 0.8
            assert all(measure(y, p >= t) < 0.8 for t in np.unique(p[p > threshold])[1:])
    j = [metrics.recall_score(y, p >= t) - (p >= t)[~y].mean() for t in np.append(p, [0, 1.1])]
    t = choose_threshold(p, y, "youden")
    assert metrics.recall_score(y, p >= t) - (p >= t)[~y].mean() == pytest.approx(max(j))


def test_thresholds_that_cannot_be_chosen():
    assert choose_threshold([0.2, 0.9], [False, True]) == 0.5
    assert choose_threshold([0.2], [True], 0.3) == 0.3
    with pytest.warns(UserWarning, match="needs bags of both classes"):
        assert choose_threshold([0.2, 0.9], [True, True], "youden") == 0.5
    with pytest.warns(UserWarning, match="no threshold reaches"):
        assert choose_threshold([0.2, 0.9], [True, False], "precision>=0.9") > 0.9
    for rule in ("best", "recall>=2", "precision", 1.5, None):
        with pytest.raises(ValueError, match="threshold: expected"):
            choose_threshold([0.2, 0.9], [True, False], rule)


def test_temperature_finds_the_scale():
    logits = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    labels = (torch.rand(4000, generator=torch.Generator().manual_seed(1)) < logits.sigmoid()).long()
    assert choose_temperature(3 * logits, labels) == pytest.approx(3, rel=0.15)
    both = torch.stack([-1.5 * logits, 1.5 * logits], 1)
    assert choose_temperature(both, labels) == pytest.approx(3, rel=0.15)
    few = torch.tensor([-1.0, -2, 3, 1])
    assert choose_temperature(few, torch.tensor([0, 0, 1, 1])) > 0.5  # all right, and still not certain
