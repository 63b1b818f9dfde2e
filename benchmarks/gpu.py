"""Kernel attention on a graphics card: tests natively, then time and peak memory beside what PyTorch has there.

    bash benchmarks/gpu.sh                         # all of it, in eight minutes
    bash benchmarks/gpu.sh --slides FOLDER         # a training step on these slides' features too
    python benchmarks/gpu.py --quick --device cpu  # tiny sizes anywhere, to see that it works; no record

Rows come in order of importance, so what a short time leaves out is the least of it. The *floor* is the time that the
multiply-adds of the blockwise algorithm take at the rate that the card reaches in one large product of the values'
type. *flash* is PyTorch's own attention on the dot product, *flex* its FlexAttention, which can express kernels whose
statistic is a matrix product; for both, *difference* is the largest of their output to ours. The record,
book/results/benchmarks/gpu_CARD.json, is written anew after each part, so nothing is lost if time runs out.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from attention import D_V, D, best_of, product_rate, wait
from gpu_peers import flash, flex
from torch import Tensor, nn

import samil_lite as sl
from samil_lite.experiments.records import REPOSITORY, origin, write_record
from samil_lite.kernels import KERNELS

ROOT = Path(__file__).resolve().parents[1]
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Run = Callable[[], object]
Row = dict[str, Any]


def inputs_of(n: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """q, k (n, 64) in float32 and v (n, 512) in its type."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(n, width, device=device).mul_(0.3) for width in (D, D, D_V))
    return [x.requires_grad_() for x in (q, k, v.to(dtype))]


def cells(sizes: list[int]) -> Iterator[Row]:
    """Way, kernel, n and type of every row, the most important first."""
    for n in sizes:
        for values in ("float32", "bfloat16"):
            for kernel in KERNELS:
                yield {"way": "auto", "kernel": kernel, "n": n, "values": values}
            yield {"way": "flash", "kernel": "dot", "n": n, "values": values}
    for n in sizes[:2]:
        for kernel in KERNELS:
            yield {"way": "blockwise", "kernel": kernel, "n": n, "values": "float32"}
        for kernel in ("dot", "rbf", "inverse_quadratic", "module"):
            yield {"way": "flex", "kernel": kernel, "n": n, "values": "bfloat16"}
    for n in sizes:
        for kernel in KERNELS:
            yield {"way": "auto", "kernel": kernel, "n": n, "values": "float16"}


def measure(cell: Row, device: str) -> Row:
    """The cell with seconds of forward and backward, megabytes, its floor and the difference to ours."""
    inputs = inputs_of(cell["n"], TYPES[cell["values"]], device)
    way, kernel = cell["way"], cell["kernel"]

    def attend(way: str) -> Tensor:
        if way in ("flash", "flex"):
            return flash(*inputs) if way == "flash" else flex(*inputs, kernel)
        return sl.kernel_attention(*inputs, kernel, 1.0, backend=way)

    def run() -> None:
        attend(way).sum().backward()
        wait(device)

    row = {**cell, **timed(run, device)}
    rate = product_rate(device) if cell["values"] == "float32" else half_rate(device, TYPES[cell["values"]])
    row["floor"] = 2 * cell["n"] ** 2 * (4 * D + 3 * D_V) / rate
    if way in ("flash", "flex"):
        with torch.no_grad():
            row["difference"] = (attend(way) - attend("auto")).abs().max().item()
    return row


def timed(run: Run, device: str) -> dict[str, float]:
    """Seconds, the least of two runs after one to warm up, and the most memory at a time."""
    run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = best_of(2, lambda: (run(), None)[1])
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


def others(device: str, quick: bool, slides: list[Tensor]) -> Iterator[tuple[str, Run]]:
    """A ragged batch, an epoch on MNIST bags, a step on a large bag and one on each real slide."""
    sizes = torch.linspace(10, 50 if quick else 5000, 32).long()
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).to(device)
    inputs = inputs_of(int(sizes.sum()), torch.float32, device)

    def ragged() -> None:
        sl.kernel_attention(*inputs, "rbf", offsets=offsets).sum().backward()
        wait(device)

    yield f"32 bags of 10 to {sizes[-1]:,}", ragged
    bags = sl.data.mnist_bags(n_bags=8 if quick else 200)
    model = sl.build("gsa-abmilp", sl.LeNet5(512), gamma=1)
    yield f"an epoch on {len(bags)} MNIST bags", lambda: sl.fit(model, bags, epochs=1, device=device, progress=False)
    large = torch.randn(500 if quick else 100_000, 512)
    yield f"a training step on {len(large):,} × 512", training([large], device)
    if slides:
        count = sum(map(len, slides))
        number = f"each of {len(slides)} real slides" if len(slides) > 1 else "a real slide"
        yield f"a training step on {number}, {count:,} patches", training(slides, device)


