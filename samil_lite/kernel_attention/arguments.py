"""What the functions of this package ask of their arguments."""

import torch
from torch import Tensor

from samil_lite.segments import check_offsets


def one_bag(q: Tensor) -> Tensor:
    """The offsets of a single bag."""
    _check_rows("q", q)
    return torch.tensor([0, len(q)], device=q.device)


def check(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor) -> None:
    """Raises ValueError unless q, k (N, d_qk) and v (N, d_v) fit together and to the offsets."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        _check_rows(name, x)
        if len(x) != len(q):
            raise ValueError(f"{name}: expected {len(q)} rows, as q has, got {len(x)}")
        if x.device != q.device:
            raise ValueError(f"{name}: expected a tensor on {q.device}, as q, got {x.device}")
    if k.dtype != q.dtype:
        raise ValueError(f"k: expected {q.dtype}, as q, got {k.dtype}")
    if k.shape != q.shape:
        raise ValueError(f"k: expected the width of q, {q.shape[1]}, got {k.shape[1]}")
    check_offsets(offsets, len(q), wait=False)


def _check_rows(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: expected a tensor of floating-point rows (N, d), got {type(x).__name__}")
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"{name}: expected floating-point rows (N, d), got {x.dtype} of shape {tuple(x.shape)}")


def as_alpha(alpha: Tensor | float | None, q: Tensor) -> Tensor:
    """α as a tensor of one number, in float32 at least, on q's device; 1 if None."""
    wide = torch.promote_types(q.dtype, torch.float32)
    if alpha is None:
        alpha = 1.0
    if not isinstance(alpha, Tensor | int | float) or isinstance(alpha, bool):
        raise ValueError(f"alpha: expected a number above 0, got {alpha!r}")
    alpha = torch.as_tensor(alpha, dtype=wide, device=q.device)
    if alpha.numel() != 1:
        raise ValueError(f"alpha: expected one number, got shape {tuple(alpha.shape)}")
    if not torch.compiler.is_compiling() and alpha.device.type == "cpu":  # elsewhere to look would be to wait
        try:
            if not 0 < float(alpha.detach()) < torch.inf:
                raise ValueError(f"alpha: expected a number above 0, got {float(alpha)}")
        except RuntimeError:  # under torch.func.vmap nobody can look
            pass
    return alpha.reshape(())
