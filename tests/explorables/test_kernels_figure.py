"""The figure "kernels" shows what the package computes."""

import numpy as np
import pytest
import torch
from figure_page import Page, node

import samil_lite as sl

KERNELS = list(sl.kernels.KERNELS)


def rows_of_beta(vectors, query: int, alpha: float, log: bool) -> dict[str, np.ndarray]:
    x = torch.tensor(vectors, dtype=torch.float64)
    forms = {name: sl.kernels.as_kernel(name) for name in KERNELS}
    if log:
        forms |= {"rbf": sl.kernels.RBF(True), "inverse_quadratic": sl.kernels.InverseQuadratic(True)}
    return {
        name: sl.attention_rows(x, x, torch.tensor([query]), kernel, alpha)[0].numpy() for name, kernel in forms.items()
    }


def check_kernels(shown: Page, alpha: float, log: bool = False) -> int:
    """Compares what the five rows show with the package; returns the number of instances."""
    six = shown.run(
        "return [...root.querySelectorAll('[data-vector]')].map(x => x.dataset.vector.split(' ').map(Number))"
    )
    rest = shown.run("return JSON.parse(root.querySelector('.figure').dataset.rest)")
    query = shown.run("return [...root.querySelectorAll('[data-vector]')].findIndex(x => x.ariaPressed === 'true')")
    for name, beta in rows_of_beta(six + rest, query, alpha, log).items():
        page_says = shown.numbers(f'[data-kernel="{name}"] .column')
        np.testing.assert_allclose(page_says[:6], beta[:6], atol=1e-6)
        np.testing.assert_allclose(page_says[6], beta[6:].sum(), atol=1e-6)
    return len(six) + len(rest)


def test_kernels_by_mouse(shown):
    shown.open(sl.viz.explorable("kernels").html)
    check_kernels(shown, 1.0)
    before = shown.all(".point[data-vector]")[2].get_attribute("data-vector")
    shown.drag(shown.all(".point[data-vector]")[2], -60, -90)
    after = shown.all(".point[data-vector]")[2].get_attribute("data-vector")
    assert before != after
    assert shown.all(".point[data-vector]")[2].get_attribute("aria-pressed") == "true"
    shown.slide("α", 0.75)
    shown.slide("rotate", 35)
    shown.slide("scale all by", 0.2)
    check_kernels(shown, 2**0.75)
    shown.slide("bag size n", 0.7)
    assert check_kernels(shown, 2**0.75) > 100
    shown.all(".check input")[0].click()
    check_kernels(shown, 2**0.75, log=True)
    assert shown.messages() == []


def test_kernels_by_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("kernels").html)
    points = shown.all(".point[data-vector]")
    shown.press(points[3], Keys.ARROW_UP * 5 + Keys.ARROW_RIGHT, Keys.ENTER)
    np.testing.assert_allclose(np.array(points[3].get_attribute("data-vector").split(), float), [3.1, 0.5], atol=1e-9)
    assert points[3].get_attribute("aria-pressed") == "true"
    check_kernels(shown, 1.0)
    origin = shown.all(".point")[0]
    dot, rbf = (shown.numbers(f'[data-kernel="{kernel}"] .column') for kernel in ("dot", "rbf"))
    shown.press(origin, Keys.ARROW_DOWN * 4)  # a common shift
    check_kernels(shown, 1.0)
    np.testing.assert_allclose(shown.numbers('[data-kernel="rbf"] .column'), rbf, atol=1e-12)
    assert np.abs(shown.numbers('[data-kernel="dot"] .column') - dot).max() > 0.01
    slider = shown.all("label.slider input")[0]
    shown.press(slider, Keys.ARROW_RIGHT * 4)
    check_kernels(shown, 2 ** float(slider.get_property("value")))


def test_kernels_bound_holds_wherever_the_points_lie(shown):
    shown.open(sl.viz.explorable("kernels").html)
    shown.slide("α", 4)
    shown.slide("scale all by", 1)
    n = len(shown.all(".point[data-vector]"))
    for kernel in ("rbf", "inverse_quadratic"):
        assert shown.numbers(f'[data-kernel="{kernel}"] .column')[:6].max() <= np.e / (np.e + n - 1) + 1e-12


def test_kernels_in_node():
    x = torch.randn(9, 2, dtype=torch.float64)
    for log in (False, True):
        code = "return value.kernels.map(k => samilLite.figures.kernels.row(k, value.x, 4, 1.3, value.log))"
        rows = node(code, "kernels", value={"kernels": KERNELS, "x": x.tolist(), "log": log})
        expected = rows_of_beta(x.tolist(), 4, 1.3, log)
        for name, row in zip(KERNELS, rows, strict=True):
            np.testing.assert_allclose(row, expected[name], atol=1e-6)


@pytest.mark.parametrize("alpha", [1e-2, 1.0, 20.0])
def test_the_module_kernel_far_out_in_node(alpha):
    """A large α and a large scale: scores of thirty digits, of which the softmax sees the differences only."""
    x = 10 * torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    row = node("return samilLite.figures.kernels.row('module', value.x, 4, value.alpha, false)", "kernels",
        value={"x": x.tolist(), "alpha": alpha})  # fmt: skip
    np.testing.assert_allclose(row, rows_of_beta(x.tolist(), 4, alpha, False)["module"], atol=1e-6)
    assert np.isclose(sum(row), 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"points": [[0, 0]]}, "points: expected 2 to 9 finite pairs"),
        ({"points": [[0, 0], [float("nan"), 0]]}, "points: expected 2 to 9 finite pairs"),
        ({"query": 6}, "query: expected a number from 0 to 5, got 6"),
    ],
)
def test_kernels_refuse_what_cannot_be_shown(data, message):
    with pytest.raises(ValueError, match=message):
        sl.viz.explorable("kernels", **data)
