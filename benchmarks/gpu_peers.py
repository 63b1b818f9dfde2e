"""Kernel attention as PyTorch's own fused functions can express it: (q, k, v) give o (n, d_v), for one bag and α = 1.

Both want queries, keys and values in one type, and values as wide as queries or little wider. So the values are split
into heads of 64 columns, and every head makes the same scores.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

HEAD = 64  # columns of the values


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's scaled_dot_product_attention."""
    q, k, v = _heads(q, k, v)
    return nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)[0].transpose(0, 1).flatten(1)  # (n, d_v)


def flex(q: Tensor, k: Tensor, v: Tensor, kernel: str) -> Tensor:
    """FlexAttention of squared distances: [2q, −‖q‖², −1] · [k, 1, ‖k‖²] is −‖q − k‖², so they need not be captured.

    The module kernel captures its key term, whose gradient is left out.
    """
    one, k2 = torch.ones_like(q[:, :1]), k.square().sum(1, keepdim=True)  # (n, 1)
    change = _change(kernel, k2.detach().sqrt().squeeze(1))
    if kernel != "dot":
        q, k = torch.cat([2 * q, -q.square().sum(1, keepdim=True), -one], 1), torch.cat([k, one, k2], 1)  # (n, d + 2)
    q, k, v = _heads(q, k, v)
    return compiled()(q, k, v, score_mod=change, scale=1.0)[0].transpose(0, 1).flatten(1)  # (n, d_v)


@cache
def compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)  # type: ignore[return-value]


def _heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(1, heads, n, ·) each, in the type of the values."""
    heads = max(1, v.shape[1] // HEAD)
    q, k = (x.to(v.dtype).expand(1, heads, *x.shape) for x in (q, k))
    return q, k, v.view(len(v), heads, -1).transpose(0, 1)[None]


def _change(kernel: str, norms: Tensor) -> Callable[..., Tensor]:
    """φ of s = −‖q − k‖² with its key term, as FlexAttention calls it: (s, batch, head, query, key)."""
    changes: dict[str, Callable[..., Tensor]] = {
        "dot": lambda s, *_: s,
        "rbf": lambda s, *_: torch.exp(s),
        "inverse_quadratic": lambda s, *_: 1 / (1 - s),
        "module": lambda s, b, h, j, i: torch.sqrt(torch.clamp_min(-s, 1e-12)) - norms[i],
    }
    return changes[kernel]
