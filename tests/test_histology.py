"""Colon and breast on stand-ins in the official layouts, and the published counts where the real files are."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.sparse import coo_array

from samil_lite.data import NUCLEI, breast_bags, breast_slides, colon_bags, colon_names
from samil_lite.data.histology import _crops, _grid
from samil_lite.data.synthetic import write_breast, write_colon

REAL = os.environ.get("SAMIL_DATA")


@pytest.fixture
def colon(tmp_path) -> Path:
    return write_colon(tmp_path / "colon")


@pytest.fixture
def breast(tmp_path) -> Path:
    return write_breast(tmp_path / "breast")


def test_colon(colon):
    bags = colon_bags(colon)
    assert len(bags) == 6
    assert bags.instances.dtype == torch.uint8
    assert bags.instances.shape[1:] == (3, 27, 27)
    assert bags.labels.tolist() == [1, 0] * 3
    for bag in bags:
        assert int((bag.instance_labels == 1).any()) == int(bag.labels)
    assert colon_names(colon) == [f"img{i}" for i in range(1, 7)]
    assert torch.equal(colon_bags(colon / "CRCHistoPhenotypes_2016_04_28" / "Classification").instances, bags.instances)
    dark = bags.instances.float().mean((1, 2, 3))
    assert dark[bags.instance_labels == 1].mean() < dark[bags.instance_labels != 1].mean()


def test_images_are_in_natural_order(tmp_path):
    write_colon(tmp_path, n_images=11, n_nuclei=3, side=60)
    assert colon_names(tmp_path) == [f"img{i}" for i in range(1, 12)]


def test_squares_are_cut_around_centres_and_moved_inside():
    pixels = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)
    centres = np.array([[20, 15], [0, 0], [50, 40], [20.4, 15.4]], dtype=np.float32)
    crops = _crops(pixels, centres, 7)
    assert crops.shape == (4, 3, 7, 7)
    np.testing.assert_array_equal(crops[0], pixels[12:19, 17:24].transpose(2, 0, 1))
    np.testing.assert_array_equal(crops[1], pixels[:7, :7].transpose(2, 0, 1))
    np.testing.assert_array_equal(crops[2], pixels[-7:, -7:].transpose(2, 0, 1))
    np.testing.assert_array_equal(crops[3], crops[0])


def test_breast(breast):
    bags, whole = breast_bags(breast), breast_bags(breast, drop_white=False)
    assert whole.sizes.tolist() == [6] * 6  # 96 × 64 in squares of 32
    assert bags.sizes.tolist() == [4] * 6  # the left third is white
    assert whole.labels.tolist() == [0, 1] * 3
    slides = breast_slides(breast)
    assert slides[0] == slides[1] == "ytma10_010700"
    assert len(set(slides)) == 3
    assert bags.coordinates.min(0).values.tolist() == [47.5, 15.5]


def test_patches_put_together_are_the_image():
    pixels = np.random.RandomState(0).randint(0, 256, (70, 100, 3)).astype(np.uint8)
    patches, centres = _grid(pixels, 32, drop_white=False)
    assert len(patches) == 2 * 3
    for patch, (x, y) in zip(patches, centres, strict=True):
        rows, columns = (slice(int(c - 15.5), int(c + 16.5)) for c in (y, x))
        np.testing.assert_array_equal(patch, pixels[rows, columns].transpose(2, 0, 1))


def test_a_shrunk_image_has_the_means_of_its_blocks(breast):
    half, whole = (breast_bags(breast, drop_white=False, size=16, shrink=n) for n in (2, 1))
    assert half.sizes.tolist() == [6] * 6  # 48 × 32 in squares of 16
    four = (
        whole.instances[[0, 1, 6, 7]].double().view(2, 2, 3, 8, 2, 8, 2).mean((4, 6))
    )  # the upper left 32 × 32 pixels
    patch = four.permute(2, 0, 3, 1, 4).reshape(3, 16, 16)  # (3, 16, 16)
    torch.testing.assert_close(half.instances[0].double(), patch, atol=0.5, rtol=0)

    with pytest.raises(ValueError, match="shrink: expected at least 1, got 0"):
        breast_bags(breast, shrink=0)


def test_a_white_image_keeps_its_darkest_patch():
    pixels = np.full((64, 64, 3), 250, np.uint8)
    pixels[40, 40] = 240
    patches, centres = _grid(pixels, 32, drop_white=True)
    assert len(patches) == 1
    assert centres.tolist() == [[47.5, 47.5]]


def test_hidden_files_and_folders_are_left_alone(colon, breast):
    before = colon_bags(colon).instances, breast_bags(breast).instances
    (images_of(colon) / ".ipynb_checkpoints").mkdir()
    (images_of(colon) / "__MACOSX").mkdir()
    (images_of(colon) / "img1" / "._img1.bmp").write_bytes(b"")
    shutil.copytree(breast / "Bisque", breast / ".Trash")
    (breast / ".Trash" / "ytma10_010700_benign1_ccd.tif").rename(breast / ".Trash" / "ytma10_010700_benign9_ccd.tif")
    (breast / "Thumbs.db").write_bytes(b"")
    assert torch.equal(colon_bags(colon).instances, before[0])
    assert torch.equal(breast_bags(breast).instances, before[1])


def test_formats_and_channels_do_not_matter(breast):
    before = breast_bags(breast).instances
    for path in sorted((breast / "Bisque").iterdir()):
        Image.open(path).convert("RGBA").save(path.with_suffix(".png"))
        path.unlink()
    assert torch.equal(breast_bags(breast).instances, before)


def test_empty_lists_and_shadow_folders_are_no_fault(colon):
    """MATLAB writes an empty list as (0, 2) bytes in the official files, elsewhere often as (0, 0)."""
    before = colon_bags(colon)
    for shape, kind in (((0, 2), "epithelial"), ((0, 0), "others")):
        savemat(images_of(colon) / "img1" / f"img1_{kind}.mat", {"detection": np.zeros(shape, np.uint8)})
    (colon / "__MACOSX" / "Classification" / "img1").mkdir(parents=True)
    after = colon_bags(colon)
    assert after.labels.tolist() == [0, 0, 1, 0, 1, 0]
    left = before[0].instance_labels >= NUCLEI.index("fibroblast")
    assert torch.equal(after[0].instances, before[0].instances[left])


def images_of(folder: Path) -> Path:
    return folder / "CRCHistoPhenotypes_2016_04_28" / "Classification"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sixteen_bits(path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, np.zeros((64, 96, 3), np.uint16), photometric="rgb")


def grey_sixteen_bits(path: Path) -> None:
    """PNG, whose numbers Pillow would cut off at 255."""
    Image.fromarray(np.full((120, 120), 30_000, np.uint16)).save(path.with_suffix(".png"))
    path.unlink()


def no_nuclei(folder: Path) -> None:
    for kind in NUCLEI:
        savemat(folder / f"img1_{kind}.mat", {"detection": np.zeros((0, 2))})


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda f: cut(f / "img2" / "img2.bmp"), ValueError, "img2.bmp"),
        (lambda f: (f / "img2" / "img2.bmp").unlink(), FileNotFoundError, "img2.bmp: no such image"),
        (lambda f: (f / "img2" / "img2_others.mat").unlink(), FileNotFoundError, "img2_others.mat: no such list"),
        (lambda f: cut(f / "img2" / "img2_others.mat"), ValueError, "img2_others.mat: expected `detection`"),
        (lambda f: savemat(f / "img2" / "img2_others.mat", {"x": 1}), ValueError, "img2_others.mat: .* none of this"),
        (
            lambda f: savemat(f / "img2" / "img2_others.mat", {"detection": [[5.0, 500.0]]}),
            ValueError,
            r"img2_others.mat: nucleus \[5.0, 500.0\] is outside of 120 × 120",
        ),
        (
            lambda f: savemat(f / "img2" / "img2_others.mat", {"detection": np.ones((2, 4))}),  # on its side
            ValueError,
            r"img2_others.mat: expected `detection` of shape \(n, 2\), got float64 of \(2, 4\)",
        ),
        (
            lambda f: savemat(f / "img2" / "img2_others.mat", {"detection": [["a", "b"]]}),
            ValueError,
            r"img2_others.mat: expected `detection`, .* no matrix of numbers",
        ),
        (
            lambda f: savemat(f / "img2" / "img2_others.mat", {"detection": [[np.nan, 5.0]]}),
            ValueError,
            r"img2_others.mat: nucleus \[nan, 5.0\] is outside",
        ),
        (
            lambda f: savemat(f / "img2" / "img2_others.mat", {"detection": coo_array(np.ones((3, 2)))}),
            ValueError,
            r"img2_others.mat: expected `detection`, .* no matrix of numbers",
        ),
        (lambda f: grey_sixteen_bits(f / "img2" / "img2.bmp"), ValueError, "img2.png: .* expected 8 bits a channel"),
        (lambda f: no_nuclei(f / "img1"), ValueError, "img1.bmp: has no nucleus"),
        (lambda f: shutil.copy(f / "img1" / "img1.bmp", f / "img1" / "img1.png"), ValueError, "same image is there"),
        (shutil.rmtree, FileNotFoundError, "expected one folder Classification"),
    ],
)
def test_what_is_wrong_with_colon_is_named(colon, spoil, error, message):
    spoil(images_of(colon))
    with pytest.raises(error, match=message):
        colon_bags(colon)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda f: cut(next(f.iterdir())), ValueError, r"ytma1.*\.tif"),
        (lambda f: shutil.copytree(f, f.with_name("copy")), ValueError, "same image is there"),
        (
            lambda f: Image.new("L", (96, 64)).save(f / "ytma10_010700_benign1.TIF"),  # as masks of nuclei are called
            ValueError,
            r"ytma10_010700_benign1_ccd.tif: the same image is there as .*ytma10_010700_benign1.TIF",
        ),
        (lambda f: grey_sixteen_bits(next(f.iterdir())), ValueError, r"ytma1.*\.png: .* expected 8 bits a channel"),
        (lambda f: next(f.iterdir()).rename(f / "photo.tif"), ValueError, "photo.tif: expected a name such as"),
        (lambda f: [p.unlink() for p in f.iterdir()], FileNotFoundError, "expected images such as ytma10"),
        (lambda f: Image.new("RGB", (20, 20)).save(next(f.iterdir())), ValueError, "too small for patches of 32"),
        (lambda f: sixteen_bits(next(f.iterdir())), ValueError, r"ytma1.*\.tif: expected 8 bits a channel, got uint16"),
    ],
)
def test_what_is_wrong_with_breast_is_named(breast, spoil, error, message):
    spoil(breast / "Bisque")
    with pytest.raises(error, match=message):
        breast_bags(breast)


@pytest.mark.parametrize("load", [colon_bags, breast_bags])
def test_a_missing_folder_says_where_to_get_it(load, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no such folder\. Get the files from https://"):
        load()
    with pytest.raises(ValueError, match="size: expected at least 1"):
        load(size=0)


@pytest.mark.skipif(not REAL or not (Path(REAL) / "colon").is_dir(), reason="SAMIL_DATA has no colon set")
def test_published_counts_of_colon():
    bags = colon_bags()
    assert (len(bags), bags.n_instances, int(bags.labels.sum())) == (100, 22_444, 51)
    assert (int(bags.sizes.min()), int(bags.sizes.max())) == (1, 796)


@pytest.mark.skipif(not REAL or not (Path(REAL) / "breast").is_dir(), reason="SAMIL_DATA has no breast set")
def test_published_counts_of_breast():
    bags = breast_bags(drop_white=False)
    assert bags.sizes.tolist() == [672] * 58
    assert bags.labels.bincount().tolist() == [32, 26]
    assert len(set(breast_slides())) == 10
