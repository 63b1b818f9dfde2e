"""Seconds and megabytes of ragged batches against padded ones, of an epoch on MNIST bags against one bag at a time,
and of one training step on a bag of 100,000 instances.

    python benchmarks/bags.py            # ten minutes on two cores, most of it for the large bag
    python benchmarks/bags.py --quick    # smaller, no record

Every measurement is a process of its own. Record: book/results/benchmarks/.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable

import torch
from attention import best_of, peak
from torch import Tensor, nn

import samil_lite as sl
from samil_lite.experiments import RESULTS
from samil_lite.experiments.records import origin, write_record
from samil_lite.metrics import bag_loss


def skewed_offsets(n_bags: int, longest: int) -> Tensor:
    """Sizes as in slides: most bags small, a few large, log-normal."""
    sizes = torch.randn(n_bags, generator=torch.Generator().manual_seed(0)).mul(1.2).exp().mul(60).long()
    sizes = sizes.clamp(4, longest)
    sizes[0] = longest
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def padded_pool(pool: sl.AttentionPool, h: Tensor, offsets: Tensor) -> Tensor:
    """Attention pooling as most libraries do it: every bag padded to the longest, a mask in the softmax."""
    x, mask = sl.segments.pad(h, offsets)  # (B, n, d), (B, n)
    e = pool.w(torch.tanh(pool.V(x))).squeeze(-1).masked_fill(~mask, -torch.inf)  # (B, n)
    return (e.softmax(1)[..., None] * x).sum(1)  # (B, d)


def ragged(way: str, quick: bool) -> Callable[[], None]:
    """Forward and backward of pooling or of self-attention on one skewed batch of 32 bags, 512 features."""
    torch.manual_seed(0)
    offsets = skewed_offsets(32, 300 if quick else 1200)
    h = torch.randn(int(offsets[-1]), 512, requires_grad=True)
    pool, attention = sl.AttentionPool(512), sl.KernelSelfAttention(512, "rbf", gamma=1)
    attention.backend = "dense" if way == "attention, padded" else "auto"
    function = {
        "pooling, padded": lambda: padded_pool(pool, h, offsets),
        "pooling, ragged": lambda: pool(h, offsets)[0],
        "attention, padded": lambda: attention(h, offsets),
        "attention, ragged": lambda: attention(h, offsets),
    }[way]
    return lambda: function().square().sum().backward()


def epoch(way: str, quick: bool) -> Callable[[], None]:
    """One epoch of SA-AbMILP on MNIST bags of about ten: as `fit` does it, or as the public code does it."""
    bags = sl.data.mnist_bags(n_bags=24 if quick else 200)
    model = sl.build("sa-abmilp", sl.LeNet5(512))
    if way == "epoch, batches":
        return lambda: sl.fit(model, bags, epochs=1, progress=False, bags_per_step=32, device="cpu") and None
    encoder = model.encoder
    model.encoder = nn.Sequential(*encoder.layers).to(memory_format=torch.contiguous_format)  # as is, without chunks
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-4, weight_decay=1e-4)

    def one_bag_at_a_time() -> None:
        for bag in bags:
            optimiser.zero_grad()
            loss = bag_loss(model(bag).logits, bag.labels)
            model(bag)  # the public code runs the model a second time, for the error
            loss.backward()
            optimiser.step()

    return one_bag_at_a_time


def large_bag(way: str, quick: bool) -> Callable[[], None]:
    """One training step of an SA-AbMILP on a bag of extracted features, 512 wide."""
    torch.manual_seed(0)
    bag = sl.Bags.from_list([torch.randn(2_000 if quick else 100_000, 512)], labels=[1])
    model = sl.build("gsa-abmilp", nn.Identity(), dim=512, gamma=1)
    optimiser = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimiser.zero_grad()
        bag_loss(model(bag).logits, bag.labels).backward()
        optimiser.step()

    return step


WAYS = {
    **{f"{what}, {how}": ragged for what in ("pooling", "attention") for how in ("padded", "ragged")},
    "epoch, one bag at a time": epoch,
    "epoch, batches": epoch,
    "large bag, one step": large_bag,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller, no record")
    parser.add_argument("--cell", choices=WAYS, help="one measurement, as JSON")
    args = parser.parse_args()
    if args.cell:
        run = WAYS[args.cell](args.cell, args.quick)
        before = peak("cpu")
        repeats = 1 if args.cell.startswith("large") else 3
        print(json.dumps({"seconds": best_of(repeats, run), "megabytes": peak("cpu") - before}))
        return
    rows = []
    for way in WAYS:
        command = [sys.executable, __file__, "--cell", way, *(["--quick"] if args.quick else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"way": way, **json.loads(done.stdout)})
        print(f"{way:26} {rows[-1]['seconds']:8.3f} s {rows[-1]['megabytes']:7.0f} MB", flush=True)
    if not args.quick:
        record = {"rows": rows, **origin(torch.get_num_threads())}
        print(write_record(RESULTS / "benchmarks" / "bags_cpu.json", record))


if __name__ == "__main__":
    main()
