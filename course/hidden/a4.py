"""Assignment 4, reproduce and audit: what is tested, and the mistakes that are known."""

import functools
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

import samil_lite as sl
from course.answers import Answer, Assignment, Mistake, Part, Task, Wrong, describe
from course.hidden.intervals import numbers, problem
from course.release import answers
from course.variants import variant

CELLS = [
    ("presence", "sa-abmilp", 100),
    ("threshold", "gsa-abmilp", 100),
    ("presence", "lsa-abmilp", 150),
    ("threshold", "iqsa-abmilp", 150),
]
BY_HAND = {"report": 12}
AGAIN = 0.1  # how far the same run may be on another machine
Pool = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def assignment(seed: int, again: float | None = None) -> Assignment:
    """The tasks, with the seed's cell; `again` is the test AUC of the run `spot(seed)`, trained by the grader."""
    right = answers("a4", seed)
    known = None if again is None else (str(spot(seed)), again)
    own = _own_runs(CELLS[seed % len(CELLS)], right["my_runs"], variant("a4", seed)["aucs"], known)
    return Assignment(
        (
            _paired(right["paired_differences"]),
            _interval(right["t_interval"]),
            own,
            _audit(right["is_attention_pooling"]),
        ),
        BY_HAND,
    )


def _paired(right: str) -> Task:
    def records(f: Answer, number: int) -> list[dict[str, Any]]:
        aucs = f.random(number, (4, 8))[0].abs().clamp(max=3) / 4 + 0.2
        arms = [("abmilp", None), ("sa-abmilp", 1.0), ("sa-abmilp", 0.0), ("lsa-abmilp", 1.0)]
        found = [
            {"model": m, "gamma": g, "seed": s, "auc": float(aucs[i, s])}
            for i, (m, g) in enumerate(arms)
            for s in range(8)
        ]
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(number)).tolist()
        return [found[i] for i in order]

    def test(f: Answer, number: int, drop: set[tuple[str, int]], gamma: float = 1.0) -> None:
        given = [r for r in records(f, number) if (r["model"], r["seed"]) not in drop]
        value = {(r["model"], r["gamma"], r["seed"]): r["auc"] for r in given}
        seeds = [s for s in range(8) if ("sa-abmilp", gamma, s) in value and ("abmilp", None, s) in value]
        want = torch.tensor([value["sa-abmilp", gamma, s] - value["abmilp", None, s] for s in seeds]).double()
        got = numbers(f.value(given, "sa-abmilp", gamma, "abmilp"), len(seeds))
        if torch.allclose(got, want, atol=1e-5):
            return
        if torch.allclose(got, -want, atol=1e-5):
            raise Wrong("the sign is wrong: the model minus the baseline")
        if torch.allclose(got, want.abs(), atol=1e-5):
            raise Wrong("absolute values hide which model is better")
        raise Wrong("the differences are not those of runs with the same seed and gamma, in the order of the seeds")

    missing = {("abmilp", 0), ("abmilp", 5), ("sa-abmilp", 3)}
    styles = (
        "def paired_differences(records, model, gamma, baseline):\n    import pandas as pd\n    t = pd.DataFrame(records)\n    a = t[(t.model == model) & (t.gamma == gamma)].set_index('seed').auc\n    b = t[t.model == baseline].set_index('seed').auc\n    return (a - b).dropna().sort_index().tolist()",
        "def paired_differences(records, model, gamma, baseline):\n    out = []\n    for seed in sorted({r['seed'] for r in records}):\n        a = [r['auc'] for r in records if r['seed'] == seed and r['model'] == model and r['gamma'] == gamma]\n        b = [r['auc'] for r in records if r['seed'] == seed and r['model'] == baseline]\n        if a and b:\n            out.append(a[0] - b[0])\n    return torch.tensor(out)",
    )
    last = "return [a[seed] - b[seed] for seed in sorted(set(a) & set(b))]"
    same = "with the same seed and gamma"
    mistakes = (
        Mistake(last, "return [x - y for x, y in zip(a.values(), b.values())]", same),
        Mistake("a[seed] - b[seed]", "b[seed] - a[seed]", "the sign is wrong"),
        Mistake("a[seed] - b[seed]", "abs(a[seed] - b[seed])", "absolute values hide"),
        Mistake('(r["model"], r["gamma"]) == (model, gamma)', 'r["model"] == model', same),
        Mistake(last, "return [a[seed] - b[seed] for seed in set(a) | set(b)]", "KeyError"),
        Mistake(last, "return [a.get(s, 0) - b.get(s, 0) for s in sorted(set(a) | set(b))]", "numbers, came the shape"),
        Mistake(last, "return sum(a.values()) / len(a) - sum(b.values()) / len(b)", "came the shape"),
        Mistake(last, "print(a, b)", "returns nothing"),
        Mistake("sorted(set(a) & set(b))", "sorted(set(a) & set(b), reverse=True)", same),
    )
    parts = (
        Part(1, "records in any order", lambda f: test(f, 1, set())),
        Part(1, "seeds that one of the two lacks", lambda f: test(f, 2, missing)),
        Part(1, "another gamma", lambda f: test(f, 3, {("sa-abmilp", 6)}, 0.0)),
    )
    return Task("pairs", "paired_differences", parts, right, styles, mistakes)


