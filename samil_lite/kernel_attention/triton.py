"""Kernel attention on CUDA: the same three fused programs for every kernel, in memory linear in the batch.

The whole ragged batch is one launch: a table on the device says which block of instances belongs to which bag, and
nothing waits for the device. The forward pass never writes a score. The backward pass takes a stripe of queries at a
time: `pairs` makes their scores again and writes β and the gradient of t, which `gather` then sums to the gradients of
queries, keys and values. So every product of the blockwise algorithm is made once; each sum has one owner and a fixed
order, and results are the same every time. The programs are in `samil_lite.kernel_attention.programs`.
"""

import os
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from samil_lite.kernel_attention import programs
from samil_lite.kernel_attention.autograd import Engine
from samil_lite.kernel_attention.blockwise import BLOCKWISE
from samil_lite.kernel_attention.distances import largest_spread
from samil_lite.kernels import Kernel
from samil_lite.segments import segment_max

M = 32  # instances of a block
STRIPE = 2**26  # pairs whose β and gradient are in memory at a time: 512 MB in float32
PROGRAMS = 512  # at a time, at least, for every multiprocessor of a large card
PRECISION = "tf32x3"  # float32 by three TF32 products on tensor cores, as exact as float32's own
SINCE = 80  # 10 × the compute capability of the first cards with TF32 on tensor cores
WIDEST = 256  # d of queries and keys; wider rows would not fit into the registers
FORMS = {"dot": programs.DOT.value, "squared_distance": programs.SQUARED.value, "l1_distance": programs.L1.value}
EXACT = programs.EXACT.value

failed: set[tuple[Any, ...]] = set()  # what could not be launched here, so that nobody tries again


def tiles(program: str, form: int, width: int) -> dict[str, int]:
    """N other instances and C columns of a tile, warps and stages: the same for every card from sm_80 on.

    Chosen from the registers, spills and shared memory that benchmarks/gpu_resources.py tells: with these nothing
    spills, and 64 KB of shared memory are enough, which every card has. `width` is that of the values, for `gather`
    that of what it sums.
    """
    padded = max(16, triton.next_power_of_2(width))
    if program == "forward":
        return {"N": 16, "C": min(padded, 512), "num_warps": 8, "num_stages": 1}
    if program == "pairs":
        return {"N": 64, "C": min(padded, 64), "num_warps": 8, "num_stages": 1}
    return {"C": 16 if form in (programs.L1.value, EXACT) else min(padded, 64), "num_warps": 4, "num_stages": 1}


def capability_of(device: torch.device) -> int:
    """10 × the compute capability of a card, 80 for Triton's interpreter, 0 for AMD's cards, which nobody has tried."""
    if device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return 0 if torch.version.hip else 10 * major + minor


def functions(kernel: Kernel) -> tuple[Any, Any] | None:
    """φ and its slopes for Triton, if the kernel's own class offers them: what it inherits may be of another kernel."""
    return kernel.jitted() if "jitted" in vars(type(kernel)) else None


def can_take(q: Tensor, v: Tensor, kernel: Kernel) -> bool:
    """Whether the programs compute this kernel on tensors of these shapes and types, on the card where they are.

    They make the same products as blockwise tiles, so their gain is memory traffic. It needs tensor cores that keep
    float32 (TF32, from sm_80 on); before that, cuBLAS's products in blockwise tiles are as many, and faster.
    """
    modern = capability_of(q.device) >= SINCE
    narrow = torch.float64 not in (q.dtype, v.dtype) and q.shape[1] <= WIDEST
    small = len(q) * max(q.shape[1], v.shape[1]) < 2**31  # places are counted in 32 bits
    return modern and narrow and small and functions(kernel) is not None and _key(q, v, kernel) not in failed


def _key(q: Tensor, v: Tensor, kernel: Kernel) -> tuple[Any, ...]:
    return type(kernel), repr(kernel), v.dtype, q.shape[1], v.shape[1], q.device


@dataclass(frozen=True)
class Launch:
    """Bags that are computed with one form of the statistic: what every program gets."""

    inputs: tuple[Tensor, ...]  # q, k (N, d), v (N, d_v), ‖q‖², ‖k‖² and key term (N,), α
    table: Tensor  # (P, 3), see programs
    constants: dict[str, Any]
    form: int


