import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from samil_lite.data.idrid import LESIONS, SMALL, idrid_bags, idrid_table, lesion_areas, small_features

KINDS = {"MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "OD": "5. Optic Disc"}


def photograph(seed: int) -> Image.Image:
    """A disc of random blotches on black, 96 × 64."""
    rng = np.random.RandomState(seed)
    blotches = Image.fromarray(rng.randint(60, 250, (4, 6, 3)).astype(np.uint8)).resize(
        (96, 64), Image.Resampling.BILINEAR
    )
    disc = Image.new("L", (96, 64))
    ImageDraw.Draw(disc).ellipse((8, 0, 87, 63), fill=255)
    return Image.composite(blotches, Image.new("RGB", (96, 64)), disc)


def mask(*points: tuple[int, int], mode: str = "1") -> Image.Image:
    pixels = np.zeros((64, 96), np.uint8)
    for x, y in points:
        pixels[y, x] = 255
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def official(tmp_path):
    """Four graded photographs for training, two for testing, of which two are outlined, in the official layout."""
    root = tmp_path / "idrid"
    seed = 0
    for letter, word, grades in (("a", "Training", [0, 2, 3, 1]), ("b", "Testing", [4, 0])):
        images = root / "B. Disease Grading" / "1. Original Images" / f"{letter}. {word} Set"
        images.mkdir(parents=True)
        rows = []
        for number, grade in enumerate(grades, 1):
            photograph(seed).save(images / f"IDRiD_{number:03}.jpg", quality=95)
            rows.append(
                {"Image name": f"IDRiD_{number:03}", "Retinopathy grade": grade, "Risk of macular edema ": 0, "": None}
            )
            seed += 1
        truth = root / "B. Disease Grading" / "2. Groundtruths"
        truth.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(truth / f"{letter}. IDRiD_Disease Grading_{word} Labels.csv", index=False)
    segmentation = root / "A. Segmentation"
    for letter, word, name, seed in (("a", "Training", "IDRiD_01", 2), ("b", "Testing", "IDRiD_55", 4)):
        images = segmentation / "1. Original Images" / f"{letter}. {word} Set"
        images.mkdir(parents=True)
        photograph(seed).save(images / f"{name}.jpg", quality=95)
        for kind, folder in KINDS.items():
            into = segmentation / "2. All Segmentation Groundtruths" / f"{letter}. {word} Set" / folder
            into.mkdir(parents=True)
            mode = "RGBA" if kind == "HE" else "P"
            mask((40, 20), (50, 40), mode=mode).save(into / f"{name}_{kind}.tif")
    return root


def load(folder, **options):
    return idrid_bags(folder, **({"size": 16, "progress": False} | options))


def test_the_official_layout(official):
    table = idrid_table(official)
    assert table["name"].tolist() == ["train_001", "train_002", "train_003", "train_004", "test_001", "test_002"]
    assert table["grade"].tolist() == [0, 2, 3, 1, 4, 0]
    assert table["label"].tolist() == [0, 1, 1, 0, 1, 0]
    assert table["group"].tolist() == table["name"].tolist()
    assert [sorted(masks) for masks in table["masks"]] == [[], [], ["HE", "MA"], [], ["HE", "MA"], []]


def test_a_patch_with_a_lesion_pixel_has_its_bit(official):
    bags = load(official, max_black=None)
    assert bags.sizes.tolist() == [24] * 6
    of_bag = bags.split(bags.instance_labels)
    assert all((of_bag[b] == -1).all() for b in (0, 1, 3, 5))
    both = LESIONS["MA"] + LESIONS["HE"]
    assert [i for i, bits in enumerate(of_bag[2].tolist()) if bits == both] == [1 * 6 + 2, 2 * 6 + 3]
    assert sorted(set(of_bag[2].tolist())) == [0, both]
    x, y = bags.split(bags.coordinates)[2][8].tolist()
    assert (x, y) == (39.5, 23.5)


def test_one_pixel_is_not_lost_when_photographs_shrink(official):
    bags = load(official, size=8, height=16, max_black=None)
    assert (bags.split(bags.instance_labels)[2] > 0).sum() >= 1


def test_black_patches_go_with_their_labels(official):
    kept, every = load(official, max_black=0.3), load(official, max_black=None)
    assert kept.n_instances < every.n_instances
    positions = {
        tuple(xy): bits
        for xy, bits in zip(every[2].coordinates.tolist(), every[2].instance_labels.tolist(), strict=True)
    }
    for xy, bits in zip(kept[2].coordinates.tolist(), kept[2].instance_labels.tolist(), strict=True):
        assert positions[tuple(xy)] == bits


def test_the_small_set_that_travels_with_the_package():
    table, bags = idrid_table(SMALL), idrid_bags(SMALL, progress=False)
    assert len(bags) == 40
    assert table["grade"].value_counts().to_dict() == {0: 20, 2: 11, 3: 5, 4: 4}
    assert sum(map(bool, table["masks"])) == 16
    outlined = torch.tensor([bool(masks) for masks in table["masks"]])
    known = torch.stack([(labels >= 0).all() for labels in bags.split(bags.instance_labels)])
    assert torch.equal(known, outlined)
    found = torch.stack([(labels > 0).any() for labels in bags.split(bags.instance_labels)])
    assert torch.equal(found, outlined)
    assert (SMALL / "NOTICE.txt").is_file()
    assert (SMALL / "licence" / "CC-BY-4.0.txt").is_file()


@pytest.fixture
def small(tmp_path):
    """Three photographs in the scaled layout, to be damaged."""
    root = tmp_path / "idrid"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(3):
        photograph(i).save(root / "images" / f"train_00{i}.jpg")
    mask((40, 20)).save(root / "masks" / "train_002_EX.png")
    write_labels(root, [0, 1, 2])
    return root


def write_labels(root, grades, names=("train_000.jpg", "train_001.jpg", "train_002.jpg")):
    table = pd.DataFrame({"image": names, "split": "train", "grade": grades, "edema_risk": 0})
    table.to_csv(root / "labels.csv", index=False)


def test_the_scaled_layout(small):
    bags = load(small)
    assert bags.labels.tolist() == [0, 0, 1]
    assert int((bags.instance_labels == LESIONS["EX"]).sum()) == 1


def test_a_photograph_that_is_missing_is_named(small):
    (small / "images" / "train_001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"images/train_001: no such image.*labels\.csv lists it"):
        load(small)


def test_a_photograph_that_is_not_listed_is_named(small):
    photograph(9).save(small / "images" / "train_009.jpg")
    with pytest.raises(ValueError, match=r"train_009\.jpg: not listed in"):
        load(small)


@pytest.mark.parametrize("grade", ["two", "5", "", "1.5", "-1"])
def test_a_grade_that_is_no_grade_is_named(small, grade):
    write_labels(small, [0, grade, 2])
    with pytest.raises(ValueError, match=r"labels\.csv: train_001.*: expected grade 0 to 4, got"):
        load(small)


def test_a_mask_of_another_size_is_named(small):
    mask((40, 20)).resize((48, 32)).save(small / "masks" / "train_002_EX.png")
    with pytest.raises(ValueError, match=r"train_002_EX\.png: 48 × 32 pixels, but .*train_002\.jpg has 96 × 64"):
        load(small)


def test_the_same_photograph_with_two_grades_is_listed_and_kept_together(small):
    shutil.copy(small / "images" / "train_000.jpg", small / "images" / "train_001.jpg")
    with pytest.warns(UserWarning, match=r"two grades: train_000, train_001 \(grades \[0, 1\]\)"):
        table = idrid_table(small)
    assert table["group"].tolist() == ["train_000", "train_000", "train_002"]
    write_labels(small, [1, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert idrid_table(small)["group"].nunique() == 2


def test_a_name_listed_twice_and_a_lacking_column_are_named(small):
    write_labels(small, [0, 1, 2], ("train_000.jpg", "train_001.jpg", "train_001.jpg"))
    with pytest.raises(ValueError, match="train_001 is listed twice"):
        load(small)
    (small / "labels.csv").write_text("image,grade\ntrain_000.jpg,1\n")
    with pytest.raises(ValueError, match=r"labels\.csv: no column 'split'"):
        load(small)
    (small / "labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels\.csv: no such table, and no 'B\. Disease Grading'"):
        load(small)


def test_a_broken_photograph_is_named(small):
    path = small / "images" / "train_001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"train_001\.jpg"):
        load(small)


def test_lesion_areas_are_shares_of_patches(official):
    bags = idrid_bags(official, size=16, progress=False)
    areas = lesion_areas(bags, 16, official)
    known = ~areas.isnan().any(1)
    assert torch.equal(known, bags.instance_labels >= 0)
    bits = torch.tensor(list(LESIONS.values()))
    assert torch.equal(((areas[known] > 0) * bits).sum(1), bags.instance_labels[known])
    assert areas[known].sum() * 16**2 == 2 * 2 * 2  # two photographs, two kinds, two pixels each
    with pytest.raises(ValueError, match=f"expected the {len(bags)} photographs"):
        lesion_areas(bags[:2], 16, official)


def test_stored_features_are_of_the_small_set():
    bags = small_features()
    assert len(bags) == 40
    assert bags.instances.shape == (bags.n_instances, 64)
    assert bags.instances.isfinite().all()
    deviations = bags.instances.std(0)
    assert (deviations[:-1] >= deviations[1:] - 1e-2).all()  # principal components, the largest first
    assert int((bags.instance_labels > 0).sum()) > 300
