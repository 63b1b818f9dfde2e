import os
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from samil_lite.data import fungi
from samil_lite.data.fungi import SPECIES, SPECIES_NAMES, difas_bags, difas_preparations
from samil_lite.data.images import natural
from samil_lite.data.synthetic.fungi import write_difas

pytest.importorskip("skimage", reason="scikit-image is not installed")


@pytest.fixture(scope="module")
def difas(tmp_path_factory):
    """The whole layout, read only."""
    return write_difas(tmp_path_factory.mktemp("data") / "difas")


@pytest.fixture
def two(tmp_path):
    """Two species, to be damaged."""
    return write_difas(tmp_path / "difas", species=["CA", "CN"])


def load(folder, **options):
    return difas_bags(folder, **({"size": 24, "n_patches": 5, "progress": False, "species": ["CA", "CN"]} | options))


def same(a, b):
    return torch.equal(a.instances, b.instances) and torch.equal(a.coordinates, b.coordinates)


def test_layout_labels_and_preparations(difas):
    bags = load(difas, species=SPECIES)
    assert len(SPECIES) == len(SPECIES_NAMES) == 9
    assert bags.labels.tolist() == [label for label in range(9) for _ in range(4)]
    assert difas_preparations(difas).tolist() == [0, 0, 1, 1] * 9
    assert bags.sizes.tolist() == [5] * 36
    assert bags.instances.shape == (180, 3, 24, 24)
    assert bags.instances.dtype == torch.uint8
    assert bags.coordinates.dtype == torch.float32


def test_crops_are_cut_around_foreground_pixels(difas):
    bags = load(difas, stretch=None, size=21)
    paths = [difas / code / f"{code}{n}.tif" for code in ("CA", "CN") for n in (1, 2, 11, 12)]
    for bag, path in zip(bags, paths, strict=True):
        pixels = np.asarray(Image.open(path))
        mask = np.asarray(Image.open(difas / "masks" / path.parent.name / f"{path.stem}.png"))
        for crop, (x, y) in zip(bag.instances, bag.coordinates.int().tolist(), strict=True):
            assert mask[y, x] == 2
            cut = pixels[y - 10 : y + 11, x - 10 : x + 11]
            assert (crop.numpy() == cut.transpose(2, 0, 1)).all()


def test_centres_are_drawn_once_each_and_reach_the_border():
    foreground = np.zeros((9, 12), bool)
    foreground[[0, 2, 4, 6, 8], [5, 2, 5, 9, 5]] = (
        True  # crops of 5 around the first and the last would leave the image
    )
    xy = fungi._draw_centres(foreground, 5, 10, torch.Generator().manual_seed(0))
    assert sorted(map(tuple, xy.tolist())) == [(2, 2), (5, 4), (9, 6)]
    even = fungi._draw_centres(np.ones((6, 4), bool), 4, 99, torch.Generator().manual_seed(0))
    assert sorted(map(tuple, even.tolist())) == [(2, 2), (2, 3), (2, 4)]  # a crop of 4 begins 2 before its centre


def test_centres_in_a_large_foreground():
    xy = fungi._draw_centres(np.ones((500, 900), bool), 11, 1000, torch.Generator().manual_seed(0))
    assert len({tuple(centre) for centre in xy.tolist()}) == 1000
    assert xy.min(0).tolist() == pytest.approx([5, 5], abs=5)
    assert xy.max(0).tolist() == pytest.approx([894, 494], abs=5)
    assert xy.mean(0).tolist() == pytest.approx([450, 250], abs=25)  # all over it, not only its beginning


def test_crops_depend_on_the_seed_and_on_nothing_else_loaded(difas):
    bags = load(difas, species=["CN", "CA"])
    assert same(bags, load(difas))
    assert same(bags[bags.labels == 3], load(difas, species=["CN"]))
    assert not same(bags, load(difas, seed=1))
    state = torch.random.get_rng_state()
    load(difas)
    assert torch.equal(state, torch.random.get_rng_state())


def test_at_most_n_patches(difas):
    bags = load(difas, species=["CA"], size=90, n_patches=10_000)
    assert 1 <= bags.sizes.min() < 10_000
    assert len({(b, *xy) for b, xy in zip(bags.bag_index.tolist(), bags.coordinates.tolist(), strict=True)}) == len(
        bags.coordinates
    )
    assert bags.instances.untyped_storage().nbytes() == bags.instances.numel()  # no room left over


