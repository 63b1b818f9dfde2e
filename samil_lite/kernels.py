r"""The five kernels κ(k, q) of self-attention, one small class each.

Every kernel is a function of one number that a pair of vectors gives, plus a term of the key alone:

.. math::
    \kappa_\alpha(k, q) = \varphi_\alpha(t(q, k)) + b_\alpha(k)

The **statistic** t is the dot product, the squared Euclidean distance or the L1 distance. A kernel states which one it
takes, its φ with the two derivatives, and its key term b. The attention computes t for all pairs and need not know
more. Source of the kernels: `Rymarczyk et al. (2021) <https://arxiv.org/abs/2005.12991>`__.
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from samil_lite.arguments import checked, one_of


class Kernel:
    """What all kernels share. `alpha` is a tensor of one positive number; kernels without one ignore it.

    Attributes:
        statistic: "dot", "squared_distance" or "l1_distance": a function of `STATISTICS`.
        has_alpha: whether the kernel has a parameter α.
        forms: arguments of each form of a kernel of this package; a kernel of your own need not say.
    """

    statistic: str
    has_alpha: bool
    forms: tuple[dict[str, Any], ...] = ({},)

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        """φ(t), element by element, same shape as t."""
        raise NotImplementedError

    def slopes(self, t: Tensor, alpha: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        """∂φ/∂t and ∂φ/∂α at t, given value = φ(t); None for α where there is none. A constant slope has shape ()."""
        raise NotImplementedError

    def key_term(self, k: Tensor, alpha: Tensor) -> Tensor | None:
        """b(k) for keys (…, n, d), shape (…, n); None where it is zero."""
        return None

    def jitted(self) -> tuple[Any, Any] | None:
        """φ(t, α) and slopes(t, φ(t), α) as functions of `triton.jit`, for CUDA; None: it is computed blockwise there.

        It counts only where the kernel's own class defines it: a subclass with another φ needs others. Slopes returns
        two tensors of the shape of t, ∂φ/∂t and ∂φ/∂α.
        """
        return None

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name != "statistic")
        return f"{type(self).__name__}({options})"


class Dot(Kernel):
    r"""Dot product, :math:`\kappa = \langle k, q \rangle`, without the 1/√d of the Transformer."""

    statistic, has_alpha = "dot", False

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        return t

    def slopes(self, t: Tensor, alpha: Tensor, value: Tensor) -> tuple[Tensor, None]:
        return t.new_ones(()), None

    def jitted(self) -> tuple[Any, Any]:
        from samil_lite.kernel_attention import phi

        return phi.dot, phi.dot_slopes


class RBF(Kernel):
    r"""Radial basis function, :math:`\kappa = \exp(-\alpha \lVert k - q \rVert^2)`.

    Args:
        log_scores: take :math:`\log \kappa = -\alpha \lVert k - q \rVert^2` as the score. Values in (0, 1] leave a
            softmax nearly uniform (no weight above e/(e + n − 1)); their logarithm does not.
    """

    statistic, has_alpha = "squared_distance", True
    forms = {}, {"log_scores": True}

    @checked()
    def __init__(self, log_scores: bool = False) -> None:
        self.log_scores = log_scores

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        return -alpha * t if self.log_scores else torch.exp(-alpha * t)

    def slopes(self, t: Tensor, alpha: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if self.log_scores:
            return -alpha, -t
        return -alpha * value, -t * value

    def jitted(self) -> tuple[Any, Any]:
        from samil_lite.kernel_attention import phi

        return (phi.log_rbf, phi.log_rbf_slopes) if self.log_scores else (phi.rbf, phi.rbf_slopes)


class InverseQuadratic(Kernel):
    r"""Inverse quadratic, :math:`\kappa = 1 / (\alpha \lVert k - q \rVert^2 + 1)`.

    Args:
        log_scores: take :math:`\log \kappa = -\log(\alpha \lVert k - q \rVert^2 + 1)`; see `RBF`.
    """

    statistic, has_alpha = "squared_distance", True
    forms = {}, {"log_scores": True}

    @checked()
    def __init__(self, log_scores: bool = False) -> None:
        self.log_scores = log_scores

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        return -torch.log1p(alpha * t) if self.log_scores else 1 / (alpha * t + 1)

    def slopes(self, t: Tensor, alpha: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        power = value.exp() if self.log_scores else value.square()  # 1/(αt + 1), once or squared
        return -alpha * power, -t * power

    def jitted(self) -> tuple[Any, Any]:
        from samil_lite.kernel_attention import phi

        return (
            (phi.log_inverse_quadratic, phi.log_inverse_quadratic_slopes)
            if self.log_scores
            else (phi.inverse_quadratic, phi.inverse_quadratic_slopes)
        )


class Laplace(Kernel):
    r"""Laplace, :math:`\kappa = -\lVert k - q \rVert_1`: the L1 distance itself, without an exponential or α."""

    statistic, has_alpha = "l1_distance", False

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        return -t

    def slopes(self, t: Tensor, alpha: Tensor, value: Tensor) -> tuple[Tensor, None]:
        return -t.new_ones(()), None

    def jitted(self) -> tuple[Any, Any]:
        from samil_lite.kernel_attention import phi

        return phi.laplace, phi.laplace_slopes


class Module(Kernel):
    r"""Module, :math:`\kappa = \lVert k - q \rVert^\alpha - \lVert k \rVert^\alpha - \lVert q \rVert^\alpha`.

    The last term is the same for all keys of a query, so the softmax cancels it and it is left out here.

    Args:
        norm: "euclidean", or "l1" for the coordinate-wise norm of the paper's public code, which fixes α = 1.
    """

    has_alpha = True
    forms = {}, {"norm": "l1"}

    @checked(norm=one_of(("euclidean", "l1")))
    def __init__(self, norm: str = "euclidean") -> None:
        self.norm = norm
        self.statistic = "squared_distance" if norm == "euclidean" else "l1_distance"

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        return _power(t, self._exponent(alpha))

    def slopes(self, t: Tensor, alpha: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        base = torch.where(t > 0, t, 1)
        share = self._exponent(alpha) / alpha  # ½ or 1
        return alpha * share * value / base, share * value * base.log()  # both 0 at t = 0, see _power

    def key_term(self, k: Tensor, alpha: Tensor) -> Tensor:
        t = k.square().sum(-1) if self.norm == "euclidean" else k.abs().sum(-1)  # (…, n)
        return -_power(t, self._exponent(alpha))

    def _exponent(self, alpha: Tensor) -> Tensor:
        return alpha / 2 if self.norm == "euclidean" else alpha  # of the statistic: ‖·‖^α = (‖·‖²)^(α/2)

    def jitted(self) -> tuple[Any, Any]:
        from samil_lite.kernel_attention import phi

        return (phi.module, phi.module_slopes) if self.norm == "euclidean" else (phi.l1_module, phi.l1_module_slopes)


def _power(t: Tensor, p: Tensor) -> Tensor:
    """t^p for t ≥ 0 and p > 0, with gradient 0 at t = 0, where for p < 1 the true one is infinite.

    A pair with q = k has no direction in which to move apart; 0 is the mean of all directions.
    """
    positive = t > 0
    power = (torch.where(positive, t, 1).log() * p).exp()  # three times faster than pow
    return torch.where(positive, power, 0)


def dot_products(q: Tensor, k: Tensor) -> Tensor:
    """⟨q_j, k_i⟩ for queries (…, m, d) and keys (…, n, d): shape (…, m, n)."""
    return q @ k.transpose(-1, -2)


def squared_distances(q: Tensor, k: Tensor) -> Tensor:
    r"""‖q_j − k_i‖² by expansion, :math:`\lVert q \rVert^2 + \lVert k \rVert^2 - 2 \langle q, k \rangle`: (…, m, n).

    One matrix product instead of m·n differences of vectors. Far from the origin the three terms are large and their
    difference is lost in rounding, so give it centred q and k. Never below zero.
    """
    squares = q.square().sum(-1)[..., :, None] + k.square().sum(-1)[..., None, :]  # (…, m, n)
    return (squares - 2 * dot_products(q, k)).clamp_min(0)


def l1_distances(q: Tensor, k: Tensor) -> Tensor:
    r"""L1 distances :math:`\sum_c |q_{jc} - k_{ic}|` for queries (…, m, d) and keys (…, n, d): shape (…, m, n)."""
    return torch.cdist(q, k, p=1)


STATISTICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dot": dot_products,
    "squared_distance": squared_distances,
    "l1_distance": l1_distances,
}
KERNELS: dict[str, type[Kernel]] = {
    "dot": Dot, "rbf": RBF, "inverse_quadratic": InverseQuadratic, "laplace": Laplace, "module": Module,
}  # fmt: skip
FORMS: dict[str, Kernel] = {repr(k): k for k in (c(**form) for c in KERNELS.values() for form in c.forms)}


def form_of(kernel: Kernel) -> str | None:
    """The name in `FORMS` of a kernel of this package as it stands; None for another, which may compute something else.

    Not by repr(kernel), which the compiler of PyTorch 2.11 cannot follow.
    """
    for name, form in FORMS.items():
        if type(kernel) is type(form) and all(getattr(kernel, x) == getattr(form, x) for x in form.forms[-1]):
            return name
    return None


def as_kernel(kernel: str | Kernel) -> Kernel:
    """The kernel itself, or the paper's form of the one with this name.

    Raises:
        ValueError: if there is no kernel of this name.
    """
    if isinstance(kernel, Kernel):
        return kernel
    if not isinstance(kernel, str) or kernel not in KERNELS:
        near = get_close_matches(str(kernel), KERNELS, n=2) or list(KERNELS)
        raise ValueError(f"kernel: unknown kernel {kernel!r}; did you mean {' or '.join(near)}?")
    return KERNELS[kernel]()
