"""Ten kinds of fault that users of such code report, each over generated inputs: right, or an error that names it."""

import tempfile
import warnings
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import samil_lite as sl
from samil_lite import fingerprint
from samil_lite.cards import card_of
from samil_lite.data.features import feature_bags
from samil_lite.evaluation import class_metrics
from samil_lite.limits import BAGS, INSTANCES, steps_within
from samil_lite.metrics import bag_metrics

WORDS = st.text("ABxyz+-_ é", min_size=1, max_size=6).filter(lambda t: t == t.strip() and t not in ("-", "--"))
FORMS = [lambda x: x, lambda x: x.float().numpy(), lambda x: pd.DataFrame(x.float().numpy()), torch.Tensor.tolist]
LABELS = [np.array, pd.Series, list, lambda y: torch.tensor(y, dtype=torch.int16), lambda y: np.array(y, bool)]
files = settings(max_examples=8, deadline=None)  # those that write some
quick = settings(max_examples=25, deadline=None)


@contextmanager
def folder_of(names, write=None):
    """A folder with a file of features for each name, (5, 4), the number of the file in the first column."""
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            with h5py.File(Path(folder) / f"{name}.h5", "w") as file:
                file["features"] = np.full((5, 4), number, np.float32)
        yield Path(folder)


def some(labels, n=3) -> sl.Bags:
    x = torch.randn(len(labels), n, 4, generator=torch.Generator().manual_seed(0))
    return sl.Bags.from_list(list(x), labels)


@quick
@given(st.lists(st.integers(0, 1), min_size=3, max_size=8), st.integers(0, 2), st.data())
def test_1_a_fingerprint_is_of_what_was_counted(labels, change, data):
    bags = some(labels)
    one, other = data.draw(st.permutations(range(len(labels))))[:2]
    x, y = bags.instances.clone(), bags.labels.clone()
    if change == 0:
        x[3 * one] += 1e-6 * (1 + x[3 * one].abs())
    elif change == 1:
        y[one] = 1 - y[one]
    else:
        order = list(range(len(labels)))
        order[one], order[other] = other, one
        x, y = bags[order].instances, bags[order].labels
    assert fingerprint.of_bags(sl.Bags(x, bags.offsets, y)) != fingerprint.of_bags(bags)
    assert fingerprint.of_bags(bags[list(range(len(bags)))]) == fingerprint.of_bags(bags)


