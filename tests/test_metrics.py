import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ragged import offsets_of, sizes
from sklearn.metrics import roc_auc_score

from samil_lite import metrics
from samil_lite.evaluation import class_metrics, label_metrics, number_errors
from samil_lite.metrics import (
    attention_auc,
    attention_entropy,
    bag_loss,
    bag_metrics,
    calibration_error,
    difference,
    mean_interval,
    paired_interval,
    precision_at_k,
    recall_at_precision,
    top_share,
    weakest_key,
)


def test_scores_by_counting():
    """Six bags: 2 true positives, 1 false positive, 1 false negative, 2 true negatives."""
    logits = torch.tensor([3.0, 1.0, 2.0, -1.0, -2.0, -3.0])
    labels = torch.tensor([1, 1, 0, 1, 0, 0])
    metrics = bag_metrics(logits, labels)
    assert metrics.accuracy == pytest.approx(4 / 6)
    assert metrics.precision == pytest.approx(2 / 3)
    assert metrics.recall == pytest.approx(2 / 3)
    assert metrics.f_score == pytest.approx(2 / 3)
    assert metrics.auc == pytest.approx(7 / 9)  # 9 pairs: 3 rank above both others, 1 above two, −1 above two
    p = torch.sigmoid(logits)
    assert metrics.loss == pytest.approx(-torch.where(labels == 1, p, 1 - p).log().mean().item())


def test_recall_at_a_precision_by_hand():
    logits, labels = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), torch.tensor([1, 1, 0, 1, 0])
    assert recall_at_precision(logits, labels, 1.0) == pytest.approx(2 / 3)  # the two highest
    assert recall_at_precision(logits, labels, 0.75) == 1  # three of the four highest
    assert recall_at_precision(logits, 1 - labels, 0.9) == 0  # the highest is of the other kind
    assert np.isnan(recall_at_precision(logits, torch.zeros(5), 0.9))


def test_calibration_error_by_hand():
    p = torch.tensor([0.1, 0.3, 0.6, 0.8], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 1])
    # Two bins: mean probability 0.2 with half of the labels positive, and 0.7 with all.
    assert calibration_error(p.logit(), labels, 2) == pytest.approx((0.3 + 0.3) / 2)
    assert calibration_error(torch.tensor([-40.0, 40.0]), torch.tensor([0, 1]), 2) == pytest.approx(0)


def test_shared_training_bags_widen_the_interval():
    x = [0.1, 0.3, 0.2, 0.4]
    mean, low, high = mean_interval(x)
    assert mean_interval(x, ratio=3 / 4)[0] == mean
    assert mean_interval(x, ratio=3 / 4)[1:] == pytest.approx((mean - 2 * (mean - low), mean + 2 * (high - mean)))


def test_perfect_classes():
    logits = 9 * torch.eye(3)[[0, 1, 2, 1]]
    metrics = bag_metrics(logits, torch.tensor([0, 1, 2, 1]))
    assert (metrics.accuracy, metrics.precision, metrics.recall, metrics.f_score, metrics.auc) == (1, 1, 1, 1, 1)


def test_two_classes_and_one_logit_agree():
    logits, labels = torch.randn(20), torch.arange(20) % 2
    both = torch.stack([torch.zeros(20), logits], 1)
    torch.testing.assert_close(bag_loss(both, labels), bag_loss(logits, labels))
    assert bag_metrics(both, labels).auc == pytest.approx(bag_metrics(logits, labels).auc)


def test_attention_auc_counts_pairs():
    attention = torch.tensor([0.5, 0.3, 0.2, 0.6, 0.4, 1.0])
    key = torch.tensor([True, False, True, False, False, True])
    scores = attention_auc(attention, key, torch.tensor([0, 3, 5, 6]))
    assert scores[0] == 0.5  # one pair won, one lost
    assert np.isnan(scores[1:]).all()  # no key instance; key instances only
    with pytest.raises(ValueError, match="key: expected booleans"):
        attention_auc(attention, key.long(), torch.tensor([0, 3, 5, 6]))


