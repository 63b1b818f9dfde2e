import builtins
import weakref

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import samil_lite as sl
from samil_lite.bags import chosen_bags
from samil_lite.data import features
from samil_lite.data.features import FeatureBags, feature_bags
from samil_lite.data.synthetic.features import write_features

pytestmark = pytest.mark.filterwarnings("ignore:.* of 8 files have no coordinates")  # of "mixed" folders, half do


@pytest.fixture
def folder(tmp_path):
    return write_features(tmp_path / "features", format="mixed")


def load(folder, **options) -> FeatureBags:
    return feature_bags(folder, folder / "labels.csv", **options)


def table(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "labels.csv")


def raw(path) -> torch.Tensor:
    """Features of a file, read without the code under test."""
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    with h5py.File(path) as file:
        return torch.from_numpy(file["features"][:])


@pytest.fixture
def reads(monkeypatch):
    """Names of the files whose features were read, in order."""
    names, read = [], features.read_into

    def counted(out, path, *rest):
        names.append(path.stem)
        return read(out, path, *rest)

    monkeypatch.setattr(features, "read_into", counted)
    return names


@pytest.mark.parametrize("format_", ["h5", "pt", "mixed"])
def test_bags_are_the_files_in_the_order_of_the_table(tmp_path, format_):
    folder = write_features(tmp_path, format=format_)
    rows = table(folder).iloc[::-1]
    bags = feature_bags(folder, rows)
    assert bags.names == tuple(rows["slide_id"])
    assert bags.labels.tolist() == [int(x == "tumor") for x in rows["label"]]
    assert bags.classes == ("normal", "tumor")
    assert bags.has_coordinates == (format_ == "h5")
    together = bags[:]
    assert len(bags) == len(together) == 8
    assert bags.n_instances == together.n_instances
    assert torch.equal(bags.sizes, together.sizes)
    assert torch.equal(bags.labels, together.labels)
    assert torch.equal(together.instances, torch.cat([raw(path) for path in bags.paths]))
    assert together.instances.shape[1] == bags.width == 16
    assert (together.coordinates is None) == (format_ != "h5")


def test_coordinates_are_those_of_the_file(tmp_path):
    bags = load(write_features(tmp_path))
    with h5py.File(tmp_path / "slide_3.h5") as file:
        assert bags[2].coordinates.tolist() == file["coords"][:].tolist()
    assert bags[2].coordinates.dtype == torch.float32
    assert (bags[:].coordinates % 256 == 0).all()


@pytest.mark.parametrize(
    ("key", "chosen"),
    [
        (1, [1]),
        (-1, [7]),
        (np.int64(2), [2]),
        (slice(5, None), [5, 6, 7]),
        (slice(None, None, -3), [7, 4, 1]),
        ([2, 0, 2], [2, 0, 2]),
        (torch.tensor([7, 1], dtype=torch.uint8), [7, 1]),
        (np.array([1, 0]), [1, 0]),
        (torch.arange(8) % 4 == 0, [0, 4]),
    ],
)
def test_indexing_reads_the_chosen_files_only(folder, reads, key, chosen):
    bags = load(folder)
    assert not reads
    part = bags.subset(key)
    assert part.names == tuple(bags.names[b] for b in chosen)
    assert part.labels.tolist() == bags.labels[chosen].tolist()
    assert part.group("slide_id").tolist() == list(part.names)
    assert not reads
    taken = bags[key]
    assert tuple(reads) == part.names
    assert taken.labels.tolist() == part.labels.tolist()
    assert torch.equal(taken.instances, torch.cat([raw(path) for path in part.paths]))


@pytest.mark.parametrize("key", [8, -9, [0, 8], torch.tensor([True]), slice(8, None), []])
def test_indexing_out_of_range(folder, key):
    bags = load(folder)
    with pytest.raises(IndexError, match=r"bag|at least one"):
        bags[key]
    with pytest.raises(IndexError):
        bags.subset(key)


def test_iteration_and_repr(folder):
    bags = load(folder)
    assert [bag.n_instances for bag in bags] == bags.sizes.tolist()
    assert "FeatureBags(8 bags of " in repr(bags)
    assert f"16 features, 4 files with coordinates, labels {{0: 4, 1: 4}}, in {folder})" in repr(bags)
    assert "with coordinates, no labels" in repr(feature_bags(folder, table(folder)[::2], None, allow_unlisted=True))


