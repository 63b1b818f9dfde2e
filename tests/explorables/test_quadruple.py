"""The figure "quadruple": (4.6) by hand, and the package's own modules beside it."""

import numpy as np
import torch
from figure_page import Page, node

import samil_lite as sl


def package_logits(e, s, gamma: float, look: bool) -> dict[str, float]:
    """The four bags and the union by the package: a pool that reads e, a classifier that reads s, and a look for 7s."""
    h = torch.zeros(4, 4, dtype=torch.float64)  # score, verdict, is a 9, is a 7
    h[:, 0], h[:, 1] = torch.atanh(torch.tensor(e) / 10), torch.tensor(s)
    h[:2, 2], h[2:, 3] = 1, 1
    model = sl.build("sa-abmilp", torch.nn.Identity(), dim=4, hidden=1, dim_qk=1, gamma=gamma if look else 0.0).double()
    with torch.no_grad():
        for parameter in (model.pool.V.weight, model.pool.V.bias, model.classifier.weight, model.classifier.bias):
            parameter.zero_()
        looks = model.self_attention
        for weight in (looks.W_q.weight, looks.W_k.weight, looks.W_v.weight):
            weight.zero_()
        model.pool.V.weight[0, 0], model.pool.w.weight[0, 0], model.classifier.weight[0, 1] = 1, 10, 1
        looks.W_q.weight[0, 2], looks.W_k.weight[0, 3], looks.W_v.weight[1, 3] = 5, 1, 1
    bags = {"X": [0, 1], "Y": [2, 3], "Z": [0, 2], "Z′": [1, 3], "X ∪ Y": [0, 1, 2, 3]}
    logits = sl.predict(model, sl.Bags.from_list([h[members] for members in bags.values()])).logits
    return dict(zip(bags, logits.tolist(), strict=True))


def check_quadruple(shown: Page) -> None:
    values = [float(x.get_property("value")) for x in shown.all(".slider input")]
    e, s = values[0:8:2], values[1:8:2]
    expected = package_logits(e, s, values[8], shown.all(".check input")[0].is_selected())
    np.testing.assert_allclose(shown.numbers(".line", "logit"), list(expected.values()), atol=1e-6)


def test_quadruple_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("quadruple").html)
    check_quadruple(shown)
    shown.press(shown.all(".slider input")[1], Keys.ARROW_LEFT * 30)
    shown.press(shown.all(".slider input")[4], Keys.ARROW_RIGHT * 12)
    shown.slide("verdict of 7′", -3.5)
    check_quadruple(shown)
    shown.all(".check input")[0].click()
    shown.slide("γ", 3)
    check_quadruple(shown)
    shown.all(".buttons button")[1].click()
    check_quadruple(shown)
    assert shown.numbers(".figure", "right") == 4
    shown.all(".check input")[0].click()
    assert shown.numbers(".figure", "right") < 4
    assert shown.messages() == []


def test_quadruple_cannot_be_won_without_self_attention():
    rng = np.random.default_rng(0)
    games = np.concatenate([rng.uniform(-4, 4, (500, 4)), rng.uniform(-8, 8, (500, 4))], 1).tolist()
    code = (
        "const f = samilLite.figures.quadruple; return value.map(g => f.worst(Object.fromEntries("
        "Object.entries(f.BAGS).map(([k, m]) => [k, f.logit(m, g.slice(0, 4), g.slice(4))]))))"
    )
    assert max(node(code, "quadruple", value=games)) <= 1e-12
