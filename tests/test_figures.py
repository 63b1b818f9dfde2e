import base64
import io
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import samil_lite as sl
from samil_lite import figures


def pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))


@pytest.fixture
def two_panels():
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
    for axis in axes:
        axis.plot([0, 1], [0, 1], color="black", label="a line")
        axis.set(xlabel="epoch")
    axes[0].set_ylabel("loss")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def test_a_wide_figure_has_four_pictures_and_a_small_one_two(two_panels):
    assert set(figures.pictures(two_panels)) == {"light", "dark", "narrow", "narrow_dark"}
    figure, _ = plt.subplots(figsize=(3, 3))
    assert set(figures.pictures(figure)) == {"light", "dark"}
    assert not plt.get_fignums()


def test_a_dark_picture_has_light_ink_on_no_ground_and_the_figure_is_as_it_was(two_panels):
    line = two_panels.axes[0].lines[0]
    light = pixels(figures.png(two_panels, ground="white"))
    with figures.dark(two_panels):
        dark = pixels(figures.png(two_panels, ground="none"))
        assert line.get_color() != "black"
    assert line.get_color() == "black"
    assert light[0, 0].min() >= 253
    assert dark[0, 0, 3] == 0
    inked = dark[dark[..., 3] > 240]
    assert len(inked) > 100
    assert inked[:, :3].max() > 200  # light ink


def test_marks_that_follow_their_line_get_its_colour_back():
    figure, axis = plt.subplots()
    (line,) = axis.plot([0, 1], "o-", color="C1")
    before = line.get_markerfacecolor(), line.get_markeredgecolor()
    with figures.dark(figure):
        assert line.get_markerfacecolor() == line.get_color() != "C1"
    assert (line.get_markerfacecolor(), line.get_markeredgecolor()) == before
    plt.close(figure)


def test_panels_move_under_each_other_with_labels_of_their_own(two_panels):
    left, right = two_panels.axes
    assert figures.stack(two_panels)
    two_panels.canvas.draw()
    assert two_panels.get_figwidth() == figures.NARROW
    assert left.get_position().y0 > right.get_position().y1
    assert right.get_ylabel() == "loss"
    assert not figures.stack(two_panels)


def test_pictures_and_coloured_values_keep_their_colours():
    figure, (photo, points) = plt.subplots(1, 2, figsize=(8, 3))
    image = photo.imshow(np.random.default_rng(0).random((4, 4, 3)))
    mark = photo.scatter([1], [1], color="black")
    values = points.scatter([0, 1], [0, 1], c=[0.0, 1.0])
    before = values.get_facecolor().copy(), image.get_array().copy()
    with figures.dark(figure):
        assert mark.get_facecolor()[0, :3].tolist() == [0, 0, 0]
        np.testing.assert_array_equal(values.get_facecolor(), before[0])
        np.testing.assert_array_equal(image.get_array(), before[1])


def test_a_bag_of_many_has_fewer_columns_on_a_phone():
    bags = sl.Bags.from_list([torch.rand(9, 1, 4, 4)])
    figure = sl.viz.bag(bags)
    small = figure.narrow()
    assert sum(bool(axis.images) for axis in small.axes) == 9
    assert small.get_figwidth() < figure.get_figwidth()


@pytest.mark.parametrize("columns", [2, 4, 7, 8, 9, 12])
def test_panels_of_any_number_have_ticks_on_a_phone(columns):
    figure, axes = plt.subplots(2, columns, figsize=(9, 3), layout="constrained")
    for axis in axes.flat:
        axis.plot([0, 1], [0, 1])
    assert set(figures.pictures(figure)) == {"light", "dark", "narrow", "narrow_dark"}
    assert all(len(axis.get_xticks()) for axis in axes.flat)


