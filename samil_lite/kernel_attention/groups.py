"""Which way computes which bags: the choice that "auto" makes, and the grouping of small bags."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from samil_lite.kernel_attention.autograd import Engine, attention
from samil_lite.kernel_attention.blockwise import BLOCKWISE, COMPILED
from samil_lite.kernel_attention.dense import dense_attention
from samil_lite.kernel_attention.fused import FUSED, can_take
from samil_lite.kernels import Kernel, form_of

BACKENDS = ("auto", "dense", "blockwise", "compiled", "triton")
LONG = 512  # instances from which a bag is computed alone, in blocks
GROUP_COST = 30_000  # so many scores of padding cost as much time as computing one more group

Group = tuple[Tensor | slice, Tensor, Engine | None]  # its instances, its own offsets, its engine: None is dense


def attend(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel, backend: str) -> Tensor:
    """The output of `kernel_attention`, (N, d_v), of checked arguments."""
    fast = of_fast_type(v)
    parts: list[Tensor] = []
    rows: list[Any] = []
    for m, own, engine in groups(q, fast, offsets, kernel, backend):
        inputs = (q, k, fast) if isinstance(m, slice) else (q[m], k[m], fast[m])  # a slice is all of them
        if engine is None:
            parts.append(dense_attention(*inputs, kernel, alpha, own)[0])
        else:
            _check_parameters(kernel, inputs[1], alpha)
            parts.append(attention(*inputs, alpha, own, kernel, engine))
        rows.append(m)
    o = parts[0] if len(parts) == 1 else torch.cat(parts)[torch.cat(rows).argsort()]  # in the order of the instances
    return o.to(v.dtype)


def groups(q: Tensor, v: Tensor, offsets: Tensor, kernel: Kernel, backend: str) -> Iterator[Group]:
    """The bags in groups that are computed together."""
    engine = {"blockwise": BLOCKWISE, "compiled": COMPILED}.get(backend)
    if backend in ("auto", "triton"):
        engine = _fused(q, v, kernel, backend)
    if engine is not None or backend == "dense":
        yield slice(None), offsets, engine
        return
    alone = FUSED if can_take(q, v, kernel) else BLOCKWISE
    sizes = offsets.diff().tolist()
    planned = plan(sizes)
    of_bag = torch.arange(len(q), device=q.device).split(sizes) if len(planned) > 1 else ()
    for bags in planned:
        rows = torch.cat([of_bag[b] for b in bags]) if of_bag else slice(None)
        own = torch.tensor([0, *(sizes[b] for b in bags)], device=q.device).cumsum(0)
        yield rows, own, alone if len(bags) == 1 and sizes[bags[0]] >= LONG else None


def plan(sizes: list[int]) -> list[list[int]]:
    """Which bags "auto" computes together: lists of bag numbers.

    On CUDA cards from sm_80 on, where Triton is installed, all bags are one launch of "triton", and there is nothing to
    plan. Elsewhere a bag of `LONG` instances or more is computed alone, by "blockwise" or, where that is faster
    (`samil_lite.kernel_attention.fused`), forward by PyTorch's own fused attention. The others are sorted by size
    and padded together; a group ends where the padding would cost more than one more group (`GROUP_COST`, measured). So
    many small bags make one batched product, and a skewed batch is not padded to its longest bag.
    """
    groups: list[list[int]] = []
    longest = waste = 0
    for b in sorted(range(len(sizes)), key=lambda b: -sizes[b]):
        waste += longest**2 - sizes[b] ** 2
        if not groups or longest >= LONG or waste > GROUP_COST:
            groups.append([])
            longest, waste = sizes[b], 0
        groups[-1].append(b)
    return [sorted(group) for group in groups]


def of_fast_type(v: Tensor) -> Tensor:
    """v, in float32 if its half precision has no units on this CPU: products would take thirty times as long."""
    if v.device.type != "cpu" or v.dtype not in (torch.bfloat16, torch.float16):
        return v
    units = torch.ops.mkldnn
    has_units = torch.backends.mkldnn.is_available() and (
        units._is_mkldnn_bf16_supported() if v.dtype == torch.bfloat16 else units._is_mkldnn_fp16_supported()
    )
    return v if has_units else v.float()


def _fused(q: Tensor, v: Tensor, kernel: Kernel, backend: str) -> Engine | None:
    """The fused kernels of Triton where they are asked for or best; None where bags are better grouped."""
    if backend == "auto" and not (v.is_cuda and find_spec("triton")):
        return None
    from samil_lite.kernel_attention import triton  # is not on every machine

    if not triton.can_take(q, v, kernel):
        return BLOCKWISE if backend == "triton" else None
    return triton.TRITON


def _check_parameters(kernel: Kernel, k: Tensor, alpha: Tensor) -> None:
    """Raises ValueError if a kernel has parameters besides α: an engine would not find their gradients."""
    if form_of(kernel) or not torch.is_grad_enabled():
        return
    alpha, k = alpha.detach(), k.detach()[:1]
    made = kernel.phi(alpha, alpha), kernel.key_term(k, alpha)
    if any(x is not None and x.requires_grad for x in made):
        raise ValueError(
            f'kernel: {kernel!r} has parameters besides alpha, whose gradients only backend="dense" can compute'
        )
