"""Folders of features as other tools write them: generated, and nine real files if they are at hand."""

import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import samil_lite as sl
from samil_lite.data import feature_bags
from samil_lite.data.matching import stripped

REAL = Path(os.environ.get("SAMIL_DATA", Path(__file__).parents[2] / "shared" / "data")) / "wsi_bags"
SIZE = {"patch_size_level0": 512}


def write(path: Path, x: np.ndarray, xy: np.ndarray | None, layout: str, lead: bool = False) -> None:
    """A file in the layout that this name stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if lead:
        x, xy = x[None], None if xy is None else xy[None]
    if layout == ".npy":
        np.save(path.with_name(path.name + ".npy"), x)
    elif layout in (".pt", "dict.pt"):
        state = torch.from_numpy(x)
        if layout == "dict.pt":
            state = {"feats": state} | ({} if xy is None else {"coords": torch.from_numpy(xy)})
        torch.save(state, path.with_name(path.name + ".pt"))
    else:
        suffix = ".hdf5" if layout == "hdf5" else ".h5"
        group = "20x/" if layout == "group" else ""
        with h5py.File(path.with_name(path.name + suffix), "w") as file:
            file[group + ("feats" if layout == "stamp" else "features")] = x
            if layout == "stamp":
                file["augmented"] = np.zeros(len(x), bool)
                file.attrs["extractor"] = "some network"
            if xy is not None:
                file[group + "coords"] = xy
                file[group + "coords"].attrs.update(SIZE)


LAYOUTS = ("clam", "stamp", "group", "hdf5", ".pt", "dict.pt", ".npy")
NAMES = st.lists(
    st.from_regex(r"[A-Z]{1,3}-[0-9]{2,4}(\.[a-f0-9]{4})?", fullmatch=True), min_size=1, max_size=5, unique=True
)


@given(
    names=NAMES,
    layout=st.sampled_from(LAYOUTS),
    lead=st.booleans(),
    with_coordinates=st.booleans(),
    place=st.sampled_from(["", "h5_files", "pt_files", "features_uni_v1", "a/b", "own"]),
    ending=st.sampled_from(["", ".svs", ".h5", "/", ".SVS"]),
    kind=st.sampled_from(["f4", "f2", "f8"]),
    order=st.randoms(use_true_random=False),
)
def test_what_was_written_is_read(names, layout, lead, with_coordinates, place, ending, kind, order):
    with tempfile.TemporaryDirectory() as root:
        folder, rng = Path(root), np.random.RandomState(0)
        (folder / "notes.txt").write_text("left alone")
        written = {}
        for name in names:
            n = rng.randint(1, 9)
            x, xy = rng.standard_normal((n, 4)).astype(kind), rng.randint(0, 9, (n, 2)) * 512
            written[name] = x.astype(np.float32), xy
            path = folder / name / "features" if place == "own" else folder / place / name
            write(path, x, xy if with_coordinates else None, layout, lead)
        listed = list(names)
        order.shuffle(listed)
        ids = [f"/slides/{name}.svs" if ending == "/" else name + ending for name in listed]
        table = pd.DataFrame({"slide_id": ids, "label": [i % 2 for i in range(len(ids))]})
        bags = feature_bags(folder, table)
        assert list(bags.names) == (ids if place == "own" else listed)
        has = with_coordinates and layout not in (".pt", ".npy")
        assert bags.has_coordinates == has
        for bag, name in zip(bags, listed, strict=True):
            np.testing.assert_array_equal(bag.instances.numpy(), written[name][0])
            if has:
                np.testing.assert_array_equal(bag.coordinates.numpy(), written[name][1])
        if has and layout != "dict.pt":
            assert bags.patch_size.tolist() == [512] * len(names)
            assert (bags.attributes["patch_size_level0"] == 512).all()
        else:
            assert bags.patch_size.isnan().all()


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        write(tmp_path / f"s{i}", np.full((i + 1, 4), i, "f4"), np.full((i + 1, 2), i), "clam")
    return tmp_path


TABLE = pd.DataFrame(
    {"slide_id": [f"s{i}" for i in range(10)], "case_id": list("AABBBCCDDD"), "label": [0, 0, 1, 1, 1, 0, 0, 1, 1, 1]}
)


def spoil(folder):
    """s1 is empty, s3 broken, s4 of another width; s6 to s9 are not there."""
    write(folder / "s1", np.ones((0, 4), "f4"), None, "clam")
    (folder / "s3.h5").write_bytes(b"no HDF5")
    write(folder / "s4", np.ones((5, 7), "f4"), None, "clam")


def test_all_faults_are_listed_at_once(folder):
    spoil(folder)
    with pytest.raises(ValueError, match="cannot use 8 of 10 rows") as caught:
        feature_bags(folder, TABLE.assign(label=["", *TABLE["label"][1:]]))
    text = str(caught.value)
    listed = ("s0 has none", "s1.h5: expected features of shape", "s3.h5 is broken", "s4.h5: expected 4 features")
    for part in (*listed, "s6.h5 or .pt is not there", "s9.h5 or .pt", 'missing="skip" leaves them out'):
        assert part in text
    with pytest.raises(FileNotFoundError, match="cannot use 4 of 7 rows"):
        feature_bags(folder, TABLE.iloc[[0, 2, 5, 6, 7, 8, 9]], allow_unlisted=True)
    with pytest.raises(ValueError, match="missing: expected error or skip, got 'ignore'"):
        feature_bags(folder, TABLE, missing="ignore")


def test_faults_may_be_skipped_and_are_reported(folder):
    spoil(folder)
    with pytest.warns(UserWarning, match=r"left out 7 of 10 rows:(.|\n)*s1.h5(.|\n)*s9"):
        bags = feature_bags(folder, TABLE, missing="skip", classes=(0, 1))
    assert bags.names == ("s0", "s2", "s5")
    assert bags.labels.tolist() == [0, 1, 0]
    assert bags.table["case_id"].tolist() == ["A", "B", "C"]
    assert bags.skipped["bag"].tolist() == ["s1", "s3", "s4", "s6", "s7", "s8", "s9"]
    assert all(name in reason for name, reason in zip(bags.skipped["bag"], bags.skipped["reason"], strict=True))
    with pytest.raises(FileNotFoundError, match="cannot use 4 of 4 rows"):
        feature_bags(folder, TABLE[6:], missing="skip")


def test_slides_of_a_patient_become_one_bag(folder):
    table = TABLE[:6].iloc[[0, 2, 5, 1, 4, 3]]
    bags = feature_bags(folder, table, merge="case_id")
    assert bags.names == ("A", "B", "C")
    assert bags.sizes.tolist() == [1 + 2, 3 + 5 + 4, 6]
    assert bags.labels.tolist() == [0, 1, 0]
    assert bags[1].instances[:, 0].tolist() == [2] * 3 + [4] * 5 + [3] * 4
    assert bags[1].coordinates[:, 0].tolist() == bags[1].instances[:, 0].tolist()
    assert bags.files(1).to_dict("list") == {"name": ["s2", "s4", "s3"], "size": [3, 5, 4], "patch_size": [512] * 3}
    assert bags[[2, 0]].sizes.tolist() == [6, 3]
    part = bags.subset([2, 0])
    assert (part.names, part.sizes.tolist(), len(part.paths)) == (("C", "A"), [6, 3], 3)
    assert torch.equal(part[:].instances, bags[[2, 0]].instances)
    assert part.group("case_id").tolist() == ["C", "A"]
    with pytest.raises(ValueError, match="the slides of A have several labels"):
        feature_bags(folder, table.assign(label=[0, 1, 0, 1, 1, 1]), merge="case_id")
    with pytest.raises(ValueError, match=r"B is listed 3 times; .* say merge='case_id'"):
        feature_bags(folder, table, bag="case_id", allow_unlisted=True)
    history = sl.fit(sl.build("abmilp", torch.nn.Linear(4, 8), dim=8), bags, epochs=1, progress=False, max_instances=4)
    assert len(history.train_loss) == 1


def test_patch_sizes_are_those_of_the_files(folder):
    for i, attributes in enumerate(
        [
            {"patch_size_level0": 256},
            {"patch_size": 256, "patch_level": 1, "downsample": [4.0, 4.0]},
            {"patch_size": 256, "patch_level": 0},
            {"patch_size": 256, "patch_level": 2},
            {"tile_size_um": 448.0, "tile_size_px": 224, "unit": "um"},
        ]
    ):
        with h5py.File(folder / f"s{i}.h5", "a") as file:
            file["coords"].attrs.clear()
            file["coords"].attrs.update(attributes)
    bags = feature_bags(folder, TABLE[:5], allow_unlisted=True)
    assert bags.patch_size.tolist()[:3] == [256, 1024, 256]
    assert bags.patch_size[3].isnan()  # the scale of that level is not told
    assert bags.patch_size[4] == 448
    merged = feature_bags(folder, TABLE[:5], allow_unlisted=True, merge="case_id")
    assert merged.patch_size.isnan().all()  # 256 and 1024: not one size
    assert merged.files(0)["patch_size"].tolist() == [256, 1024]


def test_a_dataset_may_be_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["20x/features"], file["40x/features"] = np.ones((3, 4), "f4"), np.ones((12, 4), "f4")
        file["20x/where"], file["mine"] = np.zeros((3, 2)), np.ones((5, 2), "f4")
    table = pd.DataFrame({"slide_id": ["a"]})
    with pytest.raises(
        ValueError, match=r"a.h5: 20x/features and 40x/features are there; say .* features='20x/features'"
    ):
        feature_bags(tmp_path, table, None)
    assert feature_bags(tmp_path, table, None, features="40x/features").sizes.tolist() == [12]
    bags = feature_bags(tmp_path, table, None, features="20x/features", coordinates="20x/where")
    assert bags[0].coordinates.shape == (3, 2)
    assert feature_bags(tmp_path, table, None, features="mine").width == 2
    with pytest.raises(ValueError, match=r"a.h5: expected a dataset named other, got 20x, 40x, mine"):
        feature_bags(tmp_path, table, None, features="other")


@pytest.mark.parametrize(
    ("file", "name", "message"),
    [
        (
            "007",
            7,
            "the table lists 7; did you mean 007.; tables read as numbers lose their zeros: read it with dtype=str",
        ),
        ("007", 7.0, "did you mean 007"),
        ("slide_a", "Slide-A", "did you mean slide_a"),
        ("TCGA-1.uuid", "TCGA-1", "did you mean TCGA-1.uuid"),
        ("tumor_04", "tumour_04", "did you mean tumor_04"),
        ("tumor_04", "tumor_05", r"the table lists tumor_05; missing="),  # another slide is no near match
    ],
)
def test_near_matches_are_suggested(tmp_path, file, name, message):
    write(tmp_path / file, np.ones((2, 4), "f4"), None, "clam")
    with pytest.raises(FileNotFoundError, match=message):
        feature_bags(tmp_path, pd.DataFrame({"slide_id": [name]}), None)


def test_names_are_stripped():
    for name in ("s0.svs", "/data/s0.h5", r"C:\slides\s0.NDPI", "s0.svs.h5", "s0"):
        assert stripped(name) == "s0"
    assert stripped("TCGA-1.0a2b") == "TCGA-1.0a2b"
    assert stripped(".svs") == ".svs"


def test_two_rows_for_one_file_and_two_files_for_one_row(folder):
    with pytest.raises(ValueError, match=r"s0.h5: both s0.svs and s0.tif in the table name this file"):
        feature_bags(folder, pd.DataFrame({"slide_id": ["s0.svs", "s0.tif"]}), None, allow_unlisted=True)
    (folder / "nested").mkdir()
    for name in ("resnet", "uni"):
        shutil.copytree(folder, folder.parent / "two" / name)
    with pytest.raises(
        ValueError, match=r"uni/s0.h5: this bag is there twice, .*resnet/s0.h5; .* give the folder of one"
    ):
        feature_bags(folder.parent / "two", TABLE[:1], allow_unlisted=True)


def test_pairs_of_h5_and_pt_files_are_one(tmp_path):
    x = np.ones((3, 4), "f4")
    write(tmp_path / "run" / "h5_files" / "a", x, np.zeros((3, 2)), "clam")
    write(tmp_path / "run" / "pt_files" / "a", x, None, ".pt")
    write(tmp_path / "run" / "patches" / "a_patches", x, None, "clam")  # folders without a listed name do not count
    bags = feature_bags(tmp_path, pd.DataFrame({"slide_id": ["a"]}), None)
    assert bags.paths[0].parent.name == "h5_files"
    assert bags.has_coordinates


def test_coordinates_of_slideflow_lie_beside_the_tensor(tmp_path):
    write(tmp_path / "a", np.ones((3, 4), "f4"), None, ".pt")
    np.savez(tmp_path / "a.index.npz", np.arange(6).reshape(3, 2))
    bags = feature_bags(tmp_path, pd.DataFrame({"slide_id": ["a"]}), None)
    assert bags[0].coordinates.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_other_contents_of_pt_files_are_named(tmp_path):
    table = pd.DataFrame({"slide_id": ["a"]})
    for state, message in (
        (np.ones((5, 4), np.float32), r"a.pt .* it holds a NumPy array, .* store it anew as torch.from_numpy\(array\)"),
        ((torch.ones(5, 4), torch.ones(5, 2)), r"a.pt: expected a tensor .*, got tuple; store it anew"),
        ({"x": torch.ones(5, 4)}, r"a.pt: expected .*, got a dictionary of x"),
    ):
        torch.save(state, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=message) as caught:
            feature_bags(tmp_path, table, None)
        assert "weights_only=False" not in str(caught.value)


@pytest.mark.skipif(not REAL.is_dir(), reason="SAMIL_DATA has no wsi_bags")
@pytest.mark.filterwarnings("ignore:.*have no coordinates")
def test_nine_real_files_load():
    table = pd.read_csv(REAL / "labels.csv", dtype=str)
    seven = table[table["dim"] == "768"]
    bags = feature_bags(REAL / "eagle", seven, "msi_status", "slide_file", classes=("MSS", "MSI-L", "MSI-H"))
    assert bags.sizes.tolist() == seven["n_patches"].astype(int).tolist()
    assert bags.labels.bincount().tolist() == [4, 1, 2]
    assert bags.has_coordinates
    assert bags[0].instances.shape == (2318, 768)
    assert feature_bags(REAL, seven, None, "slide_file", allow_unlisted=True).paths == bags.paths
    assert (bags[:].coordinates % 224 == 0).all()
    for folder, n in (("TCGA-AD-6964-01Z-00-DX1", 777), ("TCGA-3X-AAVA-01Z-00-DX1", 180)):
        one = feature_bags(REAL / "mopadi", pd.DataFrame({"slide_id": [folder]}), None)
        assert (one.names, one.sizes.tolist(), one.width) == ((folder,), [n], 512)
        assert one[0].instances.isfinite().all()
