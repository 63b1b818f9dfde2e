import html
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

import samil_lite as sl
from samil_lite import viz


@pytest.fixture
def bags() -> sl.Bags:
    return sl.data.mnist_bags("presence", 2, seed=1)


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"model": ["a", "a", "b", "b"] * 2, "n": [50] * 4 + [100] * 4, "auc": [0.7, 0.8, 0.6, 0.9, 0.8, 0.9, 0.7, 0.8]}
    )


def test_a_bag_shows_every_instance_with_label_weight_and_frame(bags):
    key = torch.isin(bags.instance_labels, torch.tensor([7, 9]))
    attention = torch.full((bags.n_instances,), 0.25)
    figure = viz.bag(bags, attention, key, titles=["first", "second"], columns=5)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == [str(d) for d in bags.instance_labels.tolist()]
    assert [axis.spines["left"].get_edgecolor()[:3] == viz.KEY for axis in shown] == key.tolist()
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts.count("0.25") == bags.n_instances
    assert {"first", "second"} <= set(texts)


def test_a_bag_needs_no_labels():
    bags = sl.Bags.from_list([torch.rand(3, 3, 5, 5)])
    assert len([axis for axis in viz.bag(bags).axes if axis.images]) == 3
    assert viz.describe_bag(bags) == "Bag of 3 instances: ?, ?, ?."


def test_description_of_a_bag():
    bags = sl.Bags.from_list([torch.rand(2, 1, 2, 2)], [1], [torch.tensor([9, 4])])
    text = viz.describe_bag(bags, torch.tensor([0.75, 0.25]), torch.tensor([True, False]))
    assert text == "Bag of 2 instances with label 1: 9 (key, weight 0.75), 4 (weight 0.25)."


def test_comparison_draws_every_run_the_mean_and_the_interval(table):
    figure = viz.comparison(table, "auc", "model", "test AUC")
    axis = figure.axes[0]
    assert sum(len(dots.get_offsets()) for dots in axis.collections) == len(table)
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a", "b"]
    assert axis.get_xlabel() == "test AUC"
    means = [x for line in axis.lines for x in line.get_xdata() if line.get_marker() == "D"]
    assert means == pytest.approx([0.8, 0.75])
    assert "a 0.800 (0.670 to 0.930); b 0.750" in viz.describe_comparison(table, "auc", "model")


def test_groups_of_unequal_size_are_counted_honestly():
    table = pd.DataFrame({"model": ["a", "a", "b"], "auc": [0.8, 0.9, 0.7]})
    text = viz.describe_comparison(table, "auc", "model")
    assert "over 1 to 2 runs" in text
    assert "b 0.700 (one run)" in text


def test_the_same_runs_make_the_same_picture(table):
    """Else every execution of a chapter would store other pictures."""
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        viz.comparison(table, "auc", "model").savefig(file)
    assert files[0].getvalue() == files[1].getvalue()


def test_curves_tell_lines_apart_without_colour(table):
    axis = viz.curves(table, "n", "auc", "model", {"n": "training bags"}).axes[0]
    handles = axis.get_legend().legend_handles
    assert len({(h.get_linestyle(), h.get_marker()) for h in handles}) == 2
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("training bags", "auc")
    text = viz.describe_curves(table, "n", "auc", "model", {"n": "training bags"})
    assert text == "Mean auc from training bags 50 to 100: a 0.750 to 0.850; b 0.750 to 0.750."


