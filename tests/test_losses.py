import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import samil_lite as sl
from samil_lite.losses import criterion, drawn_order
from samil_lite.metrics import bag_loss


def bags(labels) -> sl.Bags:
    x = torch.randn(4 * len(labels), 4, generator=torch.Generator().manual_seed(0))
    return sl.Bags(x, torch.arange(0, 4 * len(labels) + 1, 4), labels)


def fit(train: sl.Bags, n_classes: int = 1, **options) -> tuple[nn.Module, sl.History]:
    torch.manual_seed(0)
    model = sl.build("abmilp", nn.Linear(4, 8), n_classes=n_classes)
    options = {"epochs": 2, "progress": False, "device": "cpu", "lr": 0.01, **options}
    return model, sl.fit(model, train, **options)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=9).filter(lambda y: len(set(y)) == 2), st.booleans())
def test_balanced_weights_let_every_class_count_alike(labels, two_logits):
    y = torch.tensor(labels)
    logits = torch.randn(len(y), 2) if two_logits else torch.randn(len(y))
    balanced, known = criterion(None, "balanced", 2 if two_logits else 1, [y])
    of_class = [bag_loss(logits[y == c], y[y == c]) for c in (0, 1)]
    torch.testing.assert_close(balanced(logits, y), sum(of_class) / 2)
    torch.testing.assert_close(criterion(None, known, 2 if two_logits else 1, [y])[0](logits, y), balanced(logits, y))


@pytest.mark.parametrize("option", ["class_weight", "sampling"])
def test_a_rare_class_weighs_more(option):
    rare = bags([1] + [0] * 11)
    plain, weighted = (sl.predict(fit(rare, epochs=20, **{option: w})[0], rare).logits for w in (None, "balanced"))
    assert weighted.mean() > plain.mean() + 1


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40).filter(lambda y: len(set(y)) > 1), st.integers(0, 9))
def test_a_balanced_epoch_has_as_many_of_each_class(labels, seed):
    y = torch.tensor(labels)
    order = drawn_order(y, True, seed)
    counts = y[order].bincount()[y.unique()]
    assert len(order) == len(y)
    assert counts.max() - counts.min() <= 1
    for c in y.unique():
        times = order.bincount(minlength=len(y))[y == c]
        assert times.max() - times.min() <= 1  # no bag of a class comes twice before all have come once
    assert torch.equal(order, drawn_order(y, True, seed))
    assert drawn_order(y, False, seed).sort().values.tolist() == list(range(len(y)))


@pytest.mark.parametrize(
    ("labels", "n_classes", "options"),
    [
        (torch.randint(0, 2, (6, 5)), 5, {}),  # several labels a bag
        ([0.1, 2.5, -1.0, 0.3, 4.0, 2.0], 1, {"loss": nn.MSELoss()}),
        ([True, False] * 3, 1, {}),
        ([True, False] * 3, 2, {}),
        ([0.0, 1.0] * 3, 1, {}),
        ([0.0, 2.0, 1.0] * 2, 3, {}),
        (torch.tensor([[0], [1]] * 3), 1, {}),
        (torch.tensor([0, 1, 2] * 2, dtype=torch.int16), 3, {}),
        ([0, 1] * 3, 1, {"loss": lambda logits, y: (logits - y).square().mean()}),
    ],
)
def test_targets_of_every_kind_train(labels, n_classes, options):
    train = bags(labels)
    _, history = fit(train, n_classes, epochs=15, **options)
    assert history.train_loss[-1] < history.train_loss[0]
    assert len(train[[1, 0]].labels) == 2
    assert "label" in repr(train)


def test_the_checkpoint_of_another_loss_is_refused(tmp_path):
    train = bags([0, 1] * 3)
    fit(train, checkpoint=tmp_path / "run.pt")
    for options in ({"class_weight": "balanced"}, {"loss": nn.MSELoss()}):
        with pytest.raises(ValueError, match=r"other settings or bags .*'loss'"):
            fit(train, checkpoint=tmp_path / "run.pt", **options)


