"""The task of assignment 2 whose answer is weights: they are tried on every bag, and a repair that helps is the hint."""

import functools
from collections.abc import Callable
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from course.answers import Answer, Mistake, Part, Task, Wrong, describe

Rule = Callable[[set[int]], bool]
Weights = tuple[Tensor, ...]
NAMES = ("W_q", "W_k", "W_v", "V", "w", "c", "c_0")
MARGIN = 0.1
REPAIRS: dict[str, Callable[..., Weights]] = {
    "with -c and -c_0 it would be right: every bag comes out the other way": lambda q, k, v, V, w, c, c_0: (
        q, k, v, V, w, -c, -c_0,
    ),
    "with -c it would be right: the classifier has the wrong sign": lambda q, k, v, V, w, c, c_0: (
        q, k, v, V, w, -c, c_0,
    ),
    "with W_q and W_k exchanged it would be right: queries and keys have changed roles": lambda q, k, *rest: (
        k, q, *rest,
    ),
    "with W_v transposed it would be right: what is found goes into the wrong coordinate": lambda q, k, v, *rest: (
        q, k, v.T, *rest,
    ),
    "with 10 W_q it would be right: the self-attention is not sharp enough": lambda q, *rest: (10 * q, *rest),
    "with 10 w it would be right: the pooling is not sharp enough": lambda q, k, v, V, w, c, c_0: (
        q, k, v, V, 10 * w, c, c_0,
    ),
    "with -w it would be right: the pooling reads the other instances": lambda q, k, v, V, w, c, c_0: (
        q, k, v, V, -w, c, c_0,
    ),
}  # fmt: skip


@functools.cache
def bags(largest: int) -> Tensor:
    """Bags as counts (B, 10) of the digits, small ones first: every one of up to five digits, larger ones of few kinds.

    Six to ten digits are 9s, 7s and one other: what leaks through a softmax is most where one instance is against many
    of a kind.
    """
    kinds = [tuple(range(10))]
    found = []
    for n in range(1, largest + 1):
        if n == 6:
            kinds = [(other, 7, 9) for other in range(10) if other not in (7, 9)]
        digits = torch.tensor(sorted({bag for kind in kinds for bag in combinations_with_replacement(kind, n)}))
        found.append(nn.functional.one_hot(digits, 10).sum(1))
    return torch.cat(found).double()


def logits(counts: Tensor, weights: Weights) -> Tensor:
    """Logits (B,) of bags, given as counts of the ten digits: equal digits of a bag are mixed alike."""
    W_q, W_k, W_v, V, w, c, c_0 = weights
    log_n = counts.log()  # -inf: the digit is not there
    beta = (W_q.T @ W_k + log_n[:, None]).softmax(2)  # (B, 10, 10)
    h_hat = torch.eye(10, dtype=torch.float64) + beta @ W_v.T
    a = (torch.tanh(h_hat @ V.T) @ w + log_n).softmax(1)
    return (a[:, None] @ h_hat)[:, 0] @ c + c_0


def signs(rule: Rule, counts: Tensor) -> Tensor:
    """1 for positive bags and -1 for negative ones, (B,)."""
    table = torch.tensor([[1.0 if rule(kind) else -1.0 for kind in row] for row in (({0}, {7}), ({9}, {9, 7}))])
    return table.double()[(counts[:, 9] > 0).long(), (counts[:, 7] > 0).long()]


def read(f: Answer) -> Weights:
    """The weights that the student's function returns.

    Raises:
        Wrong: if they are not seven tensors whose shapes fit together.
    """
    value = f.results(7, ", ".join(NAMES))
    try:
        weights = tuple(torch.as_tensor(x, dtype=torch.float64) for x in value)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"expected numbers, came {[describe(x) for x in value]}") from None
    m, p = (weights[i].shape[0] if weights[i].ndim else 0 for i in (0, 3))
    shapes = ((m, 10), (m, 10), (10, 10), (p, 10), (p,), (10,), ())
    for name, weight, shape in zip(NAMES, weights, shapes, strict=True):
        if weight.shape != shape or max(shape, default=0) > 100:
            raise Wrong(f"{name}: expected the shape {shape}, with m and p up to 100, came {tuple(weight.shape)}")
        if not weight.isfinite().all():
            raise Wrong(f"{name} is not finite")
    return weights


