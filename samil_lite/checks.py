"""What a correct answer must satisfy: the checks behind the exercises.

A check tests a property, never a copy of the answer. It prints a line when the property holds and raises `CheckError`,
with a hint in words, when it does not; what the answer raises itself is named in the hint. `Unanswered` says that
nothing was filled in yet.
"""

from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from samil_lite.answers import (
    CheckError,
    Unanswered,
    as_list,
    describe,
    difference,
    filled,
    globals_hint,
    names,
    parameters,
    run,
    tensor,
)
from samil_lite.bags import Bags

__all__ = [
    "CheckError", "Unanswered", "equal", "holds", "labelled_by", "memory", "no_loop", "permutation_equivariant",
    "permutation_invariant", "returned", "same_function", "uses", "weights", "without",
]  # fmt: skip

Function = Callable[..., Any]
DTYPES = {torch.float32: 1e-4, torch.float64: 1e-6}  # the types that answers are tried with, and the tolerance for each


def holds(condition: object, what: str, hint: str = "") -> None:
    """A yes-or-no property: `condition` is True.

    Args:
        condition: True or False, as Python, NumPy or torch have them.
        what: the property in words, printed if it holds.
        hint: what to look at if it does not.

    Raises:
        CheckError: if it is False, or no yes or no at all.
        Unanswered: if it is None.
    """
    value = filled(condition, what)
    if isinstance(value, (Tensor, np.bool_)) and np.ndim(value) == 0:
        value = value.item()
    if not isinstance(value, bool):
        raise CheckError(f"{what}: expected True or False, not {describe(condition)}")
    if not value:
        raise CheckError(f"this should hold, but does not: {what}" + (f" ({hint})" if hint else ""))
    _passed(what)


def equal(answer: object, expected: object, what: str, tolerance: float = 1e-6) -> None:
    """The answer has the expected shape, and each number is off by at most tolerance · (1 + its size).

    Args:
        answer: a number, a tensor, or anything that `torch.as_tensor` takes; True and False are not taken for numbers.
        expected: what it should be.
        what: the property in words.
        tolerance: relative and absolute.

    Raises:
        CheckError: naming the first number that is wrong.
        Unanswered: if the answer is None.
    """
    if problem := difference(filled(answer, what), expected, tolerance, strict=False):
        raise CheckError(f"{what}: {problem}")
    _passed(what)


def weights(a: Tensor, offsets: Tensor | None = None) -> None:
    """Attention weights: not negative, and of sum one (in each bag, if offsets are given; in each row of a matrix)."""
    a = tensor(a, "the weights")
    if not a.isfinite().all():
        raise CheckError(f"weights must be finite numbers, but {int((~a.isfinite()).sum())} of {a.numel()} are not")
    if (a < 0).any():
        raise CheckError(f"weights must not be negative, but the smallest is {float(a.min()):.3g}")
    if offsets is None:
        sums = a.sum(-1).reshape(-1)
    elif a.ndim != 1 or len(a) != int(offsets[-1]):
        raise CheckError(
            f"there should be {int(offsets[-1])} weights, one for each instance; the shape is {tuple(a.shape)}"
        )
    else:
        sums = torch.stack([x.sum() for x in a.split(offsets.diff().tolist())])
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-5):
        what = "each row of weights" if a.ndim == 2 else "the weights of a bag"
        raise CheckError(f"{what} must sum to one, but the sums are {[round(x, 4) for x in sums.tolist()]}")
    _passed("weights are not negative and sum to one")


def permutation_invariant(f: Function, x: Tensor, trials: int = 5) -> None:
    """f(x) stays as it is when the rows of x change places."""
    reference = tensor(run(f, [x]), "the result")
    for order in _orders(len(x), trials):
        y = tensor(run(f, [x[order]]), "the result")
        if y.shape != reference.shape or not torch.allclose(y, reference, atol=1e-5):
            raise CheckError(f"the result changes when the instances are reordered as {order.tolist()}")
    _passed("the result does not depend on the order of the instances")


