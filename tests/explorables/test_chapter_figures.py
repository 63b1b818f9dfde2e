"""The small figures of chapters 2, 8, 13, 15 and 16: what they show is what the package, or arithmetic, says."""

import numpy as np
import pytest
import torch
from figure_page import node
from sklearn.metrics import precision_score, recall_score

import samil_lite as sl
from samil_lite.explorables import FIGURES


def check_pooling(shown) -> None:
    places = shown.run("return [...root.querySelectorAll('.point')].map(x => x.dataset.place.split(' ').map(Number))")
    h, offsets = torch.tensor(places, dtype=torch.float64), torch.tensor([0, len(places)])
    for pool, name in ((sl.MeanPool(), "mean"), (sl.MaxPool(), "max")):
        shown_at = shown.run(f"return root.querySelector('path.{name}').dataset.place.split(' ').map(Number)")
        np.testing.assert_allclose(shown_at, pool(h, offsets)[0][0], atol=1e-6)


def test_pooling_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("pooling").html)
    check_pooling(shown)
    shown.drag(shown.all(".point")[0], 80, -40)
    check_pooling(shown)
    shown.press(shown.all(".point")[4], Keys.ARROW_UP * 7)
    assert float(shown.all(".point")[4].get_attribute("data-place").split()[1]) == pytest.approx(-0.3)
    check_pooling(shown)
    before = shown.run("return root.querySelector('path.mean').dataset.place.split(' ').map(Number)")
    shown.all(".check input")[0].click()
    after = shown.run("return root.querySelector('path.mean').dataset.place.split(' ').map(Number)")
    np.testing.assert_allclose(after, before, atol=1e-12)
    assert shown.messages() == []


def partner(distance: float, others: float, n: int, alpha: float) -> list[float]:
    """The partner's weight under the four scores, by the package: a query at 0, keys on a line."""
    q, k = torch.zeros(1, 1, dtype=torch.float64), torch.full((n, 1), others, dtype=torch.float64)
    k[0] = distance
    forms = [form(log) for log in (False, True) for form in (sl.kernels.RBF, sl.kernels.InverseQuadratic)]
    q = q.expand(n, 1)
    return [float(sl.attention_rows(q, k, torch.tensor([0]), form, alpha)[0][0]) for form in forms]


def test_far_partner_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("far_partner").html)
    np.testing.assert_allclose(shown.numbers(".form"), partner(3, 6, 50, 1), atol=1e-6)
    shown.press(shown.all(".slider input")[0], Keys.ARROW_RIGHT * 12)
    shown.slide("bag size n", 2)
    shown.slide("α", -3)
    np.testing.assert_allclose(shown.numbers(".form"), partner(4.2, 6, 100, 1 / 8), atol=1e-6)
    assert shown.messages() == []


def test_threshold_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    data = FIGURES["threshold"].data()
    scores, labels = np.array(data["scores"]), np.array(data["labels"])
    shown.open(sl.viz.explorable("threshold").html)
    keys = Keys.ARROW_RIGHT * 20, Keys.ARROW_LEFT * 50, Keys.END
    for key in (Keys.ARROW_RIGHT, *keys):
        shown.press(shown.all(".slider input")[0], key)
        cut = float(shown.all(".slider input")[0].get_property("value"))
        called = scores > cut
        precision, recall, accuracy = shown.numbers(".shares td")
        assert recall == pytest.approx(recall_score(labels, called), abs=1e-6)
        assert accuracy == pytest.approx((called == labels).mean(), abs=1e-6)
        if called.any():
            assert precision == pytest.approx(precision_score(labels, called), abs=1e-6)
        else:
            assert np.isnan(precision)
    assert shown.messages() == []


def test_threshold_says_what_chapter_13_says_of_it():
    data = FIGURES["threshold"].data()
    code = "return [1.51, 0.91].map(t => samilLite.figures.threshold.judge(value.scores, value.labels, t))"
    strict, loose = node(code, "threshold", value=data)
    assert (strict["tp"], strict["fp"]) == (3, 0)
    assert (loose["tp"], loose["fp"]) == (4, 1)


def test_folds_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("folds").html)
    assert shown.numbers(".figure", "leaks")[0] > 0
    shown.all("button")[0].click()
    fold = shown.numbers(".lane i", "fold").reshape(10, 3)
    mixed = (fold == 0).any(1) & (fold != 0).any(1)
    assert shown.numbers(".figure", "leaks")[0] == (fold[mixed] == 0).sum()
    shown.press(shown.all(".check input")[0], Keys.SPACE)
    shown.press(shown.all(".slider input")[0], Keys.ARROW_RIGHT)
    fold = shown.numbers(".lane i", "fold").reshape(10, 3)
    assert (fold == fold[:, :1]).all()
    assert shown.numbers(".figure", "leaks")[0] == 0
    assert shown.messages() == []


def test_folds_of_any_groups_never_leak_when_kept_together():
    groups = [str(int(g)) for g in torch.randint(7, (40,))]
    code = (
        "const f = samilLite.figures.folds; return Array.from({length: 50}, (_, s) => [false, true].map(g => {"
        "const fold = f.deal(value, 4, s, g); return [fold, [0, 1, 2, 3].map(t => f.leaks(value, fold, t))]; }))"
    )
    for (plain, leaks), (grouped, none) in node(code, "folds", value=groups):
        assert sorted(np.bincount(plain, minlength=4)) == [10, 10, 10, 10]
        assert sum(leaks) > 20
        assert none == [0, 0, 0, 0]
        assert all(len({grouped[i] for i in range(40) if groups[i] == g}) == 1 for g in set(groups))


def test_lesion_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("lesion").html)
    for label, shrink, patch, lesion in (("", 2, 224, 24), ("lesion", 2, 224, 60), ("patch side", 2, 64, 60)):
        if label:
            shown.slide(label, lesion if label == "lesion" else patch)
        seen = lesion / shrink
        expected = [2240 / shrink, (2240 // shrink // patch) ** 2, seen, min(1, np.pi * (seen / 2) ** 2 / patch**2)]
        np.testing.assert_allclose(shown.numbers("td"), expected, atol=1e-6)
    shown.press(shown.all(".slider input")[0], Keys.END)
    np.testing.assert_allclose(shown.numbers("td")[2], 60 / 12, atol=1e-6)
    assert shown.messages() == []


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("pooling", {"points": [[9, 9], [0, 0]]}, "points: expected 2 to 9 pairs"),
        ("far_partner", {"n": 1}, "n: expected a number from 3 to 1000"),
        ("threshold", {"labels": [1, 0]}, "scores, labels: expected finite scores"),
        ("folds", {"k": 11}, "k: expected a number from 2 to 10"),
        ("lesion", {"patch": 5}, "patch: expected a number from 32 to 448"),
    ],
)
def test_what_cannot_be_shown_is_named(name, data, message):
    with pytest.raises(ValueError, match=message):
        sl.viz.explorable(name, **data)