def training(bag_of: list[Tensor], device: str) -> Run:
    """A step on each bag (n, d) with a GSA-AbMILP; its label is made up."""
    torch.manual_seed(0)
    dim = bag_of[0].shape[1]
    model = sl.build("gsa-abmilp", nn.Sequential(nn.Linear(dim, 512), nn.ReLU()), dim=512, gamma=1).to(device)
    optimiser = torch.optim.Adam(model.parameters())
    bags = [sl.Bags.from_list([x], labels=[1]).to(device) for x in bag_of]

    def step() -> None:
        for bag in bags:
            optimiser.zero_grad()
            sl.metrics.bag_loss(model(bag).logits, bag.labels).backward()
            optimiser.step()
        wait(device)

    return step


def slide_features(folder: Path | None) -> list[Tensor]:
    """The features (n, d) of every slide in a folder as `samil_lite.data.feature_bags` reads it, in float32."""
    if folder is None:
        return []
    names = sorted({path.stem for ending in ("h5", "pt", "npy") for path in folder.glob(f"*.{ending}")})
    if not names:
        raise ValueError(f"--slides: expected a folder with features of slides, .h5, .pt or .npy, got {folder}")
    bags = sl.data.feature_bags(folder, pd.DataFrame({"slide_id": names}), label=None)
    return [bags[i].instances.float() for i in range(len(bags))]


def native_tests(seconds: float) -> Row:
    """How many tests of the programs passed on the card itself, and which did not; why is printed."""
    side_by_side = ["-n", "8"] if find_spec("xdist") else []  # compiling takes most of the time
    # The plugin for benchmarks, where it is there, warns when tests run side by side, and warnings are errors here.
    without = ["-p", "no:cacheprovider", "-p", "no:benchmark"]
    command = [sys.executable, "-m", "pytest", "-q", *without, *side_by_side, "tests/test_triton.py"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        text, ended = done.stdout, True
    except subprocess.TimeoutExpired as error:
        text, ended = (error.stdout or b"").decode(errors="replace"), False
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
    failed = re.findall(r"^(?:FAILED|ERROR) \S*::(\S+)", text, re.MULTILINE)
    if failed or not ended:
        print(text[-20_000:], flush=True)
    return {**counts, "ended": ended, "stopped": failed}


def chapter_seconds(paths: list[Path], seconds: float) -> Iterator[tuple[str, float | None]]:
    """Name of each chapter and the seconds that it ran, None if it stopped with an error, as long as there is time.

    Why it stopped is printed.
    """
    end = time.perf_counter() + seconds
    for path in paths:
        command = [sys.executable, "-c", "from nbclient.cli import main; main()", str(path)]
        begin = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=end - begin, check=False)
        except subprocess.TimeoutExpired:
            return
        if done.returncode:
            print(done.stderr[-2000:], flush=True)
        yield path.stem, time.perf_counter() - begin if done.returncode == 0 else None


def rows_of(args: argparse.Namespace, slides: list[Tensor]) -> Iterator[Row]:
    """All rows that can be begun in time; one that fails tells why and costs the others nothing."""
    sizes = [64, 128] if args.quick else [16_384, 100_000, 4_096, 65_536]
    work: list[tuple[Row, Callable[[], Row]]] = [
        ({"way": what}, lambda what=what, run=run: {"way": what, **timed(run, args.device)})
        for what, run in others(args.device, args.quick, slides)
    ]
    work += [(cell, lambda cell=cell: measure(cell, args.device)) for cell in cells(sizes)]
    end = time.perf_counter() + args.seconds
    for cell, run in work:
        if time.perf_counter() > end:
            break
        try:
            row = run()
        except Exception as error:  # of a peer that the card or its version does not allow
            row = {**cell, "error": f"{type(error).__name__}: {str(error)[:200]}"}
        print(*(f"{name} {value}" for name, value in row.items()), flush=True)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no tests, one chapter, no record")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --quick")
    parser.add_argument("--seconds", type=float, default=220, help="no row is begun after so many")
    parser.add_argument(
        "--slides", type=Path, default=default_slides(), help="folder of slides' features, of one width"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks", help="folder of the record")
    args = parser.parse_args()
    if not args.quick and not torch.cuda.is_available():
        parser.error("no graphics card here that PyTorch finds; --quick --device cpu tries the script")
    slides = slide_features(args.slides)  # now: a wrong folder must not be told after minutes
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    name = re.sub(r"[^a-z0-9]+", "_", card.lower()).strip("_")
    record = {"card": card, "d": D, "d_v": D_V, "rows": [], "chapters": {}, **origin(torch.get_num_threads())}

    def keep() -> None:
        if not args.quick:
            print(write_record(args.out / f"gpu_{name}.json", record))

    if not args.quick:
        record["tests"] = native_tests(110)
        print(record["tests"], flush=True)
    keep()
    for row in rows_of(args, slides):
        record["rows"].append(row)
    keep()
    paths = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    for chapter, seconds in chapter_seconds(paths[: 1 if args.quick else None], 110):
        record["chapters"][chapter] = seconds
        print(chapter, "failed" if seconds is None else f"{seconds:.0f} s", flush=True)
    keep()


def default_slides() -> Path | None:
    folder = Path(os.environ.get("SAMIL_DATA", "")) / "wsi_bags" / "eagle"
    return folder if "SAMIL_DATA" in os.environ and folder.is_dir() else None


if __name__ == "__main__":
    main()
