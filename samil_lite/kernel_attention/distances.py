"""What keeps squared distances exact, though they are made by one matrix product.

‖q − k‖² = ‖q‖² + ‖k‖² − 2⟨q, k⟩ loses digits where the squares on the right are much larger than the distance.
Distances do not change when all vectors are shifted, so the mean key is subtracted first; that is enough for most bags.
Where groups lie far apart, or one key far from all others, the product is made in float64.
"""

import warnings

import torch
from torch import Tensor

from samil_lite.kernels import Kernel, Module

TOLERANCE = 4e-6  # of a score: measured, no output is then off by more than 1e-5 beyond what plain differences give
WIDER = 2.0**29  # times more than float32 does float64 resolve
NEAR = 0.01  # the squared distance at which the slope of φ is taken
NEAR_MODULE = 0.25  # the same for `Module`, whose slope has no bound at 0


def centred(q: Tensor, k: Tensor, mean: Tensor, kernel: Kernel, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q and k (…, n, d) minus the mean key, which have the same distances, and their squares ‖q‖², ‖k‖² (…, n).

    They are in float64 if float32 would lose digits of the scores. Autograd need not know the mean, shape (…, 1, d):
    the distances do not depend on it.
    """
    narrow = _with_squares(q - mean, k - mean)
    if q.dtype == torch.float64:
        return narrow
    loss = _loss(*narrow[2:], kernel, alpha)
    if loss <= 1:
        return narrow
    if loss > WIDER or q.device.type == "mps":  # Apple's GPUs have no float64
        warnings.warn("instances lie so far apart that distances lose digits; scale the features down", stacklevel=2)
    if q.device.type == "mps":
        return narrow
    return _with_squares(q.double() - mean, k.double() - mean)  # not the rounded differences, made double


def _with_squares(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return q, k, q.square().sum(-1), k.square().sum(-1)


@torch.no_grad()
def _loss(q2: Tensor, k2: Tensor, kernel: Kernel, alpha: Tensor) -> float:
    """How many times more than `TOLERANCE` float32 may lose of the scores, from the squares of queries and keys."""
    try:
        return float((q2.max() + k2.max()) / largest_spread(kernel, alpha))
    except RuntimeError:  # under torch.func.vmap nobody can look
        return 2


def largest_spread(kernel: Kernel, alpha: Tensor) -> Tensor:
    """The sum of squares, of a query and a key, up to which float32 keeps the scores to `TOLERANCE`: shape ()."""
    near = torch.full_like(alpha, NEAR_MODULE if isinstance(kernel, Module) else NEAR)
    slope, _ = kernel.slopes(near, alpha, kernel.phi(near, alpha))
    return TOLERANCE / (torch.finfo(torch.float32).eps / 2 * slope.abs())
