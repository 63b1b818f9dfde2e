"""Kernel attention with all scores in memory: short, the reference for every other way, and fast on small bags."""

import torch
from torch import Tensor

from samil_lite.kernel_attention.distances import centred
from samil_lite.kernels import STATISTICS, Kernel
from samil_lite.segments import pad


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, alpha: Tensor, offsets: Tensor, twice: bool = False
) -> tuple[Tensor, Tensor]:
    """Pads the bags to the longest, n, and computes them as one batch: o (N, d_v) and β (B, n, n).

    With `twice` all can be differentiated twice; L1 distances then take n × n × d numbers.
    """
    padded, mask = pad(torch.cat([q, k, v], dim=1), offsets)  # (B, n, 2 d_qk + d_v), (B, n): True at instances
    q, k, values = padded.split([q.shape[1], k.shape[1], v.shape[1]], dim=-1)
    with torch.autocast(q.device.type, enabled=False):  # half precision would lose the distances
        s = scores(_wide(q), _wide(k), kernel, alpha, mask, twice)  # (B, n, n), row j for query j
        s = s.masked_fill(~mask[:, None, :], -torch.inf)  # no query attends to padding
        beta = s.softmax(-1)
        o = beta.to(v.dtype) @ values.to(v.dtype)  # (B, n, d_v)
    return o[mask], beta


def scores(q: Tensor, k: Tensor, kernel: Kernel, alpha: Tensor, mask: Tensor, twice: bool = False) -> Tensor:
    """κ(k_i, q_j) for padded queries and keys (B, n, d), up to what the softmax over i cancels: (B, n, n)."""
    b = kernel.key_term(k, alpha)  # (B, n)
    if kernel.statistic == "squared_distance":
        with torch.no_grad():
            mean = k.sum(1, keepdim=True) / mask.sum(1)[:, None, None]  # (B, 1, d); padding is zero
        q, k, q2, k2 = centred(q, k, torch.where(mask[..., None], mean, 0), kernel, alpha)
        squares = q2[:, :, None] + k2[:, None, :]  # (B, n, n)
        t = torch.baddbmm(squares, q, k.transpose(1, 2), alpha=-2).clamp_min(0).to(alpha.dtype)  # (B, n, n)
    elif twice and kernel.statistic == "l1_distance":
        t = (q[:, :, None] - k[:, None]).abs().sum(-1)  # (B, n, n); torch.cdist has no second derivative
    else:
        t = STATISTICS[kernel.statistic](q, k).to(alpha.dtype)  # (B, n, n)
    s = kernel.phi(t, alpha)
    return s if b is None else s + b[:, None, :]


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
