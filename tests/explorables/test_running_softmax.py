"""The figure "running_softmax": (12.1) block by block."""

import numpy as np
import torch
from figure_page import Page

import samil_lite as sl
from samil_lite.explorables import FIGURES


def check_running(shown: Page, scores: torch.Tensor, values: torch.Tensor, size: int, blocks: int) -> None:
    cells = shown.numbers("tbody td[data-value]").reshape(blocks, 5)
    for (m, _, total, mixed, o), n in zip(cells, range(size, size * blocks + 1, size), strict=True):
        seen, v = scores[:n], values[:n]
        assert m == seen.max()
        np.testing.assert_allclose([np.log(total) + m, o], [seen.logsumexp(0), seen.softmax(0) @ v], atol=1e-6)
        np.testing.assert_allclose(mixed, total * o, atol=1e-6)
    beta = sl.kernel_attention(torch.ones(16, 1).double(), scores[:, None], values[:, None], backend="blockwise")
    np.testing.assert_allclose(shown.numbers(".exact"), beta[0], atol=1e-6)


def test_running_softmax_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    data = FIGURES["running_softmax"].data()
    scores, values = (torch.tensor(data[key], dtype=torch.float64) for key in ("scores", "values"))
    shown.open(sl.viz.explorable("running_softmax").html)
    check_running(shown, scores, values, 4, 1)
    shown.all(".controls button")[0].click()
    check_running(shown, scores, values, 4, 2)
    shown.press(shown.all(".controls .slider input")[0], Keys.END)
    check_running(shown, scores, values, 4, 4)
    shown.press(shown.all(".choice input")[2], Keys.ARROW_LEFT)  # blocks of 2
    shown.press(shown.all(".controls .slider input")[0], Keys.END)
    check_running(shown, scores, values, 2, 8)
    shown.all(".choice input[value=rising]")[0].click()
    check_running(shown, scores.sort().values, values, 2, 8)
    assert all(shown.numbers("tbody td:nth-child(3)")[1:] <= 1)
    assert shown.messages() == []


def test_running_softmax_counts_memory(shown):
    data = FIGURES["running_softmax"].data()
    shown.open(sl.viz.explorable("running_softmax").html)
    n = 100_000
    loop, broadcast, dense, tiles = shown.numbers(".meter")
    assert (loop, broadcast, dense) == (4 * n**3, 4 * n**2 * data["d"], 4 * n**2)
    assert tiles == 4 * (data["rows"] * data["keys"] + n * (data["d_v"] + 1))
    assert [x.text for x in shown.all(".meter b")] == ["4 PB", "2.6 TB", "40 GB", "210 MB"]
