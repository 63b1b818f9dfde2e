"""Kernels as a reader would write them."""

import torch
from torch import Tensor

from samil_lite.kernels import RBF, Kernel


class Cauchy(Kernel):
    """The logarithm of the Cauchy kernel."""

    statistic, has_alpha = "squared_distance", False

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        return -torch.log1p(t)

    def slopes(self, t: Tensor, alpha: Tensor, value: Tensor) -> tuple[Tensor, None]:
        return -1 / (1 + t), None


class Sharper(RBF):
    """Derives from a kernel of the package and computes something else."""

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        return 5 * torch.exp(-alpha * t)

    def slopes(self, t: Tensor, alpha: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return -alpha * value, -t * value