def test_groups(folder):
    bags = load(folder)
    assert bags.group("patient").tolist() == [f"patient_{b // 2 + 1}" for b in range(8)]
    assert bags.subset([5, 0]).group("patient").tolist() == ["patient_3", "patient_1"]
    with pytest.raises(ValueError, match="expected a column 'site', got slide_id, label, patient"):
        bags.group("site")
    gap = feature_bags(folder, table(folder).assign(patient=[*"abcdefg", np.nan]))
    with pytest.raises(ValueError, match="column 'patient': expected a value for each bag, but slide_8 has none"):
        gap.group("patient")


@pytest.mark.parametrize("suffix", ["h5_files", "pt_files"])
def test_folders_as_clam_makes_them(tmp_path, suffix):
    folder = write_features(tmp_path / suffix, format=suffix[:2])
    assert load(folder).paths == feature_bags(tmp_path, folder / "labels.csv").paths


def test_other_types_become_single_precision(tmp_path):
    x = torch.randn(5, 3)
    for dtype in (torch.float16, torch.float64, torch.bfloat16):
        torch.save(x.to(dtype), tmp_path / f"{str(dtype)[6:]}.pt")
    torch.save(torch.nn.Parameter(x), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for dtype in (">f4", "f2"):
        with h5py.File(tmp_path / f"{dtype.strip('>')}.h5", "w") as file:
            file["features"], file["coords"] = x.numpy().astype(dtype), np.ones((5, 2), np.uint32)
    names = ["float16", "float64", "bfloat16", "old", "f4", "f2"]
    bags = feature_bags(tmp_path, pd.DataFrame({"slide_id": names}), label=None, coordinates=False)[:]
    assert bags.instances.dtype == torch.float32
    assert not bags.instances.requires_grad
    torch.testing.assert_close(bags.instances, x.repeat(6, 1), atol=0.01, rtol=0.01)
    assert torch.equal(bags.instances[5:10], x)
    assert torch.equal(feature_bags(tmp_path, pd.DataFrame({"n": ["f4"]}), None, "n", True)[0].instances, x)


def test_labels_and_names_of_other_types(tmp_path):
    for name in ("007", "08", "9"):
        torch.save(torch.ones(2, 3), tmp_path / f"{name}.pt")
    path = tmp_path / "table.csv"
    path.write_text("slide_id,label\n007,2\n 08,0\n9,1\n")
    bags = feature_bags(tmp_path, path)
    assert bags.names == ("007", "08", "9")
    assert (bags.labels.tolist(), bags.classes) == ([2, 0, 1], None)
    rows = pd.DataFrame({"slide_id": ["007", "08", 9], "label": [True, False, True]})
    bags = feature_bags(tmp_path, rows)
    assert (bags.labels.tolist(), bags.classes) == ([1, 0, 1], ("False", "True"))
    bags = feature_bags(tmp_path, rows, label=None)
    assert bags[1].labels is bags.labels is bags.subset([1]).labels is None
    with pytest.raises(ValueError, match="labels: expected one for each bag"):
        sl.fit(sl.build("abmilp", torch.nn.Identity(), dim=3), bags)


@pytest.mark.parametrize("name", ["gsa-abmilp", "abmilp"])
def test_training_reads_a_batch_at_a_time_and_gives_what_bags_in_memory_give(folder, reads, monkeypatch, name):
    bags = load(folder)
    train, validation = bags.subset(slice(6)), bags.subset(slice(6, None))
    in_memory = train[:], validation[:]
    reads.clear()
    read, alive, batches = FeatureBags.__getitem__, weakref.WeakSet(), []

    def watched(self, key):
        batches.append((len(alive), len(chosen_bags(key, len(self)))))
        taken = read(self, key)
        alive.add(taken.instances)
        return taken

    monkeypatch.setattr(FeatureBags, "__getitem__", watched)
    results = []
    for source in ((train, validation), in_memory):
        torch.manual_seed(0)
        model = sl.build(name, torch.nn.Identity(), dim=16)
        history = sl.fit(model, *source, epochs=3, bags_per_step=2, lr=0.01, device="cpu", progress=False)
        results.append((history, model.state_dict(), sl.evaluate(model, source[0], bags_per_step=2)))
    (lazy, weights, metrics), (eager, expected, expected_metrics) = results
    assert lazy.train_loss == eager.train_loss
    assert lazy.validation_loss == eager.validation_loss
    assert all(torch.equal(weights[key], expected[key]) for key in weights)
    assert metrics == expected_metrics
    assert len(reads) == 3 * 8 + 6  # each bag once in each epoch, and in evaluate
    assert max(size for _, size in batches) == 2
    assert max(held for held, _ in batches) <= 1  # beside the batch that is read, no more than the one before it


def test_the_planted_signal_can_be_learned(tmp_path):
    bags = load(write_features(tmp_path, n_bags=24))
    model = sl.build("gsa-abmilp", torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU()), dim=64)
    sl.fit(model, bags.subset(slice(16)), epochs=20, bags_per_step=4, lr=2e-3, device="cpu", progress=False)
    test = bags.subset(slice(16, None))
    assert sl.evaluate(model, test).auc > 0.9
    positive = test.subset(test.labels == 1)
    planted = pd.read_csv(tmp_path / "planted.csv").groupby("slide_id")["instance"]
    weights = sl.predict(model, positive).attention.split(positive.sizes.tolist())
    on_planted = [w[planted.get_group(name).tolist()].sum() for w, name in zip(weights, positive.names, strict=True)]
    assert np.mean(on_planted) > 0.5  # of the attention, on one patch in eight


