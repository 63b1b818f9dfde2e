"""The figures of chapters 1, 5, 6, 11 and 14: what they show is what the package computes."""

import base64

import numpy as np
import pandas as pd
import pytest
import torch

import samil_lite as sl
from samil_lite.explorables import FIGURES
from samil_lite.metrics import mean_interval

# γ --------------------------------------------------------------------------------------------------------------------


def check_gamma(shown) -> None:
    data = FIGURES["gamma"].data()
    ask, eye = torch.tensor(data["ask"]).double(), torch.eye(2).double()
    gamma = float(shown.all(".slider input")[0].get_property("value"))
    for i, bag in enumerate(data["bags"]):
        h = torch.tensor(bag["h"]).double()
        layer = sl.KernelSelfAttention(2, dim_qk=2, gamma=gamma).double().requires_grad_(False)
        for linear, weight in ((layer.W_q, ask), (layer.W_k, eye), (layer.W_v, eye)):
            linear.weight.copy_(weight)
        h_hat = layer(h, torch.tensor([0, 6]))
        logit = (10 * h_hat.sum(1)).softmax(0) @ (h_hat.sum(1) - 1.6)
        plot = f"root.querySelectorAll('.plots > div')[{i}]"
        places = shown.run(f"return [...{plot}.querySelectorAll('circle')].map(x => x.dataset.place)")
        np.testing.assert_allclose([[float(x) for x in p.split()] for p in places], h_hat, atol=1e-6)
        np.testing.assert_allclose(shown.numbers(".plots > div", "logit")[i], logit, atol=1e-6)


def test_gamma_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("gamma").html)
    check_gamma(shown)
    assert shown.numbers(".plots > div", "logit")[0] == shown.numbers(".plots > div", "logit")[1]
    shown.slide("γ", 0.4)
    check_gamma(shown)
    shown.press(shown.all(".slider input")[0], Keys.END)
    check_gamma(shown)
    x, z = shown.numbers(".plots > div", "logit")
    assert x < 0 < z
    assert shown.messages() == []


# Two paths ------------------------------------------------------------------------------------------------------------


def check_two_paths(shown) -> None:
    data = FIGURES["two_paths"].data()
    search, gamma = (float(x.get_property("value")) for x in shown.all(".slider input"))
    bag = data["bags"][shown.run("return root.querySelector('.choice input:checked').value")]
    h = torch.eye(3).double()[[("9", "7", "other").index(kind) for kind in bag]]
    model = sl.build("sa-abmilp", torch.nn.Identity(), dim=3, hidden=1, dim_qk=1, gamma=gamma).double()
    model.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim:
            parameter.zero_()
    looks = model.self_attention
    looks.W_q.weight[0, 0], looks.W_k.weight[0, 1], looks.W_v.weight[1, 1] = search, 1, 1
    model.pool.V.weight[0, 0], model.pool.w.weight[0, 0] = 1, data["pool"]
    model.classifier.weight.copy_(torch.tensor([data["verdict"]])), model.classifier.bias.fill_(data["offset"])
    output = model(sl.Bags.from_list([h]), return_weights=True)
    np.testing.assert_allclose(shown.numbers(".direct .column"), output.attention, atol=1e-6)
    indirect = output.attention @ output.self_attention[0]
    np.testing.assert_allclose(shown.numbers(".indirect .column"), indirect, atol=1e-6)
    np.testing.assert_allclose(shown.numbers(".logit"), output.logits, atol=1e-6)


def test_two_paths_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("two_paths").html)
    check_two_paths(shown)
    shown.all(".choice input[value=Y]")[0].click()
    check_two_paths(shown)
    shown.press(shown.all(".slider input")[0], Keys.ARROW_LEFT * 12)
    shown.press(shown.all(".choice input[value=Y]")[0], Keys.ARROW_RIGHT)  # to Z
    check_two_paths(shown)
    shown.slide("γ", 0)
    check_two_paths(shown)
    assert shown.messages() == []


# Three rules ----------------------------------------------------------------------------------------------------------


def test_three_rules_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("three_rules", digits=[1]).html)

    def lamps() -> list[int]:
        return shown.numbers(".lamp").astype(int).tolist()

    assert lamps() == [0, 0, 0]
    shown.all(".buttons button")[9].click()
    assert lamps() == [1, 0, 0]
    shown.press(shown.all(".buttons button")[9], Keys.ENTER)
    assert lamps() == [1, 0, 1]
    shown.all(".buttons button")[7].click()
    assert lamps() == [1, 1, 1]
    shown.press(shown.all(".bag button")[1], Keys.SPACE)  # takes a 9 out; the focus stays in the bag
    assert lamps() == [1, 1, 0]
    assert shown.run("return root.activeElement.closest('.bag') !== null")
    assert shown.messages() == []