@given(sizes, st.integers(0, 99))
def test_concentration_of_attention_as_a_loop_over_bags(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    offsets, n = offsets_of(sizes), sum(sizes)
    attention = torch.cat([torch.rand(m, generator=generator).softmax(0) for m in sizes])
    key = torch.rand(n, generator=generator) < 0.4
    found = (
        precision_at_k(attention, key, offsets),
        top_share(attention, offsets),
        attention_entropy(attention, offsets),
    )
    for b, (a, is_key) in enumerate(zip(attention.split(sizes), key.split(sizes), strict=True)):
        order, k = a.argsort(descending=True), int(is_key.sum())
        expected = (
            is_key[order[:k]].float().mean(),  # NaN without a key instance
            a[order[: -(-len(a) // 10)]].sum(),
            -(a * a.log()).sum() / torch.tensor(float(len(a))).log(),
        )
        for ours, by_loop in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[b], by_loop, equal_nan=True)


def test_even_and_sharp_attention():
    offsets, even = torch.tensor([0, 40]), torch.full((40,), 1 / 40)
    sharp = torch.zeros(40)
    sharp[3] = 1
    assert attention_entropy(even, offsets).item() == pytest.approx(1)
    assert attention_entropy(sharp, offsets).item() == 0
    assert top_share(even, offsets).item() == pytest.approx(0.1)
    assert top_share(sharp, offsets).item() == 1


def test_interval_covers_as_often_as_it_says():
    rng = np.random.RandomState(0)
    intervals = [mean_interval(rng.normal(3, 2, 5)) for _ in range(2000)]
    covered = np.mean([low < 3 < high for _, low, high in intervals])
    assert 0.935 < covered < 0.965


def test_interval_needs_two_runs():
    with pytest.raises(ValueError, match="values: expected at least two runs"):
        mean_interval([1.0])


@given(sizes=sizes, seed=st.integers(0, 1000))
def test_attention_auc_is_that_of_scikit_learn(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randint(0, 4, (sum(sizes),), generator=generator) / 4  # with ties
    key = torch.rand(sum(sizes), generator=generator) < 0.5
    expected = [
        roc_auc_score(k, a) if 0 < k.sum() < len(k) else np.nan
        for a, k in zip(attention.split(sizes), key.split(sizes), strict=True)
    ]
    np.testing.assert_allclose(attention_auc(attention, key, offsets_of(sizes)), expected)


def test_weakest_key():
    digits = torch.tensor([9, 7, 1, 9, 7, 7, 2, 9, 1])
    attention = torch.tensor([0.5, 0.4, 0.1, 0.9, 0.02, 0.05, 0.03, 0.6, 0.4])
    kinds = digits[:, None] == torch.tensor([9, 7])
    result = weakest_key(attention, kinds, torch.tensor([0, 3, 7, 9]))
    torch.testing.assert_close(result, torch.tensor([3 * 0.4, 4 * 0.05, torch.nan]), equal_nan=True)
    with pytest.raises(ValueError, match=r"kinds: expected booleans of shape \(9, C\), got torch.int64 \(9,\)"):
        weakest_key(attention, digits, torch.tensor([0, 9]))


def test_paired_interval():
    b = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    mean, low, high = paired_interval(b + 0.1, b)
    assert (mean, low, high) == pytest.approx((0.1, 0.1, 0.1))  # the spread of the runs themselves cancels
    one_bad = paired_interval(b + np.array([0.1, 0.1, 0.1, 0.1, -0.1]), b)
    assert one_bad[0] == pytest.approx(0.06)
    assert one_bad[1] < 0 < one_bad[2]
    assert paired_interval(b, b + 0.1) == pytest.approx((-0.1, -0.1, -0.1))
    assert paired_interval([1, 2], [0, 3])[1:] == (-1, 1)  # two pairs: no more than their range can be said
    with pytest.raises(ValueError, match="a: expected at least two runs"):
        paired_interval([1], [0])


def test_paired_intervals_cover_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(size=(400, 5))
    covered = [low <= 0 <= high for _, low, high in (paired_interval(x, np.zeros(5)) for x in draws)]
    assert 0.91 < np.mean(covered) < 0.99


LOGITS, LABELS, OFFSETS = torch.arange(6.0) - 2.5, torch.tensor([0, 1] * 3), torch.tensor([0, 3, 6])
WEIGHTS = torch.tensor([0.2, 0.3, 0.5, 0.1, 0.1, 0.8])
NAN = float("nan")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.mean_interval([1.0, 2.0], 95), "level: expected a number above 0 and below 1, got 95"),
        (lambda: metrics.mean_interval([1.0, NAN]), "values: expected at least two runs, one finite number each"),
        (lambda: metrics.mean_interval([1.0, 2.0], ratio=-1), "ratio: expected a number of at least 0"),
        (lambda: metrics.paired_interval([1.0, 2.0, 3.0], 0.5), "b: expected a list of numbers, got 0.5"),
        (lambda: metrics.paired_interval([1.0, 2.0, 3.0], [1.0, 2.0]), "b: expected 3 runs, one for each of a, got 2"),
        (lambda: metrics.calibration_error(LOGITS, torch.cat([LABELS] * 2)), "labels: expected 6 integers"),
        (lambda: metrics.calibration_error(LOGITS, LABELS, 7), "n_bins: expected at most 6"),
        (lambda: metrics.recall_at_precision(LOGITS, LABELS, 2), "precision: expected a number from 0 to 1"),
        (lambda: metrics.bag_metrics(LOGITS * NAN, LABELS), "logits: expected finite numbers, got NaN or infinity"),
        (lambda: metrics.bag_metrics(torch.full((6, 3), NAN), LABELS), "logits: expected finite numbers"),
        (lambda: metrics.bag_metrics(LOGITS, LABELS + 1), "labels: expected 0 to 1, got 1 to 2"),
        (lambda: metrics.top_share(WEIGHTS, OFFSETS, NAN), "share: expected a number from 0 to 1, got nan"),
        (lambda: metrics.attention_auc(WEIGHTS * NAN, WEIGHTS > 0.2, OFFSETS), "attention: expected finite"),
        (lambda: metrics.attention_auc(WEIGHTS, WEIGHTS > 0.2, OFFSETS[:2]), "offsets: expected first 0 and last 6"),
        (lambda: metrics.precision_at_k(WEIGHTS, LABELS * 2, OFFSETS), "key: expected booleans"),
        (lambda: metrics.attention_entropy(LABELS, OFFSETS), "attention: expected finite floating-point"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_arrays_and_lists_are_scored_as_tensors_are():
    assert metrics.bag_metrics(LOGITS.numpy(), LABELS.tolist()) == metrics.bag_metrics(LOGITS, LABELS)


def test_a_difference_pairs_runs_by_their_index_and_says_how_sure_it_is():
    a, b = pd.Series([0.9, 0.8, 0.7, 0.6], [1, 2, 3, 4]), pd.Series([0.5, 0.6, 0.7], [3, 2, 1])
    found = difference(a, b)
    assert found.pairs == 3
    assert found.effect == pytest.approx((0.2 + 0.2 + 0.2) / 3)
    assert found.verdict == "above zero"
    assert str(found) == "+0.200 (+0.200 to +0.200), 3 pairs: above zero"
    assert difference(b, a).verdict == "below zero"
    assert difference(a, a.add([0.1, -0.1, 0.1, -0.1])).verdict == "no clear difference"
    with pytest.raises(ValueError, match="a: expected one run for each"):
        difference(pd.Series([1.0, 2.0], [1, 1]), b)
    with pytest.raises(ValueError, match="two pairs"):
        difference(a, pd.Series([1.0], [1]))


def test_scores_of_each_class_by_counting():
    """Labels 0, 0, 1, 1, 2, 2, called 0, 1, 1, 1, 2, 0."""
    logits = torch.tensor([[2.0, 1, 0], [1, 2.5, 0], [0, 2, 1], [0, 3, 0], [0, 1, 2], [2, 1, 0]])
    first, second, third = class_metrics(logits, torch.tensor([0, 0, 1, 1, 2, 2]), ["a", "b", "c"])
    assert (first.name, first.n, first.precision, first.recall, first.specificity) == ("a", 2, 0.5, 0.5, 0.75)
    assert (second.precision, second.recall, second.specificity) == (2 / 3, 1, 0.75)
    assert (third.precision, third.recall, third.specificity) == (1, 0.5, 1)
    assert second.f_score == pytest.approx(0.8)
    p = logits.softmax(1)
    for c, one in enumerate((first, second, third)):
        pairs = [(p[i, c], p[j, c]) for i in (2 * c, 2 * c + 1) for j in range(6) if j // 2 != c]
        assert one.auc == pytest.approx(sum((a > b) + 0.5 * (a == b) for a, b in pairs) / 8)


@given(st.lists(st.tuples(st.floats(-3, 3), st.booleans()), min_size=1, max_size=20))
def test_one_logit_has_the_scores_of_its_second_class(pairs):
    logits, labels = torch.tensor([p for p, _ in pairs]), torch.tensor([int(y) for _, y in pairs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        whole = bag_metrics(logits, labels)
    negative, positive = class_metrics(logits, labels)
    for name in ("precision", "recall", "f_score", "auc"):
        if name != "f_score" or not np.isnan(whole.precision):
            assert getattr(positive, name) == pytest.approx(getattr(whole, name), nan_ok=True)
    assert positive.specificity == pytest.approx(negative.recall, nan_ok=True)
    assert positive.auc == pytest.approx(negative.auc, nan_ok=True)


def test_several_labels_a_bag_are_scored_each_and_on_the_mean():
    logits = torch.tensor([[1.0, -1], [2, 3], [-1, -2], [-3, 1]])
    labels = torch.tensor([[1, 0], [1, 1], [0, 1], [1, 0]])
    whole, (first, second) = label_metrics(logits, labels), class_metrics(logits, labels, ["KRAS", "TP53"])
    assert whole.accuracy == 5 / 8
    assert (first.name, first.precision, first.recall, first.specificity, first.auc) == ("KRAS", 1, 2 / 3, 1, 2 / 3)
    assert (second.precision, second.recall, second.specificity, second.auc) == (0.5, 0.5, 0.5, 0.5)
    assert whole.auc == pytest.approx((2 / 3 + 0.5) / 2)
    assert whole.loss == pytest.approx(bag_loss(logits, labels).item())


def test_distances_of_numbers():
    found = number_errors(torch.tensor([1.0, 2, 4]), torch.tensor([1.0, 3, 2]))
    assert (found.mean_absolute, found.n) == (1, 3)
    assert found.root_mean_square == pytest.approx((5 / 3) ** 0.5)
    assert found.r2 == pytest.approx(1 - 5 / 2)
    assert found.rank_correlation == pytest.approx(0.5)
    assert np.isnan(number_errors(torch.ones(3), torch.ones(3)).r2)
    with pytest.raises(ValueError, match=r"predicted: expected 3 finite numbers.*n_classes=1"):
        number_errors(torch.zeros(3, 2), torch.ones(3))
