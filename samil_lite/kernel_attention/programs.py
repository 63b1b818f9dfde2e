"""The programs that a GPU runs for `samil_lite.kernel_attention.triton`: three, for all kernels.

Each program owns one block of instances of one bag, read from a table: where its bag begins and ends, and the number of
the bag's first block. M and N are rows and columns of a tile, C is a chunk of columns of queries or of values. A
comment gives the shape of what a line makes.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl

DOT, SQUARED, L1, EXACT = (tl.constexpr(i) for i in range(4))  # statistics; EXACT: squared distances by differences


@triton.jit
def _block(table, p, M: tl.constexpr):
    """Block p: begin and end of its bag, the bag's first block, its instances. Beyond the last block it has none."""
    begin, end, first = tl.load(table + 3 * p), tl.load(table + 3 * p + 1), tl.load(table + 3 * p + 2)
    return begin, end, first, begin + (p - first) * M + tl.arange(0, M)  # (M,)


@triton.jit
def _matrix(x, rows, columns, end, WIDTH: tl.constexpr):
    """Part of x (·, WIDTH), zero beyond its bag and its width; rows (M, 1) and columns (1, C), or transposed."""
    return tl.load(x + rows * WIDTH + columns, mask=(rows < end) & (columns < WIDTH), other=0.0)


@triton.jit
def _product(q, k, j, i, c, end, D: tl.constexpr, PRECISION: tl.constexpr):
    """What columns c of queries j and keys i add to their dot products: (M, N)."""
    rows = _matrix(q, j[:, None], c[None, :], end, D)  # (M, C)
    columns = _matrix(k, i[None, :], c[:, None], end, D)  # (C, N)
    return tl.dot(rows, columns, input_precision=PRECISION)  # (M, N)


@triton.jit
def _statistic(q, k, q2, k2, j, i, end, D: tl.constexpr, D_PAD: tl.constexpr, FORM: tl.constexpr,
               PRECISION: tl.constexpr):  # fmt: skip
    """t of queries j and keys i, one matrix product or a sum over coordinates: (M, N)."""
    if (FORM == L1) | (FORM == EXACT):
        t = tl.zeros((j.shape[0], i.shape[0]), tl.float32)  # (M, N)
        for c in range(D):
            one_q = tl.load(q + j * D + c, mask=j < end, other=0.0)  # (M,)
            one_k = tl.load(k + i * D + c, mask=i < end, other=0.0)  # (N,)
            difference = one_q[:, None] - one_k[None, :]  # (M, N)
            t += tl.abs(difference) if FORM == L1 else difference * difference
    else:
        if D_PAD <= 64:
            t = _product(q, k, j, i, tl.arange(0, D_PAD), end, D, PRECISION)  # (M, N)
        else:  # wide rows would not fit into the registers
            t = tl.zeros((j.shape[0], i.shape[0]), tl.float32)  # (M, N)
            for start in range(0, D, 64):
                t += _product(q, k, j, i, start + tl.arange(0, 64), end, D, PRECISION)
        if FORM == SQUARED:
            squares_q = tl.load(q2 + j, mask=j < end, other=0.0)  # (M,)
            squares_k = tl.load(k2 + i, mask=i < end, other=0.0)  # (N,)
            t = tl.maximum(squares_q[:, None] + squares_k[None, :] - 2 * t, 0.0)
    return t