def test_otsu_without_masks(tmp_path):
    folder = write_difas(tmp_path, species=["CA"], masks=False)
    bags = load(folder, species=["CA"], stretch=None, size=21)
    centres = bags.instances[:, :, 10, 10].float().mean(1)
    assert centres.max() < 130  # the cells, not the ground of about 200


def test_sixteen_bits_are_read_in_full(tmp_path):
    for bits in (8, 16):
        write_difas(tmp_path / str(bits), species=["CA"], bits=bits)
    eight, sixteen = (load(tmp_path / str(bits), species=["CA"], stretch=None) for bits in (8, 16))
    assert same(eight, sixteen)
    assert fungi.read_rgb(tmp_path / "16" / "CA" / "CA1.tif").dtype == np.uint16
    stretched = [load(tmp_path / str(bits), species=["CA"], stretch=(1, 99)) for bits in (8, 16)]
    assert (stretched[0].instances.int() - stretched[1].instances.int()).abs().max() <= 2


def test_a_faint_image_keeps_its_levels(tmp_path):
    """500 levels of 65,536 would be two levels of 256 if 16 bits were cut before the contrast is stretched."""
    from tifffile import imwrite

    write_difas(tmp_path, species=["CA"])
    ramp = (np.arange(96 * 144, dtype=np.uint16) % 500).reshape(96, 144)
    colours = np.stack([ramp] * 3, -1)[None]  # a leading axis, as the authors' code finds in their files
    imwrite(tmp_path / "CA" / "CA1.tif", colours, photometric="rgb")
    bag = load(tmp_path, species=["CA"], n_patches=20)[0]
    assert len(bag.instances.unique()) > 200
    assert torch.equal(bag.instances[:, 0], bag.instances[:, 2])
    low, high = np.percentile(ramp, (5, 95))
    crop, (x, y) = bag.instances[0, 0].numpy(), bag.coordinates[0].int().tolist()
    cut = ramp[y - 12 : y + 12, x - 12 : x + 12]
    imwrite(tmp_path / "grey.tif", ramp)
    assert (fungi.read_rgb(tmp_path / "grey.tif") == colours[0]).all()
    np.testing.assert_allclose(crop, ((cut - low) / (high - low)).clip(0, 1) * 255, atol=0.51)


def test_the_stand_in_can_be_learned_from(difas):
    """Mean colours tell species apart, or a chapter would have nothing to show."""
    bags = load(difas, species=["CA", "SC"])
    colour = torch.stack([bag.instances.float().mean((0, 2, 3)) for bag in bags])
    assert (colour[:4].mean(0) - colour[4:].mean(0)).abs().max() > 5


def test_folder_from_the_environment(difas, monkeypatch, tmp_path):
    monkeypatch.setenv("SAMIL_DATA", str(difas.parent))
    assert same(load(None), load(difas))
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"difas: no such folder. Get the files from https://github.com/bziiuj"):
        load(None)


def test_natural_order():
    assert sorted(["CA10", "CA2", "B", "CA1"], key=natural) == ["B", "CA1", "CA2", "CA10"]


def remove(path):
    def damage(folder):
        (folder / path).unlink()

    return damage


def write(path, content):
    def damage(folder):
        (folder / path).write_bytes(content)

    return damage


def save(path, shape, value=0):
    def damage(folder):
        Image.fromarray(np.full(shape, value, np.uint8)).save(folder / path)

    return damage


def truncate(path, n):
    def damage(folder):
        (folder / path).write_bytes((folder / path).read_bytes()[:n])

    return damage


