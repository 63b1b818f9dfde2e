"""Kernel attention in memory linear in the bag: scores are made tile by tile, and made again in the backward pass.

A tile is some rows of queries against some keys. A running maximum and a running sum make the softmax exact without
ever holding a whole row. Saved for the backward pass are the inputs, the output and one number for each query, the
log Σ exp of its scores, from which every weight can be made again.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from samil_lite.kernel_attention import l1
from samil_lite.kernels import Kernel

ROWS, KEYS = 1024, 512  # of a tile: large enough for fast products, small enough that 2 MB of scores stay in the cache


def blockwise_attention(
    q: Tensor, k: Tensor, v: Tensor, kernel: Kernel, alpha: Tensor, compiled: bool = False
) -> Tensor:
    """One bag: q, k (n, d) and v (n, d_v) give o (n, d_v); as `kernel_attention`, in memory of order n."""
    with torch.autocast(q.device.type, enabled=False):
        q, k, b = features(q, k, kernel, alpha)
        return _Blockwise.apply(q, k, v, b, alpha, kernel, compiled)[0]  # type: ignore[no-any-return]


def features(q: Tensor, k: Tensor, kernel: Kernel, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Queries and keys as `scores` takes them, in float32 at least, and the key term b (n,).

    For squared distances these are the rows [−2q, ‖q‖², 1] and [k, 1, ‖k‖²]: their dot products are the distances, so
    one matrix product makes a tile of them, and autograd brings its gradient back to q and k.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k = q.to(wide), k.to(wide)
    b = kernel.key_term(k, alpha)  # (n,)
    if kernel.statistic != "squared_distance":
        return q, k, b
    with torch.no_grad():
        mean = k.mean(0)  # subtracted, or squares far from the origin would swamp the distances
    q, k = q - mean, k - mean
    q = torch.cat([-2 * q, q.square().sum(1, keepdim=True), torch.ones_like(q[:, :1])], 1)  # (m, d + 2)
    k = torch.cat([k, torch.ones_like(k[:, :1]), k.square().sum(1, keepdim=True)], 1)  # (n, d + 2)
    return q, k, b


def scores(
    q: Tensor, k: Tensor, b: Tensor | None, alpha: Tensor, kernel: Kernel, compiled: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """κ of a tile (r, c), free to be changed in place, and what its slopes need: the statistic t and φ(t)."""
    t = l1.distances(q, k, compiled) if kernel.statistic == "l1_distance" else q @ k.T  # (r, c)
    if kernel.statistic == "squared_distance":
        t = t.clamp_min_(0)
    value = kernel.phi(t, alpha)
    return (value.clone() if b is None else value + b), t, value


def blocks(n: int, size: int) -> list[slice]:
    """0 … n − 1 cut into slices of `size`, the last one shorter."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(q, k, v, b, alpha, kernel, compiled):  # type: ignore[no-untyped-def]
        """q, k (n, d), v (n, d_v), b (n,) or None, alpha () -> o (n, d_v), log Σ exp (n,)."""
        o, lse = v.new_empty(len(q), v.shape[1]), q.new_empty(len(q))
        for rows in blocks(len(q), ROWS):
            high = q.new_full((rows.stop - rows.start, 1), -torch.inf)  # running maximum of each row, (r, 1)
            total, mixed = torch.zeros_like(high), q.new_zeros(len(high), v.shape[1])  # (r, 1), (r, d_v)
            for keys in blocks(len(k), KEYS):
                fast = compiled and _full(rows, keys)
                tile = q[rows], k[keys], None if b is None else b[keys], alpha, kernel, fast
                s = scores(*tile)[0]  # (r, c)
                new = torch.maximum(high, s.amax(1, keepdim=True))
                e = s.sub_(new).exp_()  # (r, c)
                shrink = (high - new).exp_()  # brings what was summed so far to the new scale
                total = total.mul_(shrink).add_(e.sum(1, keepdim=True))
                _add_product(mixed.mul_(shrink), e, v[keys])
                high = new
            o[rows] = mixed / total
            lse[rows] = (high + total.log()).squeeze(1)
        return o, lse

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        *tensors, ctx.kernel, ctx.compiled = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def vmap(info, in_dims, *inputs):  # type: ignore[no-untyped-def]
        """Under torch.vmap, which trains many models at once, they are computed one after the other."""
        each = [
            _Blockwise.apply(*(x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True)), (0, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx, do, _):  # type: ignore[no-untyped-def]
        q, k, v, b, alpha, o, lse = ctx.saved_tensors
        kernel, compiled = ctx.kernel, ctx.compiled
        dq, dk, dv, dalpha = torch.zeros_like(q), torch.zeros_like(k), q.new_zeros(v.shape), torch.zeros_like(alpha)
        db = None if b is None else torch.zeros_like(b)
        # The gradient of β is do·v; softmax takes Σ_i β do·v_i = do·o from each row. One product makes the difference:
        taken = (do.to(q.dtype) * o.to(q.dtype)).sum(1, keepdim=True).to(do.dtype)  # (n, 1)
        do1, v1 = torch.cat([do, -taken], 1), torch.cat([v, torch.ones_like(v[:, :1])], 1)  # (n, d_v + 1)
        for rows in blocks(len(q), ROWS):
            for keys in blocks(len(k), KEYS):
                fast = compiled and _full(rows, keys)
                tile = q[rows], k[keys], None if b is None else b[keys], alpha, kernel, fast
                s, t, value = scores(*tile)  # (r, c) each
                beta = s.sub_(lse[rows, None]).exp_()
                _add_product(dv[keys], beta.T, do[rows])
                ds = (do1[rows] @ v1[keys].T).to(beta.dtype).mul_(beta)  # (r, c)
                if db is not None:
                    db[keys] += ds.sum(0)
                slope_t, slope_alpha = kernel.slopes(t, alpha, value)
                if slope_alpha is not None:
                    dalpha += torch.dot(ds.flatten(), slope_alpha.flatten())
                dt = ds.mul_(slope_t)  # gradient of the statistic
                if kernel.statistic == "l1_distance":
                    tile_dq, tile_dk = l1.gradients(dt, t, q[rows], k[keys], fast)
                    dq[rows] += tile_dq
                    dk[keys] += tile_dk
                else:
                    _add_product(dq[rows], dt, k[keys])
                    _add_product(dk[keys], dt.T, q[rows])
        return dq, dk, dv.to(v.dtype), db, dalpha, None, None


def _full(rows: slice, keys: slice) -> bool:
    """Whether a tile has its full size: only that one is compiled, or every size of bag would compile its own."""
    return (rows.stop - rows.start, keys.stop - keys.start) == (ROWS, KEYS)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a @ b to total; the product is taken in the type of b."""
    if total.dtype == b.dtype:
        total.addmm_(a, b)  # without a tensor for the product alone
    else:
        total += a.to(b.dtype) @ b
