"""The figure "digits": two models in the page, their logits those of the package."""

import base64

import numpy as np
import torch
from figure_page import node

import samil_lite as sl
from samil_lite.explorables import FIGURES
from samil_lite.explorables.digits import digit_models, tray


def fifty_bags() -> sl.Bags:
    return sl.data.mnist_bags("presence", 50, "test", seed=3, mean_size=6, std_size=3)


def as_bytes(bags: sl.Bags) -> list[list[list[int]]]:
    """The pixels 0 to 255 of each instance of each bag."""
    pixels = ((bags.instances * 0.3081 + 0.1307) * 255).round().int().flatten(1)
    return [x.tolist() for x in bags.split(pixels)]


JUDGE = (
    "const d = samilLite.figures.digits, w = d.unpack(value.weights);"
    "return value.bags.map(bag => { const h = bag.map(x => d.encode(x, w));"
    "return ['abmilp', 'sa-abmilp'].map(m => { const r = d.judge(h, m, w); return [r.logit, ...r.a]; }); });"
)


def check_fifty(judged) -> None:
    bags = fifty_bags()
    for m, model in enumerate(digit_models().values()):
        output = sl.predict(model, bags)
        np.testing.assert_allclose([bag[m][0] for bag in judged], output.logits, atol=1e-3)
        np.testing.assert_allclose(np.concatenate([bag[m][1:] for bag in judged]), output.attention, atol=1e-4)
    assert output.logits.abs().max() > 1


def test_digits_logits_of_fifty_bags_in_the_page(shown):
    shown.open(sl.viz.explorable("digits").html)
    value = "{ weights: JSON.parse(root.host.dataset.values).weights, bags: arguments[0] }"
    check_fifty(shown.run(f"const value = {value}; {JUDGE}", as_bytes(fifty_bags())))


def test_digits_logits_of_fifty_bags_in_node():
    weights = FIGURES["digits"].data()["weights"]
    check_fifty(node(JUDGE, "digits", value={"weights": weights, "bags": as_bytes(fifty_bags())}))


def tray_bag(*places: int) -> sl.Bags:
    digits = [np.frombuffer(base64.b64decode(tray()[i]["pixels"]), np.uint8).reshape(1, 28, 28) for i in places]
    return sl.Bags.from_list([(torch.tensor(np.stack(digits)) / 255 - 0.1307) / 0.3081])


def test_digits_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("digits", bag=[0, 5]).html)
    shown.all(".tray button")[2].click()  # a 7
    shown.press(shown.all(".tray button")[9], Keys.ENTER)  # a 5
    bags = tray_bag(0, 5, 2, 9)
    for key, model in digit_models().items():
        output = sl.predict(model, bags)
        np.testing.assert_allclose(shown.numbers(f".result.{key}", "logit"), output.logits, atol=1e-2)
        cells = shown.numbers(f"tr.{key} td").reshape(4, 3)
        np.testing.assert_allclose(cells[:, 0], output.attention, atol=1e-2)
        np.testing.assert_allclose(cells[:, 2].sum(), output.logits[0], atol=1e-2)
    shown.press(shown.all(".card button")[3], Keys.SPACE)  # removes the second
    assert shown.all(".card")[1].get_attribute("aria-label") == "Instance 2: 7"
    assert len(shown.all(".card")) == 3
    assert shown.messages() == []


def test_digits_drawn_by_keyboard_and_turned(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("digits").html)
    shown.press(shown.all(".frame")[0], Keys.SPACE, Keys.ARROW_DOWN * 14, Keys.SPACE)  # a stroke downwards
    shown.all(".adder")[0].click()
    card = shown.all(".card")[-1]
    assert card.get_attribute("aria-label") == "Instance 6: drawing"
    assert "cannot tell" in shown.summary()
    before = shown.numbers("tr.abmilp td")[-2]
    card.find_elements("css selector", "button")[0].click()
    assert shown.all(".card")[-1].get_attribute("aria-label") == "Instance 6: drawing, turned"
    assert shown.numbers("tr.abmilp td")[-2] != before


def test_digits_show_the_limit_of_chapter_4(shown):
    """(4.6): AbMILP errs on one of the four examples at least; that SA-AbMILP errs on none is training's merit."""
    shown.open(sl.viz.explorable("digits").html)
    logits = []
    for i in range(4):
        shown.all(".buttons button")[i].click()
        logits.append([shown.numbers(f".result.{m}", "logit")[0] for m in ("abmilp", "sa-abmilp")])
    right = (np.array(logits) > 0) == np.array([[False], [False], [True], [True]])
    assert right[:, 0].sum() <= 3
    assert right[:, 1].all()