@files
@given(st.lists(WORDS, min_size=2, max_size=4, unique=True), st.data())
def test_2_names_travel_and_decide(names, data):
    model = sl.build("gsa-abmilp", nn.Linear(4, 8), n_classes=len(names))
    x = list(torch.randn(8, 3, 4))
    labels = data.draw(st.lists(st.sampled_from(names), min_size=8, max_size=8).filter(lambda y: set(y) == set(names)))
    bags = sl.Bags.from_list(x, labels, classes=names)
    with tempfile.TemporaryDirectory() as folder:
        loaded = sl.load(sl.save(model, Path(folder) / "m", bags=bags))
    assert card_of(loaded).classes == (bags.classes or tuple(map(str, names)))
    own = data.draw(st.permutations(names))
    again = sl.Bags.from_list(x, labels, classes=own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a score that is not defined
        assert sl.evaluate(loaded, again).loss == pytest.approx(sl.evaluate(loaded, bags).loss)
    assert sl.predictions(loaded, again)["label"].tolist() == labels


@files
@given(
    st.sampled_from(["{}", " {}", "{}.svs", "{}.h5", "/data/x/{}.ndpi", "{}\t"]),
    st.sampled_from(["{}", " {} ", "{}  "]),
)
def test_3_texts_are_cleaned_in_every_column(name, text):
    clean = pd.DataFrame(
        {"slide_id": [f"s{i}" for i in range(4)], "label": ["no", "yes"] * 2, "patient": ["p", "q", "p", "q"]}
    )
    written = pd.DataFrame({"slide_id": clean["slide_id"].map(name.format)} | {
        column: clean[column].map(text.format) for column in ("label", "patient")
    })  # fmt: skip
    with folder_of(clean["slide_id"]) as folder:
        for frame in (written, written.to_csv(index=False)):
            if isinstance(frame, str):
                (folder / "t.csv").write_text(frame)
            bags = feature_bags(folder, frame if isinstance(frame, pd.DataFrame) else folder / "t.csv")
            assert bags.names == tuple(clean["slide_id"])
            assert bags.classes == ("no", "yes")
            assert bags.labels.tolist() == [0, 1, 0, 1]
            assert bags.group("patient").tolist() == clean["patient"].tolist()


@quick
@given(
    st.one_of(
        st.lists(st.integers(-5, 9), min_size=2, max_size=4, unique=True),
        st.lists(st.integers(-5, 9).map(float), min_size=2, max_size=4, unique=True),
        st.lists(WORDS, min_size=2, max_size=4, unique=True),
        st.permutations([True, False]),
    ),
    st.data(),
)
def test_4_classes_are_what_one_says_and_never_made_of_what_is_there(classes, data):
    labels = data.draw(st.lists(st.sampled_from(classes), min_size=3, max_size=6))
    x = [torch.zeros(2, 3)] * len(labels)
    frame = pd.DataFrame({"bag": np.repeat(np.arange(len(x)), 2), "y": np.repeat(labels, 2), "f": 0.0})
    numbers = [classes.index(label) for label in labels]
    assert sl.Bags.from_list(x, labels, classes=classes).labels.tolist() == numbers
    assert sl.Bags.from_frame(frame, "bag", "y", classes=classes).labels.tolist() == numbers
    values = {int(v) for v in labels} if not isinstance(classes[0], str) else None
    if values is not None and not values <= {0, 1} and values != set(range(len(values))):
        with pytest.raises(ValueError, match=r"column 'y': .*classes=\(|names of classes"):
            sl.Bags.from_frame(frame, "bag", "y")


@quick
@given(st.integers(2, 5), st.integers(0, 10**6))
def test_5_scores_hold_for_any_number_of_classes(n_classes, seed):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(30, n_classes, generator=random)
    labels = torch.cat([torch.arange(n_classes), torch.randint(n_classes, (30 - n_classes,), generator=random)])
    logits[range(n_classes), range(n_classes)] += 9  # each class is called once, so that it has a precision
    each, whole = class_metrics(logits, labels), bag_metrics(logits, labels)
    assert sum(one.recall * one.n for one in each) / 30 == pytest.approx(whole.accuracy)
    order = torch.randperm(n_classes, generator=random)
    moved = class_metrics(logits[:, order], order.argsort()[labels])
    assert [one.auc for one in moved] == pytest.approx([each[c].auc for c in order])
    if n_classes == 2:
        one_logit = bag_metrics(logits[:, 1] - logits[:, 0], labels)
        assert vars(one_logit) == pytest.approx(vars(whole), nan_ok=True)


@files
@given(
    st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8]),
    st.sampled_from(FORMS),
    st.sampled_from(LABELS),
    st.sampled_from([None, nn.Linear(4, 8), nn.Linear(5, 8), nn.Sequential(nn.Linear(4, 8), nn.ReLU())]),
)
def test_6_what_is_accepted_trains_and_all_else_is_named(dtype, form, labels, encoder):
    x = [form((torch.rand(3, 4) * 9).to(dtype)) for _ in range(4)]

    def train():
        model = sl.build("iqsa-abmilp", encoder, dim=None if encoder is None else 8)
        sl.fit(model, sl.Bags.from_list(x, labels([0, 1, 0, 1])), epochs=1, progress=False, device="cpu")

    whole_numbers = dtype == torch.uint8 and form in (FORMS[0], FORMS[3])
    if whole_numbers or encoder is None or getattr(encoder, "in_features", 4) == 5:
        with pytest.raises(ValueError, match=r"^(bags|instances|x)(\[\d\])?: .*(convert|features|encoder)"):
            train()
    else:
        train()


