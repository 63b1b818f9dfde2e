"""Every check passes a right answer and fails a wrong one."""

import pytest
import torch

import samil_lite as sl
from samil_lite import checks

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
BAGS = sl.Bags.from_list([torch.zeros(2, 1), torch.zeros(1, 1)], [1, 0], [torch.tensor([9, 1]), torch.tensor([3])])


def double_in_place(x):
    with torch.no_grad():
        return x.mul_(2)


def stub(x):
    raise NotImplementedError("nothing is filled in yet")


CASES = {
    "equal": (
        lambda: checks.equal([1.0, 2.0], torch.tensor([1, 2]), "x"),
        lambda: checks.equal(1, 2, "x"),
        "the number should be 2, but is 1",
    ),
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
        r"for x of shape \(4, 2\) in torch.float32: number \[0\] should be",
    ),
    "same shape": (None, lambda: checks.same_function(lambda x: x.sum(), lambda x: x.sum(0), (4, 2)), "shape"),
    "same gradient": (
        None,
        lambda: checks.same_function(lambda x: x * x.detach(), lambda x: x * x, (4,)),
        "gradients do not",
    ),
    "no gradient": (None, lambda: checks.same_function(lambda x: x.detach(), lambda x: x, (4,)), "no gradient"),
    "in place": (None, lambda: checks.same_function(double_in_place, lambda x: 2 * x, [(4,)], [(2,)]), "in place"),
    "two sizes": (
        lambda: checks.same_function(lambda x: x.sum(), lambda x: sum(x), [(6,)], [(3,)]),
        lambda: checks.same_function(lambda x: x[:6].sum(), lambda x: sum(x), [(6,)], [(9,)]),
        r"for x of shape \(9,\)",
    ),
    "single precision by hand": (
        lambda: checks.same_function(
            lambda x: torch.zeros(1).index_add(0, torch.zeros(4).int(), x), lambda x: x.sum()[None], [(4,)]
        ),
        lambda: checks.same_function(lambda x: x.float(), lambda x: x, [(4,)]),
        "should be of type torch.float64",
    ),
    "NumPy": (
        None,
        lambda: checks.same_function(lambda x: torch.tensor(x.numpy()), lambda x: x + 0, [(4,)]),
        "with torch",
    ),
    "not a tensor": (None, lambda: checks.same_function(lambda x: x.tolist(), lambda x: x, [(4,)]), "not a list of 4"),
    "globals": (None, lambda: checks.same_function(lambda h: X.sum(0), lambda h: h.sum(0), [(6, 3)]), "variable X"),
    "a failing answer": (
        None,
        lambda: checks.same_function(lambda h: h[9], lambda h: h[0], [(4,)]),
        "stops with IndexError",
    ),
    "plain values": (
        lambda: checks.same_function(lambda n: n // 2 == 1, lambda n: n in (2, 3), [2], [5]),
        lambda: checks.same_function(lambda n: n // 2, lambda n: n in (2, 3), [2], [5]),
        "for n = 2: should be True, not 1",
    ),
    "holds": (
        lambda: checks.holds(torch.tensor(True), "it is"),
        lambda: checks.holds(1 > 2, "it is"),
        "does not: it is",
    ),
    "holds what": (None, lambda: checks.holds(1.0, "it is"), "expected True or False, not a float"),
    "holds None": (None, lambda: checks.holds(None, "it is"), "nothing is filled in yet"),
    "stub": (None, lambda: checks.same_function(stub, lambda x: x, [(4,)]), "nothing is filled in yet"),
    "stub of old": (None, lambda: checks.permutation_invariant(lambda x: ..., X), "nothing is filled in yet"),
    "no loop": (
        lambda: checks.no_loop(lambda x: x.sum(0), [torch.ones(3)], [torch.ones(30)]),
        lambda: checks.no_loop(lambda x: sum(2 * y for y in x), [torch.ones(3)], [torch.ones(30)]),
        "is there a loop",
    ),
    "memory": (
        lambda: checks.memory(lambda x: x.sum(0), [torch.ones(3, 3)], 3),
        lambda: checks.memory(lambda x: x[:, None] * x, [torch.ones(30)], 100),
        "a tensor of 900 numbers is made",
    ),
    "weights of other bags": (
        None,
        lambda: checks.weights(torch.tensor([0.5, 0.5]), torch.tensor([0, 1])),
        "there should be 1 weights",
    ),
    "weights nan": (None, lambda: checks.weights(torch.tensor([torch.nan])), "finite"),
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
