"""Assignment 3, invent a kernel: nobody knows the right answer, so every test asks for a property."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course.answers import Answer, Assignment, Mistake, Part, Task, Wrong, describe
from course.hidden.at_work import in_the_layer, measured
from course.release import answers

BY_HAND = {"why this kernel": 2, "the measurement and what it shows": 4}
GRID = torch.logspace(-3, 4, 400, dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)
Known = Callable[[Tensor], Tensor]
OF_SQUARES: dict[str, Known] = {
    "the RBF": lambda t: (-t).exp(),
    "the inverse quadratic": lambda t: 1 / (1 + t),
    "minus the squared distance": lambda t: -t,
    "minus the distance": lambda t: -t.sqrt(),
    "the logarithm of the inverse quadratic": lambda t: -(1 + t).log(),
}
OF_L1: dict[str, Known] = {
    "the exponential of the Laplace kernel": lambda t: (-t).exp(),
    "1 / (1 + αt)": lambda t: 1 / (1 + t),
    "the Laplace kernel": lambda t: -t,
    "the RBF of the L1 distance": lambda t: (-t.square()).exp(),
    "the inverse quadratic of the L1 distance": lambda t: 1 / (1 + t.square()),
}


def assignment(seed: int) -> Assignment:
    """The tasks; the seed decides which kernels are known already."""
    right = answers("a3", seed)
    known, statistic = ((OF_SQUARES, "squared_distance"), (OF_L1, "l1_distance"))[seed % 2]
    return Assignment(
        (
            _phi(right["phi"], known),
            _slopes(right["slopes"]),
            _bound(right["largest_weight"]),
            in_the_layer(right["own_kernel"], statistic),
            measured(right["my_measurement"]),
        ),
        BY_HAND,
    )


def scores(f: Answer, t: Tensor, alpha: Tensor = ONE) -> Tensor:
    """The student's phi, of the shape of t."""
    y = f.value(t, alpha, function="phi")
    if not isinstance(y, Tensor) or y.shape != t.shape:
        came = tuple(y.shape) if isinstance(y, Tensor) else describe(y)
        raise Wrong(f"phi: expected a tensor of the shape {tuple(t.shape)}, came {came}")
    return y.double()


def _phi(right: str, known: dict[str, Known]) -> Task:
    def own_pair(f: Answer) -> None:
        t = 4 * f.random(1, (5, 7))[0].abs()
        if not torch.allclose(scores(f, t), torch.stack([scores(f, row) for row in t])):
            raise Wrong("phi of a part is not the part of phi: a score may depend on its own pair only")

    def finite(f: Answer) -> None:
        t = torch.tensor([0.0, 1e-12, 1e4, 1e8], dtype=torch.float64)
        if not scores(f, t).isfinite().all():
            raise Wrong("phi is not finite for all t from 0 to 1e8")
        if torch.allclose(scores(f, GRID), scores(f, GRID, 3 * ONE)):
            raise Wrong("alpha makes no difference")

    def nearer(f: Answer) -> None:
        if (scores(f, GRID).diff() > 1e-9).any():
            raise Wrong("phi rises with the distance somewhere: a farther key would get more weight")

    def new(f: Answer) -> None:
        y = scores(f, GRID)
        if not y.isfinite().all() or y.max() == y.min():
            raise Wrong("phi is constant or not finite")
        for name, kernel in known.items():
            for a in torch.logspace(-2, 2, 41, dtype=torch.float64):
                X = torch.stack([kernel(a * GRID), torch.ones_like(GRID)], 1)
                rest = y - X @ torch.linalg.lstsq(X, y[:, None]).solution[:, 0]
                if rest.abs().max() < 1e-3 * (y.max() - y.min()):
                    raise Wrong(f"this is {name} again, stretched or shifted")

    score = "return 2 / torch.cosh(u)"
    again = "-alpha * t" if known is OF_L1 else "(-2 * alpha * t).exp()"
    styles = (
        "def phi(t, alpha):\n    x = alpha * t\n    return 1 - x / (1 + x**2).sqrt()",
        "def phi(t, alpha):\n    return 1.5 * torch.sigmoid(2 - (alpha * t + 0.3).log1p())",
    )
    mistakes = (
        Mistake(score, "y = 2 / torch.cosh(u)\n    return y / y.max() + y.mean()", "depend on its own pair only"),
        Mistake(score, "return 1 / (alpha * t)", "not finite for all t"),
        Mistake(score, "return -u.exp()", "not finite for all t"),
        Mistake(score, "return torch.cos(u)", "rises with the distance"),
        Mistake(score, f"return 3 * ({again}) + 1", "again, stretched or shifted"),
        Mistake(score, "return (2 / torch.cosh(u)).sum(-1)", "expected a tensor of the shape"),
        Mistake(score, "print(2 / torch.cosh(u))", "returns nothing"),
        Mistake("alpha * t +", "t +", "alpha makes no difference"),
    )
    parts = (
        Part(1, "a score depends on its own pair only", own_pair),
        Part(1, "finite from 0 to 1e8, with an alpha that counts", finite),
        Part(1, "nearer is not less", nearer),
        Part(1, "none of the known kernels", new),
    )
    return Task("phi", "phi", parts, right, styles, mistakes)


