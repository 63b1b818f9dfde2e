"""Assignment 1, attention pooling from scratch: what is tested, and the mistakes that are known."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course.answers import Answer, Assignment, Mistake, Part, Task, Wrong
from course.release import answers
from course.variants import VARIANTS, variant

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
SCORES: list[Score] = [
    lambda h, V, w: (V @ h).tanh() @ w,
    lambda h, V, w: ((V @ h).tanh() * (V @ h).sigmoid()) @ w,
    lambda h, V, w: nn.functional.softplus(V @ h) @ w,
    lambda h, V, w: -torch.linalg.vector_norm(V @ h - w, 1),
]  # of one instance h (d,)
BY_HAND = {"which weights can be read as reasons": 4}

DRIVER = '''
def drive(V, w, c, h, offsets, labels, steps):
    """Losses (steps,) of a model that starts with these numbers, and its V, w and classifier after the steps."""
    model = AttentionMIL(h.shape[1], len(w))
    with torch.no_grad():
        model.V.copy_(V), model.w.copy_(w), model.classifier.weight.copy_(c[None]), model.classifier.bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    losses = [torch.as_tensor(train_step(model, optimizer, h, offsets, labels)).detach() for _ in range(steps)]
    return torch.stack(losses), model.V.detach(), model.w.detach(), model.classifier.weight.detach()[0]
'''


def assignment(seed: int) -> Assignment:
    """The tasks, with the seed's score."""
    score = SCORES[seed % len(SCORES)]
    right, code = answers("a1", seed), variant("a1", seed)["score"]
    others = [v["score"] for v in VARIANTS["a1"] if v["score"] != code]
    return Assignment(
        (
            _weights(score, right["attention_weights"], code, others),
            _ragged(score, right["attention_pool"], code, others),
            _padded(score, right["padded_pool"], code),
            _gradient(right["pooling_gradient"]),
            _step(score, right["train_step"], code),
        ),
        BY_HAND,
    )


def _weights(score: Score, right: str, code: str, others: list[str]) -> Task:
    def one_bag(h: Tensor, V: Tensor, w: Tensor) -> Tensor:
        e = torch.stack([score(x, V, w) for x in h])
        p = (e - e.max()).exp()
        return p / p.sum()

    def values(f: Answer) -> None:
        for number, (n, d, m) in enumerate([(1, 3, 3), (17, 5, 4), (40, 2, 9)]):
            for dtype in (torch.float64, torch.float32):
                h, V, w = f.random(number, (n, d), (m, d), (m,), dtype=dtype)
                f.agrees(one_bag, h, V, w, what=f"a bag of {n} with d = {d} and m = {m}, {dtype}")

    def large(f: Answer) -> None:
        h, V, w = f.random(4, (5, 2), (3, 2), (3,), dtype=torch.float32)
        f.agrees(one_bag, h, V, w, what="small scores")
        for factor in (3e4, -3e4):
            f.agrees(one_bag, h, V, factor * w, what="scores of many thousands")

    def slopes(f: Answer) -> None:
        f.agrees(one_bag, *f.random(3, (8, 4), (3, 4), (3,)), what="a bag of 8", grad=True)

    softmax = "return e.softmax(0)"
    start = 'one bag; V is (m, d), w is (m,)."""\n'
    styles = (
        f"def attention_weights(h, V, w):\n    return torch.softmax({code}, dim=-1)",
        f"def scores(h, V, w):\n    return {code}\n\ndef attention_weights(h, V, w):\n    e = scores(h, V, w)\n"
        "    p = torch.exp(e - e.max())\n    return p / p.sum()",
    )
    mistakes = (
        Mistake(softmax, "return e[:, None].softmax(1)[:, 0]", "the softmax runs over an axis of length one"),
        Mistake(softmax, "return e", "these are the scores; the softmax is missing"),
        Mistake(softmax, "return e / e.sum()", "dividing by the sum is no softmax: the exponential is missing"),
        Mistake(softmax, "return e.exp() / e.exp().sum()", "the exponential overflows; subtract the largest score"),
        Mistake(softmax, "return e.sigmoid()", "a sigmoid of each score does not let the instances compete"),
        Mistake(softmax, "return e.softmax(0).detach()", "something is detached"),
        Mistake(code, "(h @ V.T) @ w", "the function between V and w is missing"),
        Mistake(code, "torch.tanh((h @ V.T) @ w)", "the nonlinear function belongs between V and w"),
        Mistake(code, "torch.sigmoid(h @ V.T) @ w", "this is the sigmoid, not this assignment's function"),
        *(Mistake(code, other, "this is another score than the one of this assignment") for other in others),
        Mistake(start, start + "    h -= h.mean(0)\n", "the instances are centred in place; the caller's h changes"),
    )
    parts = (
        Part(1, "values at other sizes and types", values),
        Part(1, "scores of many thousands", large),
        Part(1, "gradients", slopes),
    )
    return Task("weights", "attention_weights", parts, right, styles, mistakes)