def hint(rule: Rule, weights: Weights) -> str:
    """What would mend the weights, tried on all bags of one to four digits; empty if nothing known does."""
    small = bags(4)
    label = signs(rule, small)
    for text, repair in REPAIRS.items():
        if (label * logits(small, repair(*weights)) > 0).all():
            return f" Hint: {text}."
    y = logits(small, weights)
    if y[label > 0].min() > y[label < 0].max():
        return " Hint: the logits are in the right order; another c_0 would do."
    pair = torch.tensor(
        [[0, 1, 0, 0, 0, 0, 0, x, 0, 1] for x in (0, 1)], dtype=torch.float64
    )  # 9 and 1, with a 7 or not
    without, beside = logits(pair, weights) > 0
    return " Hint: a 7 beside a 9 changes nothing; are only the 9s read?" if without == beside else ""


def by_hand(rule: Rule, right: str) -> Task:
    """The task for a rule."""

    def test(f: Answer, largest: int, margin: float = 0) -> None:
        weights, counts = read(f), bags(largest)
        y = signs(rule, counts) * logits(counts, weights)
        wrong = ~(y > 0)
        first = int(wrong.long().argmax() if wrong.any() else y.argmin())
        bag = [digit for digit in range(10) for _ in range(int(counts[first, digit]))]
        if wrong.any():
            raise Wrong(f"the bag {bag} comes out on the wrong side.{hint(rule, weights)}")
        if y[first] < margin:
            raise Wrong(f"the logit of the bag {bag} is only {float(y[first]):.2g} on the right side")

    styles = (right.translate(str.maketrans("97", "79")), right.replace("W_q[7, 9] = 20", "W_q[7] += 20"))
    write, ask = "W_v[0, 7] = 10", "W_q[7, 9] = 20"
    mistakes = (
        Mistake("return W_q, W_k, ", "return W_k, W_q, ", "queries and keys have changed roles"),
        Mistake(write, "W_v[7, 0] = 10", "what is found goes into the wrong coordinate"),
        Mistake("w, c, c_0\n", "w, -c, c_0\n", "the classifier has the wrong sign"),
        Mistake("w, c, c_0\n", "w, -c, -c_0\n", "every bag comes out the other way"),
        Mistake("w, c, c_0\n", "w, c, c_0 + 5\n", "another c_0 would do"),
        Mistake("return W_q,", "return W_q / 20,", "the self-attention is not sharp enough"),
        Mistake("[40.0, 20.0]", "[2.0, 1.0]", "the pooling is not sharp enough"),
        Mistake("[40.0, 20.0]", "[-40.0, -20.0]", "the pooling reads the other instances"),
        Mistake(write, "W_v[0, 0] = 0", "are only the 9s read?"),
        Mistake("w, c, c_0\n", "w, c / 20, c_0 / 20\n", "on the right side"),
        Mistake("return W_q, W_k, W_v, V,", "return W_q, W_k, W_v, V.T,", "V: expected the shape"),
        Mistake(", w, c, c_0\n", ", w, c\n", "expected 7 results"),
        Mistake(ask, "W_q[7, 9] = float('inf')", "W_q is not finite"),
    )
    parts = (
        Part(2, "bags of one to three digits", lambda f: test(f, 3)),
        Part(2, "bags of up to ten", lambda f: test(f, 10)),
        Part(1, "with a logit of at least 0.1 on the right side", lambda f: test(f, 10, MARGIN)),
    )
    return Task("weights by hand", "weights_by_hand", parts, right, styles, mistakes)
