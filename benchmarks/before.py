"""Processor time of kernel attention on a CPU in this checkout and in an earlier one, side by side.

    git worktree add --detach /tmp/before COMMIT
    python benchmarks/before.py /tmp/before            # a minute on one core
    python benchmarks/before.py /tmp/before --quick    # small bags only, no record

Each checkout is a process of its own; the two take every measurement in turns, so that what else the machine does
troubles both alike. Each has one thread; the ratio of the least processor seconds is what to trust. Record:
book/results/benchmarks/before_cpu.json.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from attention import D_V, D
from bags import skewed_offsets

import samil_lite as sl

LOG_RBF = "rbf, log scores"
HERE = Path(__file__).resolve().parents[1]
NARROW = "one bag of 2,048, values of 64"  # no wider than queries
BAGS = {
    "32 bags of ten": [10] * 32,
    "32 skewed bags, the longest 1,200": skewed_offsets(32, 1200).diff().tolist(),
    "one bag of 256": [256],
    "one bag of 1,024": [1024],
    NARROW: [2048],
}
TURNS = {"32 bags of ten": 100, "one bag of 256": 40, "one bag of 1,024": 8}  # others 4


def step(bags: str, kernel: str) -> Callable[[], None]:
    """Forward and backward pass of one batch; queries 64 wide, values 512 unless it says 64."""
    torch.manual_seed(0)
    offsets, d_v = torch.tensor([0, *BAGS[bags]]).cumsum(0), D if bags == NARROW else D_V
    q, k, v = (torch.randn(int(offsets[-1]), width).mul_(0.3).requires_grad_() for width in (D, D, d_v))
    alpha = torch.ones((), requires_grad=True)
    chosen = sl.kernels.RBF(log_scores=True) if kernel == LOG_RBF else kernel
    return lambda: sl.kernel_attention(q, k, v, chosen, alpha, offsets).sum().backward()


def serve() -> None:
    """Answers each line "bags;kernel" with the processor seconds of one step."""
    torch.set_num_threads(1)
    steps: dict[str, Callable[[], None]] = {}
    print(sl.__file__, flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name not in steps:
            steps[name] = step(*name.split(";"))
            steps[name]()  # the first is slower
        start = time.process_time()
        steps[name]()
        print(time.process_time() - start, flush=True)


class Checkout:
    """A process that measures the code of one checkout."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, __file__, "--serve", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._answer().startswith(str(folder)), f"{folder}: its samil_lite is not the one that is imported"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def seconds(self, name: str) -> float:
        assert self.process.stdin is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self._answer())


def main() -> None:
    from samil_lite.experiments import RESULTS
    from samil_lite.experiments.records import origin, write_record
    from samil_lite.kernels import KERNELS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the earlier checkout")
    parser.add_argument("--quick", action="store_true", help="small bags only, no record")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    before, now = Checkout(args.before.resolve()), Checkout(HERE)
    rows = []
    for bags in list(BAGS)[: 1 if args.quick else None]:
        for kernel in (*KERNELS, LOG_RBF):
            seconds: tuple[list[float], list[float]] = [], []
            for turn in range(TURNS.get(bags, 4)):
                for i in (0, 1) if turn % 2 else (1, 0):
                    seconds[i].append((before, now)[i].seconds(f"{bags};{kernel}"))
            least = [min(s) for s in seconds]
            rows.append({"bags": bags, "kernel": kernel, "before": least[0], "now": least[1]})
            print(f"{bags:36} {kernel:18} {least[0]:8.4f} s {least[1]:8.4f} s {least[1] / least[0]:6.2f}", flush=True)
    if not args.quick:
        git = ["git", "-C", str(args.before), "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
        record = {"rows": rows, "before": commit, "d": D, "d_v": D_V, **origin(1)}
        print(write_record(RESULTS / "benchmarks" / "before_cpu.json", record))


if __name__ == "__main__":
    main()