def _loop(score: Score, h: Tensor, offsets: Tensor, V: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    bags = h.split(offsets.diff().tolist())
    a = [torch.stack([score(x, V, w) for x in bag]).softmax(0) for bag in bags]
    return torch.stack([b @ bag for b, bag in zip(a, bags, strict=True)]), torch.cat(a)


def _ragged(score: Score, right: str, code: str, others: list[str]) -> Task:
    def by_loop(h: Tensor, offsets: Tensor, V: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return _loop(score, h, offsets, V, w)

    def values(f: Answer) -> None:
        for number, (sizes, dtype) in enumerate(
            [([1], torch.float64), ([3, 1, 9, 2], torch.float32), ([30, 5], torch.float64)]
        ):
            h, V, w = f.random(10 + number, (sum(sizes), 4), (5, 4), (5,), dtype=dtype)
            f.agrees(by_loop, h, _offsets(sizes), V, w, what=f"bags of {sizes}")

    def slopes(f: Answer) -> None:
        h, V, w = f.random(20, (9, 3), (4, 3), (4,))
        f.agrees(by_loop, h, _offsets([4, 1, 4]), V, w, what="bags of [4, 1, 4]", grad=True)

    pooled = "z = torch.stack([x @ y for x, y in pairs])"
    styles = (
        f"def attention_pool(h, offsets, V, w):\n    e = {code}\n"
        "    index = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())\n"
        "    top = e.new_full((len(offsets) - 1,), -torch.inf).scatter_reduce(0, index, e.detach(), 'amax')\n"
        "    p = (e - top[index]).exp()\n    a = p / torch.zeros_like(top).index_add(0, index, p)[index]\n"
        "    return h.new_zeros(len(top), h.shape[1]).index_add(0, index, a[:, None] * h), a",
        f"def score(h, V, w):\n    return {code}\n\ndef attention_pool(h, offsets, V, w):\n    z, a = [], []\n"
        "    for b in range(len(offsets) - 1):\n        bag = h[offsets[b]:offsets[b + 1]]\n"
        "        p = torch.softmax(score(bag, V, w), 0)\n        a.append(p)\n        z.append((p[:, None] * bag).sum(0))\n"
        "    return torch.stack(z), torch.cat(a)",
    )
    mistakes = (
        Mistake("torch.cat([x.softmax(0) for x in e.split(sizes)])", "e.softmax(0)", "one softmax over all rows; each bag needs its own"),
        Mistake("x @ y for", "y.mean(0) for", "z is the plain mean; the weights are not used"),
        Mistake(pooled, "z = a[:, None] * h", "the weighted rows are not summed over each bag"),
        Mistake("x @ y for", "(x[:, None] * y).mean(0) for", "a weighted sum, not the mean of the weighted rows"),
        Mistake(pooled, "z = torch.stack([a[i : j - 1] @ h[i : j - 1] for i, j in zip(offsets, offsets[1:])])", "offsets[b + 1] is the first row of the next bag; a slice leaves it out by itself"),
        Mistake("return z, a", "h.data *= a[:, None]\n    return z, a", "the rows of the caller's h are multiplied by their weights in place"),
        Mistake("e.split(sizes)", "e.detach().split(sizes)", "the scores are detached, so V and w learn nothing"),
        Mistake("return z, a", "return z, e", "the second result is the scores, not the weights"),
        *(Mistake(code, other, "this is another score than the one of this assignment") for other in others),
    )  # fmt: skip
    parts = (
        Part(2, "values for other bags", values),
        Part(2, "gradients, arguments left as they were", slopes),
    )
    return Task("ragged", "attention_pool", parts, right, styles, mistakes)


def _padded(score: Score, right: str, code: str) -> Task:
    def unpadded(x: Tensor, mask: Tensor, V: Tensor, w: Tensor) -> Tensor:
        sizes = mask.sum(1).tolist()
        return _loop(score, x[mask], _offsets(sizes), V, w)[0]

    def filled(f: Answer, fillers: tuple[float, ...]) -> None:
        for number, (rows, dtype) in enumerate([([7, 1, 4], torch.float32), ([2, 5], torch.float64)]):
            x, V, w = f.random(30 + number, (len(rows), 7, 5), (6, 5), (6,), dtype=dtype)
            mask = torch.arange(7) < torch.tensor(rows)[:, None]
            mask[-1] = mask[-1].flip(0)  # real rows may stand anywhere
            for filler in fillers:
                f.agrees(
                    unpadded, torch.where(mask[..., None], x, filler), mask, V, w, what=f"{filler:g} in the padding"
                )

    whole = right[right.index("h = x.masked_fill") :]
    cleared = "h = x.masked_fill(~mask[..., None], 0)  # (B, n, d), whatever stood there"
    masked = "e.masked_fill(~mask, -torch.inf).softmax(1)"
    styles = (
        f"def padded_pool(x, mask, V, w):\n    def score(h, V, w):\n        return {code}\n"
        "    z = []\n    for rows, real in zip(x, mask):\n        bag = rows[real]\n"
        "        z.append(torch.softmax(score(bag, V, w), 0) @ bag)\n    return torch.stack(z)",
        f"def padded_pool(x, mask, V, w):\n    h = torch.where(mask.unsqueeze(-1), x, torch.zeros_like(x))\n"
        f"    e = torch.where(mask, {code}, torch.full_like(h[..., 0], -1e30))\n"
        "    p = (e - e.amax(1, keepdim=True)).exp() * mask\n"
        "    return torch.einsum('bn,bnd->bd', p / p.sum(1, keepdim=True), h)",
    )
    mistakes = (
        Mistake(cleared, "h = x", "0 times nan is nan; clear the padded rows as well"),
        Mistake(whole, whole.replace(cleared, "h = x").replace(masked, "e.softmax(1) * mask"), "padded rows get weight in the softmax; the mask must act on the scores, before it"),
        Mistake(whole, whole.replace(cleared, "h = x").replace(masked, "(e * mask).softmax(1)"), "a score of 0 is not a weight of 0; padded scores must be minus infinity"),
        Mistake(whole, whole.replace(cleared, "h = x").replace(masked, "e.softmax(1)"), "padded rows get weight in the softmax; the mask must act on the scores, before it"),
        Mistake(masked, "e.softmax(1)", "clearing the padded rows is not enough: the softmax still gives them weight"),
        Mistake(masked, "e.masked_fill(mask, -torch.inf).softmax(1)", "the mask is the wrong way round"),
        Mistake(masked, "e.masked_fill(~mask, -torch.inf).softmax(0)", "the softmax runs over the bags, not over the instances"),
        Mistake("(a[..., None] * h).sum(1)", "(a[..., None] * h).mean(1)", "a weighted sum, not the mean of the weighted rows"),
        Mistake("x.masked_fill(", "x.masked_fill_(", "masked_fill_ with the underscore changes the caller's x"),
    )  # fmt: skip
    parts = (
        Part(2, "padding of 0 and of 1000", lambda f: filled(f, (1e3, 0.0))),
        Part(1, "nan in the padding", lambda f: filled(f, (0.0, float("nan")))),
    )
    return Task("padded", "padded_pool", parts, right, styles, mistakes)


def _gradient(right: str) -> Task:
    def by_autograd(h: Tensor, e: Tensor) -> Tensor:
        rows = torch.autograd.functional.jacobian(lambda x: x.softmax(0) @ h, e)  # (d, n)
        return torch.as_tensor(rows.T.contiguous())

    def values(f: Answer) -> None:
        for number, (n, d, dtype) in enumerate([(6, 6, torch.float64), (3, 8, torch.float32), (25, 1, torch.float64)]):
            f.agrees(by_autograd, *f.random(40 + number, (n, d), (n,), dtype=dtype), what=f"n = {n}, d = {d}, {dtype}")

    def sums(f: Answer) -> None:
        for n in (2, 9):
            h, e = f.random(50 + n, (n, 4), (n,))
            f.agrees(by_autograd, h, e, what=f"a bag of {n}")
            total = f.value(h, e).sum(0)
            if total.abs().max() > 1e-8:
                raise Wrong("adding the same number to all scores changes nothing, so the rows must sum to zero")

    def alone(f: Answer) -> None:
        f.agrees(by_autograd, *f.random(60, (1, 3), (1,)), what="a bag of one, whose weight is always 1")
        f.agrees(by_autograd, *f.random(61, (4, 3), (4,)), what="a bag of four")

    formula = "return a[:, None] * (h - z)"
    styles = (
        "def pooling_gradient(h, e):\n    a = torch.softmax(e, 0)\n    J = torch.diag(a) - torch.outer(a, a)\n    return J @ h",
        "def pooling_gradient(h, e):\n    a = torch.softmax(e, -1)\n    z = sum(p * x for p, x in zip(a, h))\n"
        "    return torch.stack([p * (x - z) for p, x in zip(a, h)])",
    )
    mistakes = (
        Mistake(formula, "return a[:, None] * h", "the denominator of the softmax depends on e too: −a aᵀ is missing"),
        Mistake(formula, "return (a[:, None] * (h - z)).T", "transposed: there should be a row for each score"),
        Mistake(formula, "return a[:, None] * (h - h.mean(0))", "h is centred on the plain mean, not on z"),
        Mistake(formula, "return h - z", "the factor a_i is missing"),
        Mistake(formula, "return a[:, None] * (h - h.sum(0))", "the sum of the rows stands where the weighted sum z belongs"),
        Mistake(formula, "return a[:, None] * (z - h)", "the sign is wrong: a larger score pulls z towards h_i"),
        Mistake(formula, "return a[:, None] * (1 - a[:, None]) * h", "a_i (1 − a_i) h_i forgets that the other weights fall when this one rises"),
        Mistake(formula, "h -= z\n    return a[:, None] * h", "h is centred in place; the caller's h changes"),
    )  # fmt: skip
    parts = (
        Part(2, "values at three sizes", values),
        Part(1, "the rows sum to zero", sums),
        Part(1, "a bag of one", alone),
    )
    return Task("gradient", "pooling_gradient", parts, right, styles, mistakes)


def _step(score: Score, right: str, code: str) -> Task:
    def by_hand(V: Tensor, w: Tensor, c: Tensor, h: Tensor, offsets: Tensor, labels: Tensor, steps: int):  # type: ignore[no-untyped-def]
        b, losses = c.new_zeros(()), []

        def loss(V: Tensor, w: Tensor, c: Tensor, b: Tensor) -> Tensor:
            u = _loop(score, h, offsets, V, w)[0] @ c + b
            return (nn.functional.softplus(u) - labels * u).mean()

        for _ in range(steps):
            leaves = [x.detach().requires_grad_() for x in (V, w, c, b)]
            losses.append(loss(*leaves))
            slopes = torch.autograd.grad(losses[-1], leaves)
            V, w, c, b = (x.detach() - 0.3 * g for x, g in zip(leaves, slopes, strict=True))
        return torch.stack(losses).detach(), V, w, c

    def agree(f: Answer, number: int, sizes: list[int], labels: list[int], steps: int, what: str) -> None:
        V, w, c, h = f.random(number, (4, 3), (4,), (3,), (sum(sizes), 3), dtype=torch.float32)
        args = (V, w, c, h, _offsets(sizes), torch.tensor(labels), steps)
        f.agrees(by_hand, *args, what=what, tolerance=1e-4)

    styles = (
        "def bag_vectors(h, offsets, V, w):\n"
        f"    e = {code}\n"
        "    index = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())\n"
        "    same = index[:, None] == index\n"
        "    a = torch.where(same, e, torch.full_like(e, -torch.inf)).softmax(1).diagonal()\n"
        "    return torch.zeros(len(offsets) - 1, h.shape[1]).index_add(0, index, a[:, None] * h)\n\n"
        "class AttentionMIL(torch.nn.Module):\n    def __init__(self, d, m):\n        super().__init__()\n"
        "        self.V = torch.nn.Parameter(torch.rand(m, d) - 0.5)\n        self.w = torch.nn.Parameter(torch.rand(m) - 0.5)\n"
        "        self.classifier = torch.nn.Linear(d, 1)\n\n    def forward(self, h, offsets):\n"
        "        return self.classifier(bag_vectors(h, offsets, self.V, self.w)).view(-1)\n\n"
        "def train_step(model, optimizer, h, offsets, labels):\n    optimizer.zero_grad()\n"
        "    criterion = torch.nn.BCEWithLogitsLoss()\n    loss = criterion(model(h, offsets), labels.to(h.dtype))\n"
        "    loss.backward()\n    optimizer.step()\n    return loss.item()",
        right.replace("nn.functional.binary_cross_entropy_with_logits(logits, labels.float())",
            "-torch.where(labels == 1, nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)).mean()"),
    )  # fmt: skip
    logits, cross = (
        "nn.functional.binary_cross_entropy_with_logits(logits, labels.float())",
        "binary_cross_entropy_with_logits",
    )
    pooled = "return torch.stack([s.softmax(0) @ x for s, x in bags])"
    mistakes = (
        Mistake(f"{cross}(logits,", f"{cross}(logits.sigmoid(),", "the loss takes logits; here a sigmoid comes before it as well"),
        Mistake(logits, logits.replace("labels.float())", 'labels.float(), reduction="sum")'), "the loss is a sum over the bags, not their mean"),
        Mistake("    optimizer.zero_grad()\n", "", "zero_grad is missing, so gradients of earlier steps are added"),
        Mistake("self.classifier(z)", "self.classifier(z.detach())", "z is detached, so V and w learn nothing"),
        Mistake(pooled, "return torch.stack([x.mean(0) + 0 * s.sum() for s, x in bags])", "z is the plain mean of the rows"),
        Mistake("    loss.backward()\n    optimizer.step()\n", "    optimizer.step()\n    loss.backward()\n", "there is no step after backward, or the gradients are zeroed before it"),
        Mistake("labels.float()", "(1 - labels).float()", "the labels 0 and 1 have changed places"),
        Mistake("return loss.detach()", "return nn.functional.binary_cross_entropy_with_logits(model(h, offsets), labels.float()).detach()", "this is the loss after the step"),
        Mistake(pooled, pooled.replace("s.softmax(0)", "(s - e.logsumexp(0)).exp()"), "one softmax over all bags; each needs its own"),
    )  # fmt: skip
    parts = (
        Part(1, "the loss before the first step", lambda f: agree(f, 70, [3, 1, 6], [1, 0, 1], 1, "the loss, and one step")),
        Part(2, "three steps", lambda f: agree(f, 71, [2, 5, 4, 1], [0, 1, 1, 0], 3, "three steps on four bags")),
        Part(1, "one bag of one instance", lambda f: agree(f, 72, [1], [1], 2, "a batch of one bag of one")),
    )  # fmt: skip
    return Task("step", "train_step", parts, right, styles, mistakes, DRIVER)


def _offsets(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)
