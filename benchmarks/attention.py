"""Time and peak memory of kernel attention, side by side with the paper's way and with PyTorch's fused attention.

    python benchmarks/attention.py            # all tables, a quarter of an hour on two cores
    python benchmarks/attention.py --quick    # a minute, to see that it works

Each cell is a process of its own, so that its peak memory is its own; every process also measures the rate of one
matrix product, from which the floor follows: the time that the multiply-adds of the blockwise algorithm would take at
that rate. The ratios are what to trust; all ways of one row run one after the other. Records: book/results/benchmarks/.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import samil_lite as sl
from samil_lite.experiments import RESULTS
from samil_lite.experiments.records import origin, write_record
from samil_lite.kernels import KERNELS

D, D_V = 64, 512  # widths of queries and values


def public_loop(q: Tensor, k: Tensor, v: Tensor, kernel: str, alpha: Tensor) -> Tensor:
    """The scores filled column by column from the formula, as in the paper's public code, then the softmax."""
    formula: dict[str, Callable[[Tensor], Tensor]] = {
        "dot": lambda key: q @ key,
        "rbf": lambda key: torch.exp(-alpha * (q - key).square().sum(1)),
        "inverse_quadratic": lambda key: 1 / (alpha * (q - key).square().sum(1) + 1),
        "laplace": lambda key: -(q - key).abs().sum(1),
        "module": lambda key: ((q - key).abs() - q.abs() - key.abs()).sum(1),
    }
    scores = q.new_zeros(len(q), len(k))
    for i in range(len(k)):
        scores[:, i] = formula[kernel](k[i])
    return scores.softmax(1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, kernel: str, alpha: Tensor) -> Tensor:
    """PyTorch's dot-product attention; the values are split into heads as wide as the queries, or it would not fuse."""
    heads = v.shape[1] // q.shape[1]
    q, k = (x.expand(1, heads, *x.shape) for x in (q, k))  # (1, heads, n, d)
    v = v.view(len(v), heads, -1).transpose(0, 1)[None]  # (1, heads, n, d)
    o = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)
    return o[0].transpose(0, 1).flatten(1)


def ours(backend: str) -> Callable[..., Tensor]:
    return lambda q, k, v, kernel, alpha: sl.kernel_attention(q, k, v, kernel, alpha, backend=backend)


WAYS = {
    "auto": ours("auto"),
    "compiled": ours("compiled"),
    "dense": ours("dense"),
    "loop": public_loop,
    "loop, malloc": public_loop,
    "fused": fused,
}
# glibc gives large buffers back to the system and takes them again at every column of the loop; this keeps them.
# Not records.keep_buffers(): set from outside, it is the only difference between the processes of the two loops.
KEEP_BUFFERS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def measure(way: str, kernel: str, n: int, repeats: int, device: str) -> dict[str, float]:
    """Seconds of forward and backward, least of `repeats`, and the memory that they take beyond their input."""
    torch.manual_seed(0)
    inputs = [torch.randn(n, width, device=device).mul_(0.3).requires_grad_() for width in (D, D, D_V)]
    alpha = torch.ones((), device=device, requires_grad=True)
    weight = torch.randn(n, D_V, device=device)
    rate = product_rate(device)
    before = peak(device)
    if way == "compiled":  # its seconds are not counted, its memory is
        big = [x.detach()[:2048].requires_grad_() for x in inputs]
        WAYS[way](*big, kernel, alpha).sum().backward()
        alpha.grad = None
    best, forward = float("inf"), float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        o = WAYS[way](*inputs, kernel, alpha)
        wait(device)
        middle = time.perf_counter()
        (o * weight).sum().backward()
        wait(device)
        best, forward = min(best, time.perf_counter() - start), min(forward, middle - start)
    # Multiply-adds: scores and values forward; again backward, with the gradients of values, keys and queries.
    floor = 2 * n * n * (4 * D + 3 * D_V) / max(rate, product_rate(device))
    return {"seconds": best, "forward": forward, "megabytes": peak(device) - before, "floor": floor}


def product_rate(device: str) -> float:
    """Floating-point operations a second of a product as wide as those of the attention, best of ten."""
    a, b = torch.randn(256, 2048, device=device), torch.randn(2048, D_V, device=device)

    def four() -> None:
        for _ in range(4):
            a @ b
        wait(device)

    return 4 * 2 * 256 * 2048 * D_V / best_of(10, four)


def best_of(repeats: int, run: Callable[[], None]) -> float:
    """Least seconds of so many runs: other programs only ever add to them."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def peak(device: str) -> float:
    """Peak memory of this process so far, in megabytes."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: kilobytes


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def cells(quick: bool) -> list[tuple[str, str, int, int]]:
    """Way, kernel, instances and repeats of every measurement; those of one kernel and n follow each other."""
    sizes = (256, 512) if quick else (1024, 4096, 16384)
    result = []
    for n, kernel in ((n, kernel) for n in sizes for kernel in KERNELS):
        repeats = 5 if n < 4096 else 3 if n < 16384 else 2
        result.append(("auto", kernel, n, repeats))
        if kernel == "laplace" and n >= 2048:
            result.append(("compiled", kernel, n, repeats))
        if n <= 4096 or kernel == "rbf":
            result.append(("dense", kernel, n, repeats))
        if n <= 1024:
            result.append(("loop", kernel, n, repeats))
        if n == 4096 and kernel == "rbf":  # longer takes minutes to hours: the loop is cubic
            result += [("loop", kernel, n, 1), ("loop, malloc", kernel, n, 1)]
        if kernel == "dot":
            result.append(("fused", kernel, n, repeats))
    if not quick:
        result.append(("auto", "rbf", 32768, 1))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small bags only, no record")
    parser.add_argument("--cell", nargs=4, metavar=("WAY", "KERNEL", "N", "REPEATS"), help="one measurement, as JSON")
    args = parser.parse_args()
    device = str(sl.training.default_device())
    if args.cell:
        way, kernel, n, repeats = args.cell
        print(json.dumps(measure(way, kernel, int(n), int(repeats), device)))
        return
    rows = []
    print(f"{'kernel':18} {'n':>6} {'way':12} {'seconds':>9} {'forward':>9} {'MB':>7} {'floor':>7} {'s/floor':>7}")
    for way, kernel, n, repeats in cells(args.quick):
        command = [sys.executable, __file__, "--cell", way, kernel, str(n), str(repeats)]
        environment = {**os.environ, **(KEEP_BUFFERS if way == "loop, malloc" else {})}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        row = {"way": way, "kernel": kernel, "n": n, **json.loads(done.stdout)}
        rows.append(row)
        numbers = f"{row['seconds']:9.3f} {row['forward']:9.3f} {row['megabytes']:7.0f} {row['floor']:7.3f}"
        print(f"{kernel:18} {n:6} {way:12} {numbers} {row['seconds'] / row['floor']:7.2f}", flush=True)
    if not args.quick:
        record = {"rows": rows, "d": D, "d_v": D_V, **origin(torch.get_num_threads())}
        print(write_record(RESULTS / "benchmarks" / f"attention_{device}.json", record))


if __name__ == "__main__":
    main()
