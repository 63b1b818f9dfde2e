import base64
import io

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


def test_a_large_photograph_is_stored_in_few_colours():
    figure, axis = plt.subplots(figsize=(6, 6))
    axis.imshow(np.random.default_rng(0).random((900, 900, 3)))
    picture = Image.open(io.BytesIO(base64.b64decode(figures.png(figure, "white"))))
    assert picture.mode == "P"
    assert len(picture.getcolors()) > 128
    axis.set_position((0.3, 0.3, 0.26, 0.26))
    small = Image.open(io.BytesIO(base64.b64decode(figures.png(figure, "white"))))
    assert small.mode == "RGB"
