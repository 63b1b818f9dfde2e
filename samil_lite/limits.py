"""Limits on instances: of a batch, whose cost they are, and of a bag in training."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samil_lite.arguments import at_least, checked
from samil_lite.bags import Bags, Key, chosen_bags
from samil_lite.segments import segment_rank

BAGS, INSTANCES = 32, 2**14  # of a batch in prediction, unless one bag has more


def steps_within(bags: Any, bags_per_step: int | None = None) -> tuple[Tensor, ...]:
    """Numbers of the bags of each step, in order: so many bags, or as many as have no more than `INSTANCES`.

    Args:
        bags: a source of bags. If it does not know its `sizes`, the mean of its instances stands for each.
        bags_per_step: None: at most `BAGS` of at most `INSTANCES` in all, but one bag at least.
    """
    numbers = torch.arange(len(bags))
    if bags_per_step is not None:
        return tuple(numbers.split(bags_per_step))
    sizes = getattr(bags, "sizes", None)
    each = [-(-bags.n_instances // len(bags))] * len(bags) if sizes is None else sizes.tolist()
    counts, held = [0], 0
    for n in each:
        if counts[-1] and (held + n > INSTANCES or counts[-1] == BAGS):
            counts.append(0)
            held = 0
        counts[-1] += 1
        held += n
    return tuple(numbers.split(counts))


class Limited:
    """Bags of which each look takes at most so many instances a bag, drawn without replacement, in their order.

    Coordinates and instance labels stay with their instances. What is drawn of a bag depends on the seed and on the
    bag's number alone, so processes that share out a step's bags draw what one process would. `fit` gives each epoch
    another seed: each epoch sees others and a resumed run the same. Of bags on disk only the drawn rows are read where
    the file allows it.

    Args:
        bags: `Bags`, `FeatureBags`, or another source of bags that knows its `sizes`.
        max_instances: the most instances of a bag.
        seed: None: PyTorch's seed at each look; its generator stays as it was.
    """

    @checked(max_instances=at_least(1))
    def __init__(self, bags: Any, max_instances: int, seed: int | None = None) -> None:
        if not hasattr(bags, "sizes"):
            raise ValueError(f"max_instances: expected bags that know their sizes, got {type(bags).__name__}")
        self.bags, self.max_instances, self.seed = bags, max_instances, seed
        self.labels: Tensor | None = bags.labels
        self.sizes: Tensor = bags.sizes.clamp_max(max_instances)
        self.n_instances = int(self.sizes.sum())
        self.read_ahead = getattr(bags, "read_ahead", False)

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, key: Key) -> Bags:
        chosen = chosen_bags(key, len(self))
        sizes = self.bags.sizes[chosen].cpu()
        if (sizes <= self.max_instances).all():
            return self.bags[chosen]  # type: ignore[no-any-return]
        seed = torch.initial_seed() if self.seed is None else self.seed
        kept = _drawn(sizes, self.max_instances, chosen, seed)
        if hasattr(self.bags, "read"):
            return self.bags.read(chosen, kept)  # type: ignore[no-any-return]
        return _only(self.bags[chosen], kept)


def _drawn(sizes: Tensor, most: int, chosen: Tensor, seed: int) -> Tensor:
    """Which instances (n,) of bags of these sizes and numbers are drawn."""
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    bags = zip(chosen.tolist(), sizes.tolist(), strict=True)
    draws = [np.random.Generator(np.random.Philox(key=[seed % 2**64, b])).random(n) for b, n in bags]
    return segment_rank(torch.from_numpy(np.concatenate(draws)), offsets) < most


def _only(bags: Bags, kept: Tensor) -> Bags:
    """The bags with the kept instances alone, at least one of each."""
    kept = kept.to(bags.device)
    before = torch.cat([kept.new_zeros(1, dtype=torch.long), kept.cumsum(0)])  # kept ones before each instance
    return replace(
        bags,
        instances=bags.instances[kept],
        offsets=before[bags.offsets],
        instance_labels=None if bags.instance_labels is None else bags.instance_labels[kept],
        coordinates=None if bags.coordinates is None else bags.coordinates[kept],
    )
