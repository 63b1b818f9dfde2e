"""Kernel self-attention within each bag of a ragged batch: one function, several ways to compute it."""

from importlib.util import find_spec
from typing import Literal, overload

import torch
from torch import Tensor

from samil_lite.kernel_attention.arguments import as_alpha, check, one_bag
from samil_lite.kernel_attention.blockwise import blockwise_attention
from samil_lite.kernel_attention.dense import dense_attention
from samil_lite.kernel_attention.rows import attention_received, attention_rows
from samil_lite.kernels import Kernel, as_kernel

__all__ = ["attention_received", "attention_rows", "kernel_attention", "plan"]

BACKENDS = ("auto", "dense", "blockwise", "compiled", "triton")
LONG = 512  # instances from which a bag is computed alone, in blocks
GROUP_COST = 30_000  # so many scores of padding cost as much time as computing one more group


@overload
def kernel_attention(
    q: Tensor, k: Tensor, v: Tensor, kernel: str | Kernel = ..., alpha: Tensor | float | None = ...,
    offsets: Tensor | None = ..., backend: str = ..., return_weights: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip
@overload
def kernel_attention(
    q: Tensor, k: Tensor, v: Tensor, kernel: str | Kernel = ..., alpha: Tensor | float | None = ...,
    offsets: Tensor | None = ..., backend: str = ..., *, return_weights: Literal[True],
) -> tuple[Tensor, list[Tensor]]: ...  # fmt: skip
def kernel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel: str | Kernel = "dot",
    alpha: Tensor | float | None = None,
    offsets: Tensor | None = None,
    backend: str = "auto",
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, list[Tensor]]:
    r"""Each instance's mean of the values of its bag, weighted by how its query goes with their keys.

    .. math::
        \beta_{ji} = \operatorname{softmax}_i \kappa_\alpha(k_i, q_j), \qquad o_j = \sum_i \beta_{ji} v_i

    with i over the instances of j's bag. Source: `Rymarczyk et al. (2021) <https://arxiv.org/abs/2005.12991>`__.
    Every backend is exact. Scores are computed in float32 at least, under autocast too. On a CPU, and by "triton", sums
    are made in a fixed order: the same input gives the same output and gradients every time.

    Args:
        q: queries, shape (N, d_qk).
        k: keys, shape (N, d_qk).
        v: values, shape (N, d_v); they may be of a lower precision than q and k.
        kernel: "dot", "rbf", "inverse_quadratic", "laplace", "module", or an object of `samil_lite.kernels`.
        alpha: the kernel's α, one positive number; 1 if None.
        offsets: where each bag begins, shape (B + 1,); one bag if None.
        backend: "dense" pads all bags and keeps all scores; "blockwise" takes each bag alone, in memory linear in its
            size; "compiled" is "blockwise" with compiled L1 distances: laplace takes half the time on a CPU in bags
            of thousands, after some seconds of compiling; it needs a C++ compiler and warns where that is missing.
            "triton" has fused kernels and needs CUDA. None of the three has a double backward. "auto" chooses by the
            sizes of the bags and the device, see `plan`.
        return_weights: whether to return the weights too. It takes the memory of "dense"; for pictures of a large bag
            there are `attention_rows` and `attention_received`.

    Returns:
        o, shape (N, d_v), in the type of v; with `return_weights` also the list of β, one (n_b, n_b) for each bag,
        row j for query j.

    Raises:
        ValueError: if shapes, types or offsets do not fit together, or kernel or backend do not exist.
    """
    kernel = as_kernel(kernel)
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    offsets = one_bag(q) if offsets is None else offsets
    check(q, k, v, offsets)
    alpha = as_alpha(alpha, q)
    sizes, fast = offsets.diff().tolist(), _of_fast_type(v)
    if return_weights:
        o, padded = dense_attention(q, k, fast, kernel, alpha, offsets)  # (N, d_v), (B, n, n)
        beta = [b[:n, :n] for b, n in zip(padded, sizes, strict=True)]
    elif backend == "dense":
        o = dense_attention(q, k, fast, kernel, alpha, offsets)[0]
    else:
        o = _in_groups(q, k, fast, kernel, alpha, sizes, backend)
    o = o.to(v.dtype)
    return (o, beta) if return_weights else o


def plan(sizes: list[int]) -> list[list[int]]:
    """Which bags "auto" computes together: lists of bag numbers.

    A bag of `LONG` instances or more is computed alone: by "triton" on CUDA where Triton is installed and the values
    are not float64, else "blockwise". The others are sorted by size and padded together; a
    group ends where the padding would cost more than one more group (`GROUP_COST`, measured). So many small bags make
    one batched product, and a skewed batch is not padded to its longest bag.
    """
    groups: list[list[int]] = []
    longest = waste = 0
    for b in sorted(range(len(sizes)), key=lambda b: -sizes[b]):
        waste += longest**2 - sizes[b] ** 2
        if not groups or longest >= LONG or waste > GROUP_COST:
            groups.append([])
            longest, waste = sizes[b], 0
        groups[-1].append(b)
    return [sorted(group) for group in groups]


def _of_fast_type(v: Tensor) -> Tensor:
    """v, in float32 if its half precision has no units on this CPU: products would take thirty times as long."""
    if v.device.type != "cpu" or v.dtype not in (torch.bfloat16, torch.float16):
        return v
    units = torch.ops.mkldnn
    has_units = torch.backends.mkldnn.is_available() and (
        units._is_mkldnn_bf16_supported() if v.dtype == torch.bfloat16 else units._is_mkldnn_fp16_supported()
    )
    return v if has_units else v.float()


def _in_groups(
    q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, alpha: Tensor, sizes: list[int], backend: str
) -> Tensor:
    """Output (N, d_v), computed in groups of bags: by "auto" those of `plan`, by other backends each bag alone."""
    groups = plan(sizes) if backend == "auto" else [[b] for b in range(len(sizes))]
    if len(groups) == 1:
        return _compute(q, k, v, kernel, alpha, sizes, backend)
    of_bag = torch.arange(len(q), device=q.device).split(sizes)
    rows = [torch.cat([of_bag[b] for b in group]) for group in groups]
    parts = [
        _compute(q[m], k[m], v[m], kernel, alpha, [sizes[b] for b in group], backend)
        for m, group in zip(rows, groups, strict=True)
    ]
    return torch.cat(parts)[torch.cat(rows).argsort()]  # back in the order of the instances


def _compute(q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, alpha: Tensor, sizes: list[int], backend: str) -> Tensor:
    """One group: a long bag alone, others padded together."""
    if backend == "auto" and (len(sizes) > 1 or sizes[0] < LONG):
        offsets = torch.tensor([0, *sizes], device=q.device).cumsum(0)
        return dense_attention(q, k, v, kernel, alpha, offsets)[0]
    if backend == "triton" or (backend == "auto" and v.is_cuda and v.dtype != torch.float64 and find_spec("triton")):
        from samil_lite.kernel_attention.triton import triton_attention  # needs Triton, which is not on every machine

        return triton_attention(q, k, v, kernel, alpha)
    return blockwise_attention(q, k, v, kernel, alpha, compiled=backend == "compiled")