def test_a_large_photograph_is_stored_in_few_colours():
    figure, axis = plt.subplots(figsize=(6, 6))
    axis.imshow(np.random.default_rng(0).random((900, 900, 3)))
    picture = Image.open(io.BytesIO(base64.b64decode(figures.png(figure, "white"))))
    assert picture.mode == "P"
    assert len(picture.getcolors()) > 128
    axis.set_position((0.3, 0.3, 0.26, 0.26))
    small = Image.open(io.BytesIO(base64.b64decode(figures.png(figure, "white"))))
    assert small.mode == "RGB"


def test_maps_under_each_other_have_no_gaps():
    weights = [torch.rand(10, 10).softmax(1) for _ in range(3)]
    figure = sl.viz.self_attention(weights, [str(i) for i in range(10)], ["dot", "RBF", "Laplace"])
    assert figures.stack(figure)
    figure.draw_without_rendering()
    first, second, third = (axis for axis in figure.axes if axis.images)
    high = first.get_position().height * figure.get_figheight()
    for above, below in ((first, second), (second, third)):
        gap = (above.get_position().y0 - below.get_position().y1) * figure.get_figheight()
        assert 0 < gap < 0.4 * high  # a title and the names of the keys
    assert high > 0.6 * figures.NARROW  # beside the scale of colours


def test_rows_of_two_panels_keep_the_names_at_their_left():
    figure, axes = plt.subplots(1, 4, figsize=(9, 3.8), sharey=True, layout="constrained")
    axes[0].set(yticks=range(3), yticklabels=["abmilp", "embedding-mean", "noisy-or"])
    for axis in axes:
        axis.plot([-0.36, 0.42], [0, 2])
        axis.set_xlabel("difference of test AUC")
    assert figures.stack(figure)
    figure.draw_without_rendering()
    named = [any(t.get_text() and t.get_visible() for t in axis.get_yticklabels()) for axis in axes]
    shown = [axis.yaxis.get_tick_params()["labelleft"] for axis in axes]
    assert named[0]
    assert shown == [True, False, True, False]
    left, right = (axis.xaxis.label.get_window_extent() for axis in axes[:2])
    assert left.x1 < right.x0
    for axis in axes:
        low, high = axis.get_xlim()
        numbers = [t.label1.get_window_extent() for t in axis.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
        assert all(one.x1 < other.x0 for one, other in pairwise(numbers))


def test_a_legend_beside_a_panel_goes_below_it():
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    for height in (352, 700, 1488):
        axis.plot([0, 1], [0, height], label=f"{height} pixels")
    axis.legend(title="dot", loc="center left", bbox_to_anchor=(1, 0.5))
    assert figures.stack(figure)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["352 pixels", "700 pixels", "1488 pixels"]
    assert legend.get_title().get_text() == "dot"
    assert legend.get_window_extent().y1 < axis.bbox.y0
    assert axis.bbox.width > 0.75 * figure.bbox.width


def test_four_photographs_in_a_row_are_two_and_two():
    figure, axes = plt.subplots(1, 4, figsize=(8, 1.8), layout="constrained")
    for axis in axes:
        axis.imshow(np.zeros((4, 6, 3)))
    assert figures.stack(figure)
    figure.draw_without_rendering()
    assert axes[0].get_position().y0 > axes[2].get_position().y1
    assert axes[0].get_position().width * figure.get_figwidth() > 1.5


def test_the_rows_of_a_bag_on_a_phone_are_of_one_length_and_close():
    bags = sl.Bags.from_list([torch.rand(7, 1, 4, 4), torch.rand(10, 1, 4, 4)], torch.tensor([0, 1]))
    small = sl.viz.bag(bags, torch.rand(17)).narrow()
    boxes = [axis.get_position() for axis in small.axes]
    rows = sorted({round(box.y0, 6) for box in boxes}, reverse=True)
    assert [sum(round(box.y0, 6) == row for box in boxes) for row in rows] == [4, 3, 5, 5]
    high = boxes[0].height
    assert boxes[0].y0 - boxes[4].y1 < 1.05 * high  # a bar, its number and the next name
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)