def test_curves_in_panels(table):
    table["task"] = ["x", "y"] * 4
    figure = viz.curves(table, "n", "auc", "model", panels="task")
    assert [axis.get_title() for axis in figure.axes] == ["x", "y"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    text = viz.describe_curves(table, "n", "auc", "model", panels="task")
    assert text.startswith("x: Mean auc from n 50 to 100: a 0.700 to 0.800; b 0.600 to 0.700. y: Mean")


def test_self_attention_is_drawn_on_one_scale():
    even, sharp = torch.full((3, 3), 1 / 3), torch.eye(3)
    figure = viz.self_attention([even, sharp], ["9", "1", "7"], ["rbf", "dot"], torch.tensor([True, False, True]))
    first, second = figure.axes[:2]
    assert [axis.images[0].get_clim() for axis in (first, second)] == [(0, 1), (0, 1)]
    assert (first.images[0].get_array() == even.numpy()).all()
    assert [tick.get_fontweight() for tick in second.get_yticklabels()] == ["bold", "normal", "bold"]
    text = viz.describe_self_attention([sharp], ["9", "1", "7"], ["dot"])
    assert text == (
        "Self-attention among 3 instances (9, 1, 7). dot: the largest weight, 1.00, goes from query 9 to key 9; "
        "the largest weights of the rows lie between 1.00 and 1.00."
    )


def test_losses():
    history = sl.History([0.7, 0.3, 0.2], [0.6, 0.4, 0.5], best_epoch=1)
    axis = viz.losses(history).axes[0]
    assert [line.get_label() for line in axis.lines] == ["training", "validation", "kept"]
    assert "falls from 0.70 to 0.20 in 3 epochs. Validation loss is lowest, 0.40, in epoch 2" in viz.describe_losses(
        history
    )


def test_show_sends_picture_and_alt_text(table, monkeypatch):
    sent = {}
    monkeypatch.setattr(
        "IPython.display.display", lambda data, metadata, raw: sent.update(data=data, metadata=metadata)
    )
    viz.show(viz.comparison(table, "auc", "model"), "Two dots")
    assert sent["data"]["text/plain"] == sent["metadata"]["image/png"]["alt"] == "Two dots"
    assert sent["data"]["image/png"].startswith("iVBOR")
    with pytest.raises(ValueError, match="alt: expected a text"):
        viz.show(viz.comparison(table, "auc", "model"), " ")


def test_stepper_has_one_picture_for_each_step_that_shows_something_new(table):
    figures = [viz.comparison(data, "auc", "model") for data in (table, table, table.head(3))]
    stepper = viz.stepper(figures, ["one", "the same", "<three>"], "Epoch")
    data = json.loads(html.unescape(re.search(r"data-values='([^']*)'", stepper.html)[1]))
    assert data["captions"] == ["one", "<three>"]
    assert len(set(data["frames"])) == len(set(data["dark"])) == 2
    assert not set(data["frames"]) & set(data["dark"])
    assert data["label"] == "Epoch"
    assert stepper.alt == "one"
    with pytest.raises(ValueError, match="captions: expected one for each of 1 figures, got 2"):
        viz.stepper(figures[:1], ["one", "two"], "Epoch")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b, n: viz.bag(b, titles=["a"]), "titles: expected 2, one for each bag, got 1"),
        (lambda b, n: viz.bag(b, torch.rand(n + 5)), "attention: expected .* finite weights of at least 0"),
        (lambda b, n: viz.bag(b, torch.rand(n) * float("nan")), "attention: .* got NaN or infinity"),
        (lambda b, n: viz.describe_bag(b, key=torch.ones(n)), "key: expected .* booleans, one for each instance"),
        (lambda b, n: viz.bag(sl.Bags(torch.randn(4, 3), torch.tensor([0, 4]))), "bags: expected images of shape"),
        (lambda b, n: viz.bag(b, columns=0), "columns: expected a whole number of at least 1"),
        (lambda b, n: viz.self_attention([], [], []), "weights: expected a list of tensors that is not empty"),
        (lambda b, n: viz.describe_self_attention([torch.eye(3)], ["a"], ["t"]), r"weights\[0\]: .* shape \(1, 1\)"),
        (lambda b, n: viz.losses(sl.History()), "history: expected at least one epoch, got none"),
        (lambda b, n: viz.show(None, ""), "figure: expected a Figure, got None"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    bags = sl.data.mnist_bags(n_bags=2, mean_size=3)
    with pytest.raises(ValueError, match=message):
        call(bags, bags.n_instances)


def test_the_text_says_which_way_the_loss_goes():
    texts = [viz.describe_losses(sl.History([1.0, end])) for end in (0.5, 2.0, 1.0)]
    assert [text.split(" in ")[0] for text in texts] == [
        "Training loss falls from 1.00 to 0.50",
        "Training loss rises from 1.00 to 2.00",
        "Training loss begins and ends at 1.00",
    ]


def test_forest_needs_an_interval_for_each_name():
    with pytest.raises(ValueError, match=r"effects: expected an effect and two ends for each of 2 names"):
        viz.forest(["a", "b"], [(0.1, 0.0, 0.2)], "difference")


def test_forests_fill_what_leaves_out_zero_and_leave_out_what_is_not_there():
    rows = [("a", 50, "x", 0.1, 0.05, 0.2), ("a", 50, "y", 0.1, -0.1, 0.3), ("b", 50, "x", -0.2, -0.3, -0.1)]
    rows += [("b", 50, "y", np.nan, np.nan, np.nan), ("a", 200, "x", 0.3, 0.2, 0.4)]
    table = pd.DataFrame(rows, columns=["model", "n", "task", "effect", "low", "high"])
    figure = viz.forests(table, "model", "n", "gain", panels="task")
    x, y = figure.axes
    assert [t.get_text() for t in x.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["50", "200"]

    def marks(axis):
        return [
            (line.get_xdata()[0], line.get_markerfacecolor() != "white")
            for line in axis.lines
            if len(line.get_xdata()) == 1
        ]

    assert marks(x) == [(0.1, True), (-0.2, True), (0.3, True)]
    assert marks(y) == [(0.1, False)]
    assert viz.describe_forests(table, "model", "n", "gain", panels="task") == (
        "gain; a star where the 95 % interval leaves out zero. x, 50: a +0.10*; b -0.20*. "
        "y, 50: a +0.10. x, 200: a +0.30*."
    )
