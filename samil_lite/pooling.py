"""MIL pooling: from the instances of each bag to one vector, on ragged batches and without a loop over bags."""

import torch
from torch import Tensor, nn

from samil_lite.arguments import at_least, checked, shown
from samil_lite.segments import (
    check_offsets,
    segment_logsumexp,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)


class AttentionPool(nn.Module):
    r"""Attention-based MIL pooling (AbMILP), plain or gated.

    .. math::
        a_i = \operatorname{softmax}_i\, w^\top \tanh(V h_i + b_V), \qquad z = \sum_i a_i h_i

    and gated, with :math:`w^\top (\tanh(V h_i + b_V) \odot \operatorname{sigmoid}(U h_i + b_U))` in the softmax.
    Source: `Ilse et al. (2018) <https://arxiv.org/abs/1802.04712>`__, equations 7 to 9. As in the authors' code, V
    and U have biases; w has none, because the softmax would cancel it.

    Args:
        dim: width d of the embeddings.
        hidden: width of V and U.
        gated: whether to use the gate U.
    """

    @checked(dim=at_least(1), hidden=at_least(1))
    def __init__(self, dim: int, hidden: int = 128, gated: bool = False) -> None:
        super().__init__()
        self.V = nn.Linear(dim, hidden)
        self.U = nn.Linear(dim, hidden) if gated else None
        self.w = nn.Linear(hidden, 1, bias=False)

    def forward(self, h: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Pools each bag.

        Args:
            h: embeddings, shape (N, d).
            offsets: where each bag begins, shape (B + 1,).

        Returns:
            The bags' embeddings z, shape (B, d), and the attention weights a, shape (N,), of sum one in each bag.

        Raises:
            ValueError: if the offsets do not cut h into bags, or h has another width.
        """
        _check(h, offsets, self.V.in_features)
        e = torch.tanh(self.V(h))  # (N, hidden)
        if self.U is not None:
            e = e * torch.sigmoid(self.U(h))  # (N, hidden)
        a = segment_softmax(self.w(e).squeeze(-1), offsets)  # (N,)
        z = segment_sum(a[:, None] * h, offsets)  # (B, d)
        return z, a


class MaxPool(nn.Module):
    r"""The largest value of each coordinate, :math:`z_c = \max_i h_{ic}`. It has no weights: returns (z, None)."""

    def forward(self, h: Tensor, offsets: Tensor) -> tuple[Tensor, None]:
        """Pools (N, d) to (B, d); see `AttentionPool.forward`."""
        _check(h, offsets)
        return segment_max(h, offsets), None


class MeanPool(nn.Module):
    r"""The mean of the bag, :math:`z = \frac{1}{n} \sum_i h_i`: attention pooling with every weight 1/n."""

    def forward(self, h: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Pools (N, d) to (B, d) and returns the weights 1/n, shape (N,); see `AttentionPool.forward`."""
        _check(h, offsets)
        return segment_mean(h, offsets), _equal_weights(h, offsets)


class MeanProbabilityPool(nn.Module):
    r"""The mean of the instances' class probabilities, as bag logits.

    .. math::
        P(y \mid \text{bag}) = \frac{1}{n} \sum_i P(y \mid h_i)

    This is the instance-level mean of Ilse et al. (2018). Working with log-probabilities keeps it exact where an
    instance is certain: the mean of probabilities that round to 0 or 1 would have no finite logit.
    """

    def forward(self, s: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Pools instance logits (N, C) to bag logits (B, C), with C = 1 for binary; the weights are 1/n."""
        _check(s, offsets)
        if s.shape[1] == 1:  # log P and log (1 - P) are pooled, their difference is the logit
            both = nn.functional.logsigmoid(torch.cat([s, -s], dim=1))  # (N, 2)
            log_yes, log_no = segment_logsumexp(both, offsets).unbind(1)  # (B,), (B,); the 1/n cancels
            pooled = (log_yes - log_no)[:, None]  # (B, 1)
        else:
            pooled = segment_logsumexp(s.log_softmax(1), offsets) - offsets.diff().to(s.dtype).log()[:, None]  # (B, C)
        return pooled, _equal_weights(s, offsets)


class NoisyOrPool(nn.Module):
    r"""The probability that at least one instance is positive, if each is so by itself, as bag logits.

    .. math::
        P(y = 1 \mid \text{bag}) = 1 - \prod_i (1 - p_i), \qquad p_i = \operatorname{sigmoid}(s_i)

    No instance can lower it, so a model with this pooling keeps the standard assumption by construction. Source:
    `Maron and Lozano-Pérez (1997) <https://papers.nips.cc/paper/1346-a-framework-for-multiple-instance-learning>`__.
    """

    def forward(self, s: Tensor, offsets: Tensor) -> tuple[Tensor, None]:
        """Pools instance logits (N, 1) to bag logits (B, 1); it has no weights."""
        _check(s, offsets, 1)
        total = segment_sum(nn.functional.softplus(s), offsets)  # (B, 1): -log of the probability that none is
        total = total.clamp_min(torch.finfo(s.dtype).tiny)  # or many certain zeros would have the logit -inf
        return total + torch.log(-torch.expm1(-total)), None  # log of (1 - exp(-t)) / exp(-t)


def _equal_weights(h: Tensor, offsets: Tensor) -> Tensor:
    """Weight 1/n for every instance of a bag of n, shape (N,), in the type of h."""
    sizes = offsets.diff()
    return (1 / sizes.to(h.dtype)).repeat_interleave(sizes, output_size=len(h))


def _check(h: Tensor, offsets: Tensor, dim: int | None = None) -> None:
    if not isinstance(h, Tensor) or h.ndim != 2 or not h.is_floating_point() or (dim or h.shape[1]) != h.shape[1]:
        raise ValueError(f"h: expected embeddings of shape (N, {dim or 'd'}), floating point, got {shown(h)}")
    check_offsets(offsets, len(h), wait=False)
