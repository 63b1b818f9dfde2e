"""What a correct answer must satisfy: the checks behind the exercises.

A check tests a property, never a copy of the answer, prints a line when it holds and raises `CheckError` with a hint
when it does not.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from samil_lite.bags import Bags

Function = Callable[..., Tensor]


class CheckError(AssertionError):
    """An answer does not have a property that it should have."""


def equal(answer: object, expected: object, what: str, tolerance: float = 1e-6) -> None:
    """The answer has the expected shape, and each number is off by at most tolerance · (1 + its size)."""
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (answer, expected))
    if a.shape != b.shape:
        raise CheckError(f"{what}: the shape should be {tuple(b.shape)}, not {tuple(a.shape)}")
    if not torch.allclose(a, b, rtol=tolerance, atol=tolerance):
        raise CheckError(f"{what}: off by {float((a - b).abs().max()):.3g}")
    _passed(what)


def weights(a: Tensor, offsets: Tensor | None = None) -> None:
    """Attention weights: not negative, and of sum one (in each bag, if offsets are given; in each row of a matrix)."""
    if (a < 0).any():
        raise CheckError(f"weights must not be negative, but the smallest is {float(a.min()):.3g}")
    if offsets is None:
        sums = a.sum(-1).reshape(-1)
    else:
        sums = torch.stack([x.sum() for x in a.split(offsets.diff().tolist())])
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-5):
        what = "each row of weights" if a.ndim == 2 else "the weights of a bag"
        raise CheckError(f"{what} must sum to one, but the sums are {[round(x, 4) for x in sums.tolist()]}")
    _passed("weights are not negative and sum to one")


def permutation_invariant(f: Function, x: Tensor, trials: int = 5) -> None:
    """f(x) stays as it is when the rows of x change places."""
    reference = f(x)
    for order in _orders(len(x), trials):
        if not torch.allclose(f(x[order]), reference, atol=1e-5):
            raise CheckError(f"the result changes when the instances are reordered as {order.tolist()}")
    _passed("the result does not depend on the order of the instances")


def permutation_equivariant(f: Function, x: Tensor, trials: int = 5) -> None:
    """f(x) has a row for each row of x, and its rows change places with those of x."""
    reference = f(x)
    if len(reference) != len(x):
        raise CheckError(f"there should be one result for each of the {len(x)} instances, not {len(reference)}")
    for order in _orders(len(x), trials):
        if not torch.allclose(f(x[order]), reference[order], atol=1e-5):
            raise CheckError(f"the results do not follow the instances when these are reordered as {order.tolist()}")
    _passed("the results follow the instances when these are reordered")


def same_function(f: Function, reference: Function, *shapes: tuple[int, ...], trials: int = 5) -> None:
    """f agrees with a reference, usually a plain loop, in values and in gradients, on random tensors of the shapes."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(trials):
        inputs = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
        results = []
        for function in (f, reference):
            y = function(*inputs)
            if not y.requires_grad:
                raise CheckError("no gradient reaches the inputs: is everything computed with torch functions?")
            results.append([y.detach(), *torch.autograd.grad(y.square().sum(), inputs)])
        if results[0][0].shape != results[1][0].shape:
            raise CheckError(f"the shape should be {tuple(results[1][0].shape)}, not {tuple(results[0][0].shape)}")
        if not torch.allclose(results[0][0], results[1][0]):
            raise CheckError(f"the values differ by up to {float((results[0][0] - results[1][0]).abs().max()):.3g}")
        if not all(torch.allclose(a, b) for a, b in zip(*results, strict=True)):
            raise CheckError("the values agree, but the gradients do not")
    _passed("values and gradients agree with the reference")


def labelled_by(bags: Bags, rule: Callable[[list[int]], bool]) -> None:
    """Every bag's label is what the rule says of the list of its instance labels."""
    if bags.labels is None or bags.instance_labels is None:
        raise CheckError("the bags should have labels and instance labels")
    for b, instances in enumerate(bags.split(bags.instance_labels)):
        expected = bool(rule(instances.tolist()))
        if bool(bags.labels[b]) != expected:
            raise CheckError(f"bag {b} holds {instances.tolist()}, so its label should be {int(expected)}")
    _passed("every label follows from the instances")


def _orders(n: int, trials: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randperm(n, generator=generator) for _ in range(trials)]


def _passed(what: str) -> None:
    print(f"✓ {what}")