def permutation_equivariant(f: Function, x: Tensor, trials: int = 5) -> None:
    """f(x) has a row for each row of x, and its rows change places with those of x."""
    reference = tensor(run(f, [x]), "the result")
    if reference.ndim == 0 or len(reference) != len(x):
        found = len(reference) if reference.ndim else "a single number"
        raise CheckError(f"there should be one result for each of the {len(x)} instances, not {found}")
    for order in _orders(len(x), trials):
        y = tensor(run(f, [x[order]]), "the result")
        if y.shape != reference.shape or not torch.allclose(y, reference[order], atol=1e-5):
            raise CheckError(f"the results do not follow the instances when these are reordered as {order.tolist()}")
    _passed("the results follow the instances when these are reordered")


def same_function(f: Function, reference: Function, *cases: Sequence[Any], what: str = "") -> None:
    """f agrees with a reference, usually a plain loop: in type, shape and values, and in gradients where it has any.

    Every case is tried in single and in double precision, and f must leave its arguments as they are. An answer whose
    own tensors are of single precision only, so that torch refuses to mix them with double, passes.

    Args:
        f: the answer.
        reference: what it should give.
        cases: lists of arguments; a tuple of integers among them stands for a random normal tensor of that shape. Give
            at least two sizes. Tuples in place of lists are the shapes of the arguments of a single case.
        what: the property in words.

    Raises:
        CheckError: naming the case and what differs.
        Unanswered: if f raises NotImplementedError or returns None.
    """
    given = [list(cases)] if all(isinstance(case, tuple) for case in cases) else [list(case) for case in cases]
    gradients = False
    for number, case in enumerate(given):
        for dtype, tolerance in DTYPES.items():
            try:
                gradients |= _compare(f, reference, _arguments(case, dtype, number), tolerance)
            except CheckError as error:
                if dtype == torch.float64 and _mixes_types(error.__cause__):
                    continue
                raise
    _passed(what or f"values{' and gradients' if gradients else ''} agree with the reference")


def returned(f: Function, *arguments: Any, shape: tuple[int, ...] | None = None) -> Any:
    """What f returns; what goes wrong in it, changed arguments, or a tensor of another shape are hints in words.

    Raises:
        CheckError: if f fails, changes an argument, or returns no tensor of this shape where one is given.
        Unanswered: if nothing is filled in.
    """
    y = run(f, arguments)
    if shape is not None and tensor(y, "the result").shape != shape:
        raise CheckError(f"for {names(f, arguments)}: the shape should be {shape}, not {tuple(y.shape)}")
    return y


def uses(f: Function, name: str) -> None:
    """The function `name` is called in f, as the task asks for."""
    if name not in _names_in(f):
        raise CheckError(f"the task asks for {name}, which is not called")
    _passed(f"{name} is used")


def without(f: Function, *forbidden: str) -> None:
    """None of these names is used in f: they are what the task wants written anew."""
    if found := sorted(set(forbidden) & _names_in(f)):
        raise CheckError(f"the task is to do without {' and '.join(found)}")
    _passed(f"without {' and '.join(forbidden)}")


def _names_in(f: Function) -> set[str]:
    """All names that a function, and the functions written in it, refer to."""
    todo, found = [f.__code__], set[str]()
    while todo:
        code = todo.pop()
        found |= {*code.co_names}
        todo += [c for c in code.co_consts if isinstance(c, CodeType)]
    return found


def no_loop(f: Function, small: Sequence[Any], large: Sequence[Any]) -> None:
    """f makes no more torch operations for large arguments than for small ones: nothing in it loops over them.

    Args:
        f: the answer.
        small: its arguments.
        large: arguments with many more bags or instances.

    Raises:
        CheckError: if the number of operations grows.
    """
    few, many = (_watched(f, arguments)[0] for arguments in (small, large))
    if many > few:
        raise CheckError(
            f"{few} torch operations became {many} with more bags or instances: is there a loop over them?"
        )
    _passed("no loop: large batches take as few operations as small ones")