def launches(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel) -> list[Launch]:
    """One launch; of squared distances two, the second for bags whose groups lie too far apart for matrix products."""
    q, k, v, alpha = q.float().contiguous(), k.float().contiguous(), v.contiguous(), alpha.float()
    b = kernel.key_term(k, alpha)  # (N,)
    form, nothing = FORMS[kernel.statistic], q  # a pointer that is not read
    chosen = functions(kernel)
    assert chosen is not None
    constants = {
        "D": q.shape[1], "D_PAD": max(16, triton.next_power_of_2(q.shape[1])), "DV": v.shape[1], "M": M,
        "PHI": chosen[0], "SLOPES": chosen[1], "HAS_B": b is not None, "PRECISION": PRECISION,
    }  # fmt: skip
    key_term = nothing if b is None else b.contiguous()
    raw = (q, k, v, nothing, nothing, key_term, alpha)
    every = torch.ones(len(offsets) - 1, dtype=torch.bool, device=q.device)
    if form != programs.SQUARED.value:
        return [Launch(raw, table(offsets, len(q), every), constants, form)]
    centre = centres(k, offsets).repeat_interleave(offsets.diff(), 0, output_size=len(k))  # (N, d)
    cq, ck = q - centre, k - centre
    q2, k2 = cq.square().sum(1), ck.square().sum(1)  # (N,), (N,)
    near = segment_max(q2, offsets) + segment_max(k2, offsets) <= largest_spread(kernel, alpha)  # (B,)
    centred = (cq, ck, v, q2, k2, key_term, alpha)
    return [
        Launch(centred, table(offsets, len(q), near), constants, form),
        Launch(raw, table(offsets, len(q), ~near), constants, EXACT),
    ]


def centres(k: Tensor, offsets: Tensor) -> Tensor:
    """The mean of 64 keys of each bag at even distances, (B, d): near its middle, and the same every time.

    Distances do not depend on the centre, only their rounding does. A mean of all keys would be summed by atomic
    additions, whose order changes from run to run.
    """
    sizes = offsets.diff()  # (B,)
    places = offsets[:-1, None] + torch.arange(64, device=k.device) * sizes[:, None] // 64  # (B, 64)
    return k[places].mean(1)  # (B, 64, d) -> (B, d)