def test_resume_from_a_checkpoint(folder, tmp_path):
    def run(epochs, **options):
        torch.manual_seed(0)
        model = sl.build("sa-abmilp", torch.nn.Identity(), dim=16)
        return sl.fit(model, load(folder), epochs=epochs, progress=False, device="cpu", **options).train_loss

    path = tmp_path / "run.pt"
    run(1, checkpoint=path)
    assert run(3, checkpoint=path) == run(3)


def edit_h5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, x in datasets.items():
            if x is dict:
                file.create_group(name)
            else:
                file[name] = x


def cut_old(path):
    """The format before PyTorch 1.6, cut off inside a number."""
    torch.save(torch.ones(4, 16), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:18])


def on_two_disks(path):
    """A damaged number at the end of the archive."""
    path.write_bytes(path.read_bytes().replace(b"PK\x06\x07\0\0\0\0", b"PK\x06\x07\5\0\0\0"))


X = np.zeros((4, 16), np.float32)


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("slide_1.h5", lambda p: p.write_bytes(p.read_bytes()[:900]), r"slide_1.h5 is broken: .*truncated"),
        ("slide_1.h5", lambda p: p.write_bytes(p.read_bytes().replace(b"HEAP", b"heap")), r"slide_1.h5 is broken: "),
        ("slide_2.pt", lambda p: p.write_bytes(p.read_bytes()[:900]), r"slide_2.pt is broken or holds more"),
        ("slide_2.pt", cut_old, r"slide_2.pt is broken or holds more"),
        ("slide_2.pt", on_two_disks, r"slide_2.pt is broken or holds more"),
        ("slide_2.pt", lambda p: torch.save(torch.ones(4, 16).to_sparse(), p), "expected dense tensors"),
        ("slide_2.pt", lambda p: torch.save(torch.ones(4, 16).to("meta"), p), "expected dense tensors"),
        ("slide_2.pt", lambda p: p.write_bytes(b""), r"slide_2.pt is broken or holds more"),
        ("slide_2.pt", lambda p: torch.save(p, p), r"slide_2.pt is broken or holds more"),
        ("slide_2.pt", lambda p: torch.save({"x": 1}, p), r"slide_2.pt: expected a tensor .* got a dictionary of x"),
        ("slide_2.pt", lambda p: torch.save(torch.ones(4), p), r"slide_2.pt: expected features .* shape \(4,\)"),
        ("slide_2.pt", lambda p: torch.save(torch.ones(0, 16), p), r"slide_2.pt: expected .* shape \(0, 16\)"),
        ("slide_2.pt", lambda p: torch.save(torch.ones(4, 16).int(), p), r"floating point, got torch.int32"),
        (
            "slide_2.pt",
            lambda p: torch.save(torch.ones(4, 8), p),
            r"slide_2.pt: expected 16 features as in .*_1.h5, got",
        ),
        ("slide_3.h5", lambda p: edit_h5(p, fits=X), r"slide_3.h5: expected a dataset named features .*, got fits; if"),
        ("slide_3.h5", lambda p: edit_h5(p), r"slide_3.h5: expected .* got an empty file"),
        ("slide_3.h5", lambda p: edit_h5(p, features=dict), r"slide_3.h5: expected a dataset named features"),
        ("slide_3.h5", lambda p: edit_h5(p, features=X.astype(int)), r"slide_3.h5: expected .*, got int64"),
        ("slide_3.h5", lambda p: edit_h5(p, features=X[None, None]), r"slide_3.h5: expected .* shape \(1, 1, 4, 16\)"),
        ("slide_3.h5", lambda p: edit_h5(p, features=X, coords=X[:3, :2]), r"expected coords of shape \(4, 2\)"),
        ("slide_3.h5", lambda p: edit_h5(p, features=X, coords=[b"x y"] * 4), r"expected coords of shape \(4, 2\)"),
    ],
)
def test_a_broken_file_is_named_before_training(folder, path, change, message):
    change(folder / path)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize("path", ["slide_1.h5", "slide_2.pt"])
