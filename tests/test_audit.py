import pandas as pd
import pytest
import torch
from torch import nn

import samil_lite as sl
from samil_lite import audit
from samil_lite.data.synthetic.assumptions import false_frequency, multi_concept, single_concept
from samil_lite.experiments import unit_tests
from samil_lite.pooling import NoisyOrPool
from samil_lite.segments import segment_max, segment_sum

TESTS = pytest.mark.parametrize("name", audit.UNIT_TESTS)


class Reader(nn.Module):
    """A model that is right by rule: the logit is a function of the bag's instances, written by the test."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, bags):
        return self.rule(bags.instances, bags.offsets)


def counted(bags, kind):
    return segment_sum((bags.instance_labels == kind).long(), bags.offsets)  # (B,)


@TESTS
def test_same_seed_same_bags_and_half_are_positive(name):
    (train, test), (again, _) = audit.UNIT_TESTS[name](61, 30, 3), audit.UNIT_TESTS[name](61, 30, 3)
    other, _ = audit.UNIT_TESTS[name](61, 30, 4)
    assert torch.equal(train.instances, again.instances)
    assert not torch.equal(train.labels, other.labels)
    assert (len(train), len(test), int(train.labels.sum()), int(test.labels.sum())) == (61, 30, 30, 15)
    assert train.instances.shape[1] == 16


@pytest.mark.parametrize("committed", [False, True])
def test_single_concept_is_as_described(committed):
    train, test = single_concept(2000, 2000, committed=committed)
    for bags, poisoned in ((train, 0), (test, 1)):
        positive = bags.labels == 1
        indicators = counted(bags, 2) + counted(bags, 3)
        assert torch.equal(counted(bags, 1), (bags.labels == poisoned).long())
        assert set(indicators[positive].tolist()) == {1, 2, 3}
        assert int(indicators[~positive].sum()) == 0
        assert set(counted(bags, 0)[positive].tolist()) == {1, 2, 3, 4}
        assert set(counted(bags, 0)[~positive].tolist()) == set(range(1, 10))
    share = float(counted(train, 3).sum() / (counted(train, 2) + counted(train, 3)).sum())
    assert share == 0 if committed else abs(share - 0.5) < 0.05
    subtle, poison = (train.instances[train.instance_labels == kind] for kind in (2, 1))
    assert abs(float(subtle.std()) - 3) < 0.1
    assert abs(float(poison.mean()) + 10) < 0.01
    assert abs(float(poison.std()) - 0.1) < 0.01


@pytest.mark.parametrize("committed", [False, True])
def test_multi_concept_is_as_described(committed):
    train, test = multi_concept(3000, 3000, committed=committed)
    for bags, training in ((train, True), (test, False)):
        positive, a, b, poison = bags.labels == 1, counted(bags, 2), counted(bags, 3), counted(bags, 1)
        assert set(a[positive].tolist()) == set(b[positive].tolist()) == {1, 2, 3, 4}
        neither = float((a + b == 0)[~positive].float().mean())
        assert set((a + b)[~positive].tolist()) <= {0, 1}
        assert neither == 0 if committed and not training else abs(neither - 1 / 3) < 0.04
        assert set(poison[~positive].tolist()) == {int(training)}
        assert abs(float(poison[positive].float().mean()) - (0.1 if training else 1)) < 0.03


@pytest.mark.parametrize("committed", [False, True])
def test_false_frequency_is_as_described(committed):
    train, test = false_frequency(3000, 3000, committed=committed)
    for bags, copies in ((train, {1}), (test, set(range(35, 40)))):
        positive, a, b = bags.labels == 1, counted(bags, 1), counted(bags, 2)
        assert set(a[positive].tolist()) == set(b[positive].tolist()) == {1}
        assert torch.equal((a > 0) ^ (b > 0), ~positive)
        assert set((a + b)[~positive].tolist()) == copies
    share = float((counted(test, 1) > 0)[test.labels == 0].float().mean())
    assert abs(share - (4 / 9 if committed else 1 / 2)) < 0.04


def test_a_given_size_fills_bags_with_background():
    train, _ = single_concept(40, 40, size=45)
    assert set(train.sizes.tolist()) == {45}
    with pytest.raises(ValueError, match="size: expected a number of instances above 0"):
        single_concept(40, 40, size=0)
    with pytest.raises(ValueError, match="n_test: expected at least 2 bags"):
        single_concept(40, 1)


def test_sizes_of_noise_bags_turn_round():
    train, test = audit.UNIT_TESTS["bag size"](400, 400)
    assert torch.equal(train.sizes > 9, train.labels == 1)
    assert torch.equal(test.sizes > 9, test.labels == 0)


def test_softmax_attention_breaks_the_standard_assumption_and_noisy_or_cannot():
    """The known outcome of the single-concept test, at a small size."""

    def run(build):
        rows = [
            audit.unit_test(build, "single concept", seed, n_train=1000, n_test=300, lr=3e-3, progress=False)
            for seed in (0, 1)
        ]
        return [row["train_auc"] for row in rows], [row["test_auc"] for row in rows]

    train, test = run(lambda: sl.build("abmilp", audit.mlp(32), dim=32))
    assert min(train) > 0.95
    assert max(test) < 0.5
    train, test = run(lambda: audit.noisy_or(audit.mlp(32), 32))
    assert min(test) > 0.9


def test_unit_test_names_an_unknown_test():
    with pytest.raises(ValueError, match=r"name: expected one of single concept, .*, got 'poison'"):
        audit.unit_test(lambda: audit.noisy_or(audit.mlp(4), 4), "poison")


@pytest.mark.parametrize(
    ("name", "train", "test", "expected"),
    [
        ("single concept", [0.99, 1.0], [0.10, 0.12], "breaks the assumption"),
        ("single concept", [0.99, 1.0], [0.97, 0.98], "respects it"),
        ("single concept", [0.60, 0.61], [0.55, 0.56], "not learned"),
        ("single concept", [0.99, 1.0], [0.20, 0.95], "undecided"),
        ("bag size", [0.51, 0.50], [0.50, 0.51], "respects it"),
        ("bag size", [0.82, 0.83], [0.49, 0.50], "respects it"),
        ("bag size", [1.0, 1.0], [0.0, 0.01], "breaks the assumption"),
    ],
)
def test_verdict_follows_its_rule(name, train, test, expected):
    assert audit.verdict(name, train, test) == expected


def test_noisy_or_is_one_minus_the_product():
    s, offsets = torch.randn(7, 1, dtype=torch.double), torch.tensor([0, 3, 4, 7])
    logit, weights = NoisyOrPool()(s, offsets)
    expected = torch.stack([1 - (1 - part.sigmoid()).prod() for part in s.split([3, 1, 3])])
    torch.testing.assert_close(logit.squeeze(1).sigmoid(), expected)
    assert weights is None


def test_noisy_or_has_finite_logits_and_gradients_far_out():
    s = torch.tensor([[-200.0], [-200.0], [200.0]], requires_grad=True)
    logit, _ = NoisyOrPool()(s, torch.tensor([0, 2, 3]))
    logit.sum().backward()
    assert torch.isfinite(logit).all()
    assert torch.isfinite(s.grad).all()


BAGS = sl.Bags.from_list([torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 1, 6)], [1, 0, 1])


def test_invariances_tell_a_counting_model_from_one_that_takes_the_maximum():
    largest = audit.invariances(Reader(lambda x, offsets: segment_max(x.abs().sum(1), offsets)), BAGS)
    assert largest["largest"].max() == 0
    counting = audit.invariances(Reader(lambda x, offsets: segment_sum(x.abs().sum(1), offsets) / 10), BAGS)
    moved = counting.set_index("change")["largest"]
    assert moved["alone"] < 1e-6
    assert moved["shuffled"] < 1e-6
    assert moved["longer"] < 1e-6
    assert moved["doubled"] > 0.1


def test_invariances_see_a_leak_between_bags_and_an_order():
    leak = audit.invariances(Reader(lambda x, offsets: segment_sum(x[:, 0] - x.mean(), offsets)), BAGS)
    assert leak.set_index("change")["largest"]["alone"] > 0.01
    first = audit.invariances(Reader(lambda x, offsets: x[offsets[:-1], 0]), BAGS)
    assert first.set_index("change")["largest"]["shuffled"] > 0.01


def test_without_drops_instances_and_empty_bags():
    removed = torch.tensor([True, False, False, True, True, *[False] * 5, True])
    rest, left = audit.without(BAGS, removed)
    assert rest.sizes.tolist() == [2, 5]
    assert left.tolist() == [True, False, True]
    assert rest.labels.tolist() == [1, 1]
    assert torch.equal(rest.instances, BAGS.instances[~removed])
    with pytest.raises(ValueError, match="every instance of every bag would go"):
        audit.without(BAGS, torch.ones(11, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"removed: expected booleans of shape \(11,\)"):
        audit.without(BAGS, torch.ones(3, dtype=torch.bool))


def test_removal_tells_a_model_that_reads_the_key_instances():
    _, test = single_concept(2, 60)
    key = test.instance_labels >= 2
    honest = Reader(lambda x, offsets: segment_max(key_score(x), offsets))
    poisoned = Reader(lambda x, offsets: segment_max(-x.mean(1), offsets) - 5)
    marked = sl.Bags(torch.cat([test.instances, key.float()[:, None]], 1), test.offsets, test.labels)
    assert audit.removal(honest, marked, key)["still_positive"] == 0
    assert audit.removal(poisoned, test, key)["still_positive"] == 1


def key_score(x):
    return x[:, -1] * 2 - 1


def test_attributions_of_a_linear_model_are_its_terms():
    w = torch.tensor([1.0, -2.0, 0.5])
    model = Reader(lambda x, offsets: segment_sum(x @ w, offsets))
    terms = BAGS.instances @ w
    torch.testing.assert_close(audit.attribution(model, BAGS, "gradient"), terms)
    one_by_one = audit.attribution(model, BAGS, "leave-one-out")
    assert one_by_one[4] == 0  # the bag of one
    several = BAGS.sizes[BAGS.bag_index] > 1
    torch.testing.assert_close(one_by_one[several], terms[several])
    with pytest.raises(ValueError, match="returns no attention"):
        audit.attribution(model, BAGS, "attention")
    with pytest.raises(ValueError, match="method: expected one of attention"):
        audit.attribution(model, BAGS, "shap")


def test_attention_is_that_of_the_model_and_the_model_keeps_its_mode():
    model = sl.build("abmilp", nn.Identity(), dim=3).train()
    torch.testing.assert_close(audit.attribution(model, BAGS, "attention"), model(BAGS).attention.detach())
    assert model.training


def test_deletion_by_true_scores_falls_faster_than_by_chance():
    scores = BAGS.instances.sum(1)
    model = Reader(lambda x, offsets: segment_max(x.sum(1), offsets))
    by_truth = audit.removal_curve(model, BAGS, scores)["probability"]
    by_reverse = audit.removal_curve(model, BAGS, -scores)["probability"]
    assert by_truth[0] == by_reverse[0]
    assert by_truth.sum() < by_reverse.sum()
    inserted = audit.removal_curve(model, BAGS, scores, insert=True)["probability"]
    assert inserted.nunique() == 1  # the largest alone makes the maximum


def test_agreement_of_attention_that_turned_round():
    offsets, a = torch.tensor([0, 4, 9]), torch.arange(9.0)
    key = torch.tensor([False, False, False, True, False, False, False, True, True])
    row = audit.agreement([a, -a], offsets, key).iloc[0]
    assert row["correlation"] == -1
    assert (row["first_auc"], row["second_auc"]) == (1, 0)
    assert audit.agreement([a, a * 2], offsets)["correlation"][0] == 1
    with pytest.raises(ValueError, match="two trainings or more, got 1"):
        audit.agreement([a], offsets)


def test_cells_run_and_their_verdicts_are_summed_up():
    changes = {"n_train": 60, "n_test": 40, "epochs": 1, "width": 4}
    cells = unit_tests.cells(["bag size", "false frequency"], ["lsa-abmilp", "noisy-or"], [0, 1], **changes)
    assert len(cells) == 8
    assert {cell.get("gamma") for cell in cells} == {1.0, None}
    table = unit_tests.summary(pd.DataFrame([{**cell, **unit_tests.run(cell)} for cell in cells]))
    assert table["runs"].tolist() == [2] * 4
    assert set(table["verdict"]) <= {"breaks the assumption", "respects it", "not learned", "undecided"}
    assert (table["low"] <= table["test_auc"]).all()
    with pytest.raises(ValueError, match="unknown settings"):
        unit_tests.cells(["bag size"], ["noisy-or"], [0], n_bags=3)


def test_differences_pair_the_seeds_of_one_test():
    means = {("bag size", "abmilp"): 0.2, ("bag size", "noisy-or"): 0.5, ("multi concept", "noisy-or"): 0.9}
    shared = {"committed": False, "n_train": 60, "gamma": None}
    rows = [
        {"test": test, "model": model, "seed": seed, "test_auc": auc + 0.1 * seed, **shared}
        for (test, model), auc in means.items()
        for seed in range(3)
    ]
    found = unit_tests.differences(pd.DataFrame(rows))
    assert found[["test", "model", "pairs"]].values.tolist() == [["bag size", "noisy-or", 3]]
    assert found[["effect", "low", "high"]].iloc[0].tolist() == pytest.approx([0.3] * 3)
    shuffled = unit_tests.differences(pd.DataFrame(rows[::-1]), "noisy-or")
    assert shuffled["effect"].tolist() == pytest.approx([-0.3])
    assert unit_tests.differences(pd.DataFrame(rows[:4])).empty  # one pair has no interval


def test_a_gradient_of_bytes_is_refused():
    bags = sl.Bags(torch.ones(4, 3, 27, 27, dtype=torch.uint8), torch.tensor([0, 4]))
    model = sl.build("abmilp", sl.PatchCNN(27, width=8))
    with pytest.raises(ValueError, match=r"bags: the gradient needs floating-point instances, got torch.uint8"):
        audit.attribution(model, bags, "gradient")
    assert audit.attribution(model, bags, "leave-one-out").shape == (4,)


@pytest.mark.parametrize("name", ["gsa-abmilp", "instance-mean", "embedding-max"])
def test_leaving_out_by_embeddings_is_leaving_out_by_instances(name):
    """Models of this package encode each instance once; wrapped in another module they encode every copy."""
    torch.manual_seed(0)
    model = sl.build(name, nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.ReLU()), dim=8, hidden=4).train()
    wrapped = audit._WithLogits(model)
    bags = sl.Bags(torch.randn(75, 3), torch.tensor([0, 40, 75]))  # more than are left out at once
    torch.testing.assert_close(
        audit.attribution(model, bags, "leave-one-out"), audit.attribution(wrapped, bags, "leave-one-out")
    )
    assert all(module.training for module in model.modules())


def test_a_model_of_bare_logits_is_tested_too():
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(16, 1)

        def forward(self, bags):
            return self.layer(bags.padded()[0].amax(1)).squeeze(1)

    row = audit.unit_test(Bare, "single concept", n_train=20, n_test=20, epochs=1, progress=False)
    assert 0 <= row["test_auc"] <= 1