@files
@given(st.lists(st.sampled_from(["good", "missing", "empty", "broken", "other width"]), min_size=3, max_size=9))
def test_7_all_faults_are_told_at_once(states):
    states = ["good"] * (len(states) + 1) + states  # the width of most is the right one
    names = [f"slide{i}" for i in range(len(states))]
    with folder_of(names) as folder:
        for name, state in zip(names, states, strict=True):
            path = folder / f"{name}.h5"
            if state in ("missing", "broken"):
                path.unlink() if state == "missing" else path.write_bytes(b"no file of features")
            elif state != "good":
                with h5py.File(path, "w") as file:
                    file["features"] = np.ones((0, 4) if state == "empty" else (5, 3), np.float32)
        table = pd.DataFrame({"slide_id": names, "label": [i % 2 for i in range(len(names))]})
        bad = [name for name, state in zip(names, states, strict=True) if state != "good"]
        if bad:
            with pytest.raises((ValueError, FileNotFoundError)) as caught:
                feature_bags(folder, table)
            assert all(f"{name}.h5" in str(caught.value) for name in bad)
            with pytest.warns(UserWarning, match=r"left out|leaves out"):
                kept = feature_bags(folder, table, missing="skip")
            assert set(kept.names) == set(names) - set(bad)
            assert set(kept.skipped["bag"]) == set(bad)


@files
@given(st.sampled_from(",;\t|"), st.booleans(), st.booleans())
def test_8_messages_name_the_cause(separator, mark, header):
    with folder_of(["007", "008"]) as folder:
        rows = [("slide_id", "label")] * header + [("007", "0"), ("008", "1")]
        text = "\ufeff" * mark + "\n".join(separator.join(row) for row in rows)
        (folder / "t.csv").write_text(text, encoding="utf-8")
        if header:
            assert feature_bags(folder, folder / "t.csv").names == ("007", "008")
            table = pd.read_csv(folder / "t.csv", sep=separator, encoding="utf-8-sig")  # 7 and 8
            with pytest.raises(FileNotFoundError, match=r"did you mean 007\?(.|\n)*did you mean 008\?"):
                feature_bags(folder, table)
        else:
            with pytest.raises(ValueError, match=r"column .slide_id."):
                feature_bags(folder, folder / "t.csv")


@quick
@given(st.lists(st.integers(1, 2 * INSTANCES), min_size=1, max_size=100))
def test_9_a_batch_is_counted_in_instances(sizes):
    class Sized:
        pass

    source = Sized()
    source.sizes, source.n_instances = torch.tensor(sizes), sum(sizes)
    Sized.__len__ = lambda self: len(self.sizes)
    steps = steps_within(source)
    assert torch.cat(steps).tolist() == list(range(len(sizes)))
    for step in steps:
        assert len(step) == 1 or (source.sizes[step].sum() <= INSTANCES and len(step) <= BAGS)
    for before, after in pairwise(steps):  # none is closed too early
        assert source.sizes[before].sum() + sizes[int(after[0])] > INSTANCES or len(before) == BAGS


@files
@given(
    st.sampled_from(["features", "feats", "feat", "embeddings", "20x/features", "mine"]),
    st.sampled_from([".h5", ".hdf5", ".pt", ".npy"]), st.booleans(), st.sampled_from(["", "h5_files", "tumor/20x"]),
)  # fmt: skip
def test_10_layouts_are_read_or_their_names_are_asked_for(name, suffix, leading_one, below):
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / below
        folder.mkdir(parents=True, exist_ok=True)
        stored, path = x[None] if leading_one else x, folder / f"a{suffix}"
        if suffix == ".npy":
            np.save(path, stored)
        elif suffix == ".pt":
            torch.save({name: torch.from_numpy(stored)}, path)
        else:
            with h5py.File(path, "w") as file:
                file[name] = stored
        table = pd.DataFrame({"slide_id": ["a"]})
        if name == "mine" and suffix != ".npy":
            with pytest.raises(ValueError, match="features or feats"):
                feature_bags(root, table, label=None)
        options = {} if suffix == ".npy" or name in ("features", "feats", "feat", "embeddings") else {"features": name}
        assert np.array_equal(feature_bags(root, table, label=None, **options)[0].instances, x)
