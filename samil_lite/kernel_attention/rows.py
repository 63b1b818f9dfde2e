"""Attention for pictures: some rows of β, or the mean of each column, without the n × n numbers of all."""

from collections.abc import Iterator

import torch
from torch import Tensor

from samil_lite.arguments import shown
from samil_lite.kernel_attention.arguments import as_alpha, check, one_bag
from samil_lite.kernel_attention.blockwise import blocks, features, scores
from samil_lite.kernels import Kernel, as_kernel

ROWS = 64  # of β at a time


def attention_rows(
    q: Tensor,
    k: Tensor,
    indices: Tensor,
    kernel: str | Kernel = "dot",
    alpha: Tensor | float | None = None,
    offsets: Tensor | None = None,
) -> list[Tensor]:
    """β of some queries only: how each of them divides its attention over its bag.

    Args:
        q: queries, shape (N, d_qk).
        k: keys, shape (N, d_qk).
        indices: numbers of instances, shape (m,), counted over the whole batch.
        kernel: as in `kernel_attention`.
        alpha: as in `kernel_attention`.
        offsets: where each bag begins, shape (B + 1,); one bag if None.

    Returns:
        For each index the weights of its bag's instances, shape (n_b,), of sum one. They carry no gradient.

    Raises:
        ValueError: as `kernel_attention`; and if an index is not the number of an instance.
    """
    offsets = one_bag(q) if offsets is None else offsets
    check(q, k, k, offsets)
    if not isinstance(indices, Tensor) or indices.dtype == torch.bool:
        hint = "; mask.nonzero().squeeze(1) has the numbers of a mask" if isinstance(indices, Tensor) else ""
        raise ValueError(f"indices: expected a tensor of the numbers of instances, got {shown(indices)}{hint}")
    is_whole = not (indices.is_floating_point() or indices.is_complex())
    if indices.ndim != 1 or not is_whole or ((indices < 0) | (indices >= len(q))).any():
        raise ValueError(f"indices: expected a vector of integers from 0 to {len(q) - 1}, got {shown(indices)}")
    result: list[Tensor] = []
    for index in indices.tolist():
        bag = int(torch.searchsorted(offsets, index, right=True)) - 1
        keys = slice(int(offsets[bag]), int(offsets[bag + 1]))
        result += _weights(q[index : index + 1], k[keys], as_kernel(kernel), as_alpha(alpha, q))
    return [row.squeeze(0) for row in result]  # (n_b,) each


def attention_received(
    q: Tensor,
    k: Tensor,
    kernel: str | Kernel = "dot",
    alpha: Tensor | float | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    r"""How much attention each instance gets from its bag, :math:`\frac{1}{n} \sum_j \beta_{ji}`.

    Arguments and errors as in `attention_rows`.

    Returns:
        The mean of each column of β, shape (N,), of sum one in each bag. It carries no gradient.
    """
    offsets = one_bag(q) if offsets is None else offsets
    check(q, k, k, offsets)
    sizes = offsets.diff().tolist()
    means = []
    for one_q, one_k in zip(q.split(sizes), k.split(sizes), strict=True):
        total = torch.zeros(len(one_k), dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)  # (n_b,)
        for beta in _weights(one_q, one_k, as_kernel(kernel), as_alpha(alpha, q)):
            total += beta.sum(0)
        means.append(total / len(one_q))
    return torch.cat(means)


@torch.no_grad()
def _weights(q: Tensor, k: Tensor, kernel: Kernel, alpha: Tensor) -> Iterator[Tensor]:
    """β (r, n) of queries (m, d) on the keys (n, d) of their bag, `ROWS` rows at a time."""
    with torch.autocast(q.device.type, enabled=False):
        q, k, b = features(q, k, kernel, alpha)
        for rows in blocks(len(q), ROWS):
            yield scores(q[rows], k, b, alpha, kernel)[0].softmax(1)
