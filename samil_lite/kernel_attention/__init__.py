"""Kernel self-attention within each bag of a ragged batch: one function, several ways to compute it."""

from typing import Literal, overload

import torch
from torch import Tensor

from samil_lite.kernel_attention.arguments import as_alpha, check, one_bag
from samil_lite.kernel_attention.dense import dense_attention
from samil_lite.kernel_attention.groups import BACKENDS, attend, of_fast_type, plan
from samil_lite.kernel_attention.operator import attend_compiled
from samil_lite.kernel_attention.rows import attention_received, attention_rows
from samil_lite.kernels import KERNELS, Kernel, as_kernel

__all__ = ["BACKENDS", "attention_received", "attention_rows", "kernel_attention", "plan"]
NAMED = {name: as_kernel(name) for name in KERNELS}  # made once: a tenth of the time of a batch of tiny bags


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
        kernel: "dot", "rbf", "inverse_quadratic", "laplace", "module", or an object of a class of
            `samil_lite.kernels` or of your own, derived from `samil_lite.kernels.Kernel`.
        alpha: the kernel's α, one positive number; 1 if None.
        offsets: where each bag begins, shape (B + 1,); one bag if None.
        backend: "dense" pads all bags and keeps all scores; "blockwise" takes each bag alone, in memory linear in its
            size; "compiled" is "blockwise" with compiled L1 distances: laplace takes half the time on a CPU in bags
            of thousands, after some seconds of compiling; it needs a C++ compiler and warns where that is missing.
            "triton" has fused kernels and needs CUDA; a kernel of your own is computed by "blockwise" there. "auto"
            chooses by the sizes of the bags and the device, see `plan`. Second derivatives are right by every way or an
            error: "blockwise" makes them with all scores in memory, and "dense" has none of L1 distances.
        return_weights: whether to return the weights too. It takes the memory of "dense"; for pictures of a large bag
            there are `attention_rows` and `attention_received`.

    Returns:
        o, shape (N, d_v), in the type of v; with `return_weights` also the list of β, one (n_b, n_b) for each bag,
        row j for query j.

    Raises:
        ValueError: if shapes, types or offsets do not fit together, or kernel or backend do not exist.
    """
    kernel = NAMED[kernel] if isinstance(kernel, str) and kernel in NAMED else as_kernel(kernel)
    if return_weights not in (True, False):
        raise ValueError(f"return_weights: expected True or False, got {return_weights!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    offsets = one_bag(q) if offsets is None else offsets
    if torch.compiler.is_compiling() and not return_weights:
        return attend_compiled(q, k, v, as_alpha(alpha, q), offsets, kernel, backend)
    check(q, k, v, offsets)
    alpha = as_alpha(alpha, q)
    if not return_weights:
        return attend(q, k, v, alpha, offsets, kernel, backend)
    o, padded = dense_attention(q, k, of_fast_type(v), kernel, alpha, offsets)  # (N, d_v), (B, n, n)
    return o.to(v.dtype), [b[:n, :n] for b, n in zip(padded, offsets.diff().tolist(), strict=True)]
