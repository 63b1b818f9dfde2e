"""What hidden tests are written with: tasks, a student's function as they see it, and comparison with what is right."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from course.worker import call

Reference = Callable[..., Any]
DECIMALS = re.compile(r"-?\d+\.\d*(e[+-]?\d+)?")  # in an error's text they could be the hidden arguments


class Wrong(Exception):  # noqa: N818 the answer is wrong, not the grader
    """An answer lacks a property; the text is for the student."""


class Process(Protocol):
    """What answers requests: a `course.sandbox.Worker`, or this process in tests of the tests."""

    def ask(self, request: dict[str, Any], lent: Sequence[Callable[[Any], Any]] = ()) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Mistake:
    """A known wrong answer: a piece of the right one, what stands in its place, and the hint for whoever wrote that."""

    old: str
    new: str
    hint: str


@dataclass(frozen=True)
class Part:
    """A property that is tested: its points, what the student reads, and the test, which raises `Wrong`."""

    points: int
    what: str
    test: Callable[["Answer"], None]


@dataclass(frozen=True)
class Task:
    """One task of an assignment.

    Attributes:
        name: its column in grades.csv.
        function: what the student's function must be called; a task has points because this name is defined.
        parts: what is tested.
        right: a right answer, as it stands in the source notebook.
        styles: further right answers.
        mistakes: wrong ones, as changes of `right`; each is a mutant for the tests and a hint for students.
        driver: source of a function `drive` that uses what the student defined; called in place of `function`.
    """

    name: str
    function: str
    parts: tuple[Part, ...]
    right: str
    styles: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    driver: str = ""

    @property
    def points(self) -> int:
        return sum(part.points for part in self.parts)

    def mutant(self, mistake: Mistake) -> str:
        """The wrong answer's source."""
        if mistake.old not in self.right:
            raise ValueError(f"{self.name}: {mistake.old!r} is no part of the right answer")
        return self.right.replace(mistake.old, mistake.new)


@dataclass(frozen=True)
class Assignment:
    """The tasks of an assignment and the points that a person gives: name of the item and its points."""

    tasks: tuple[Task, ...]
    by_hand: dict[str, int]


class Answer:
    """The student's function, as the tests see it: every call goes to the student's process."""

    def __init__(self, process: Process, task: Task, seed: int) -> None:
        self.process, self.task, self.seed = process, task, seed
        self._ended = ""  # why the process was lost: it is not waited for again
        self._calls: list[tuple[tuple[Any, ...], bool, dict[str, Any]]] = []  # arguments, with gradients?, reply

    def random(self, number: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Normal random tensors that depend on the class's seed and a number of the test's own."""
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]

    def reply(
        self, *args: Any, grad: bool = False, function: str = "", lent: Sequence[Callable[[Any], Any]] = ()
    ) -> dict[str, Any]:
        """Calls the student's function, or another one of the same submission.

        Raises:
            Wrong: if it is missing, not filled in, fails, or takes too long.
        """
        if self._ended:
            raise Wrong(self._ended)
        name = function or self.task.function
        driver = "" if function else self.task.driver
        request = {"function": name, "driver": driver, "args": list(args), "grad": grad, "seed": self.seed}
        reply = self.process.ask(request, lent)
        if reply.get("dead"):
            self._ended = reply["error"]
        if reply.get("missing"):
            raise Wrong(f"there is no function or class named {name}")
        if "error" in reply:
            empty = reply["error"].startswith(("NotImplementedError", "Unanswered"))
            raise Wrong("nothing is filled in yet" if empty else DECIMALS.sub("…", reply["error"]))
        if "value" not in reply:
            raise Wrong("the process gave an unreadable reply")
        return reply

    def value(self, *args: Any, function: str = "", lent: Sequence[Callable[[Any], Any]] = ()) -> Any:
        """What the student's function returns."""
        value = self.reply(*args, function=function, lent=lent)["value"]
        if value is None:
            raise Wrong("it returns nothing (None): is a `return` missing?")
        return value

    def results(self, n: int, what: str, *args: Any) -> Sequence[Any]:
        """What the student's function returns, if it is `n` things.

        Raises:
            Wrong: if it is not; `what` names them.
        """
        value = self.value(*args)
        if not isinstance(value, (tuple, list)) or len(value) != n:
            raise Wrong(f"expected {n} results, {what}, came {describe(value)}")
        return value

    def agrees(
        self, reference: Reference, *args: Any, what: str, grad: bool = False, tolerance: float | None = None
    ) -> None:
        """Type, shape, dtype, values, arguments left alone and, if asked for, gradients: all as the reference has them.

        Raises:
            Wrong: naming what differs, with the hint of the mistake that gives the same values, if one does.
        """
        reply = self.reply(*args, grad=grad)
        self._calls.append((args, grad, reply))
        expected = reference(*args)
        if problem := difference(reply["value"], expected, tolerance):
            raise Wrong(f"{what}: {problem}.{self._hint()}")
        if reply["changed"]:
            raise Wrong(f"{what}: the function changes its argument {reply['changed'][0] + 1} in place.{self._hint()}")
        if grad:
            self._same_gradients(reply["grads"], reference, args, what)

    def _same_gradients(self, grads: list[Tensor] | None, reference: Reference, args: Sequence[Any], what: str) -> None:
        if grads is None:
            raise Wrong(
                f"{what}: no gradient reaches the arguments; is all of it computed with torch, without detach, item "
                f"or NumPy?{self._hint()}"
            )
        for number, (a, b) in enumerate(zip(grads, gradients(reference, args), strict=True), 1):
            if not torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(1 + b.abs().max())):
                raise Wrong(
                    f"{what}: the values are right, but not the gradient of floating-point argument {number}; is "
                    f"something detached?{self._hint()}"
                )

    def _hint(self) -> str:
        for mistake in self.task.mistakes:
            if all(_gives(self.task, mistake, self.seed, *call) for call in self._calls):
                return f" Hint: {mistake.hint}."
        return ""