def table(offsets: Tensor, n: int, wanted: Tensor) -> Tensor:
    """Begin and end of its bag and the bag's first block, for each block of M instances: int32 (P, 3).

    P is the most blocks that n instances in B bags can have, so that nobody need wait to know how many there are. A
    block beyond the last, and one of a bag that is not wanted (B,), has an empty bag.
    """
    bags = len(offsets) - 1
    numbers = torch.arange(n // M + bags, device=offsets.device)  # (P,)
    blocks = (offsets.diff() + M - 1) // M  # (B,)
    ends = blocks.cumsum(0)  # (B,)
    bag = torch.searchsorted(ends, numbers, right=True)  # (P,), B beyond the last
    real = bag < bags
    bag = bag.clamp_max(bags - 1)
    begin, first = offsets[bag], (ends - blocks)[bag]
    end = torch.where(real & wanted[bag], offsets[bag + 1], begin)
    return torch.stack([begin, end, first], 1).int()  # (P, 3)


def forward(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """q, k (N, d) and v (N, d_v) give o (N, d_v) and the log Σ exp of the scores of each query, (N,)."""
    if q.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError('backend: "triton" needs a GPU, and q is on cpu; "auto" takes what the machine has')
    try:
        o, lse = v.new_empty(v.shape), torch.empty_like(q[:, 0], dtype=torch.float32)
        for launch in launches(q, k, v, alpha, offsets, kernel):
            size = tiles("forward", launch.form, v.shape[1])
            grid = len(launch.table), triton.cdiv(v.shape[1], size["C"])
            given = _only(programs.forward, launch.constants)
            programs.forward[grid](*launch.inputs, launch.table, o, lse, FORM=launch.form, **given, **size)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds: too little shared memory, a compiler that is missing or gives up
        failed.add(_key(q, v, kernel))
        warnings.warn(f"{kernel!r} cannot be launched here, blockwise is slower: {str(error)[:300]}", stacklevel=2)
        return BLOCKWISE.forward(q, k, v, alpha, offsets, kernel)
    return o, lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, o: Tensor, lse: Tensor, kernel: Kernel
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and α from that of o, (N, d_v), and what `forward` returned."""
    if _key(q, v, kernel) in failed:
        return BLOCKWISE.backward(do, q, k, v, alpha, offsets, o, lse, kernel)
    try:
        sums = _backward(do, q, k, v, alpha, offsets, o, lse, kernel)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        failed.add(_key(q, v, kernel))
        warnings.warn(f"{kernel!r} cannot be launched here, blockwise is slower: {str(error)[:300]}", stacklevel=2)
        return BLOCKWISE.backward(do, q, k, v, alpha, offsets, o, lse, kernel)
    dq, dk, dv, db, dalpha = sums
    if kernel.key_term(k[:1], alpha) is not None:
        more_k, more_alpha = torch.func.vjp(lambda k, alpha: kernel.key_term(k.float(), alpha), k, alpha)[1](db)
        dk, dalpha = dk + more_k, dalpha + more_alpha
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dalpha.to(alpha.dtype)


def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, o: Tensor, lse: Tensor, kernel: Kernel
) -> tuple[Tensor, ...]:
    """Gradients of q and k (N, d), v (N, d_v), key term (N,) and α, in float32."""
    n, do = len(q), do.contiguous()
    taken = (do.float() * o.float()).sum(1)  # (N,)
    zeros = partial(torch.zeros, dtype=torch.float32, device=q.device)
    dq, dk, dv, db, dalpha = zeros(q.shape), zeros(k.shape), zeros(v.shape), zeros(n), zeros(())
    for launch in launches(q, k, v, alpha, offsets, kernel):
        count = len(launch.table)  # of blocks
        blocks = min(count, max(1, STRIPE // (M * n)))  # of a stripe
        parts = min(count, triton.cdiv(PROGRAMS, blocks))  # of the keys
        beta, dt = v.new_empty(blocks * M, n), zeros(blocks * M, n)  # (stripe, N)
        alphas, of_part = zeros(count, parts), zeros(parts, n, q.shape[1])
        for stripe in range(0, count, blocks):
            here = min(blocks, count - stripe)
            key_terms = zeros(here if launch.constants["HAS_B"] else 1, n)  # (blocks, N)
            _pairs(launch, (here, parts), (lse, do, taken, beta, dt, key_terms, alphas, stripe, n))
            db += key_terms.sum(0)
            cq, ck, form = *launch.inputs[:2], launch.form
            _gather(launch, form, dt, cq, ck, of_part, stripe, here, parts)
            _gather(launch, form, dt, ck, cq, dk, stripe, here)
            _gather(launch, programs.DOT.value, beta, do, do, dv, stripe, here)
        dq, dalpha = dq + of_part.sum(0), dalpha + alphas.sum()
    return dq, dk, dv, db, dalpha


def _pairs(launch: Launch, grid: tuple[int, int], rest: tuple[Any, ...]) -> None:
    size = tiles("pairs", launch.form, launch.constants["DV"])
    given = _only(programs.pairs, launch.constants)
    scale = scale_of(launch.inputs[2].dtype)
    programs.pairs[grid](*launch.inputs, launch.table, *rest, FORM=launch.form, SCALE=scale, **given, **size)


def _gather(
    launch: Launch, form: int, w: Tensor, x: Tensor, y: Tensor, out: Tensor, stripe: int, blocks: int, parts: int = 0
) -> None:
    """Adds Σ w · ∂t/∂x to `out`; of queries, where there are parts, to one tensor for each."""
    size = tiles("gather", form, y.shape[1])
    grid = blocks if parts else len(launch.table), triton.cdiv(y.shape[1], size["C"]), max(parts, 1)
    programs.gather[grid](
        w, x, y, launch.table, out, blocks, stripe, w.shape[1], len(x), D=y.shape[1], M=M, FORM=form,
        OF_QUERIES=parts > 0, SCALE=scale_of(w.dtype), PRECISION=launch.constants["PRECISION"], **size,
    )  # fmt: skip


def scale_of(dtype: torch.dtype) -> int:
    """What β is multiplied with before it is rounded: float16 has no small numbers."""
    return 1024 if dtype == torch.float16 else 1


def _only(program: Any, constants: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in constants.items() if name in program.arg_names}


TRITON = Engine(forward, backward)
