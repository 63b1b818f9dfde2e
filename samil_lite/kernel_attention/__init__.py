"""Kernel self-attention within each bag of a ragged batch: one function, several ways to compute it."""

from typing import Literal, overload

import torch
from torch import Tensor

from samil_lite.kernel_attention.dense import dense_attention
from samil_lite.kernels import Kernel, as_kernel
from samil_lite.segments import check_offsets

BACKENDS = ("auto", "dense")


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
    Scores are computed in float32 at least, under autocast too.

    Args:
        q: queries, shape (N, d_qk).
        k: keys, shape (N, d_qk).
        v: values, shape (N, d_v).
        kernel: "dot", "rbf", "inverse_quadratic", "laplace", "module", or an object of `samil_lite.kernels`.
        alpha: the kernel's α, one positive number; 1 if None.
        offsets: where each bag begins, shape (B + 1,); one bag if None.
        backend: "dense" keeps all scores of a bag; "auto" lets the function choose.
        return_weights: whether to return the weights too.

    Returns:
        o, shape (N, d_v), in the type of v; with `return_weights` also the list of β, one (n_b, n_b) for each bag,
        row j for query j.

    Raises:
        ValueError: if shapes, types or offsets do not fit together, or kernel or backend do not exist.
    """
    kernel = as_kernel(kernel)
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    offsets = torch.tensor([0, len(q)], device=q.device) if offsets is None else offsets
    _check(q, k, v, offsets)
    wide = torch.promote_types(q.dtype, torch.float32)
    alpha = torch.as_tensor(1.0 if alpha is None else alpha, dtype=wide, device=q.device)
    _check_alpha(alpha)
    o, beta = dense_attention(q, k, v, kernel, alpha, offsets)  # (N, d_v), (B, n, n)
    if not return_weights:
        return o
    return o, [b[:n, :n] for b, n in zip(beta, offsets.diff().tolist(), strict=True)]


def _check(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 2 or not x.is_floating_point():
            raise ValueError(f"{name}: expected floating-point rows (N, d), got {x.dtype} of shape {tuple(x.shape)}")
        if len(x) != len(q):
            raise ValueError(f"{name}: expected {len(q)} rows, as q has, got {len(x)}")
        if x.device != q.device or x.dtype != q.dtype:
            raise ValueError(f"{name}: expected {q.dtype} on {q.device}, as q, got {x.dtype} on {x.device}")
    if k.shape != q.shape:
        raise ValueError(f"k: expected the width of q, {q.shape[1]}, got {k.shape[1]}")
    check_offsets(offsets, len(q))


def _check_alpha(alpha: Tensor) -> None:
    if alpha.numel() != 1:
        raise ValueError(f"alpha: expected one number, got shape {tuple(alpha.shape)}")
    if not torch.compiler.is_compiling() and alpha.device.type == "cpu" and not alpha > 0:  # else it would wait
        raise ValueError(f"alpha: expected a number above 0, got {float(alpha)}")