def load(source: str, task: Task) -> Reference:
    """The function that a source text of ours defines, or its driver."""
    space: dict[str, Any] = {"torch": torch, "nn": nn}
    exec(source, space)
    if task.driver:
        exec(task.driver, space)
    function: Reference = space["drive" if task.driver else task.function]
    return function


def _gives(task: Task, mistake: Mistake, seed: int, args: tuple[Any, ...], grad: bool, reply: dict[str, Any]) -> bool:
    """Whether a mistake replies the same to a call: values, gradients, changed arguments."""
    torch.default_generator.manual_seed(seed)
    try:
        found = call(load(task.mutant(mistake), task), list(args), grad)
    except Exception:  # it fails on these arguments, and the student's function did not
        return False
    same_kind = (found.get("grads") is None) == (reply.get("grads") is None)
    pairs = [
        (reply["value"], found["value"]),
        *([(reply["grads"], found["grads"])] if found.get("grads") and same_kind else []),
    ]
    return same_kind and found["changed"] == reply["changed"] and not any(difference(a, b, 1e-3) for a, b in pairs)


def gradients(function: Reference, args: Sequence[Any]) -> list[Tensor]:
    """Gradients of the sum of squares of the first result with respect to the floating-point arguments."""
    given = [a.clone().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
    y = function(*given)
    y = y[0] if isinstance(y, (tuple, list)) else y
    leaves = [a for a in given if isinstance(a, Tensor) and a.requires_grad]
    found = torch.autograd.grad(y.square().sum(), leaves, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, found, strict=True)]


def difference(value: Any, expected: Any, tolerance: float | None = None) -> str:
    """What is wrong with a value, in words; empty if it is as expected."""
    if isinstance(expected, (tuple, list)):
        if not isinstance(value, (tuple, list)) or len(value) != len(expected):
            return f"expected {len(expected)} results, came {describe(value)}"
        problems = [difference(v, e, tolerance) for v, e in zip(value, expected, strict=True)]
        return next((f"result {number}: {problem}" for number, problem in enumerate(problems, 1) if problem), "")
    if not isinstance(expected, Tensor):
        return "" if type(value) is type(expected) and value == expected else f"expected {expected!r}, came {value!r}"
    if not isinstance(value, Tensor):
        return f"expected a tensor, came {describe(value)}"
    if value.shape != expected.shape:
        return f"expected the shape {tuple(expected.shape)}, came {tuple(value.shape)}"
    if value.dtype != expected.dtype:
        return f"expected numbers of type {expected.dtype}, came {value.dtype}"
    tolerance = tolerance or (1e-4 if expected.dtype == torch.float32 else 1e-6)
    right = torch.isclose(value, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if right.all():
        return ""
    found = [name for name, has in (("nan", value.isnan().any()), ("infinite", value.isinf().any())) if has]
    return f"{int((~right).sum())} of {right.numel()} numbers are wrong" + (
        f", some are {' or '.join(found)}" if found else ""
    )


def describe(value: Any) -> str:
    """A value of the wrong kind, in words."""
    if value is None:
        return "nothing (None): is a `return` missing?"
    if isinstance(value, dict) and "not plain" in value:
        return f"something of type {value['not plain']}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (list, tuple, dict)) else "")
