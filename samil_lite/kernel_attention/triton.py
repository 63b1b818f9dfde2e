"""Kernel attention on CUDA: one family of fused kernels for all five, forward and backward, in linear memory.

A program owns a block of queries (or of keys) and walks over the blocks of the others with a running softmax, so no
n × n number ever leaves the chip. Values may be wider than fits there: the programs of one block share them, a chunk of
columns each. The backward pass makes the scores again; each gradient is summed by the one program that owns it, in a
fixed order, so results are the same every time.
"""

# mypy: disable-error-code="no-untyped-def, misc, untyped-decorator"
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from samil_lite.kernels import RBF, InverseQuadratic, Kernel, Module

BLOCK, CHUNK = 64, 128  # rows and columns of a tile; columns of the values that a program holds
DOT, RBF_, LOG_RBF, IQ, LOG_IQ, LAPLACE, MODULE, L1_MODULE = (tl.constexpr(i) for i in range(8))


@triton.jit
def _phi(t, alpha, KIND: tl.constexpr):
    """φ(t); see samil_lite.kernels."""
    if KIND == RBF_:
        value = tl.exp(-alpha * t)
    elif KIND == LOG_RBF:
        value = -alpha * t
    elif KIND == IQ:
        value = 1 / (alpha * t + 1)
    elif KIND == LOG_IQ:
        value = -tl.log(alpha * t + 1)
    elif KIND == LAPLACE:
        value = -t
    elif KIND == MODULE:
        value = tl.where(t > 0, tl.exp(0.5 * alpha * tl.log(tl.where(t > 0, t, 1.0))), 0.0)
    elif KIND == L1_MODULE:
        value = tl.where(t > 0, tl.exp(alpha * tl.log(tl.where(t > 0, t, 1.0))), 0.0)
    else:
        value = t
    return value


@triton.jit
def _slopes(t, value, alpha, KIND: tl.constexpr):
    """∂φ/∂t and ∂φ/∂α at t, given value = φ(t)."""
    base = tl.where(t > 0, t, 1.0)
    if KIND == RBF_:
        slope_t, slope_alpha = -alpha * value, -t * value
    elif KIND == LOG_RBF:
        slope_t, slope_alpha = -alpha + 0 * t, -t
    elif KIND == IQ:
        slope_t, slope_alpha = -alpha * value * value, -t * value * value
    elif KIND == LOG_IQ:
        slope_t, slope_alpha = -alpha / (alpha * t + 1), -t / (alpha * t + 1)
    elif KIND == LAPLACE:
        slope_t, slope_alpha = -1.0 + 0 * t, 0 * t
    elif KIND == MODULE:
        slope_t, slope_alpha = 0.5 * alpha * value / base, 0.5 * value * tl.log(base)
    elif KIND == L1_MODULE:
        slope_t, slope_alpha = alpha * value / base, value * tl.log(base)
    else:
        slope_t, slope_alpha = 1.0 + 0 * t, 0 * t
    return slope_t, slope_alpha


@triton.jit
def _statistic(q, k, q2, k2, j, i, n, D: tl.constexpr, D_PAD: tl.constexpr, L1: tl.constexpr, SQUARED: tl.constexpr):
    """t of queries j (rows) and keys i (columns): (BLOCK, BLOCK)."""
    if L1:
        t = tl.zeros((j.shape[0], i.shape[0]), tl.float32)
        for c in range(D):
            one_q = tl.load(q + j * D + c, mask=j < n, other=0.0)
            one_k = tl.load(k + i * D + c, mask=i < n, other=0.0)
            t += tl.abs(one_q[:, None] - one_k[None, :])
    else:
        c = tl.arange(0, D_PAD)
        rows = tl.load(q + j[:, None] * D + c[None, :], mask=(j[:, None] < n) & (c[None, :] < D), other=0.0)
        columns = tl.load(k + i[None, :] * D + c[:, None], mask=(i[None, :] < n) & (c[:, None] < D), other=0.0)
        t = tl.dot(rows, columns, input_precision="ieee")
        if SQUARED:
            squares = tl.load(q2 + j, mask=j < n, other=0.0)[:, None] + tl.load(k2 + i, mask=i < n, other=0.0)[None, :]
            t = tl.maximum(squares - 2 * t, 0.0)
    return t


