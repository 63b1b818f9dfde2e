import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from samil_lite.data.defungi import CLASSES, defungi_bags, defungi_table, public_test


@pytest.fixture
def defungi(tmp_path):
    """Two photographs of one sample and one of another in each class, 2 to 11 patches each."""
    root = tmp_path / "defungi"
    rng = np.random.RandomState(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for photograph, n in (("1a", 2), ("1b", 11), ("10a", 3)):
            for patch in range(1, n + 1):
                pixels = rng.randint(256, size=(8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / f"{name}_{photograph}_{patch}.png")
    return root


def load(folder, **options):
    return defungi_bags(folder, progress=False, **options)


def test_layout_and_labels(defungi):
    bags, table = load(defungi), defungi_table(defungi)
    assert table["photograph"][:3].tolist() == ["H1_1a", "H1_1b", "H1_10a"]
    assert bags.sizes.tolist() == [2, 11, 3] * 5 == table["n_patches"].tolist()
    assert bags.labels.tolist() == [label for label in range(5) for _ in range(3)]
    last = np.asarray(Image.open(defungi / "H1" / "H1_1b_11.png"))
    assert np.array_equal(bags[1].instances[-1].permute(1, 2, 0).numpy(), last)
    assert table["group"][:3].tolist() == ["H1_1", "H1_1", "H1_10"]


def test_chosen_classes_are_numbered_in_their_order(defungi):
    assert load(defungi, classes=["H6", "H3"]).labels.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match=r"classes: expected folders from H1, .*, got 'H4'"):
        load(defungi, classes=["H4"])


def test_samples_that_share_a_patch_are_one_group(defungi):
    shutil.copy(defungi / "H2" / "H2_1a_1.png", defungi / "H2" / "H2_10a_3.png")
    group = defungi_table(defungi).set_index("photograph")["group"]
    assert group["H2_10a"] == group["H2_1a"] == "H2_1"
    assert group["H3_10a"] == "H3_10"


def test_a_patch_in_two_classes_is_listed(defungi):
    shutil.copy(defungi / "H2" / "H2_1a_1.png", defungi / "H5" / "H5_10a_3.png")
    with pytest.warns(UserWarning, match="different classes: H2_1a and H5_10a"):
        defungi_table(defungi)


def test_known_pairs_are_one_group(defungi):
    for name, like in (("H5_111a_1", "H5_1a_1"), ("H5_54a_1", "H5_1b_1")):
        Image.open(defungi / "H5" / f"{like}.png").rotate(90).save(defungi / "H5" / f"{name}.png")
    group = defungi_table(defungi, classes=["H5"]).set_index("photograph")["group"]
    assert group["H5_111a"] == group["H5_54a"]


def test_faults_name_their_file(defungi):
    shutil.move(defungi / "H6", defungi / "H7")
    with pytest.raises(FileNotFoundError, match="H6: no such folder"):
        load(defungi)
    Image.new("RGB", (9, 8)).save(defungi / "H3" / "H3_1a_1.png")
    with pytest.raises(ValueError, match=r"H3_1a_1\.png: expected 8 × 8 pixels of 8 bits as in H1_1a_1.*, got 8 × 9"):
        load(defungi, classes=["H1", "H3"])
    (defungi / "H1" / "photo.png").write_bytes((defungi / "H1" / "H1_1a_1.png").read_bytes())
    with pytest.raises(ValueError, match=r"photo\.png: expected a name such as H1_1a_2"):
        load(defungi, classes=["H1"])
    (defungi / "H2" / "H2_1a_2.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"H2_1a_2\.png"):
        load(defungi, classes=["H2"])


def test_bags_are_bytes(defungi):
    assert load(defungi).instances.dtype == torch.uint8


def write_split(folder, change=lambda rows: rows, names=("file", "repo_split")):
    paths = [path for of_photograph in defungi_table(folder)["paths"] for path in of_photograph]
    rows = change([[path.name, "test" if i % 3 == 0 else "train"] for i, path in enumerate(paths)])
    (folder / "patches.csv").write_text("\n".join(",".join(row) for row in [names, *rows[::-1]]))


def test_the_public_split_is_in_the_order_of_the_bags(defungi):
    with pytest.raises(FileNotFoundError, match=r"patches\.csv"):
        public_test(defungi)
    write_split(defungi)
    test = public_test(defungi)
    assert test.tolist() == [i % 3 == 0 for i in range(load(defungi).n_instances)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "expected one row for each patch, 1 have not, such as H1_1a_1.png"),
        (lambda rows: [*rows, rows[0]], "expected one row for each patch, 1 have not, such as H1_1a_1.png"),
        (lambda rows: [[rows[0][0], "validation"], *rows[1:]], "repo_split: expected train or test, got .*validation"),
    ],
)
def test_a_faulty_split_is_named(defungi, change, message):
    write_split(defungi, change)
    with pytest.raises(ValueError, match=message):
        public_test(defungi)


def test_a_split_of_other_columns_is_named(defungi):
    write_split(defungi, names=("file", "split"))
    with pytest.raises(ValueError, match=r"expected the columns file and repo_split, \['repo_split'\] not there"):
        public_test(defungi)
