"""Assignment 2, what self-attention can and AbMILP cannot: what is tested, and the mistakes that are known."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

import samil_lite as sl
from course.answers import Answer, Assignment, Mistake, Part, Task, Wrong
from course.hidden.by_hand import by_hand
from course.release import answers
from course.variants import variant

RULES: list[Callable[[set[int]], bool]] = [
    lambda digits: {9, 7} <= digits,
    lambda digits: (9 in digits) != (7 in digits),
    lambda digits: (9 in digits) == (7 in digits),
    lambda digits: not {9, 7} <= digits,
]
BY_HAND = {"does a good β mean good use": 6}


def assignment(seed: int) -> Assignment:
    """The tasks, with the seed's rule."""
    right = answers("a2", seed)
    rule = RULES[seed % len(RULES)]
    return Assignment(
        (
            _self_attention(right["self_attention"]),
            _four_bags(rule, right["four_bags"], variant("a2", seed)["bags"]),
            by_hand(rule, right["weights_by_hand"]),
            _double(right["double_bags"]),
        ),
        BY_HAND,
    )


def _self_attention(right: str) -> Task:
    def by_loop(h: Tensor, offsets: Tensor, W_q: Tensor, W_k: Tensor, W_v: Tensor, gamma: Tensor) -> Tensor:
        rows = []
        for x in h.split(offsets.diff().tolist()):
            for h_j in x:
                scores = torch.stack([(W_q @ h_j) @ (W_k @ h_i) for h_i in x])
                values = torch.stack([W_v @ h_i for h_i in x])
                rows.append(h_j + gamma * scores.softmax(0) @ values)
        return torch.stack(rows)

    def inputs(
        f: Answer, number: int, sizes: list[int], d: int, m: int, gamma: float, dtype: torch.dtype
    ) -> list[Tensor]:
        h, W_q, W_k, W_v = f.random(number, (sum(sizes), d), (m, d), (m, d), (d, d), dtype=dtype)
        return [h, torch.tensor([0, *sizes]).cumsum(0), W_q, W_k, W_v, torch.tensor(gamma, dtype=dtype)]

    def values(f: Answer) -> None:
        for number, (sizes, dtype) in enumerate([([4, 1, 3], torch.float64), ([6, 5], torch.float32)]):
            f.agrees(by_loop, *inputs(f, number, sizes, 5, 2, 0.7, dtype), what=f"bags of {sizes}, {dtype}")

    def identity(f: Answer) -> None:
        f.agrees(by_loop, *inputs(f, 5, [3, 2], 4, 3, 0.0, torch.float64), what="γ = 0")
        f.agrees(by_loop, *inputs(f, 6, [3, 2], 4, 3, -1.3, torch.float64), what="γ = -1.3")

    def alone(f: Answer) -> None:
        f.agrees(by_loop, *inputs(f, 7, [1, 4], 3, 3, 1.0, torch.float64), what="a bag of one beside another")

    def slopes(f: Answer) -> None:
        f.agrees(by_loop, *inputs(f, 8, [4, 2], 3, 2, 0.5, torch.float64), what="bags of [4, 2]", grad=True)

    styles = (
        "def self_attention(h, offsets, W_q, W_k, W_v, gamma):\n"
        "    bag = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())\n"
        "    s = ((h @ W_q.T) @ (h @ W_k.T).T).masked_fill(bag[:, None] != bag, -torch.inf)\n"
        "    return h + gamma * torch.softmax(s, -1) @ (h @ W_v.T)",
        "def self_attention(h, offsets, W_q, W_k, W_v, gamma):\n    out = []\n"
        "    for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist()):\n        x = h[a:b]\n"
        "        s = torch.einsum('jd,md,me,ie->ji', x, W_q, W_k, x)\n        p = (s - s.max(1, keepdim=True).values).exp()\n"
        "        out.append(x + gamma * (p / p.sum(1, keepdim=True)) @ x @ W_v.T)\n    return torch.cat(out)",
    )
    mixed, beta = "x + gamma * beta @ v", "(q @ k.T).softmax(1)"
    mistakes = (
        Mistake(mixed, "gamma * beta @ v", "the residual is missing: ĥ begins with h"),
        Mistake(
            beta, "(q @ k.T).softmax(0)", "the softmax runs over the queries; each query's weights must sum to one"
        ),
        Mistake("h.split(offsets.diff().tolist())", "[h]", "instances look across the bags"),
        Mistake(mixed, "gamma * (x + beta @ v)", "γ scales the residual as well"),
        Mistake("x @ W_v.T\n", "x @ W_k.T @ W_k\n", "the values are made of the keys"),
        Mistake(beta, "(k @ q.T).softmax(1)", "queries and keys have changed places"),
        Mistake(beta, "(q @ k.T / q.shape[1] ** 0.5).softmax(1)", "this assignment has no factor 1/√d"),
        Mistake(mixed, "x + gamma.detach() * beta @ v", "γ is detached, so it is never learned"),
        Mistake(mixed, "x + beta @ v", "γ is missing"),
    )
    parts = (
        Part(2, "values, also in single precision", values),
        Part(1, "γ = 0 is the identity, and other γ", identity),
        Part(1, "a bag of one", alone),
        Part(1, "gradients of all arguments", slopes),
    )
    return Task("self-attention", "self_attention", parts, right, styles, mistakes)