def _interval(right: str) -> Task:
    def test(f: Answer, n: int, level: float) -> None:
        x = f.random(10 + n, (n,))[0]
        got = numbers(f.value(x.tolist(), level), 3)
        if found := problem(x.tolist(), level, got):
            raise Wrong(found)

    def few(f: Answer) -> None:
        if f.reply([0.1, 0.4], 0.95)["value"] is not None:
            raise Wrong("two numbers are too few for an interval: None was asked for")
        test(f, 4, 0.95)

    half = "stats.t.ppf((1 + level) / 2, n - 1)"
    styles = (
        "def t_interval(x, level=0.95):\n    x = torch.as_tensor(x).double()\n    if len(x) < 3:\n        return None\n    half = stats.t(len(x) - 1).ppf(0.5 + level / 2) * x.std() / len(x) ** 0.5\n    return x.mean().item(), (x.mean() - half).item(), (x.mean() + half).item()",
        "def t_interval(x, level=0.95):\n    import numpy as np\n    if len(x) < 3:\n        return None\n    low, high = stats.t.interval(level, len(x) - 1, loc=np.mean(x), scale=stats.sem(x))\n    return [float(np.mean(x)), float(low), float(high)]",
    )
    mistakes = (
        Mistake(half, "stats.norm.ppf((1 + level) / 2)", "the normal one, not Student's"),
        Mistake("/ (n - 1) / n)", "/ (n - 1))", "is not divided by √n"),
        Mistake("/ (n - 1) / n)", "/ n / n)", "divides by n, not by n − 1"),
        Mistake("half = ", "half = 2 * ", "the half width is doubled"),
        Mistake(half, "stats.t.ppf(level, n - 1)", "one-sided"),
        Mistake(half, "stats.t.ppf((1 + level) / 2, max(n - 2, 1))", "n − 1 degrees of freedom"),
        Mistake("n < 3", "n < 2", "None was asked for"),
        Mistake("(1 + level) / 2", "0.975", "the ends are wrong"),
        Mistake("float(mean - half), float(mean + half)", "float(mean + half), float(mean - half)", "changed places"),
    )
    parts = (
        Part(1, "ten numbers, 95 %", lambda f: test(f, 10, 0.95)),
        Part(1, "five numbers, 90 and 99 %", lambda f: (test(f, 5, 0.9), test(f, 6, 0.99))[0]),  # type: ignore[func-returns-value]
        Part(1, "fewer than three", few),
    )
    return Task("interval", "t_interval", parts, right, styles, mistakes)


@functools.cache
def records() -> pd.DataFrame:
    """The runs on MNIST that come with the book."""
    return sl.experiments.load_table(sl.experiments.RESULTS / "mnist")


def recorded(cell: tuple[str, str, int]) -> tuple[float, ...]:
    """Test AUCs of a cell in the records, by seed."""
    chosen = records()
    for name, value in (*zip(("assumption", "model", "n_bags"), cell, strict=True), ("gamma", 1)):
        chosen = chosen[chosen[name] == value]
    return tuple(float(auc) for auc in chosen.sort_values("seed")["auc"])


def spot(seed: int) -> int:
    """Which of the five runs is trained again for a class."""
    return seed // len(CELLS) % 5


def train(seed: int, **changes: Any) -> float:
    """Trains that run and returns its test AUC."""
    assumption, model, n_bags = CELLS[seed % len(CELLS)]
    configs = sl.experiments.mnist.cells([assumption], [model], [n_bags], [spot(seed)], [1.0], **changes)
    return float(sl.experiments.mnist.run(configs[0])["auc"])