def test_three_rules_are_those_of_the_data(shown):
    shown.open(sl.viz.explorable("three_rules").html)
    for rule in sl.data.KEY_DIGITS:
        bags = sl.data.mnist_bags(rule, 40, seed=5, mean_size=5)
        digits = [x.tolist() for x in bags.split(bags.instance_labels)]
        says = shown.run(f"return arguments[0].map(x => samilLite.figures.three_rules.labels(x).{rule})", digits)
        assert says == bags.labels.tolist()


@pytest.mark.parametrize("digits", [[10], [-1], [0] * 13])
def test_three_rules_refuse_what_is_no_bag_of_digits(digits):
    with pytest.raises(ValueError, match="digits: expected at most 12 numbers from 0 to 9"):
        sl.viz.explorable("three_rules", digits=digits)


# Nuclei ---------------------------------------------------------------------------------------------------------------


def check_nuclei(shown, factor: float) -> int:
    data = FIGURES["nuclei"].data()
    n = len(data["places"])
    q, k = (
        torch.tensor(np.frombuffer(base64.b64decode(data[x]), np.int8) * data[f"{x}_scale"]).reshape(n, -1)
        for x in "qk"
    )
    query = int(shown.numbers(".figure", "query")[0])
    beta = sl.attention_rows(factor * q, k, torch.tensor([query]))[0]
    np.testing.assert_allclose(shown.numbers(".plane path") / n, beta, atol=1e-6)
    return query


def test_nuclei_by_mouse_and_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("nuclei").html)
    first = check_nuclei(shown, 1)
    shown.slide("all scores ×", -2)
    check_nuclei(shown, 0.01)
    shown.press(shown.all(".plane")[0], Keys.ARROW_RIGHT)
    second = check_nuclei(shown, 0.01)
    places = FIGURES["nuclei"].data()["places"]
    assert places[second][0] > places[first][0]
    shown.drag(shown.all(".plane")[0], 0, 0)  # a click in the middle
    assert check_nuclei(shown, 0.01) not in (first, second)
    shown.all(".choice input[value=attention]")[0].click()
    np.testing.assert_allclose(shown.numbers(".plane path"), FIGURES["nuclei"].data()["attention"], atol=1e-6)
    assert shown.messages() == []


def test_nuclei_want_a_whole_record():
    with pytest.raises(ValueError, match="this one has no places, "):
        sl.viz.explorable("nuclei", record={"q": ""})


# Records --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"assumption": rule, "model": model, "gamma": gamma, "n_bags": n, "seed": seed, "auc": rng.uniform(0.5, 1)}
        for rule in ("presence", "threshold")
        for model, gamma in (("abmilp", np.nan), ("lsa-abmilp", 0.0), ("lsa-abmilp", 1.0))
        for n in (50, 200)
        for seed in range(5 if n == 200 else 1)
    ]
    return pd.DataFrame(rows)


def check_records(shown, runs: pd.DataFrame, rule: str, n: int, gamma: float) -> None:
    some = runs[(runs["assumption"] == rule) & (runs["n_bags"] == n)].round({"auc": 4}).set_index("seed")
    first = some[(some["model"] == "lsa-abmilp") & (some["gamma"] == gamma)]["auc"]
    differences = (first - some[some["model"] == "abmilp"]["auc"]).to_numpy()
    np.testing.assert_allclose(shown.numbers(".dot"), differences, atol=1e-6)
    interval = [shown.numbers(".track.whole", part)[0] for part in ("mean", "low", "high")]
    if len(differences) > 1:
        np.testing.assert_allclose(interval, mean_interval(differences), atol=1e-6)
    else:
        assert np.isnan(interval[1])


def test_records_by_mouse_and_keyboard(shown, runs):
    from selenium.webdriver.common.keys import Keys

    shown.open(sl.viz.explorable("records", table=runs).html)
    check_records(shown, runs, "presence", 200, 1.0)
    shown.all(".choice input[value=threshold]")[0].click()
    check_records(shown, runs, "threshold", 200, 1.0)
    shown.press(shown.all("select")[0], Keys.ARROW_UP)  # γ from 0
    check_records(shown, runs, "threshold", 200, 0.0)
    for _ in range(3):
        shown.all(".buttons button")[0].click()
    drawn = shown.numbers(".track.drawn", "mean")
    assert len(drawn) == 3
    assert np.abs(drawn).max() <= np.abs(shown.numbers(".dot")).max()
    shown.press(shown.all(".slider input")[0], Keys.HOME)  # 50 bags, one seed
    check_records(shown, runs, "threshold", 50, 0.0)
    assert "one pair, no interval" in shown.summary()
    assert shown.messages() == []


def test_records_refuse_what_is_not_there(runs):
    with pytest.raises(ValueError, match=r"first: expected one of abmilp, lsa-abmilp, γ from 0, .* got 'sa'"):
        sl.viz.explorable("records", table=runs, first="sa")
