"""Every check passes a right answer and fails a wrong one."""

import pytest
import torch

import samil_lite as sl
from samil_lite import checks

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
BAGS = sl.Bags.from_list([torch.zeros(2, 1), torch.zeros(1, 1)], [1, 0], [torch.tensor([9, 1]), torch.tensor([3])])

CASES = {
    "equal": (lambda: checks.equal([1.0, 2.0], torch.tensor([1, 2]), "x"), lambda: checks.equal(1, 2, "x"), "off by 1"),
    "equal shape": (None, lambda: checks.equal([1.0], 1.0, "x"), r"shape should be \(\), not \(1,\)"),
    "weights": (
        lambda: checks.weights(torch.tensor([0.2, 0.8, 1.0]), torch.tensor([0, 2, 3])),
        lambda: checks.weights(torch.tensor([0.2, 0.7])),
        "sum to one",
    ),
    "weights rows": (
        lambda: checks.weights(torch.eye(3)),
        lambda: checks.weights(torch.tensor([[0.5, 0.5], [1.5, 0.5]])),
        r"each row of weights must sum to one, but the sums are \[1.0, 2.0\]",
    ),
    "weights sign": (None, lambda: checks.weights(torch.tensor([-0.5, 1.5])), "not be negative"),
    "invariant": (
        lambda: checks.permutation_invariant(lambda x: x.mean(0), X),
        lambda: checks.permutation_invariant(lambda x: x[0], X),
        "changes when the instances are reordered",
    ),
    "equivariant": (
        lambda: checks.permutation_equivariant(lambda x: x - x.mean(0), X),
        lambda: checks.permutation_equivariant(lambda x: x.cumsum(0), X),
        "do not follow",
    ),
    "equivariant rows": (
        None,
        lambda: checks.permutation_equivariant(lambda x: x.mean(0), X),
        "one result for each of the 6",
    ),
    "same": (
        lambda: checks.same_function(lambda x: (x**2).sum(0), lambda x: sum(row * row for row in x), (4, 2)),
        lambda: checks.same_function(lambda x: x.sum(0), lambda x: x.mean(0), (4, 2)),
        "values differ",
    ),
    "same shape": (None, lambda: checks.same_function(lambda x: x.sum(), lambda x: x.sum(0), (4, 2)), "shape"),
    "same gradient": (
        None,
        lambda: checks.same_function(lambda x: x * x.detach(), lambda x: x * x, (4,)),
        "gradients do not",
    ),
    "no gradient": (None, lambda: checks.same_function(lambda x: x.detach(), lambda x: x, (4,)), "no gradient"),
    "labels": (
        lambda: checks.labelled_by(BAGS, lambda digits: 9 in digits),
        lambda: checks.labelled_by(BAGS, lambda digits: 3 in digits),
        r"bag 0 holds \[9, 1\], so its label should be 0",
    ),
    "labels missing": (
        None,
        lambda: checks.labelled_by(sl.Bags(X, torch.tensor([0, 6])), bool),
        "should have labels and instance labels",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_check(name, capsys):
    right, wrong, message = CASES[name]
    if right:
        right()
        assert capsys.readouterr().out.startswith("✓")
    with pytest.raises(checks.CheckError, match=message):
        wrong()
    assert capsys.readouterr().out == ""