def corrupt(path):
    def damage(folder):
        raw = bytearray((folder / path).read_bytes())
        raw[60:120] = b"\xff" * 60
        (folder / path).write_bytes(raw)

    return damage


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda folder: (folder / "CN").rename(folder / "XX"),
            FileNotFoundError,
            "CN: expected images of Cryptococcus",
        ),
        (remove("masks/CN/CN11.png"), FileNotFoundError, r"CN11.png: no such mask, but .*masks has others"),
        (write("CN/CN2.tif", b"not an image"), ValueError, "CN2.tif: cannot be decoded"),
        (truncate("CN/CN2.tif", 1000), ValueError, "CN2.tif: (truncated|cannot be decoded)"),
        (save("CN/CN2.png", (96, 144)), ValueError, "CN2.tif: the same image is there as CN2.png"),
        (save("CN/CA3.png", (96, 144)), ValueError, "CA3.png: expected a name such as CN1.png in the folder CN"),
        (
            lambda f: Image.fromarray(np.full((96, 144), 30_000, np.uint16)).save(f / "CN" / "CN2.tif", "PNG"),
            ValueError,
            "CN2.tif: cannot be decoded: expected 8 bits a channel",  # a PNG, which Pillow would cut off at 255
        ),
        (save("CN/CN2.tif", (20, 144, 3)), ValueError, "CN2.tif: 144 × 20 pixels, too small for crops of 24 × 24"),
        (save("masks/CN/CN2.png", (96, 96)), ValueError, "CN2.png: expected 144 × 96 pixels, as CN2.tif has"),
        (save("masks/CN/CN2.png", (96, 144), 255), ValueError, "CN2.png: expected one channel of 0, 1 and 2"),
        (save("masks/CN/CN2.png", (96, 144), 1), ValueError, "CN2.tif: no foreground at least half a crop"),
        (save("CN/CN2.tif", (96, 144, 3), 7), ValueError, r"CN2.tif: no contrast, percentiles \(5, 95\) are both 7"),
        (corrupt("masks/CN/CN2.png"), ValueError, "CN2.png: cannot be decoded"),
    ],
)
def test_broken_files_are_named(two, damage, error, message):
    damage(two)
    with pytest.raises(error, match=message):
        load(two)


def test_undecodable_image_is_named(two):
    path = two / "CN" / "CN2.tif"
    raw = bytearray(path.read_bytes())
    with Image.open(path) as image:
        start = image.tag_v2[273][0]
    raw[start : start + 200] = b"\xff" * 200
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"CN2.tif: cannot be decoded"):
        load(two)
    from tifffile import imwrite

    imwrite(path, np.zeros((3, 96, 144), np.uint16), photometric="rgb", planarconfig="separate")
    with pytest.raises(
        ValueError, match=r"CN2.tif: .* expected 3 channels of uint16, got uint16 of shape \(3, 96, 144\)"
    ):
        load(two)
    imwrite(path, np.zeros((96, 144), np.int16))
    with pytest.raises(ValueError, match=r"CN2.tif: cannot be decoded: expected 3 channels of uint16, got int16"):
        load(two)


def test_headers_are_checked_before_anything_is_decoded(two, monkeypatch):
    write("CN/CN12.tif", b"")(two)
    monkeypatch.setattr(fungi, "read_rgb", lambda path: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"CN12.tif: cannot be decoded"):
        load(two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size and n_patches: expected at least 1, got 0 and 5"),
        ({"n_patches": 0}, "size and n_patches: expected at least 1, got 24 and 0"),
        ({"stretch": (5,)}, r"stretch: expected two ascending percentiles from 0 to 100, got \(5,\)"),
        ({"stretch": (95, 5)}, r"stretch: expected two ascending percentiles from 0 to 100, got \(95, 5\)"),
        ({"species": ["CA", "BG"]}, "species: expected codes from CA, .*, SC, got 'BG'"),
        ({"species": ["CA", "CA"]}, "species: expected at least one code, each once"),
        ({"species": []}, "species: expected at least one code, each once"),
    ],
)
def test_bad_arguments_are_named(difas, options, message):
    with pytest.raises(ValueError, match=message):
        load(difas, **options)


def test_bad_arguments_of_the_stand_in(tmp_path):
    with pytest.raises(ValueError, match="expected 1 to 10 images, 32 pixels or more, 8 or 16 bits, got 11"):
        write_difas(tmp_path, 11)


def test_the_missing_extra_is_named(difas, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.filters", None)
    with pytest.raises(ImportError, match=r"scikit-image: pip install 'samil-lite\[histology\]'"):
        load(difas)


def test_the_stand_in_is_small(difas):
    assert sum(path.stat().st_size for path in difas.rglob("*.*")) < 700_000


def test_memory_stays_near_the_result(tmp_path):
    folder = write_difas(tmp_path, 6, species=["CA"], shape=(64, 64))
    load(folder, species=["CA"])  # imports
    tracemalloc.start()
    try:
        bags = load(folder, species=["CA"], size=48, n_patches=100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    one = bags.instances.numel() / len(bags)
    assert peak < bags.instances.numel() + 6 * one  # and what one image takes, not the crops of all twice


def test_real_images():
    root = os.environ.get("SAMIL_DATA")
    if not root or not os.path.isdir(os.path.join(root, "difas")):
        pytest.skip("the DIFaS images are not here; set SAMIL_DATA to the folder that has difas/")
    bags = difas_bags(n_patches=2)
    assert set(bags.labels.tolist()) == set(range(9))
    assert len(bags) == len(difas_preparations())