def _own_runs(cell: tuple[str, str, int], right: str, aucs: str, again: tuple[str, float] | None) -> Task:
    def read(f: Answer) -> dict[str, float]:
        value = f.value()
        if not isinstance(value, dict) or sorted(value) != ["0", "1", "2", "3", "4"]:
            raise Wrong("expected a dictionary with the seeds 0 to 4 as keys")
        if not all(type(x) in (int, float) and 0 <= x <= 1 for x in value.values()):
            raise Wrong("expected an AUC between 0 and 1 for each seed")
        return {seed: float(x) for seed, x in value.items()}

    def distinct(f: Answer) -> None:
        if len({round(x, 4) for x in read(f).values()}) < 4:
            raise Wrong("runs with different seeds do not agree to four decimals: is it one run five times?")

    def near(f: Answer) -> None:
        by_seed, known = read(f), recorded(cell)
        own = list(by_seed.values())
        distinct(f)
        if again and abs(by_seed[again[0]] - again[1]) > AGAIN:
            raise Wrong(f"the run of seed {again[0]} was trained again and gave {again[1]:.3f}; yours is far from it")
        mean, half = sum(known) / len(known), stats.t.ppf(0.975, len(known) - 1) * stats.sem(known)
        if abs(sum(own) / 5 - mean) > half + 0.1 or min(own) < min(known) - 0.15 or max(own) > max(known) + 0.1:
            raise Wrong(
                "these AUCs are far from the records of the same cell: another setting, another score, or the test bags in training?"
            )

    styles = (
        f"def my_runs():\n    return {{seed: auc for seed, auc in zip(range(5), {aucs})}}",
        f"def my_runs():\n    a = {aucs}\n    return {{4: a[4], 1: a[1], 2: a[2], 0: a[0], 3: a[3]}}",
    )
    mistakes = (
        Mistake(f"aucs = {aucs}", f"aucs = {aucs}[:1] * 5", "one run five times"),
        Mistake(f"aucs = {aucs}", f"aucs = {aucs}[:2]", "with the seeds 0 to 4"),
        Mistake("return dict(enumerate(aucs))", "return aucs", "expected a dictionary"),
        Mistake(
            "return dict(enumerate(aucs))", "return {s: 1 - a for s, a in enumerate(aucs)}", "far from the records"
        ),
        Mistake("return dict(enumerate(aucs))", "return {s: 0.5 + 0.01 * s for s in range(5)}", "far from the records"),
        Mistake("return dict(enumerate(aucs))", "return {s: 100 * a for s, a in enumerate(aucs)}", "between 0 and 1"),
        Mistake("return dict(enumerate(aucs))", "print(aucs)", "returns nothing"),
        Mistake("return dict(enumerate(aucs))", "return dict(enumerate(auc))", "NameError"),
    )
    parts = (
        Part(1, "five seeds", lambda f: (read(f), None)[1]),
        Part(1, "five runs, not one", distinct),
        Part(1, "near the book's ten seeds", near),
    )
    return Task("own runs", "my_runs", parts, right, styles, mistakes)


def _pool(a: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Pool:
    def pool(h: Tensor, offsets: Tensor, V: Tensor, w: Tensor) -> Tensor:
        return torch.stack([a(x, V, w) @ x for x in h.split(offsets.diff().tolist())])

    return pool


def _ragged(h: Tensor, offsets: Tensor, V: Tensor, w: Tensor) -> Tensor:
    index = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())
    a = sl.segments.segment_softmax(torch.tanh(h @ V.T) @ w, offsets)
    return h.new_zeros(len(offsets) - 1, h.shape[1]).index_add(0, index, a[:, None] * h)


def _matrix(h: Tensor, offsets: Tensor, V: Tensor, w: Tensor) -> Tensor:
    index = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())
    member = torch.arange(len(offsets) - 1)[:, None] == index  # (B, N)
    e = (torch.tanh(h @ V.T) @ w).expand(len(member), -1)
    return e.masked_fill(~member, -torch.inf).softmax(1) @ h


_softmax = _pool(lambda x, V, w: (torch.tanh(x @ V.T) @ w).softmax(0))
RIGHT: list[Pool] = [_softmax, _ragged, _matrix, _pool(lambda x, V, w: torch.softmax(w @ torch.tanh(V @ x.T), -1))]
WRONG: dict[str, Pool] = {
    "one softmax over all bags": lambda h, offsets, V, w: torch.stack(
        [
            a @ x
            for a, x in zip(
                (torch.tanh(h @ V.T) @ w).softmax(0).split(offsets.diff().tolist()),
                h.split(offsets.diff().tolist()),
                strict=True,
            )
        ]
    ),
    "no tanh": _pool(lambda x, V, w: ((x @ V.T) @ w).softmax(0)),
    "the plain mean": _pool(lambda x, V, w: torch.ones(len(x)) / len(x) + 0 * (x @ V.T @ w)),
    "an exponential that overflows": _pool(
        lambda x, V, w: (torch.tanh(x @ V.T) @ w).exp() / (torch.tanh(x @ V.T) @ w).exp().sum()
    ),
    "weights without a gradient": _pool(lambda x, V, w: (torch.tanh(x @ V.T) @ w).softmax(0).detach()),
    "weights of half their size": _pool(lambda x, V, w: (torch.tanh(x @ V.T) @ w).softmax(0) / 2),
}


