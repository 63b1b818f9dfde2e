"""Time and peak memory of kernel attention on a graphics card, side by side with what PyTorch has there.

    python benchmarks/gpu.py                       # as much as fits into five minutes; benchmarks/gpu.sh runs it
    python benchmarks/gpu.py --quick --device cpu  # tiny sizes anywhere, to see that it works; no record

Rows come in order of importance, so what a short time leaves out is the least of it. The *floor* is the time that the
multiply-adds of the blockwise algorithm take at the rate that the card reaches in one large product of the values'
type. *flash* is PyTorch's own attention on the dot product, *flex* its FlexAttention, which can express kernels whose
statistic is a matrix product. Record: book/results/benchmarks/gpu_CARD.json.
"""

import argparse
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from attention import D_V, D, best_of, product_rate, wait
from torch import Tensor, nn

import samil_lite as sl
from samil_lite.experiments import RESULTS
from samil_lite.experiments.records import origin, write_record
from samil_lite.kernels import KERNELS

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Run = Callable[[], None]


def inputs_of(n: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """q, k (n, 64) in float32 and v (n, 512) in its type."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(n, width, device=device).mul_(0.3) for width in (D, D, D_V))
    return [x.requires_grad_() for x in (q, k, v.to(dtype))]


def ours(q: Tensor, k: Tensor, v: Tensor, kernel: str, backend: str) -> Tensor:
    return sl.kernel_attention(q, k, v, kernel, 1.0, backend=backend)


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's fused attention on the dot product; values in heads as wide as the queries, all in the values' type."""
    heads = v.shape[1] // q.shape[1]
    q, k = (x.to(v.dtype).expand(1, heads, *x.shape) for x in (q, k))  # (1, heads, n, d)
    v = v.view(len(v), heads, -1).transpose(0, 1)[None]  # (1, heads, n, d)
    return nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)[0].transpose(0, 1).flatten(1)  # (n, d_v)


def flex(q: Tensor, k: Tensor, v: Tensor, kernel: str) -> Tensor:
    """FlexAttention of squared distances: [2q, −‖q‖², −1] · [k, 1, ‖k‖²] is −‖q − k‖², so nothing need be captured."""
    from torch.nn.attention.flex_attention import flex_attention

    one = torch.ones_like(q[:, :1])  # (n, 1)
    augmented_q = torch.cat([2 * q, -q.square().sum(1, keepdim=True), -one], 1)  # (n, d + 2)
    augmented_k = torch.cat([k, one, k.square().sum(1, keepdim=True)], 1)  # (n, d + 2)
    change = {
        "dot": lambda s, *_: s,
        "rbf": lambda s, *_: torch.exp(s),
        "inverse_quadratic": lambda s, *_: 1 / (1 - s),
    }[kernel]
    pair = (q, k) if kernel == "dot" else (augmented_q, augmented_k)
    q, k, v = (x.to(v.dtype)[None, None] for x in (*pair, v))  # (1, 1, n, ·)
    return torch.compile(flex_attention)(q, k, v, score_mod=change, scale=1.0)[0, 0]  # type: ignore[index]


def cells(sizes: list[int]) -> Iterator[dict[str, Any]]:
    """Way, kernel, n and type of every row, the most important first."""
    for n in sizes:
        for values in ("float32", "bfloat16"):
            for kernel in KERNELS:
                yield {"way": "auto", "kernel": kernel, "n": n, "values": values}
            yield {"way": "flash", "kernel": "dot", "n": n, "values": values}
    for n in sizes[:2]:
        for kernel in KERNELS:
            yield {"way": "blockwise", "kernel": kernel, "n": n, "values": "float32"}
        for kernel in ("rbf", "inverse_quadratic", "dot"):
            yield {"way": "flex", "kernel": kernel, "n": n, "values": "bfloat16"}
    for n in sizes:
        for kernel in KERNELS:
            yield {"way": "auto", "kernel": kernel, "n": n, "values": "float16"}


def measure(cell: dict[str, Any], device: str) -> dict[str, Any]:
    """The cell with seconds of forward and backward, the least of two after one to warm up, and megabytes."""
    inputs = inputs_of(cell["n"], TYPES[cell["values"]], device)
    way, kernel = cell["way"], cell["kernel"]

    def run() -> None:
        make = {"flash": flash, "flex": lambda *x: flex(*x, kernel)}.get(way, lambda *x: ours(*x, kernel, way))
        make(*inputs).sum().backward()
        wait(device)

    row = {**cell, **timed(run, device)}
    rate = product_rate(device) if cell["values"] == "float32" else half_rate(device, TYPES[cell["values"]])
    return {**row, "floor": 2 * cell["n"] ** 2 * (4 * D + 3 * D_V) / rate}


def timed(run: Run, device: str) -> dict[str, float]:
    run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = best_of(2, run)
    megabytes = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else float("nan")
    return {"seconds": seconds, "megabytes": megabytes}


def half_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large product of this type."""
    n = 4096 if device == "cuda" else 128
    a = torch.randn(n, n, device=device).to(dtype)

    def run() -> None:
        a @ a
        wait(device)

    return 2 * n**3 / best_of(5, run)


def others(device: str, quick: bool) -> Iterator[tuple[str, Run]]:
    """A ragged batch, an epoch on MNIST bags and a step on a large bag."""
    sizes = torch.linspace(10, 50 if quick else 5000, 32).long()
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).to(device)
    inputs = inputs_of(int(sizes.sum()), torch.float32, device)

    def ragged() -> None:
        sl.kernel_attention(*inputs, "rbf", offsets=offsets).sum().backward()
        wait(device)

    yield "32 bags of 10 to 5,000", ragged
    digits = [torch.rand(10, 1, 28, 28) for _ in range(8 if quick else 200)]
    bags = sl.Bags.from_list(digits, torch.arange(len(digits)) % 2)

    def epoch() -> None:
        torch.manual_seed(0)
        sl.fit(sl.build("gsa-abmilp", gamma=1), bags, epochs=1, device=device)

    yield "an epoch on 200 bags of MNIST's size", epoch
    large = torch.randn(500 if quick else 100_000, 512, device=device)
    model = sl.build("gsa-abmilp", nn.Identity(), dim=512, gamma=1).to(device)

    def step() -> None:
        model(sl.Bags(large, torch.tensor([0, len(large)], device=device))).logits.sum().backward()
        wait(device)

    yield "a training step on 100,000 × 512", step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no record")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --quick")
    parser.add_argument("--seconds", type=float, default=300, help="no row is begun after so many")
    args = parser.parse_args()
    sizes = [64, 128] if args.quick else [16_384, 4_096, 65_536, 100_000]
    start, rows = time.perf_counter(), []
    work: list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]] = [
        ({"way": what}, lambda what=what, run=run: {"way": what, **timed(run, args.device)})
        for what, run in others(args.device, args.quick)
    ]
    work[1:1] = [(cell, lambda cell=cell: measure(cell, args.device)) for cell in cells(sizes)]
    for cell, run in work:
        if time.perf_counter() - start > args.seconds:
            break
        try:
            rows.append(run())
        except Exception as error:  # one way that fails must not cost the others
            rows.append({**cell, "error": f"{type(error).__name__}: {str(error)[:200]}"})
        print(*(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    if not args.quick:
        card = torch.cuda.get_device_name()
        name = re.sub(r"[^a-z0-9]+", "_", card.lower()).strip("_")
        record = {"rows": rows, "card": card, "d": D, "d_v": D_V, **origin(torch.get_num_threads())}
        print(write_record(RESULTS / "benchmarks" / f"gpu_{name}.json", record))


if __name__ == "__main__":
    main()
