import json
import uuid

import pandas as pd
import pytest
import torch

import samil_lite as sl

GRID = torch.tensor([[0, 0], [512, 0], [0, 512]])
WEIGHTS = torch.tensor([0.2, 0.7, 0.1])


@pytest.fixture
def slide():
    return sl.Bags.from_list([torch.randn(3, 4)], coordinates=[GRID])


def test_geojson_is_what_qupath_reads(slide, tmp_path):
    """The members that QuPath's reader asks for (PathObject of QuPathTypeAdapters): type, id, geometry, properties."""
    path = sl.export.geojson(slide, WEIGHTS, tmp_path / "s.geojson", patch_size=512, classification="tumor")
    found = json.loads(path.read_text())
    assert found["type"] == "FeatureCollection"
    assert len(found["features"]) == 3
    for feature, (x, y), weight in zip(found["features"], GRID.tolist(), WEIGHTS.tolist(), strict=True):
        assert feature["type"] == "Feature"
        uuid.UUID(feature["id"])
        (ring,) = feature["geometry"]["coordinates"]
        assert feature["geometry"]["type"] == "Polygon"
        assert ring == [[x, y], [x + 512, y], [x + 512, y + 512], [x, y + 512], [x, y]]
        assert feature["properties"]["objectType"] == "detection"
        assert feature["properties"]["measurements"] == {"attention": pytest.approx(weight)}
        assert feature["properties"]["classification"]["name"] == "tumor"
        assert all(isinstance(c, int) and 0 <= c <= 255 for c in feature["properties"]["color"])
    again = sl.export.geojson(slide, WEIGHTS, tmp_path / "s.geojson", patch_size=512, classification="tumor")
    assert json.loads(again.read_text()) == found
    assert [p.name for p in tmp_path.iterdir()] == ["s.geojson"]


def test_downsample_several_numbers_and_the_top(slide, tmp_path):
    values = {"iqsa": WEIGHTS, "abmilp": 1 - WEIGHTS}
    path = sl.export.geojson(slide, values, tmp_path / "s", patch_size=512, downsample=4.5, kind="annotation", top=0.3)
    (feature,) = json.loads(path.read_text())["features"]
    assert feature["geometry"]["coordinates"][0][2] == [1024 * 4.5, 512 * 4.5]
    assert feature["properties"]["measurements"] == {"iqsa": pytest.approx(0.7), "abmilp": pytest.approx(0.3)}
    assert feature["properties"]["objectType"] == "annotation"


def test_csv(slide, tmp_path):
    table = pd.read_csv(sl.export.csv(slide, WEIGHTS, tmp_path / "s.csv", patch_size=512))
    assert table.columns.tolist() == ["x", "y", "size", "attention"]
    assert table[["x", "y"]].to_numpy().tolist() == GRID.tolist()
    assert set(table["size"]) == {512}
    assert table["attention"].tolist() == pytest.approx(WEIGHTS.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cell"}, "kind: expected one of detection"),
        ({"downsample": 0}, "downsample, top"),
        ({"top": 1.5}, "downsample, top"),
        ({"values": WEIGHTS[:2]}, "expected 3 numbers"),
    ],
)
def test_what_cannot_be_written(slide, change, message, tmp_path):
    given = {"values": WEIGHTS, "patch_size": 512, **change}
    with pytest.raises(ValueError, match=message):
        sl.export.geojson(slide, given.pop("values"), tmp_path / "s.geojson", **given)
    assert not list(tmp_path.iterdir())
