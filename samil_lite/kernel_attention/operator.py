"""Kernel attention as an operator of PyTorch, so that torch.compile takes it as one step and need not look inside."""

# mypy: disable-error-code="no-untyped-def, no-any-return, untyped-decorator"
import torch
from torch import Tensor

from samil_lite.kernel_attention.arguments import as_alpha, check
from samil_lite.kernel_attention.dense import dense_attention
from samil_lite.kernel_attention.groups import groups, of_fast_type
from samil_lite.kernels import FORMS, Kernel, form_of


def attend_compiled(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel, backend: str
) -> Tensor:
    """As `attend`, while torch.compile looks: an operator, or for a kernel of one's own one break of the graph."""
    if (form := form_of(kernel)) is not None:
        return _forward(q, k, v, alpha, offsets, form, backend)[0]
    from samil_lite.kernel_attention.uncompiled import attend_uncompiled  # which takes as long as torch to import

    return attend_uncompiled(q, k, v, alpha, offsets, kernel, backend)


@torch.library.custom_op("samil_lite::kernel_attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: str, backend: str
) -> tuple[Tensor, Tensor]:
    """o (N, d_v) and the log Σ exp of the scores of each query, (N,), where an engine made it."""
    check(q, k, v, offsets)
    alpha, fast, form = as_alpha(alpha, q), of_fast_type(v), FORMS[kernel]
    o, lse = torch.empty_like(v, memory_format=torch.contiguous_format), alpha.new_zeros(len(q))
    for m, own, engine in groups(q, fast, offsets, form, backend):
        if engine is None:
            o[m] = dense_attention(q[m], k[m], fast[m], form, alpha, own)[0].to(v.dtype)
        else:
            part, lse[m] = engine.forward(q[m], k[m], fast[m], alpha, own, form)
            o[m] = part.to(v.dtype)
    return o, lse


@torch.library.custom_op("samil_lite::kernel_attention_backward", mutates_args=())
def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, o: Tensor, lse: Tensor,
    kernel: str, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v and α."""
    fast, form = of_fast_type(v), FORMS[kernel]
    do, o = do.to(fast.dtype), o.to(fast.dtype)
    dq, dk, dv, dalpha = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v, alpha))
    for m, own, engine in groups(q, fast, offsets, form, backend):
        inputs = q[m], k[m], fast[m], alpha
        if engine is None:
            gradients = _dense_gradients(do[m], *inputs, own, form)
        else:
            gradients = engine.backward(do[m], *inputs, own, o[m], lse[m], form)
        dq[m], dk[m], dv[m] = gradients[:3]
        dalpha += gradients[3]
    return dq, dk, dv, dalpha


def _dense_gradients(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel
) -> tuple[Tensor, ...]:
    def value(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor) -> Tensor:
        return dense_attention(q, k, v, kernel, alpha, offsets)[0]

    return torch.func.vjp(value, q, k, v, alpha)[1](do)  # autograd proper does not run inside an operator


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: str, backend: str):
    return v.new_empty(v.shape), alpha.new_empty(len(q))


@_backward.register_fake
def _(do, q, k, v, alpha, offsets, o, lse, kernel, backend):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, alpha))


def _keep(ctx, inputs, output) -> None:
    *tensors, ctx.kernel, ctx.backend = inputs
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx, do, _):
    return *_backward(do, *ctx.saved_tensors, ctx.kernel, ctx.backend), None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)
