"""Bags for `samil_lite.audit`: a forbidden signal tells the label in training, and the opposite in the test.

The first three are the algorithmic unit tests of `Raff and Holt (2023) <https://openreview.net/forum?id=aZ44Na3l9p>`__,
written anew from the construction that their public notebook describes. Where a line of that notebook does not do what
its name says, `committed=True` draws what the line does and `committed=False` what it was meant to do. The fourth is
ours.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from samil_lite.arguments import at_least, checked
from samil_lite.bags import Bags

FEATURES = 16
Counts = dict[str, Tensor]  # of each kind of instance, its number in each bag, shape (n,)


@checked(n_train=at_least(1), n_test=at_least(1), seed=at_least(0))
def single_concept(n_train: int = 10_000, n_test: int = 1_000, seed: int = 0, *, committed: bool = False,
                   size: int | None = None) -> tuple[Bags, Bags]:  # fmt: skip
    """Positive bags hold an indicator; poison is in every negative bag in training, in every positive one in the test.

    Positive bags have one to three indicators and one to four background instances, negative bags one to nine. A model
    that learns "poison means negative" breaks the standard assumption, by which no instance can make a bag negative.

    Args:
        n_train: number of training bags, half of them positive.
        n_test: number of test bags, half of them positive.
        seed: the same seed draws the same bags.
        committed: an indicator is N(0, 9) always, as the public line draws it; else N(0, 9) or N(1, 1), evenly.
        size: fills every bag with background to so many instances instead of a random number; the public run has 45.

    Returns:
        Training and test bags with instances (N, 16), labels (B,) and the kind of each instance in `instance_labels`:
        0 background, 1 poison, 2 subtle indicator, 3 shifted indicator.
    """
    kinds = {"background": (0.0, 1.0), "poison": (-10.0, 0.1), "subtle": (0.0, 3.0), "shifted": (1.0, 1.0)}

    def draw(rng: Generator, n: int, positive: bool, training: bool) -> Counts:
        counts = {"poison": _uniform(rng, 1, 1, n) * int(positive != training)}
        if positive:
            indicators = _uniform(rng, 1, 3, n)
            shifted = torch.zeros_like(indicators) if committed else _thinned(rng, indicators, 1 / 2)
            counts |= {"subtle": indicators - shifted, "shifted": shifted}
        return counts | {"background": _uniform(rng, 1, 4 if positive else 9, n)}

    return _trial(draw, kinds, n_train, n_test, seed, size)


@checked(n_train=at_least(1), n_test=at_least(1), seed=at_least(0))
def multi_concept(n_train: int = 10_000, n_test: int = 1_000, seed: int = 0, *, committed: bool = False,
                  size: int | None = None) -> tuple[Bags, Bags]:  # fmt: skip
    """Positive bags hold concepts A and B; poison goes with negative bags in training, with positive in the test.

    Positive bags have one to four A and as many B; negative bags one A, one B, or neither, evenly. One positive
    training bag in ten has poison too. A model may count neither poison nor the number of instances.

    Args:
        n_train, n_test, seed, size: as in `single_concept`.
        committed: a negative *test* bag always has an A or a B, as in the public notebook.

    Returns:
        As `single_concept`; kinds of instances: 0 background, 1 poison, 2 A, 3 B.
    """
    kinds = {"background": (0.0, 1.0), "poison": (-10.0, 0.1), "A": (2.0, 0.1), "B": (3.0, 0.1)}

    def draw(rng: Generator, n: int, positive: bool, training: bool) -> Counts:
        background = _uniform(rng, 1, 4, n)
        if positive:
            a, b = _uniform(rng, 1, 4, n), _uniform(rng, 1, 4, n)
            poison = _thinned(rng, torch.ones_like(a), 1 / 10) if training else torch.ones_like(a)
        else:
            which = _uniform(rng, 0, 1 if committed and not training else 2, n)  # A, B, neither
            a, b, poison = (which == 0).long(), (which == 1).long(), torch.full_like(which, int(training))
        return {"background": background, "poison": poison, "A": a, "B": b}

    return _trial(draw, kinds, n_train, n_test, seed, size)


@checked(n_train=at_least(1), n_test=at_least(1), seed=at_least(0))
def false_frequency(n_train: int = 10_000, n_test: int = 1_000, seed: int = 0, *, committed: bool = False,
                    size: int | None = None) -> tuple[Bags, Bags]:  # fmt: skip
    """A bag is positive if it holds one A and one B; a negative test bag has 35 to 39 copies of one of them.

    In training negative bags have one A or one B, so a model that adds up how often either occurs is right there and
    wrong in the test. A bag also has one to nine background instances.

    Args:
        n_train, n_test, seed, size: as in `single_concept`. A test bag that has more instances already stays as it is.
        committed: copies in the test are of A with probability 4/9, as in the public notebook; else 1/2.

    Returns:
        As `single_concept`; kinds of instances: 0 background, 1 A, 2 B.
    """
    kinds = {"background": (0.0, 1.0), "A": (-2.0, 0.1), "B": (2.0, 0.1)}

    def draw(rng: Generator, n: int, positive: bool, training: bool) -> Counts:
        counts = {"background": _uniform(rng, 1, 9, n)}
        if positive:
            return counts | {"A": _uniform(rng, 1, 1, n), "B": _uniform(rng, 1, 1, n)}
        copies = _uniform(rng, 1, 1, n) if training else _uniform(rng, 35, 39, n)
        share = 4 / 9 if committed and not training else 1 / 2
        a = copies * _thinned(rng, torch.ones_like(copies), share)
        return counts | {"A": a, "B": copies - a}

    return _trial(draw, kinds, n_train, n_test, seed, size)


@checked(n_train=at_least(1), n_test=at_least(1), seed=at_least(0))
def bag_size(n_train: int = 10_000, n_test: int = 1_000, seed: int = 0) -> tuple[Bags, Bags]:
    """Noise of which positive training bags have 10 to 18 instances, negative ones 1 to 9; the reverse in the test.

    No instance says anything, so whatever is learned here is learned from the number of instances. The right outcome
    is that nothing is learned. Arguments and returns as `single_concept`; all instances are of kind 0.
    """

    def draw(rng: Generator, n: int, positive: bool, training: bool) -> Counts:
        return {"background": _uniform(rng, 1, 9, n) + 9 * int(positive == training)}

    return _trial(draw, {"background": (0.0, 1.0)}, n_train, n_test, seed, None)


def _trial(draw: Callable[[Generator, int, bool, bool], Counts], kinds: dict[str, tuple[float, float]], n_train: int,
           n_test: int, seed: int, size: int | None) -> tuple[Bags, Bags]:  # fmt: skip
    for name, n in (("n_train", n_train), ("n_test", n_test)):
        if not isinstance(n, int) or n < 2:
            raise ValueError(f"{name}: expected at least 2 bags, one of each label, got {n!r}")
    if size is not None and size < 1:
        raise ValueError(f"size: expected a number of instances above 0, or None, got {size}")
    rng = torch.Generator().manual_seed(seed)
    parts = []
    for n, training in ((n_train, True), (n_test, False)):
        halves = [draw(rng, half, positive, training) for half, positive in ((n - n // 2, False), (n // 2, True))]
        none = [torch.zeros(half, dtype=torch.long) for half in (n - n // 2, n // 2)]
        columns = [torch.cat([h.get(kind, z) for h, z in zip(halves, none, strict=True)]) for kind in kinds]
        counts = torch.stack(columns, 1)  # (B, kinds), background first
        if size is not None:
            counts[:, 0] = (size - counts[:, 1:].sum(1)).clamp_min(0)
        labels = (torch.arange(n) >= n - n // 2).long()
        parts.append(_fill(counts, labels, kinds, rng))
    return parts[0], parts[1]


def _fill(counts: Tensor, labels: Tensor, kinds: dict[str, tuple[float, float]], rng: Generator) -> Bags:
    """Draws the instances that `counts` (B, kinds) ask for; bags come in random order."""
    order = torch.randperm(len(counts), generator=rng)
    counts = counts[order]
    kind = torch.arange(counts.shape[1]).repeat(len(counts)).repeat_interleave(counts.flatten())  # (N,)
    mean, deviation = torch.tensor(list(kinds.values())).unbind(1)  # (kinds,), (kinds,)
    x = mean[kind, None] + deviation[kind, None] * torch.randn(len(kind), FEATURES, generator=rng)  # (N, 16)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.sum(1).cumsum(0)])  # (B + 1,)
    return Bags(x, offsets, labels[order], instance_labels=kind)


def _uniform(rng: Generator, low: int, high: int, n: int) -> Tensor:
    """n whole numbers from low to high, both included."""
    return torch.randint(low, high + 1, (n,), generator=rng)


def _thinned(rng: Generator, counts: Tensor, share: float) -> Tensor:
    """How many of `counts` remain if each is kept with probability `share`."""
    return torch.binomial(counts.float(), torch.full(counts.shape, share), generator=rng).long()