def _four_bags(rule: Callable[[set[int]], bool], right: str, bags: str) -> Task:
    def read(f: Answer) -> tuple[list[list[int]], list[int]]:
        value = f.results(2, "the bags and their labels")
        digits = [[int(x) for x in bag] for bag in value[0]]
        if len(digits) != 4 or not all(digits) or not {d for bag in digits for d in bag} <= set(range(10)):
            raise Wrong("expected four bags of digits 0 to 9, none empty")
        return digits, [int(x) for x in value[1]]

    def labelled(f: Answer) -> None:
        digits, labels = read(f)
        if labels != [1, 1, 0, 0]:
            raise Wrong("expected the labels 1, 1, 0, 0")
        for number, (bag, label) in enumerate(zip(digits, labels, strict=True), 1):
            if rule(set(bag)) != bool(label):
                raise Wrong(f"by this assignment's rule bag {number} has the other label")

    def distinct(f: Answer) -> None:
        digits, _ = read(f)
        if len({len(bag) for bag in digits}) > 1:
            raise Wrong("the bags differ in size")
        if len({tuple(sorted(bag)) for bag in digits}) < 4:
            raise Wrong("two bags hold the same digits")

    def impossible(f: Answer) -> None:
        digits, labels = read(f)
        labelled(f)
        distinct(f)
        if (evidence := separator(digits, labels)) is not None:
            shown = ", ".join(f"{d}: {v:+.1f}" for d, v in enumerate(evidence) if abs(v) > 0.05)
            raise Wrong(f"an AbMILP gets all four right, for instance with this evidence for each digit: {shown}")

    styles = (
        right.replace(bags, str([[*reversed(bag), 4, 4] for bag in _lists(bags)])),
        right.replace(bags, f"[torch.tensor(bag + [5]) for bag in {bags}]"),
    )
    a, b, c, d = _lists(bags)
    mistakes = (
        Mistake("[1, 1, 0, 0]", "[0, 0, 1, 1]", "expected the labels 1, 1, 0, 0"),
        Mistake(bags, str([c, d, a, b]), "by this assignment's rule bag 1 has the other label"),
        Mistake(bags, str([a, b, c, [*d, d[0]]]), "the bags differ in size"),
        Mistake(bags, str([a, list(reversed(a)), c, d]), "two bags hold the same digits"),
        Mistake(bags, str([[*a, 1], [*b, 2], [*c, 3], [*d, 4]]), "an AbMILP gets all four right"),
        Mistake(bags, str([a, b, c]), "expected four bags"),
        Mistake("return bags, [1, 1, 0, 0]", "return bags", "expected 2 results"),
    )
    parts = (
        Part(1, "labels by the rule", labelled),
        Part(1, "one size, no two equal", distinct),
        Part(2, "no AbMILP gets all four right", impossible),
    )
    return Task("four bags", "four_bags", parts, right, styles, mistakes)


def _lists(text: str) -> list[list[int]]:
    return [[int(x) for x in part.strip("[] ").split(",")] for part in text.split("], [")]


def separator(bags: list[list[int]], labels: list[int]) -> list[float] | None:
    r"""Evidence v for each digit with which an AbMILP is right on all bags; None if there is none.

    Times :math:`\sum_i e^{e_i} > 0` the logit is :math:`\sum_i e^{e_i} (c^\top h_i + c_0)`, a sum over instances of any
    numbers v that depend on the digit alone. So an AbMILP exists exactly if counts · v has the labels' signs.
    """
    counts = np.array([[Counter(bag)[digit] for digit in range(10)] for bag in bags])
    signs = np.where(np.array(labels) == 1, 1, -1)
    found = linprog(np.zeros(10), A_ub=-signs[:, None] * counts, b_ub=-np.ones(len(bags)), bounds=[(-1e4, 1e4)] * 10)
    return [float(x) for x in found.x] if found.success else None


