import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from ragged import offsets_of, rows, sizes

from samil_lite import Bags
from samil_lite.bags import PARTS


def example(sizes=(3, 1, 2)) -> Bags:
    n = sum(sizes)
    return Bags(
        rows(list(sizes)),
        offsets_of(list(sizes)),
        torch.arange(len(sizes)) % 2,
        instance_labels=torch.arange(n),
        coordinates=torch.arange(2 * n).view(n, 2),
    )


def same(a: Bags, b: Bags) -> None:
    for name in ("instances", "offsets", "labels", "instance_labels", "coordinates"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


@given(sizes)
def test_list_and_back(sizes):
    bags = example(sizes)
    split = [bags.split(x) for x in (bags.instances, bags.instance_labels, bags.coordinates)]
    same(Bags.from_list(split[0], bags.labels, split[1], split[2]), bags)


@given(sizes)
def test_padded_and_back(sizes):
    bags = example(sizes)
    x, mask = bags.padded()
    assert x.shape[:2] == mask.shape == (len(sizes), max(sizes))
    assert mask.sum(1).tolist() == sizes
    assert (x[~mask] == 0).all()
    back = Bags.from_padded(x, mask, bags.labels)
    torch.testing.assert_close(back.instances, bags.instances, rtol=0, atol=0)
    assert back.offsets.tolist() == bags.offsets.tolist()


@given(sizes)
def test_bags_one_by_one_make_the_batch(sizes):
    bags = example(sizes)
    same(Bags.cat([bags[b] for b in range(len(bags))]), bags)
    same(Bags.cat(list(bags)), bags)


@pytest.mark.parametrize(
    ("key", "chosen"),
    [
        (1, [1]),
        (-1, [2]),
        (np.int64(2), [2]),
        (slice(1, None), [1, 2]),
        ([2, 0, 2], [2, 0, 2]),
        (torch.tensor([True, False, True]), [0, 2]),
        (np.array([1, 0]), [1, 0]),
        (slice(None, None, -1), [2, 1, 0]),
        (pd.Series([True, False, True], index=[2, 7, 8]), [0, 2]),
    ],
)
def test_indexing(key, chosen):
    bags = example()
    taken = bags[key]
    assert len(taken) == len(chosen)
    assert taken.labels.tolist() == [bags.labels[b].item() for b in chosen]
    assert taken.instance_labels.tolist() == [i for b in chosen for i in bags.split(bags.instance_labels)[b].tolist()]
    torch.testing.assert_close(taken.instances, torch.cat([bags.split(bags.instances)[b] for b in chosen]))
    assert taken.coordinates[:, 0].tolist() == [2 * i for i in taken.instance_labels.tolist()]


@pytest.mark.parametrize("key", [3, -4, [0, 3], torch.tensor([True]), slice(3, None)])
def test_indexing_out_of_range(key):
    with pytest.raises(IndexError):
        example()[key]


@pytest.mark.parametrize("key", [0.9, [0.5, 1.5], torch.tensor([1.0]), "img1", None])
def test_indexing_by_what_is_no_number(key):
    with pytest.raises(IndexError, match=r"expected integers, a slice or a mask, got |these bags have no names"):
        example()[key]


def test_numpy_lists_and_images():
    bags = Bags.from_list([np.zeros((2, 1, 4, 4), np.float32), np.ones((1, 1, 4, 4), np.float32)], [0, 1])
    assert bags.instances.shape == (3, 1, 4, 4)
    assert bags.bag_index.tolist() == [0, 0, 1]
    assert "2 bags of 1 to 2 instances, 3 in all, 1×4×4 float32, labels {0: 1, 1: 1}" in repr(bags)


def test_cat_drops_what_one_of_them_lacks():
    bags = example()
    joined = Bags.cat([bags, Bags(bags.instances, bags.offsets)])
    assert joined.offsets.tolist() == [0, 3, 4, 6, 9, 10, 12]
    assert joined.labels is None
    assert "no labels" in repr(joined)


def test_to_moves_every_field():
    moved = example().to("meta")
    assert {getattr(moved, name).device.type for name in PARTS} == {"meta"}


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bags.from_list([], []), "bags: expected at least one bag"),
        (lambda: Bags.from_list([X, X[:0]], [0, 1]), r"bags\[1\]: expected at least one instance"),
        (lambda: Bags.from_list([X, X[:, :1]], [0, 1]), r"bags\[1\]: expected instances like those of bags\[0\]"),
        (lambda: Bags.from_list([X, X.double()], [0, 1]), r"bags\[1\]: expected instances like those of bags\[0\]"),
        (lambda: Bags.from_list([X.int()], [0]), r"bags\[0\]: expected floating-point .* convert with .float"),
        (lambda: Bags.from_list([X, X / 0], [0, 1]), r"bags\[1\]: expected finite .* instance 0 holds NaN"),
        (lambda: Bags.from_list([X], [0, 1]), "labels: expected 1 integers, one for each bag"),
        (lambda: Bags.from_list([X], [float("nan")]), "labels: expected finite numbers"),
        (lambda: Bags.from_list([X], [-1]), "labels: expected classes 0, 1, …, got -1"),
        (lambda: Bags.from_list([X], [1], [torch.zeros(2)]), r"instance_labels: .* lengths \[3\], got \[2\]"),
        (lambda: Bags.from_list([X], [1], [torch.zeros(3)]), "instance_labels: expected 3 integers"),
        (lambda: Bags.from_list([X], [1], None, [torch.zeros(3, 3)]), r"coordinates: expected shape \(3, 2\)"),
        (lambda: Bags(X, torch.tensor([0, 2])), "offsets: expected first 0 and last 3"),
        (lambda: Bags(X, torch.tensor([0, 4])), "offsets: expected first 0 and last 3"),
        (lambda: Bags(X, torch.tensor([0, 2, 1, 3])), "offsets: .* bag 1 descends"),
        (lambda: Bags(X[:, 0], torch.tensor([0, 3])), "instances: expected shape"),
        (lambda: Bags.from_padded(X[None], torch.ones(1, 2, dtype=torch.bool)), "mask: expected booleans of shape"),
        (lambda: Bags.from_padded(X[None], torch.ones(1, 3)), "mask: expected booleans"),
        (lambda: Bags.from_padded(X[None], torch.zeros(1, 3, dtype=torch.bool)), "offsets: .*bag 0 is empty"),
        (lambda: Bags.cat([]), "batches: expected at least one"),
        (lambda: Bags.cat([example(), example().from_list([X], [0])]), "batches: expected instances of one shape"),
        (lambda: example().split(X), "x: expected 6 rows"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["MSS", "MSI-H", "MSS"], ("MSS", "MSI-H")),
        (np.array(["MSS", "MSI-H", "MSS"]), ("MSS", "MSI-H")),
        (pd.Series([-1, 1, -1], index=[5, 6, 7]), (-1, 1)),
        (torch.tensor([1, 3, 1]), (1, 3)),
        ([True, False, True], (True, False)),
    ],
)
def test_the_order_of_classes_can_be_said(labels, classes):
    bags = [torch.zeros(2, 3)] * 3
    assert Bags.from_list(bags, labels, classes=classes).labels.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"labels: expected .*, the classes, got"):
        Bags.from_list(bags, labels, classes=classes[:1])
    with pytest.raises(ValueError, match="classes: expected each class once"):
        Bags.from_list(bags, labels, classes=classes[:1] * 2)


def test_names_without_classes_are_named():
    with pytest.raises(ValueError, match=r"labels: .*say classes=\(…\) in the order of their numbers"):
        Bags.from_list([torch.zeros(2, 3)] * 2, ["normal", "tumor"])


def test_a_leading_one_that_is_no_bag_of_one_instance_is_warned_of():
    with pytest.warns(UserWarning, match=r"one instance of shape \(6, 8\); if these are features .* give bag\[0\]"):
        assert Bags.from_list([torch.ones(1, 6, 8)] * 2).n_instances == 2
    assert Bags.from_list([torch.ones(2, 6, 8), torch.ones(1, 6, 8)]).n_instances == 3