def memory(f: Function, arguments: Sequence[Any], limit: int) -> None:
    """No tensor that f makes has more than `limit` numbers."""
    largest = _watched(f, arguments)[1]
    if largest > limit:
        raise CheckError(f"a tensor of {largest:,} numbers is made, where at most {limit:,} are needed")
    _passed(f"no tensor has more than {limit:,} numbers")


def labelled_by(bags: Bags, rule: Callable[[list[int]], bool]) -> None:
    """Every bag's label is what the rule says of the list of its instance labels."""
    if not isinstance(filled(bags, "the bags"), Bags):
        raise CheckError(f"expected samil_lite.Bags, not {describe(bags)}")
    if bags.labels is None or bags.instance_labels is None:
        raise CheckError("the bags should have labels and instance labels")
    for b, instances in enumerate(bags.split(bags.instance_labels)):
        expected = bool(rule(instances.tolist()))
        if bool(bags.labels[b]) != expected:
            raise CheckError(f"bag {b} holds {instances.tolist()}, so its label should be {int(expected)}")
    _passed("every label follows from the instances")


def _compare(f: Function, reference: Function, arguments: list[Any], tolerance: float) -> bool:
    """Raises CheckError if f differs from the reference on these arguments; returns whether there were gradients."""
    flat = [x for a in arguments for x in (a if isinstance(a, list) else [a])]
    leaves = [x.requires_grad_() for x in flat if isinstance(x, Tensor) and x.is_floating_point()]
    expected = reference(*arguments)
    firsts = [y for y in as_list(expected) if isinstance(y, Tensor) and y.requires_grad]
    y = run(f, arguments)
    where = f"for {names(f, arguments)}"
    if problem := difference(y, expected, tolerance):
        raise CheckError(f"{where}: {problem}{globals_hint(f)}")
    if not firsts:
        return False
    found = [a for a, b in zip(as_list(y), as_list(expected), strict=True) if isinstance(b, Tensor) and b.requires_grad]
    if not all(a.requires_grad for a in found):
        raise CheckError(
            f"{where}: no gradient reaches the arguments; compute with torch, without detach, item or NumPy"
        )
    slopes = [_slopes(results, leaves) for results in (found, firsts)]
    for name, a, b in zip(parameters(f, len(leaves)), *slopes, strict=True):
        if not torch.allclose(a, b, rtol=20 * tolerance, atol=20 * tolerance):
            raise CheckError(
                f"{where}: the values agree, but the gradients do not (argument {name}); is something detached?"
            )
    return True


def _slopes(results: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    total = torch.stack([y.square().sum() for y in results]).sum()
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def _watched(f: Function, arguments: Sequence[Any]) -> tuple[int, int]:
    watch = _Watch()

    def watched(*inputs: Any) -> Any:
        with watch:
            return f(*inputs)

    run(watched, arguments)
    return watch.operations, watch.largest


def _orders(n: int, trials: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randperm(n, generator=generator) for _ in range(trials)]


def _passed(what: str) -> None:
    print(f"✓ {what}")


def _arguments(case: Sequence[Any], dtype: torch.dtype, seed: int) -> list[Any]:
    """Fresh arguments: random tensors for shapes, copies of tensors in the type that is tried."""
    generator = torch.Generator().manual_seed(seed)

    def fresh(a: Any) -> Any:
        if isinstance(a, tuple) and all(isinstance(n, int) for n in a):
            return torch.randn(a, generator=generator, dtype=torch.float64).to(dtype)
        if isinstance(a, Tensor):
            return a.detach().clone().to(dtype if a.is_floating_point() else a.dtype)
        return [fresh(x) if isinstance(x, Tensor) else x for x in a] if isinstance(a, list) else a

    return [fresh(a) for a in case]


def _mixes_types(error: BaseException | None) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and ("dtype" in text or "scalar type" in text)


class _Watch(TorchDispatchMode):
    """Counts torch operations and the size of the largest tensor that comes out of one."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.largest = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        base = [y for y in as_list(out) if isinstance(y, Tensor) and not y._is_view()]  # views take no memory
        self.largest = max([self.largest, *(y.numel() for y in base)])
        return out