def _double(right: str) -> Task:
    def batch(f: Answer, number: int, sizes: list[int]) -> tuple[Tensor, Tensor]:
        return f.random(number, (sum(sizes), 4), dtype=torch.float32)[0], torch.tensor([0, *sizes]).cumsum(0)

    def doubled(f: Answer, h: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        reply = f.reply(h, offsets)
        value = reply["value"]
        if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(isinstance(x, Tensor) for x in value):
            raise Wrong("expected two tensors, the instances and the offsets")
        if reply["changed"]:
            raise Wrong("the function changes its arguments in place")
        if value[0].shape != (2 * len(h), h.shape[1]):
            raise Wrong(f"expected twice the instances, of the same width, came the shape {tuple(value[0].shape)}")
        if not torch.equal(value[1], 2 * offsets):
            raise Wrong("every bag has twice its size now, and the offsets do not say so")
        return value[0], value[1]

    def each_twice(f: Answer) -> None:
        for number, sizes in enumerate(([3, 1, 4], [2], [1, 1, 1, 5]), 80):
            h, offsets = batch(f, number, sizes)
            h2, offsets2 = doubled(f, h, offsets)
            for b, (x, y) in enumerate(zip(h.split(sizes), h2.split(offsets2.diff().tolist()), strict=True)):
                wanted, came = (Counter(map(tuple, rows.tolist())) for rows in (torch.cat([x, x]), y))
                if wanted != came:
                    other = any(row not in set(map(tuple, h.tolist())) for row in came)
                    what = "holds rows that were in no bag" if other else "does not hold each of its instances twice"
                    raise Wrong(f"bag {b + 1} of {len(sizes)} {what}")

    def unseen(f: Answer) -> None:
        h, offsets = batch(f, 90, [4, 2, 3])
        h2, offsets2 = doubled(f, h, offsets)
        torch.manual_seed(f.seed)
        for name, gamma in (
            ("abmilp", None),
            ("sa-abmilp", 1),
            ("gsa-abmilp", 1),
            ("lsa-abmilp", 1),
            ("embedding-mean", None),
        ):
            options: dict[str, Any] = {} if gamma is None else {"gamma": gamma}
            model = sl.build(name, nn.Identity(), dim=4, **options)
            one, two = (sl.predict(model, sl.Bags(*x)).logits for x in ((h, offsets), (h2, offsets2)))
            if not torch.allclose(one, two, atol=1e-4):
                raise Wrong(f"a random {name} tells the bags from their doubles, and it should not be able to")

    styles = (
        "def double_bags(h, offsets):\n    index = torch.cat([torch.arange(a, b).repeat_interleave(2) for a, b in zip(offsets[:-1], offsets[1:])])\n    return h[index], offsets + offsets",
        "def double_bags(h, offsets):\n    return h.repeat_interleave(2, dim=0), offsets * 2",
    )
    parts_line = "parts = [x.repeat(2, 1) for x in h.split(offsets.diff().tolist())]"
    mistakes = (
        Mistake("x.repeat(2, 1)", "x.repeat(1, 2)", "expected twice the instances, of the same width"),
        Mistake("2 * offsets", "offsets", "the offsets do not say so"),
        Mistake(parts_line, "parts = [h, h]", "does not hold each of its instances twice"),
        Mistake(
            "x.repeat(2, 1)", "torch.cat([x, x[:1].repeat(len(x), 1)])", "does not hold each of its instances twice"
        ),
        Mistake("x.repeat(2, 1)", "torch.cat([x, x + 0.01])", "holds rows that were in no bag"),
        Mistake("x.repeat(2, 1)", "x.repeat(2, 1).sort(0).values", "holds rows that were in no bag"),
        Mistake("x.repeat(2, 1)", "torch.cat([x, x.mean(0).expand(len(x), -1)])", "holds rows that were in no bag"),
        Mistake(", 2 * offsets", ", 2 * len(h)", "expected two tensors"),
        Mistake(
            "    parts =",
            "    offsets *= 2\n    offsets //= 2\n    h.data.mul_(2)\n    parts =",
            "changes its arguments in place",
        ),
    )
    parts = (
        Part(2, "each instance of a bag twice", each_twice),
        Part(2, "five random models see no difference", unseen),
    )
    return Task("double", "double_bags", parts, right, styles, mistakes)