@triton.jit
def _beta(q, k, q2, k2, b, alpha, lse, j, i, n, D: tl.constexpr, D_PAD: tl.constexpr, KIND: tl.constexpr,
          L1: tl.constexpr, SQUARED: tl.constexpr, HAS_B: tl.constexpr):  # fmt: skip
    """β of a tile made again from the log Σ exp of its rows, with the statistic t and φ(t)."""
    t = _statistic(q, k, q2, k2, j, i, n, D, D_PAD, L1, SQUARED)
    value = _phi(t, alpha, KIND)
    s = value
    if HAS_B:
        s = s + tl.load(b + i, mask=i < n, other=0.0)[None, :]
    beta = tl.exp(s - tl.load(lse + j, mask=j < n, other=0.0)[:, None])
    return tl.where((j[:, None] < n) & (i[None, :] < n), beta, 0.0), t, value


@triton.jit
def _score_gradient(do, v, taken, beta, j, i, n, DV: tl.constexpr, CHUNK: tl.constexpr):
    """Gradient of the scores of a tile: β times what do·v has above its mean over the row."""
    dbeta = tl.zeros(beta.shape, tl.float32)
    for start in range(0, DV, CHUNK):
        c = start + tl.arange(0, CHUNK)
        rows = tl.load(do + j[:, None] * DV + c[None, :], mask=(j[:, None] < n) & (c[None, :] < DV), other=0.0)
        columns = tl.load(v + i[None, :] * DV + c[:, None], mask=(i[None, :] < n) & (c[:, None] < DV), other=0.0)
        dbeta += tl.dot(rows, columns, input_precision="ieee")
    return beta * (dbeta - tl.load(taken + j, mask=j < n, other=0.0)[:, None])


@triton.jit
def _forward(q, k, v, q2, k2, b, alpha_at, o, lse, n, D: tl.constexpr, D_PAD: tl.constexpr, DV: tl.constexpr,
             CHUNK: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr, L1: tl.constexpr, SQUARED: tl.constexpr,
             HAS_B: tl.constexpr):  # fmt: skip
    """One program: BLOCK queries, CHUNK columns of the values."""
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    alpha = tl.load(alpha_at)
    high = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    mixed = tl.zeros((BLOCK, CHUNK), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        s = _phi(_statistic(q, k, q2, k2, j, i, n, D, D_PAD, L1, SQUARED), alpha, KIND)
        if HAS_B:
            s += tl.load(b + i, mask=i < n, other=0.0)[None, :]
        s = tl.where(i[None, :] < n, s, float("-inf"))
        new = tl.maximum(high, tl.max(s, 1))
        e = tl.exp(s - new[:, None])
        shrink = tl.exp(high - new)
        values = tl.load(v + i[:, None] * DV + c[None, :], mask=(i[:, None] < n) & (c[None, :] < DV), other=0.0)
        total = total * shrink + tl.sum(e, 1)
        mixed = mixed * shrink[:, None] + tl.dot(e.to(values.dtype), values, input_precision="ieee")
        high = new
    mixed /= total[:, None]
    tl.store(o + j[:, None] * DV + c[None, :], mixed, mask=(j[:, None] < n) & (c[None, :] < DV))
    if tl.program_id(1) == 0:
        tl.store(lse + j, high + tl.log(total), mask=j < n)


@triton.jit
def _backward_queries(q, k, v, q2, k2, b, alpha_at, lse, do, taken, dq, dq2, dalpha, n, D: tl.constexpr,
                      D_PAD: tl.constexpr, DV: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
                      KIND: tl.constexpr, L1: tl.constexpr, SQUARED: tl.constexpr, HAS_B: tl.constexpr):  # fmt: skip
    """One program: BLOCK queries; their gradients, and their share of that of α."""
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, D_PAD)
    alpha = tl.load(alpha_at)
    sum_q = tl.zeros((BLOCK, D_PAD), tl.float32)
    sum_q2 = tl.zeros((BLOCK,), tl.float32)
    sum_alpha = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        beta, t, value = _beta(q, k, q2, k2, b, alpha, lse, j, i, n, D, D_PAD, KIND, L1, SQUARED, HAS_B)
        ds = _score_gradient(do, v, taken, beta, j, i, n, DV, CHUNK)
        slope_t, slope_alpha = _slopes(t, value, alpha, KIND)
        sum_alpha += tl.sum(ds * slope_alpha, 1)
        dt = ds * slope_t
        if L1:
            for d in range(D):
                one_q = tl.load(q + j * D + d, mask=j < n, other=0.0)
                one_k = tl.load(k + i * D + d, mask=i < n, other=0.0)
                difference = one_q[:, None] - one_k[None, :]
                sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
                so_far = tl.load(dq + j * D + d, mask=j < n, other=0.0)
                tl.store(dq + j * D + d, so_far + tl.sum(dt * sign, 1), mask=j < n)
        else:
            if SQUARED:
                sum_q2 += tl.sum(dt, 1)
                dt = -2 * dt
            keys = tl.load(k + i[:, None] * D + c[None, :], mask=(i[:, None] < n) & (c[None, :] < D), other=0.0)
            sum_q += tl.dot(dt, keys, input_precision="ieee")
    if not L1:
        tl.store(dq + j[:, None] * D + c[None, :], sum_q, mask=(j[:, None] < n) & (c[None, :] < D))
    tl.store(dq2 + j, sum_q2, mask=j < n)
    tl.store(dalpha + j, sum_alpha, mask=j < n)


