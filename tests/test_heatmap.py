import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import samil_lite as sl
from samil_lite.data import synthetic
from samil_lite.heatmap import _raster, beta_row, describe_heatmap, heatmap

GRID = torch.tensor([[x, y] for y in range(0, 768, 256) for x in range(512, 1536, 256)])  # 4 × 3 patches


@pytest.fixture
def slide():
    return sl.Bags.from_list([torch.randn(12, 4)], [1], coordinates=[GRID])


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def cells(figure, which=0):
    """Array and extent of the map of an axis."""
    image = figure.axes[which].images[-1]
    return np.ma.filled(image.get_array().astype(float), np.nan), image.get_extent()


def test_each_patch_has_its_value_at_its_place(slide):
    found, extent = cells(heatmap(slide, torch.arange(12.0), patch_size=256, scale="raw"))
    assert found.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert list(extent) == [512, 1536, 768, 0]


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_overlapping_patches_are_averaged(seed, step, side):
    """Against a loop over the cells, for patches of any overlap and gaps."""
    rng = np.random.default_rng(seed)
    corners = step * rng.integers(0, 6, size=(9, 2)).astype(float)
    corners = np.unique(corners, axis=0)
    values = rng.random(len(corners))
    found, (x0, x1, y1, y0) = _raster(corners, values, side)
    cell = (x1 - x0) / found.shape[1]
    for r in range(found.shape[0]):
        for c in range(found.shape[1]):
            x, y = x0 + (c + 0.5) * cell, y0 + (r + 0.5) * (y1 - y0) / found.shape[0]
            here = ((corners <= [x, y]) & ([x, y] < corners + side)).all(1)
            assert found[r, c] == pytest.approx(values[here].mean() if here.any() else np.nan, nan_ok=True)


def test_a_large_slide_of_odd_places_stays_small():
    rng = np.random.default_rng(0)
    found, _ = _raster(rng.random((1000, 2)) * 100_000, rng.random(1000), 224)
    assert max(found.shape) <= 2001


def test_scales(slide):
    values = torch.tensor([0.0] * 6 + [1.0] * 6) / 6
    assert np.nanmax(cells(heatmap(slide, values, patch_size=256))[0]) == pytest.approx(2)  # twice the even weight
    ranks = cells(heatmap(slide, values, patch_size=256, scale="percentile"))[0]
    assert sorted(set(ranks.ravel())) == [25, 75]  # ties share their rank


def test_several_models_share_their_colours(slide):
    figure = heatmap(slide, {"one": torch.rand(12), "two": 5 * torch.rand(12)}, patch_size=256, frames=[0, 3])
    one, two = (figure.axes[i].images[-1] for i in (0, 1))
    assert one.get_clim() == two.get_clim()
    assert [axis.get_title() for axis in figure.axes[:2]] == ["one", "two"]
    assert len(figure.axes[0].patches) == 2


def test_thumbnail_and_micrometres(slide):
    picture = np.zeros((48, 96, 3), np.uint8)  # 16 pixels of the slide in each
    figure = heatmap(slide, torch.rand(12), patch_size=256, thumbnail=(picture, 16), mpp=0.5)
    under, over = figure.axes[0].images
    assert list(under.get_extent()) == pytest.approx([0, 0.768, 0.384, 0])  # mm
    assert list(over.get_extent()) == pytest.approx([0.256, 0.768, 0.384, 0])
    assert figure.axes[0].get_xlabel() == "x in mm"


def test_the_size_of_a_patch_is_said_where_it_is_guessed(slide):
    with pytest.warns(UserWarning, match="256 is taken"):
        heatmap(slide, torch.rand(12))
    lonely = sl.Bags.from_list([torch.randn(1, 4)], coordinates=[GRID[:1]])
    with pytest.raises(ValueError, match="one place does not tell it"):
        heatmap(lonely, torch.rand(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.rand(11)}, "expected 12 numbers"),
        ({"values": torch.full((12,), torch.nan)}, "finite"),
        ({"values": {}}, "got none"),
        ({"scale": "log"}, "scale: expected one of raw, even, percentile"),
        ({"patch_size": 0}, "patch_size: expected a number above 0"),
        ({"frames": [12]}, "frames: expected numbers of patches from 0 to 11"),
        ({"frames": torch.ones(3, dtype=torch.bool)}, "frames"),
        ({"bag": sl.Bags.from_list([torch.randn(12, 4)])}, "coordinates to draw by"),
        ({"bag": sl.Bags.from_list([torch.randn(12, 4)] * 2, coordinates=[GRID] * 2)}, "expected one slide, got 2"),
    ],
)
def test_what_cannot_be_drawn(slide, change, message):
    given = {"bag": slide, "values": torch.rand(12), "patch_size": 256, **change}
    with pytest.raises(ValueError, match=message):
        heatmap(given.pop("bag"), given.pop("values"), **given)


def test_alt_text_says_where_and_how_much(slide):
    values = torch.zeros(12)
    values[0] = 1.0
    assert describe_heatmap(slide, values) == (
        "Map of 12 patches of a slide, coloured by a number: the tenth of patches with the largest numbers, "
        "100% of all, lies towards the upper left."
    )


def test_beta_of_a_patch_is_a_row_of_the_matrix(slide):
    model = sl.build("iqsa-abmilp", nn.Linear(4, 8), gamma=1)
    beta = model(slide, return_weights=True).self_attention[0]
    torch.testing.assert_close(beta_row(model, slide, 5), beta[5].detach())
    with pytest.raises(ValueError, match="self-attention"):
        beta_row(sl.build("abmilp", nn.Linear(4, 8)), slide, 5)
    with pytest.raises(ValueError, match="a patch of it"):
        beta_row(model, slide, 12)


def test_the_size_of_a_patch_is_that_of_the_file(tmp_path):
    """Slides scanned at 20× and 40×: patches of 256 and 512 pixels, and a square of 256 would show a quarter."""
    folder = synthetic.write_trident(tmp_path, n_slides=2, n_patients=2)
    slides = sl.data.feature_bags(folder, folder / "labels.csv")
    for b, side in enumerate((256, 512)):
        one = slides.subset(b)
        found, (x0, x1, _, _) = cells(heatmap(one, torch.ones(one.n_instances)))
        assert np.isfinite(found).sum() * ((x1 - x0) / found.shape[1]) ** 2 == pytest.approx(one.n_instances * side**2)


def test_the_name_of_the_slide_stands_above_its_map():
    for names in (["slide_7"], None):
        bag = sl.Bags.from_list([torch.zeros(12, 2)], coordinates=[GRID], names=names)
        figure = heatmap(bag, torch.arange(12.0), patch_size=256)
        assert figure.get_suptitle() == ("slide_7" if names else "")
