"""Limits on instances: of a batch, whose cost they are, and of a bag in training."""

import hashlib
from typing import Any

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

    Coordinates and instance labels stay with their instances. The draw depends on PyTorch's seed and on which bags are
    looked at together, and leaves PyTorch's generator as it was: `fit` seeds each epoch anew, so each epoch sees others
    and a resumed run the same. Of bags on disk only the drawn rows are read where the file allows it.

    Args:
        bags: `Bags`, `FeatureBags`, or another source of bags that knows its `sizes`.
        max_instances: the most instances of a bag.
    """

    @checked(max_instances=at_least(1))
    def __init__(self, bags: Any, max_instances: int) -> None:
        if not hasattr(bags, "sizes"):
            raise ValueError(f"max_instances: expected bags that know their sizes, got {type(bags).__name__}")
        self.bags, self.max_instances = bags, max_instances
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
        kept = _drawn(sizes, self.max_instances, chosen)
        if hasattr(self.bags, "read"):
            return self.bags.read(chosen, kept)  # type: ignore[no-any-return]
        return _only(self.bags[chosen], kept)


def _drawn(sizes: Tensor, most: int, chosen: Tensor) -> Tensor:
    """Which instances (n,) of bags of these sizes are drawn."""
    text = f"{torch.initial_seed()} {chosen.tolist()}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return segment_rank(torch.rand(int(sizes.sum()), generator=torch.Generator().manual_seed(seed)), offsets) < most


def _only(bags: Bags, kept: Tensor) -> Bags:
    """The bags with the kept instances alone, at least one of each."""
    kept = kept.to(bags.device)
    before = torch.cat([kept.new_zeros(1, dtype=torch.long), kept.cumsum(0)])  # kept ones before each instance
    return Bags(
        bags.instances[kept],
        before[bags.offsets],
        bags.labels,
        None if bags.instance_labels is None else bags.instance_labels[kept],
        None if bags.coordinates is None else bags.coordinates[kept],
    )
