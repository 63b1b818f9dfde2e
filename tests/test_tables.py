"""Tables: one way to clean them, wherever they come from, and instances in rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import samil_lite as sl
from samil_lite.tables import is_missing, number_classes, read_table


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_separators_marks_and_blanks_do_not_matter(tmp_path, separator, mark):
    text = mark + "\n".join(
        separator.join(row) for row in (["id", " label "], ["007", " a b"], [" 8 ", "c"], ["", " "])
    )
    (tmp_path / "t.csv").write_text(text + "\n", encoding="utf-8")
    table = read_table(tmp_path / "t.csv", "id")
    assert table.to_dict("list") == {"id": ["007", "8"], "label": ["a b", "c"]}
    frame = read_table(pd.DataFrame({" id": ["007", " 8 "], "label ": [" a b", "c"]}), "id")
    assert frame.to_dict("list") == table.to_dict("list")


def test_a_table_without_a_header_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("s0,0\ns1,1\n")
    with pytest.raises(ValueError, match="expected a header with a column 'id', but the first row is of s0: s0, 0"):
        read_table(tmp_path / "t.csv", "id", {"s0", "s1"})
    with pytest.raises(ValueError, match="expected a column 'id', got s0, 0"):
        read_table(tmp_path / "t.csv", "id")


NAMES = [f"s{i}" for i in range(6)]


@pytest.mark.parametrize(
    ("values", "classes", "numbers", "names"),
    [
        ([0, 1, 0, 1, 1, 1], None, [0, 1, 0, 1, 1, 1], None),
        ([1, 1, 1, 1, 1, 1], None, [1] * 6, None),  # a part without the other class keeps its numbers
        ([0.0, 1.0, 0.0, 1.0, 1.0, 1.0], None, [0, 1, 0, 1, 1, 1], None),
        ([2, 1, 0, 1, 1, 1], None, [2, 1, 0, 1, 1, 1], None),
        ([True, False] * 3, None, [1, 0] * 3, ("False", "True")),
        (["b", "a "] * 3, None, [1, 0] * 3, ("a", "b")),
        (["MSS", "MSI-H"] * 3, ("MSS", "MSI-H"), [0, 1] * 3, ("MSS", "MSI-H")),
        (["MSS"] * 6, ("MSI-H", "MSS", "other"), [1] * 6, ("MSI-H", "MSS", "other")),
        ([-1, 1] * 3, (-1, 1), [0, 1] * 3, ("-1", "1")),
        ([1, 2, 3] * 2, (1, 2, 3), [0, 1, 2] * 2, ("1", "2", "3")),
        ([1.0, 4.0] * 3, range(6), [1, 4] * 3, None),
        (["G1", "G10", "G2"] * 2, ("G1", "G2", "G10"), [0, 2, 1] * 2, ("G1", "G2", "G10")),
    ],
)
def test_labels_are_numbered_as_said(values, classes, numbers, names):
    labels, found = number_classes(NAMES, pd.Series(values, name="y"), classes)
    assert labels.tolist() == numbers
    assert labels.dtype == torch.int64
    assert found == names


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([1, 2, 3] * 2, None, r"expected classes 0, 1, … without a gap, got 1, 2, 3; .* classes=\(1, 2, 3\)"),
        ([-1, 1] * 3, None, r"without a gap, got -1, 1"),
        ([0, 2] * 3, None, r"without a gap, got 0, 2"),
        ([0.5, 1] * 3, None, r"expected whole numbers in all rows, or names of classes, got '0.5' for s0"),
        (["a", 1] * 3, None, r"expected whole numbers in all rows, or names of classes, got 'a' for s0"),
        (["a", "b", "c"] * 2, ("a", "b"), r"expected the classes a, b, got c \(s2\), c \(s5\)"),
        (["a", "b"] * 3, ("a", "a"), "classes: expected each class once"),
        (["a", None] * 3, None, "expected a label for each bag, but s1, s3, s5 has none"),
        ([*"abcde", float("nan")], ("a",), "expected a label for each bag, but s5 has none"),
    ],
)
def test_labels_that_do_not_fit_are_named(values, classes, message):
    with pytest.raises(ValueError, match=message):
        number_classes(NAMES, pd.Series(values, name="y"), classes)


@given(st.data())
def test_rows_of_instances_become_bags_whatever_their_order(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    ids = data.draw(st.permutations([name for name, n in enumerate(sizes, 3) for _ in range(n)]))
    frame = pd.DataFrame(
        {
            "bag": [f" p{i}" for i in ids],
            "y": [i % 2 for i in ids],
            "a": np.arange(len(ids)),
            "b": np.random.RandomState(0).standard_normal(len(ids)),
            "x": np.arange(len(ids)) * 2.0,
            "z": 1,
        },
        index=range(100, 100 + len(ids)),
    )
    bags = sl.Bags.from_frame(frame, "bag", "y", coordinates=("x", "z"))
    names = frame["bag"].unique()
    assert len(bags) == len(names)
    for bag, name in zip(bags, names, strict=True):
        rows = frame[frame["bag"] == name]
        np.testing.assert_array_equal(bag.instances.numpy(), rows[["a", "b"]].to_numpy(np.float32))
        np.testing.assert_array_equal(bag.coordinates.numpy(), rows[["x", "z"]].to_numpy(np.float32))
        assert bag.labels.tolist() == rows["y"].unique().tolist()
    assert sl.Bags.from_frame(frame, "bag", features=["b"]).instances.shape == (len(ids), 1)


FRAME = pd.DataFrame({"bag": [7, 7, 3, 3, 9, 7], "y": [1, 1, 0, 0, 1, 1], "a": 1.0, "b": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: (t.assign(y=[1, 1, 0, 0, 1, 0]), "bag", "y"),
            "expected one label for each bag, but 7 has '1' and '0'",
        ),
        (lambda t: (t.assign(a="x"), "bag", "y"), "column 'a': expected numbers"),
        (lambda t: (t.assign(a=[1, 2, np.nan, 3, 4, 5]), "bag", "y"), "column 'a': expected finite numbers, but row 2"),
        (
            lambda t: (t.assign(bag=[1, 1, None, 3, 3, 3]), "bag", "y"),
            "column 'bag': expected a name in each row, but row 2",
        ),
        (lambda t: (t, "id", "y"), "table: expected a column 'id', got bag, y, a, b"),
        (lambda t: (t, "bag", "label"), "table: expected a column 'label'"),
        (lambda t: (t, "bag", "y", ["c"]), "table: expected a column 'c'"),
        (lambda t: (t, "bag", "y", "a"), "features: expected a list of columns, got 'a'"),
        (lambda t: (t[["bag", "y"]], "bag", "y"), "expected rows and columns of features, got 6 × 0"),
        (lambda t: (t[:0], "bag", "y"), "expected rows and columns of features, got 0 × 2"),
        (lambda t: (t.to_numpy(), "bag"), "frame: expected a pandas data frame, got ndarray"),
        (lambda t: (t.replace({"y": {0: 3}}), "bag", "y"), r"without a gap, got 1, 3"),
    ],
)
def test_frames_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        sl.Bags.from_frame(*change(FRAME))


def test_a_bag_may_come_back():
    bags = sl.Bags.from_frame(FRAME.assign(a=range(6)), "bag", "y", features=["a"])
    assert bags.instances[:, 0].tolist() == [0, 1, 5, 2, 3, 4]
    assert bags.sizes.tolist() == [3, 2, 1]
    assert bags.labels.tolist() == [1, 0, 1]


@given(st.sampled_from(["NA", "N/A", "null", "None", "<NA>", "?", "nan", ""]), st.text(" \t", max_size=2))
def test_words_for_nothing_are_told_with_blanks_and_in_any_case(word, blank):
    assert is_missing(blank + word.lower() + blank)
    assert is_missing(blank + word.upper() + blank)
    assert not is_missing(word + "x")
