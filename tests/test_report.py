"""What a report shows of the patches that the models looked at; the page as a whole is in test_command_line.py."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import samil_lite as sl
from samil_lite.data import slides, synthetic
from samil_lite.report import write_report
from samil_lite.report_maps import _pictures


def build():
    return sl.build("abmilp", nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU()), dim=8)


def build_max():
    return sl.build("embedding-max", nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU()), dim=8)


def images(**options) -> sl.Bags:
    """Twelve bags of ten pictures, 3 × 6 × 6."""
    x = list(torch.rand(12, 10, 3, 6, 6, generator=torch.Generator().manual_seed(0)))
    return sl.Bags.from_list(x, ["a", "b"] * 6, classes=("a", "b"), names=[f"photo {b}" for b in range(12)], **options)


def reported(bags, path, maker=build):
    run = sl.cross_validate(bags, maker, folds=3, epochs=1, progress=False, device="cpu")
    text = write_report(run, bags, path / "report.html").read_text()
    return re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', text), text


def test_pictures_of_the_top_patches_where_instances_are_images(tmp_path):
    shown, text = reported(images(), tmp_path)
    strips = [picture for alt, picture in shown if "Its top patches" in alt]
    assert strips
    assert len({alt for alt, _ in shown if "framed" in alt}) == 0  # no places, so no map
    assert all(Image.open(io.BytesIO(base64.b64decode(picture))).width > 100 for picture in strips)
    assert re.search(r"photo \d+: (a|b), (rightly|wrongly) called", text)


def test_without_attention_there_is_nothing_to_show_and_it_says_so(tmp_path):
    assert "This model has no attention to show." in reported(images(), tmp_path, build_max)[1]


def test_patches_are_cut_from_the_file_of_the_slide(tmp_path):
    path = synthetic.write_slide(tmp_path / "s.tif")
    found = slides.tiling(path, size=100, tissue=0.9)
    bag = sl.Bags.from_list(
        [torch.zeros(len(found.corners), 4)], coordinates=[torch.from_numpy(found.corners.astype(np.float32))]
    )
    top = torch.tensor([5, 0])
    with pytest.warns(UserWarning, match="patch_size: not given"):
        cut = _pictures(bag, bag, top, "s", tmp_path)
    pixels = slides.thumbnail(path, 1200)[0]
    for picture, (x, y) in zip(cut, found.corners[top].astype(int), strict=True):
        whole = Image.fromarray(pixels[y : y + 100, x : x + 100]).resize((96, 96), Image.Resampling.LANCZOS)
        assert np.allclose(picture.permute(1, 2, 0) * 255, np.asarray(whole), atol=1)
    with pytest.warns(UserWarning, match="has no file named t; its top patches are not shown"):
        assert _pictures(bag, bag, top, "t", tmp_path) is None
    assert _pictures(bag, bag, top, "s", None) is None