def test_nan_is_named_when_it_is_read(folder, path):
    x = raw(folder / path)
    x[3, 2] = torch.nan
    edit_h5(folder / path, features=x.numpy()) if path.endswith("h5") else torch.save(x, folder / path)
    bags = load(folder)
    assert len(bags[2:]) == 6
    with pytest.raises(ValueError, match=rf"{path}: expected finite values, but instance 3 holds NaN"):
        bags[:]
    with pytest.raises(ValueError, match=rf"{path}: .* instance 3"):
        load(folder, verify=True)


def test_coordinates_that_are_not_finite_are_named_when_they_are_read(folder):
    for name in ("slide_1", "slide_3", "slide_5", "slide_7"):
        coords = np.full((4, 2), np.nan if name == "slide_3" else 256)
        edit_h5(folder / f"{name}.h5", features=X, coords=coords)
    bags = feature_bags(folder, table(folder)[::2], allow_unlisted=True)
    assert bags[0].coordinates.tolist() == [[256, 256]] * 4
    with pytest.raises(ValueError, match=r"slide_3.h5: expected finite coords, got NaN or infinity"):
        bags[:]
    with pytest.raises(ValueError, match=r"slide_3.h5: expected finite coords"):
        feature_bags(folder, table(folder)[::2], allow_unlisted=True, verify=True)


def test_a_file_that_runs_code_is_refused(folder):
    class Code:
        def __reduce__(self):
            return (folder / "ran").touch, ()

    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(Code(), folder / "slide_2.pt", **options)
        with pytest.raises(ValueError, match=r"slide_2.pt is broken or holds more than tensors"):
            load(folder)
    assert not (folder / "ran").exists()


def test_a_file_that_changes_or_breaks_later_is_named(folder):
    bags = load(folder)
    torch.save(torch.ones(3, 16), folder / "slide_2.pt")
    with pytest.raises(ValueError, match=r"slide_2.pt has changed: it had .* × 16 features, now \(3, 16\)"):
        bags[:]
    with h5py.File(folder / "slide_1.h5", "w") as file:
        file.create_dataset("features", data=np.random.rand(bags.sizes[0], 16), compression="gzip", chunks=(2, 16))
    damaged = bytearray((folder / "slide_1.h5").read_bytes())
    damaged[-600:-100] = b"\xff" * 500
    (folder / "slide_1.h5").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"slide_1.h5 is broken: "):
        bags[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename(columns={"slide_id": "id"}), "table: expected a column 'slide_id', got id, label, patient"),
        (lambda t: t.rename(columns={"label": "y"}), "table: expected a column 'label', got slide_id, y, patient"),
        (lambda t: t[:0], "table: expected at least one row"),
        (lambda t: pd.concat([t, t[2:3]]), "column 'slide_id': slide_3 is listed 2 times"),
        (lambda t: t.replace("slide_3", " "), "column 'slide_id': expected a name in each row, but row 2"),
        (lambda t: t.replace("slide_3", np.nan), "column 'slide_id': expected a name in each row, but row 2"),
        (lambda t: t[1:], r"slide_1.h5 is not in the table \(1 file\(s\) are not\); allow_unlisted=True"),
        (lambda t: t.assign(label=[*"0101010", " "]), "column 'label': expected a label .* slide_8 has none"),
        (lambda t: t.assign(label=[0, 1, 0, 1, 0, 1, 0, np.nan]), "column 'label': expected .* slide_8 has none"),
        (lambda t: t.assign(label=[*"0101010", "NA"]), "column 'label': expected a label .* slide_8 has none"),
        (lambda t: t.replace("normal", "nan"), "column 'label': expected a label .* slide_1 has none"),
        (
            lambda t: t.assign(label=[0, 1, 0, -1, 0, 1, 0, 1]),
            "column 'label': .* without a gap, got -1, 0, 1; name .* classes=\\(-1, 0, 1\\)",
        ),
        (lambda t: t.assign(label=[0, 1, 10**12, 1, 0, 1, 0, 1]), "column 'label': .* got '1000000000000' for slide_3"),
        (
            lambda t: pd.concat([t, t["label"]], axis=1),
            "table: expected one column 'label', got slide_id, label, patient, label",
        ),
        (
            lambda t: t.assign(label=np.arange(8) / 8),
            "column 'label': expected whole numbers .* got '0.125' for slide_2",
        ),
        (lambda t: t.assign(label=[-1, 1] * 4), "column 'label': expected classes 0, 1, .* got -1, 1;"),
        (lambda t: t.assign(label=[*"abcdefg", 3]), "column 'label': expected whole numbers .* got 'a' for slide_1"),
    ],
)
def test_a_table_that_does_not_fit_is_named(folder, change, message):
    with pytest.raises(ValueError, match=message):
        feature_bags(folder, change(table(folder)))