@triton.jit
def _backward_keys(q, k, v, q2, k2, b, alpha_at, lse, do, taken, dk, dk2, db, n, D: tl.constexpr,
                   D_PAD: tl.constexpr, DV: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
                   KIND: tl.constexpr, L1: tl.constexpr, SQUARED: tl.constexpr, HAS_B: tl.constexpr):  # fmt: skip
    """One program: BLOCK keys; their gradients and those of the key term."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, D_PAD)
    alpha = tl.load(alpha_at)
    sum_k = tl.zeros((BLOCK, D_PAD), tl.float32)
    sum_k2 = tl.zeros((BLOCK,), tl.float32)
    sum_b = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        j = start + tl.arange(0, BLOCK)
        beta, t, value = _beta(q, k, q2, k2, b, alpha, lse, j, i, n, D, D_PAD, KIND, L1, SQUARED, HAS_B)
        ds = _score_gradient(do, v, taken, beta, j, i, n, DV, CHUNK)
        sum_b += tl.sum(ds, 0)
        slope_t, _ = _slopes(t, value, alpha, KIND)
        dt = ds * slope_t
        if L1:
            for d in range(D):
                one_q = tl.load(q + j * D + d, mask=j < n, other=0.0)
                one_k = tl.load(k + i * D + d, mask=i < n, other=0.0)
                difference = one_k[None, :] - one_q[:, None]
                sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
                so_far = tl.load(dk + i * D + d, mask=i < n, other=0.0)
                tl.store(dk + i * D + d, so_far + tl.sum(dt * sign, 0), mask=i < n)
        else:
            if SQUARED:
                sum_k2 += tl.sum(dt, 0)
                dt = -2 * dt
            queries = tl.load(q + j[:, None] * D + c[None, :], mask=(j[:, None] < n) & (c[None, :] < D), other=0.0)
            sum_k += tl.dot(tl.trans(dt), queries, input_precision="ieee")
    if not L1:
        tl.store(dk + i[:, None] * D + c[None, :], sum_k, mask=(i[:, None] < n) & (c[None, :] < D))
    tl.store(dk2 + i, sum_k2, mask=i < n)
    tl.store(db + i, sum_b, mask=i < n)


@triton.jit
def _backward_values(q, k, q2, k2, b, alpha_at, lse, do, dv, n, D: tl.constexpr, D_PAD: tl.constexpr,
                     DV: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr,
                     L1: tl.constexpr, SQUARED: tl.constexpr, HAS_B: tl.constexpr):  # fmt: skip
    """One program: BLOCK values, CHUNK of their columns."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    alpha = tl.load(alpha_at)
    sum_v = tl.zeros((BLOCK, CHUNK), tl.float32)
    for start in range(0, n, BLOCK):
        j = start + tl.arange(0, BLOCK)
        beta, _, _ = _beta(q, k, q2, k2, b, alpha, lse, j, i, n, D, D_PAD, KIND, L1, SQUARED, HAS_B)
        rows = tl.load(do + j[:, None] * DV + c[None, :], mask=(j[:, None] < n) & (c[None, :] < DV), other=0.0)
        sum_v += tl.dot(tl.trans(beta).to(rows.dtype), rows, input_precision="ieee")
    tl.store(dv + i[:, None] * DV + c[None, :], sum_v, mask=(i[:, None] < n) & (c[None, :] < DV))


