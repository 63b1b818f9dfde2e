"""Kernel attention in memory linear in the bag: scores are made tile by tile, and made again in the backward pass.

A tile is some rows of queries against some keys. A running maximum and a running sum make the softmax exact without
ever holding a whole row. Saved for the backward pass are the inputs, the output and one number for each query, the
log Σ exp of its scores, from which every weight can be made again.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from samil_lite.kernel_attention import l1
from samil_lite.kernel_attention.autograd import Engine
from samil_lite.kernel_attention.distances import centred
from samil_lite.kernels import Kernel

ROWS, KEYS = 1024, 512  # of a tile: large enough for fast products, small enough that 2 MB of scores stay in the cache


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
        mean = k.mean(0, keepdim=True)  # (1, d)
    q, k, q2, k2 = centred(q, k, mean, kernel, alpha)
    q = torch.cat([-2 * q, q2[:, None], torch.ones_like(q[:, :1])], 1)  # (m, d + 2)
    k = torch.cat([k, torch.ones_like(k[:, :1]), k2[:, None]], 1)  # (n, d + 2)
    return q, k, b


def _present_features(kernel: Kernel, q: Tensor, k: Tensor, alpha: Tensor) -> tuple[Tensor, ...]:
    return tuple(x for x in features(q, k, kernel, alpha) if x is not None)


def scores(
    q: Tensor, k: Tensor, b: Tensor | None, alpha: Tensor, kernel: Kernel, compiled: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """κ of a tile (r, c), free to be changed in place, and what its slopes need: the statistic t and φ(t)."""
    t = l1.distances(q, k, compiled) if kernel.statistic == "l1_distance" else (q @ k.T).to(alpha.dtype)  # (r, c)
    if kernel.statistic == "squared_distance":
        t = t.clamp_min_(0)
    value = kernel.phi(t, alpha)
    return (value.clone() if b is None else value + b), t, value


def blocks(n: int, size: int) -> list[slice]:
    """0 … n − 1 cut into slices of `size`, the last one shorter."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel, compiled: bool
) -> tuple[Tensor, Tensor]:
    """q, k (N, d) and v (N, d_v) give o (N, d_v) and log Σ exp of the scores of each query, (N,)."""
    o, lse = v.new_empty(len(q), v.shape[1]), alpha.new_empty(len(q))
    for bag in _bags(offsets):
        made = features(q[bag], k[bag], kernel, alpha)  # of one bag
        _forward_bag(*made, v[bag], alpha, kernel, compiled, o[bag], lse[bag])
    return o, lse


def _forward_bag(
    q: Tensor, k: Tensor, b: Tensor | None, v: Tensor, alpha: Tensor, kernel: Kernel, compiled: bool,
    o: Tensor, lse: Tensor,
) -> None:  # fmt: skip
    """Fills o (n, d_v) and lse (n,)."""
    for rows in blocks(len(q), ROWS):
        high = alpha.new_full((rows.stop - rows.start, 1), -torch.inf)  # running maximum of each row, (r, 1)
        total, mixed = torch.zeros_like(high), alpha.new_zeros(len(high), v.shape[1])  # (r, 1), (r, d_v)
        for keys in blocks(len(k), KEYS):
            fast = compiled and _full(rows, keys)
            s = scores(q[rows], k[keys], None if b is None else b[keys], alpha, kernel, fast)[0]  # (r, c)
            new = torch.maximum(high, s.amax(1, keepdim=True))
            e = s.sub_(new).exp_()  # (r, c)
            shrink = (high - new).exp_()  # brings what was summed so far to the new scale
            total = total.mul_(shrink).add_(e.sum(1, keepdim=True))
            _add_product(mixed.mul_(shrink), e, v[keys])
            high = new
        o[rows] = mixed / total
        lse[rows] = (high + total.log()).squeeze(1)


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, o: Tensor, lse: Tensor,
    kernel: Kernel, compiled: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v and α from that of o, (N, d_v), and what `forward` returned."""
    dq, dk, dv, dalpha = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.zeros_like(alpha)
    for bag in _bags(offsets):
        made, pull = torch.func.vjp(partial(_present_features, kernel), q[bag], k[bag], alpha)  # type: ignore[misc]
        b = made[2] if len(made) == 3 else None
        one = made[0], made[1], b, v[bag]
        gradients, dv[bag], more = _backward_bag(do[bag], *one, alpha, o[bag], lse[bag], kernel, compiled)
        dq[bag], dk[bag], of_features = pull(gradients[: len(made)])  # back to q, k and α
        dalpha += more + of_features
    return dq, dk, dv, dalpha


def _backward_bag(
    do: Tensor, q: Tensor, k: Tensor, b: Tensor | None, v: Tensor, alpha: Tensor, o: Tensor, lse: Tensor,
    kernel: Kernel, compiled: bool,
) -> tuple[tuple[Tensor | None, ...], Tensor, Tensor]:  # fmt: skip
    """Gradients of the features q, k (n, d), b (n,), of v and α, summed over all tiles."""
    dq, dk, dv, dalpha = torch.zeros_like(q), torch.zeros_like(k), alpha.new_zeros(v.shape), torch.zeros_like(alpha)
    db = None if b is None else torch.zeros_like(b)
    # The gradient of β is do·v; softmax takes Σ_i β do·v_i = do·o from each row. One product makes the difference:
    taken = (do.to(alpha.dtype) * o.to(alpha.dtype)).sum(1, keepdim=True).to(do.dtype)  # (n, 1)
    do1, v1 = torch.cat([do, -taken], 1), torch.cat([v, torch.ones_like(v[:, :1])], 1)  # (n, d_v + 1)
    for rows in blocks(len(q), ROWS):
        for keys in blocks(len(k), KEYS):
            fast = compiled and _full(rows, keys)
            s, t, value = scores(q[rows], k[keys], None if b is None else b[keys], alpha, kernel, fast)  # (r, c) each
            beta = s.sub_(lse[rows, None]).exp_()
            _add_product(dv[keys], beta.T, do[rows])
            ds = (do1[rows] @ v1[keys].T).to(beta.dtype).mul_(beta)  # (r, c)
            if db is not None:
                db[keys] += ds.sum(0)
            slope_t, slope_alpha = kernel.slopes(t, alpha, value)
            if slope_alpha is not None:
                dalpha += torch.dot(ds.flatten(), slope_alpha.expand_as(ds).flatten())
            dt = ds.mul_(slope_t)  # gradient of the statistic
            if kernel.statistic == "l1_distance":
                tile_dq, tile_dk = l1.gradients(dt, t, q[rows], k[keys], fast)
                dq[rows] += tile_dq
                dk[keys] += tile_dk
            else:
                _add_product(dq[rows], dt, k[keys])
                _add_product(dk[keys], dt.T, q[rows])
    return (dq, dk, db), dv, dalpha


def _bags(offsets: Tensor) -> list[slice]:
    return [slice(*ends) for ends in pairwise(offsets.tolist())]


def _full(rows: slice, keys: slice) -> bool:
    """Whether a tile has its full size: only that one is compiled, or every size of bag would compile its own."""
    return (rows.stop - rows.start, keys.stop - keys.start) == (ROWS, KEYS)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a @ b to total; the product is taken in the type of b."""
    if total.dtype == b.dtype:
        total.addmm_(a.to(b.dtype), b)  # without a tensor for the product alone
    else:
        total += a.to(b.dtype) @ b


BLOCKWISE, COMPILED = (Engine(partial(forward, compiled=x), partial(backward, compiled=x)) for x in (False, True))