def test_unlisted_files_may_be_allowed(folder):
    with pytest.warns(
        UserWarning, match="1 of 2 files have no coordinates, slide_4: batches with one of them have none"
    ):
        bags = feature_bags(folder, table(folder)[3:5], allow_unlisted=True)
    assert bags[0].coordinates is None
    assert bags[1].coordinates.shape == (bags.sizes[1], 2)
    assert bags[:].coordinates is None
    assert bags.names == ("slide_4", "slide_5")


def test_files_that_are_missing_or_there_twice(folder, tmp_path):
    torch.save(torch.ones(2, 16), folder / "slide_1.pt")
    with pytest.raises(ValueError, match=r"slide_1.pt: this bag is there twice, the other file is slide_1.h5"):
        load(folder)
    (folder / "slide_1.pt").unlink()
    (folder / "slide_5.h5").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"slide_5.h5 or .pt is not there, but the table lists slide_5"):
        load(folder)
    with pytest.raises(FileNotFoundError, match=r"folder: .*nowhere is not a folder"):
        feature_bags(tmp_path / "nowhere", table(folder))
    with pytest.raises(FileNotFoundError, match=r"folder: .* has no .h5 and no .pt file"):
        feature_bags(tmp_path / "empty", table(folder))
    with pytest.raises(FileNotFoundError, match=r"table: .*labels.csv is not a file"):
        feature_bags(folder, tmp_path / "labels.csv")


@pytest.mark.parametrize(
    "contents", [b"", b"a,b\n1\n1,2,3\n", b"slide_id,label\n\xff\xfe,1\n", b"slide_id,label\na,b,c\n"]
)
def test_an_unreadable_table(folder, contents):
    (folder / "labels.csv").write_bytes(contents)
    with pytest.raises(ValueError, match=r"labels.csv is not a readable CSV: "):
        load(folder)


def test_without_h5py(folder, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    bags = feature_bags(folder, table(folder)[1:2], allow_unlisted=True)
    monkeypatch.setattr(builtins, "__import__", without)
    assert len(bags[0]) == 1  # a .pt file needs none
    with pytest.raises(ImportError, match=r"slide_1.h5 needs h5py: pip install 'samil-lite\[features\]'"):
        load(folder)
    with pytest.raises(ImportError, match=r"writing .h5 files needs h5py"):
        write_features(folder)


def test_stand_ins_are_small_and_repeatable(tmp_path):
    a, b = (write_features(tmp_path / name, format="mixed") for name in "ab")
    assert sum(path.stat().st_size for path in a.iterdir()) < 60_000
    for path in load(a).paths:
        assert torch.equal(raw(path), raw(b / path.name))
    planted = pd.read_csv(a / "planted.csv").groupby("slide_id").size()
    assert sorted(planted.index) == ["slide_3", "slide_4", "slide_7", "slide_8"]
    other = load(write_features(tmp_path / "c", seed=1))
    assert other.sizes.tolist() != load(a).sizes.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"format": "csv"}, "format: expected one of h5, pt, mixed"), ({"n_bags": 0}, "n_bags"), ({"width": 3}, "width")],
)
def test_arguments_of_the_stand_in(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_features(tmp_path, **arguments)