def triton_attention(q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, alpha: Tensor) -> Tensor:
    """One bag: q, k (n, d) and v (n, d_v) give o (n, d_v); as `blockwise_attention`, on CUDA."""
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.float32  # of scores and sums; the products with values run in their own type
        q, k, alpha = q.to(wide), k.to(wide), alpha.to(wide)
        b = kernel.key_term(k, alpha)  # (n,)
        q2 = k2 = None
        if kernel.statistic == "squared_distance":
            mean = k.detach().mean(0)  # subtracted, or squares far from the origin would swamp the distances
            q, k = q - mean, k - mean
            q2, k2 = q.square().sum(1), k.square().sum(1)  # (n,), (n,); autograd brings their gradients back
        return _Attention.apply(q, k, v, q2, k2, b, alpha, kernel)  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, q2: Tensor | None, k2: Tensor | None, b: Tensor | None,
                alpha: Tensor, kernel: Kernel) -> Tensor:  # fmt: skip
        n, dv = v.shape
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        o, lse = torch.empty_like(v), q.new_empty(n)
        options = _options(q, v, b, kernel)
        nothing = q  # a pointer that is not read
        tensors = (q, k, v, nothing if q2 is None else q2, nothing if k2 is None else k2, nothing if b is None else b)
        _forward[triton.cdiv(n, BLOCK), triton.cdiv(dv, CHUNK)](*tensors, alpha, o, lse, n, **options)
        ctx.save_for_backward(*tensors, alpha, o, lse)
        ctx.options, ctx.given = options, (q2 is not None, b is not None, kernel.has_alpha)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, q2, k2, b, alpha, o, lse = ctx.saved_tensors
        squared, has_b, has_alpha = ctx.given
        n, do = len(v), do.contiguous()
        taken = (do.float() * o.float()).sum(1)  # (n,)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.empty_like(v)
        dq2, dk2, db, dalpha = (q.new_empty(n) for _ in range(4))
        blocks, chunks = triton.cdiv(n, BLOCK), triton.cdiv(v.shape[1], CHUNK)
        inputs = (q, k, v, q2, k2, b, alpha, lse, do, taken)
        _backward_queries[blocks,](*inputs, dq, dq2, dalpha, n, **ctx.options)
        _backward_keys[blocks,](*inputs, dk, dk2, db, n, **ctx.options)
        _backward_values[blocks, chunks](q, k, q2, k2, b, alpha, lse, do, dv, n, **ctx.options)
        squares = (dq2, dk2) if squared else (None, None)
        return dq, dk, dv, *squares, db if has_b else None, dalpha.sum() if has_alpha else None, None


def _options(q: Tensor, v: Tensor, b: Tensor | None, kernel: Kernel) -> dict[str, Any]:
    """What the kernels are compiled for."""
    d = q.shape[1]
    return {
        "D": d, "D_PAD": max(16, triton.next_power_of_2(d)), "DV": v.shape[1], "CHUNK": CHUNK, "BLOCK": BLOCK,
        "KIND": _kind(kernel).value, "L1": kernel.statistic == "l1_distance",
        "SQUARED": kernel.statistic == "squared_distance", "HAS_B": b is not None,
    }  # fmt: skip


def _kind(kernel: Kernel) -> Any:
    match kernel:
        case RBF():
            return LOG_RBF if kernel.log_scores else RBF_
        case InverseQuadratic():
            return LOG_IQ if kernel.log_scores else IQ
        case Module():
            return MODULE if kernel.norm == "euclidean" else L1_MODULE
    return LAPLACE if kernel.statistic == "l1_distance" else DOT
