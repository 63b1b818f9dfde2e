"""What autograd, torch.func and torch.compile need to know of an engine: an attention in memory linear in the bag.

An engine keeps no scores, so autograd cannot follow it; it brings a backward pass of its own. Here that pass becomes
part of PyTorch: gradients, gradients of gradients (computed densely), and torch.vmap.
"""

# mypy: disable-error-code="no-untyped-def"
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samil_lite.kernel_attention.dense import dense_attention
from samil_lite.kernels import Kernel

DENSE = 2**26  # numbers, the most that a second derivative may keep for each of its steps: bags of 8,192


@dataclass(frozen=True)
class Engine:
    """A way to compute attention and its gradients.

    Attributes:
        forward: (q, k, v, α, offsets, kernel) -> o (N, d_v) and the log Σ exp of the scores of each query, (N,).
        backward: (do, q, k, v, α, offsets, o, lse, kernel) -> the gradients of q, k, v and α, each of its shape.
    """

    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


def attention(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel, engine: Engine
) -> Tensor:
    """The bags of q, k (N, d) and v (N, d_v) give o (N, d_v), with all derivatives."""
    with torch.autocast(q.device.type, enabled=False):
        return _Attention.apply(q, k, v, alpha, offsets, kernel, engine)[0]  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(q, k, v, alpha, offsets, kernel, engine):
        return engine.forward(q, k, v, alpha, offsets, kernel)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.kernel, ctx.engine = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _one_after_the_other(_Attention, info.batch_size, in_dims, inputs)

    @staticmethod
    def backward(ctx, do, _):
        return *_Gradients.apply(do, *ctx.saved_tensors, ctx.kernel, ctx.engine), None, None, None


class _Gradients(torch.autograd.Function):
    """The backward pass as a function of its own, so that it too can be mapped and differentiated."""

    @staticmethod
    def forward(do, q, k, v, alpha, offsets, o, lse, kernel, engine):
        return engine.backward(do, q, k, v, alpha, offsets, o, lse, kernel)

    @staticmethod
    def setup_context(ctx, inputs, output):
        do, q, k, v, alpha, offsets, *_, ctx.kernel, _ = inputs
        ctx.save_for_backward(do, q, k, v, alpha, offsets)

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _one_after_the_other(_Gradients, info.batch_size, in_dims, inputs)

    @staticmethod
    def backward(ctx, *directions):
        """Second derivatives, by differentiating the dense form twice; o and lse are functions of the inputs."""
        *inputs, offsets = ctx.saved_tensors
        check_memory(offsets, inputs[1].shape[1] if ctx.kernel.statistic == "l1_distance" else 1)

        def value(q, k, v, alpha):
            return dense_attention(q, k, v, ctx.kernel, alpha, offsets, twice=True)[0].to(v.dtype)

        def gradients(do, *inputs):
            return torch.func.vjp(value, *inputs)[1](do)

        with torch.autocast(inputs[1].device.type, enabled=False):
            return *torch.func.vjp(gradients, *inputs)[1](directions), None, None, None, None, None


def check_memory(offsets: Tensor, width: int) -> None:
    """Raises NotImplementedError if the scores of these bags, of so many numbers each, are too many to be kept."""
    sizes = offsets.diff()
    numbers = len(sizes) * int(sizes.max()) ** 2 * width
    if numbers > DENSE:
        raise NotImplementedError(
            f"second derivatives keep all scores, here {numbers:,} numbers for each step of the computation, and at "
            f"most {DENSE:,} are allowed; take fewer or shorter bags (the longest has {int(sizes.max())} instances)"
        )


def _one_after_the_other(function: Any, size: int, in_dims: tuple[int | None, ...], inputs: tuple[Any, ...]) -> Any:
    """Under torch.vmap, which trains many models at once, they are computed one after the other."""
    each = [
        function.apply(*(x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True)))
        for i in range(size)
    ]
    stacked = tuple(torch.stack(parts) for parts in zip(*each, strict=True))
    return stacked, (0,) * len(stacked)