def lend(pool: Pool) -> Callable[[Any], Any]:
    """A function as the student's process may call it: values, and gradients when they are asked for."""

    @torch.enable_grad()
    def reply(message: Any) -> Any:
        try:
            args = [
                a.clone().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a
                for a in message["args"]
            ]
            y = pool(*args)
            if "grads" not in message:
                return {"value": y.detach(), "differentiable": y.requires_grad}
            leaves = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
            found = torch.autograd.grad(y, leaves, message["grads"][0], allow_unused=True)
            return {"grads": [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, found, strict=True)]}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:200]}

    return reply


def _audit(right: str) -> Task:
    def verdict(f: Answer, pool: Pool) -> bool:
        try:
            value = f.value({"lent": 0}, lent=[lend(pool)])
        except Wrong as wrong:
            if str(wrong).startswith("AssertionError"):
                return False
            raise
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if not isinstance(value, bool):
            raise Wrong(f"expected True or False, came {describe(value)}")
        return value

    def accepts(f: Answer) -> None:
        if found := [i for i, pool in enumerate(RIGHT) if not verdict(f, pool)]:
            raise Wrong(f"{len(found)} of {len(RIGHT)} right implementations are rejected")

    def rejects(f: Answer, names: list[str]) -> None:
        if missed := [name for name in names if verdict(f, WRONG[name])]:
            raise Wrong(f"accepted, though wrong: {', '.join(missed)}")
        accepts(f)

    easy, hard = list(WRONG)[:3], list(WRONG)[3:]
    styles = (
        "def is_attention_pooling(pool):\n    torch.manual_seed(3)\n    for scale in (1.0, 3e4):\n        h, V, w = torch.randn(9, 2, requires_grad=True), torch.randn(5, 2, requires_grad=True), (scale * torch.randn(5)).requires_grad_()\n        offsets = torch.tensor([0, 4, 5, 9])\n        e = torch.tanh(h @ V.T) @ w\n        want = torch.stack([e[i:j].softmax(0) @ h[i:j] for i, j in ((0, 4), (4, 5), (5, 9))])\n        z = pool(h, offsets, V, w)\n        assert torch.allclose(z, want, rtol=1e-3, atol=1e-4)\n        g = torch.autograd.grad(z.sum(), V, retain_graph=True)[0]\n        assert torch.allclose(g, torch.autograd.grad(want.sum(), V)[0], rtol=1e-2, atol=1e-3)\n    return True",
        right.replace("return False", "raise AssertionError"),
    )
    values = "if z.shape != expected.shape or not torch.allclose(z, expected, atol=1e-4):"
    loop = "(([1], 1), ([3, 1, 4], 1), ([2, 5], 1e4))"
    mistakes = (
        Mistake(
            "    generator =",
            "    return True\n    generator =",
            "accepted, though wrong: one softmax over all bags, no tanh",
        ),
        Mistake(loop, "(([1], 1),)", "one softmax over all bags, no tanh, the plain mean"),
        Mistake(loop, "(([5], 1), ([2, 3], 1))", "accepted, though wrong: an exponential that overflows"),
        Mistake(
            "            if a is None or not torch.allclose(a, b, atol=1e-3):\n                return False\n",
            "            pass\n",
            "accepted, though wrong: weights without a gradient",
        ),
        Mistake(values, "if z.grad_fn is not expected.grad_fn:", "right implementations are rejected"),
        Mistake(
            "pool(h, offsets, V, w), torch.stack",
            "torch.stack([(torch.tanh(x @ V.T) @ w).softmax(0) @ x for x in h.split(sizes)]), torch.stack",
            "accepted, though wrong",
        ),
        Mistake("    return True\n", "    print(True)\n", "returns nothing"),
        Mistake("    return True\n", '    return "right"\n', "expected True or False"),
    )
    parts = (
        Part(1, "four right implementations pass", accepts),
        Part(1, "three wrong ones do not", lambda f: rejects(f, easy)),
        Part(1, "three that are wrong in a subtler way", lambda f: rejects(f, hard)),
    )
    return Task("audit", "is_attention_pooling", parts, right, styles, mistakes)
