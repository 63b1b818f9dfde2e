"""Sums, means, maxima, ranks and softmax over the bags of a ragged batch, without a loop over bags.

Bag b is the *segment* of rows offsets[b] … offsets[b + 1] - 1 of a flat tensor.
"""

import torch
from torch import Tensor


def check_offsets(offsets: Tensor, n: int, wait: bool = True) -> None:
    """Raises ValueError unless `offsets` cut `n` instances into bags of at least one instance.

    Without `wait`, offsets on a GPU are checked there, so that nobody waits for it: CUDA's own error, some time later.
    """
    if not isinstance(offsets, Tensor):
        raise ValueError(f"offsets: expected a tensor of B + 1 integers, got {type(offsets).__name__}")
    if offsets.ndim != 1 or len(offsets) < 2 or offsets.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"offsets: expected a vector of B + 1 integers, got {offsets.dtype} of shape {tuple(offsets.shape)}"
        )
    if torch.compiler.is_compiling():  # looking at values would break the graph
        return
    if offsets.is_cuda and not wait:
        right = (offsets[0] == 0) & (offsets[-1] == n) & (offsets.diff() >= 1).all()
        torch._assert_async(right, f"offsets: expected ascending offsets, first 0 and last {n}")
        return
    first, last, shortest = torch.stack([offsets[0], offsets[-1], offsets.diff().min()]).tolist()  # one wait, not three
    if first != 0 or last != n:
        raise ValueError(f"offsets: expected first 0 and last {n} (the number of instances), got {first} and {last}")
    if shortest < 1:
        bag = int(offsets.diff().argmin())
        what = "is empty" if shortest == 0 else "descends"
        raise ValueError(
            f"offsets: expected ascending offsets, but bag {bag} {what}: {offsets[bag : bag + 2].tolist()}"
        )


def bag_index(offsets: Tensor, n: int) -> Tensor:
    """Number of the bag that each of the n instances belongs to, shape (N,)."""
    bags = torch.arange(len(offsets) - 1, device=offsets.device)
    return torch.repeat_interleave(bags, offsets.diff(), output_size=n)


def pad(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Padded bags (B, n_max, …), zero where there is no instance, and the mask (B, n_max), True at instances.

    `padded[mask]` gives the rows (N, …) back.
    """
    sizes = offsets.diff()
    n_max = int(sizes.max())
    mask = torch.arange(n_max, device=x.device) < sizes[:, None]  # (B, n_max)
    padded = x.new_zeros(len(sizes), n_max, *x.shape[1:])  # (B, n_max, …)
    padded[mask] = x
    return padded, mask


def segment_sum(x: Tensor, offsets: Tensor) -> Tensor:
    """Sum over each bag: (N, …) -> (B, …)."""
    out = x.new_zeros(len(offsets) - 1, *x.shape[1:])  # (B, …)
    return out.index_add(0, bag_index(offsets, len(x)), x)


def segment_mean(x: Tensor, offsets: Tensor) -> Tensor:
    """Mean over each bag: (N, …) -> (B, …)."""
    sizes = offsets.diff().to(x.dtype)
    return segment_sum(x, offsets) / sizes.view(-1, *[1] * (x.ndim - 1))


def segment_max(x: Tensor, offsets: Tensor) -> Tensor:
    """Maximum over each bag: (N, …) -> (B, …). Instances that tie share the gradient equally."""
    out = x.new_zeros(len(offsets) - 1, *x.shape[1:])  # (B, …)
    index = bag_index(offsets, len(x)).view(-1, *[1] * (x.ndim - 1)).expand_as(x)  # (N, …)
    return out.scatter_reduce(0, index, x, "amax", include_self=False)


def segment_rank(x: Tensor, offsets: Tensor) -> Tensor:
    """Place of each instance in its bag by descending value, from 0: (N,) -> (N,). Equals stay in their order."""
    bag = bag_index(offsets, len(x))  # (N,)
    order = x.argsort(descending=True, stable=True)
    order = order[bag[order].argsort(stable=True)]  # bag after bag
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - offsets[:-1][bag]
    return place


def segment_softmax(x: Tensor, offsets: Tensor) -> Tensor:
    """Softmax over each bag: (N, …) -> (N, …), every column of every bag sums to one.

    The largest logit of the bag is subtracted first, so no exponent is positive. It is a constant to
    autograd: softmax does not change when all logits shift, so its true gradient is zero.
    Half precision is computed in float32.
    """
    index = bag_index(offsets, len(x))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    with torch.no_grad():
        largest = segment_max(wide, offsets)  # (B, …)
    e = (wide - largest[index]).exp()  # (N, …)
    return (e / segment_sum(e, offsets)[index]).to(x.dtype)


def segment_logsumexp(x: Tensor, offsets: Tensor) -> Tensor:
    """log Σ exp over each bag: (N, …) -> (B, …), stable in the same way as `segment_softmax`."""
    with torch.no_grad():
        largest = segment_max(x, offsets)  # (B, …)
    e = (x - largest[bag_index(offsets, len(x))]).exp()  # (N, …)
    return segment_sum(e, offsets).log() + largest