@pytest.mark.parametrize(
    ("labels", "n_classes", "options", "message"),
    [
        ([0.1, 0.7] * 3, 1, {}, "labels: expected classes 0, 1, …, got other numbers; give `fit` a loss"),
        (torch.ones(6, 3), 5, {}, r"labels: for several labels a bag, expected 5 columns"),
        ([0, 1] * 3, 1, {"class_weight": "even"}, "class_weight: expected 'balanced' or a weight for each class"),
        ([0, 1] * 3, 1, {"class_weight": [1.0]}, "class_weight: expected 2 weights, one for each class, got 1"),
        ([0, 1] * 3, 1, {"class_weight": [1.0, -1]}, r"class_weight\[1\]: expected a number above 0"),
        ([0, 1] * 3, 3, {"class_weight": "balanced"}, "class_weight: class 2 has no training bag"),
        ([0, 1] * 3, 1, {"class_weight": "balanced", "loss": nn.MSELoss()}, "loss, class_weight: expected one of them"),
        ([0, 1] * 3, 1, {"loss": nn.CrossEntropyLoss()}, r"loss: it cannot take logits|loss: expected"),
        (
            [0, 1] * 3,
            1,
            {"loss": nn.MSELoss(reduction="none")},
            "loss: expected a function .* one number",
        ),
        ([0, 1] * 3, 1, {"sampling": "even"}, "sampling: expected None or .balanced., got .even."),
        (torch.ones(6, 3), 3, {"sampling": "balanced"}, "sampling: expected bags with one class each"),
        ([0, 1] * 3, 1, {"loss": "mse"}, "loss: expected a function or None, got 'mse'"),
        ([-1, 1] * 3, 1, {}, "labels: expected classes 0, 1, …, got -1; number them from 0"),
    ],
)
def test_what_does_not_fit_is_named(labels, n_classes, options, message):
    with pytest.raises(ValueError, match=message):
        fit(bags(labels), n_classes, **options)


def test_several_labels_and_numbers_are_evaluated():
    several = bags(torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]]))
    found = sl.evaluate(fit(several, 3, epochs=60)[0], several)
    assert [one.n for one in found.by_class] == [2, 2, 3]
    assert found.accuracy > 0.9
    numbers = bags([0.1, 2.5, -1.0, 0.3])
    errors = sl.evaluate(fit(numbers, loss=nn.MSELoss(), epochs=200)[0], numbers)
    assert errors.r2 > 0.5
    grades = bags([0.0, 1.0, 2.0, 3.0])  # whole numbers look like classes, unless it is said what they are
    net = fit(grades, loss=nn.MSELoss(), epochs=200)[0]
    assert sl.evaluate(net, grades, numbers=True).r2 > 0.5
    with pytest.raises(ValueError, match=r"expects 0 to 1, got 3.*numbers=True"):
        sl.evaluate(net, grades)


def cox(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cox's negative partial log-likelihood (Breslow); y: time and whether the event was seen, (B, 2)."""
    order = y[:, 0].argsort(descending=True)  # those at risk at each time are the ones before it
    risk, seen = logits[order], y[order, 1]
    return -((risk - risk.logcumsumexp(0)) * seen).sum() / seen.sum().clamp(min=1)


def test_survival_needs_no_more_than_a_loss():
    """The partial likelihood compares the bags of a step with each other, so a step takes many."""
    x = torch.randn(40, 4, 4, generator=torch.Generator().manual_seed(0))
    risk = x[..., 0].mean(1)
    y = torch.stack([(-2 * risk).exp(), torch.arange(40) % 4 > 0], 1)  # a quarter left the study unseen
    train = sl.Bags.from_list(list(x), y)
    torch.manual_seed(0)
    model = sl.build("abmilp", nn.Linear(4, 8))
    sl.fit(model, train, loss=cox, bags_per_step=40, epochs=60, lr=0.02, progress=False, device="cpu")
    logits = sl.predict(model, train).logits
    assert torch.corrcoef(torch.stack([logits, risk]))[0, 1] > 0.8