def _slopes(right: str) -> Task:
    def both(f: Answer, number: int, shape: tuple[int, ...]) -> list[tuple[str, Any, Tensor]]:
        t, step = 3 * f.random(number, shape)[0].abs() + 0.05, 1e-5
        a = 0.7 * ONE
        value = f.results(2, "the slopes in t and in alpha", t, a)
        in_t = (scores(f, t + step, a) - scores(f, t - step, a)) / (2 * step)
        in_alpha = (scores(f, t, a + step) - scores(f, t, a - step)) / (2 * step)
        return [("t", value[0], in_t), ("alpha", value[1], in_alpha)]

    def test(f: Answer, number: int, shape: tuple[int, ...], only: str) -> None:
        for name, got, want in both(f, number, shape):
            if name != only:
                continue
            if not isinstance(got, Tensor) or got.shape not in ((), want.shape):
                raise Wrong(f"the slope in {name} does not have the shape of t")
            found = {"": want, ": the sign is wrong": -want, ": a factor alpha is missing or too many": want / 0.7}
            found[": a factor alpha is missing or too many "] = want * 0.7
            same = [
                text for text, x in found.items() if torch.allclose(got.double().expand_as(x), x, rtol=1e-3, atol=1e-6)
            ]
            if "" not in same:
                raise Wrong(
                    f"the slope in {name} is not what small steps of phi give" + (same[0].rstrip() if same else "")
                )

    def of_a_matrix(f: Answer) -> None:
        for name in ("t", "alpha"):
            test(f, 4, (4, 6), name)

    first, second = "inner * alpha / (2 * u)", "inner * t / (2 * u)"
    styles = (
        "def slopes(t, alpha):\n    x = (alpha * t) ** 0.5\n    common = -torch.sinh(x) / torch.cosh(x) ** 2 / x\n    return alpha * common, t * common",
        "def slopes(t, alpha):\n    u = torch.sqrt(alpha * t)\n    e = torch.exp(-2 * u)\n    d = -2 * (1 - e) / (1 + e) * 2 * torch.exp(-u) / (1 + e)\n    return d * torch.sqrt(alpha / t) / 2, d * torch.sqrt(t / alpha) / 2",
    )
    mistakes = (
        Mistake("-2 *", "2 *", "the sign is wrong"),
        Mistake(first, "inner / (2 * u)", "a factor alpha is missing or too many"),
        Mistake(first, "inner", "the slope in t is not"),
        Mistake(second, "0 * t", "the slope in alpha is not"),
        Mistake(f", {second}", "", "expected 2 results"),
        Mistake(first, f"({first}).sum()[None]", "the slope in t does not have the shape"),
        Mistake("torch.tanh(u) / ", "1 / ", "the slope in t is not"),
        Mistake(f"{first}, {second}", f"{second}, {first}", "the slope in alpha is not"),
    )
    parts = (
        Part(1, "the slope in t", lambda f: test(f, 2, (50,), "t")),
        Part(1, "the slope in alpha", lambda f: test(f, 3, (50,), "alpha")),
        Part(1, "both, for a matrix of t", of_a_matrix),
    )
    return Task("slopes", "slopes", parts, right, styles, mistakes)


def _bound(right: str) -> Task:
    def claims(f: Answer) -> list[tuple[int, float, float]]:
        found = []
        ends = scores(f, torch.tensor([0.0, 1e8], dtype=torch.float64))
        for n in (2, 10, 1000):
            value = f.value(n, ONE)
            if not isinstance(value, (int, float, Tensor)) or (isinstance(value, Tensor) and value.numel() != 1):
                raise Wrong(f"expected a number, came {describe(value)}")
            if not 0 < float(value) <= 1:
                raise Wrong("a bound on a weight lies above 0 and is at most 1")
            found.append((n, float(value), float(1 / (1 + (n - 1) * (ends[1] - ends[0]).exp()))))
        return found

    def true(f: Answer) -> None:
        for n, claim, reached in claims(f):
            if reached > claim + 1e-6:
                raise Wrong(f"in a bag of {n} a larger weight than your bound occurs")

    def tight(f: Answer) -> None:
        true(f)
        for n, claim, reached in claims(f):
            if reached < claim - 0.02:
                raise Wrong(f"in a bag of {n} no weight comes near your bound: it is true, but not tight")

    total = "return top / (top + n - 1)"
    styles = (
        "def largest_weight(n, alpha):\n    return float(1 / (1 + (n - 1) * torch.exp(torch.tensor(-2.0))))",
        "def largest_weight(n, alpha):\n    return torch.tensor([2.0] + [0.0] * (n - 1)).softmax(0)[0]",
    )
    mistakes = (
        Mistake("math.exp(2)", "math.exp(1)", "a larger weight than your bound occurs"),
        Mistake("n - 1)", "n)", "a larger weight than your bound occurs"),
        Mistake(total, "return 1.0", "not tight"),
        Mistake(total, "print(top / (top + n - 1))", "returns nothing"),
        Mistake(total, "return top / n", "is at most 1"),
        Mistake(total, "return [top / (top + n - 1)] * 2", "expected a number"),
        Mistake(total, "return tops / (top + n - 1)", "NameError"),
        Mistake(total, "return 2 / (n + 1)", "a larger weight than your bound occurs"),
    )
    parts = (Part(2, "no weight is larger", true), Part(1, "and the bound is reached", tight))
    return Task("bound", "largest_weight", parts, right, styles, mistakes)