@triton.jit
def forward(q, k, v, q2, k2, b, alpha_at, table, o, lse, D: tl.constexpr, D_PAD: tl.constexpr, DV: tl.constexpr,
            C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, PHI: tl.constexpr, FORM: tl.constexpr,
            HAS_B: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """M queries and C columns of the values, which are all columns where they fit: o and log Σ exp of the scores."""
    begin, end, _, j = _block(table, tl.program_id(0), M)  # (M,)
    c = tl.program_id(1) * C + tl.arange(0, C)  # (C,)
    alpha = tl.load(alpha_at)
    high = tl.full((M,), float("-inf"), tl.float32)  # (M,): running maximum
    total = tl.zeros((M,), tl.float32)  # (M,): running sum
    mixed = tl.zeros((M, C), tl.float32)  # (M, C): running mean of values, times the sum
    for start in range(begin, end, N):
        i = start + tl.arange(0, N)  # (N,)
        s = PHI(_statistic(q, k, q2, k2, j, i, end, D, D_PAD, FORM, PRECISION), alpha)  # (M, N)
        if HAS_B:
            s += tl.load(b + i, mask=i < end, other=0.0)[None, :]
        s = tl.where(i[None, :] < end, s, float("-inf"))
        new = tl.maximum(high, tl.max(s, 1))  # (M,)
        e = tl.exp(s - new[:, None])  # (M, N)
        shrink = tl.exp(high - new)  # (M,): brings what was summed so far to the new scale
        values = _matrix(v, i[:, None], c[None, :], end, DV)  # (N, C)
        total = total * shrink + tl.sum(e, 1)
        mixed = tl.dot(e.to(values.dtype), values, mixed * shrink[:, None], input_precision=PRECISION)  # (M, C)
        high = new
    total = tl.where(total > 0, total, 1.0)  # 0 in an empty bag
    mixed /= total[:, None]
    tl.store(o + j[:, None] * DV + c[None, :], mixed, mask=(j[:, None] < end) & (c[None, :] < DV))
    if tl.program_id(1) == 0:
        tl.store(lse + j, high + tl.log(total), mask=j < end)


@triton.jit
def pairs(q, k, v, q2, k2, b, alpha_at, table, lse, do, taken, betas, dts, db, dalpha, stripe, n,
          D: tl.constexpr, D_PAD: tl.constexpr, DV: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
          PHI: tl.constexpr, SLOPES: tl.constexpr, FORM: tl.constexpr, HAS_B: tl.constexpr, SCALE: tl.constexpr,
          PRECISION: tl.constexpr):  # fmt: skip
    """M queries of the stripe and every so-manieth N keys of their bag: β and the gradient of t, written to memory."""
    p, part = stripe + tl.program_id(0), tl.program_id(1)
    begin, end, _, j = _block(table, p, M)  # (M,)
    local = tl.program_id(0) * M + tl.arange(0, M)  # (M,): rows of what is written
    alpha = tl.load(alpha_at)
    one_lse = tl.load(lse + j, mask=j < end, other=0.0)  # (M,)
    one_taken = tl.load(taken + j, mask=j < end, other=0.0)  # (M,)
    sum_alpha = tl.zeros((M,), tl.float32)  # (M,)
    for start in range(begin + part * N, end, tl.num_programs(1) * N):
        i = start + tl.arange(0, N)  # (N,)
        t = _statistic(q, k, q2, k2, j, i, end, D, D_PAD, FORM, PRECISION)  # (M, N)
        value = PHI(t, alpha)
        s = value
        if HAS_B:
            s = s + tl.load(b + i, mask=i < end, other=0.0)[None, :]
        inside = (j[:, None] < end) & (i[None, :] < end)  # (M, N)
        beta = tl.where(inside, tl.exp(s - one_lse[:, None]), 0.0)  # (M, N)
        dbeta = tl.zeros((M, N), tl.float32)  # (M, N)
        for chunk in range(0, DV, C):
            c = chunk + tl.arange(0, C)  # (C,)
            rows = _matrix(do, j[:, None], c[None, :], end, DV)  # (M, C)
            columns = _matrix(v, i[None, :], c[:, None], end, DV)  # (C, N)
            dbeta = tl.dot(rows, columns, dbeta, input_precision=PRECISION)
        ds = beta * (dbeta - one_taken[:, None])  # (M, N): softmax takes the mean of dbeta from each row
        slope_t, slope_alpha = SLOPES(t, value, alpha)
        sum_alpha += tl.sum(ds * slope_alpha, 1)  # (M,)
        at = local[:, None] * n + i[None, :]  # (M, N)
        tl.store(betas + at, (beta * SCALE).to(betas.dtype.element_ty), mask=inside)
        tl.store(dts + at, ds * slope_t, mask=inside)
        if HAS_B:
            tl.store(db + tl.program_id(0) * n + i, tl.sum(ds, 0), mask=i < end)  # (N,)
    tl.store(dalpha + p * tl.num_programs(1) + part, tl.sum(sum_alpha, 0), mask=begin < end)


@triton.jit
def gather(w, x, y, table, out, blocks, stripe, n, total, D: tl.constexpr, C: tl.constexpr, M: tl.constexpr,
           FORM: tl.constexpr, OF_QUERIES: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """M instances and C columns of their sum over the other side of the pairs, Σ w · ∂t/∂x.

    Of queries, all keys are summed, in parts that are added up later; of keys, the queries of the stripe are added to
    what the stripes before have left. x is the own side, y the other; with DOT, ∂t/∂x is y.
    """
    p, part = tl.program_id(0), tl.program_id(2)
    if OF_QUERIES:
        p += stripe
    begin, end, first, own = _block(table, p, M)  # (M,)
    c = tl.program_id(1) * C + tl.arange(0, C)  # (C,)
    of_bag = first + tl.cdiv(end - begin, M)  # the block after the bag's last
    low, high = first, of_bag
    if not OF_QUERIES:
        low, high = tl.maximum(first, stripe), tl.minimum(of_bag, stripe + blocks)
    own_x = _matrix(x, own[:, None], c[None, :], end, D)  # (M, C)
    sums = tl.zeros((M, C), tl.float32)  # (M, C)
    sum_w = tl.zeros((M,), tl.float32)  # (M,)
    for other_p in range(low + part, high, tl.num_programs(2)):
        other = begin + (other_p - first) * M + tl.arange(0, M)  # (N,)
        if OF_QUERIES:
            at = (tl.program_id(0) * M + tl.arange(0, M))[:, None] * n + other[None, :]  # (M, N)
        else:
            at = ((other_p - stripe) * M + tl.arange(0, M))[None, :] * n + own[:, None]  # (M, N)
        weights = tl.load(w + at, mask=(own[:, None] < end) & (other[None, :] < end), other=0.0)  # (M, N)
        other_y = _matrix(y, other[:, None], c[None, :], end, D)  # (N, C)
        if (FORM == L1) | (FORM == EXACT):
            difference = own_x[:, None, :] - other_y[None, :, :]  # (M, N, C)
            slope = 2 * difference  # (M, N, C)
            if FORM == L1:
                slope = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
            sums += tl.sum(weights[:, :, None] * slope, 1)  # (M, C)
        else:
            sums = tl.dot(weights, other_y, sums, input_precision=PRECISION)  # (M, C)
            sum_w += tl.sum(weights.to(tl.float32), 1)  # (M,)
    if FORM == SQUARED:
        sums = 2 * (own_x * sum_w[:, None] - sums)
    at = own[:, None] * D + c[None, :]  # (M, C)
    inside = (own[:, None] < end) & (c[None, :] < D)  # (M, C)
    if OF_QUERIES:
        tl.store(out + part * total * D + at, sums, mask=inside)
    else:
        tl.store(out + at, tl.load(out + at, mask=inside, other=0.0) + sums / SCALE, mask=inside)
