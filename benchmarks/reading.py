"""Seconds of an epoch on feature files that are read while the bags before compute, beside reading and computing alone.

    python benchmarks/reading.py            # 40 files of 20,000 × 768 half-precision numbers, 1.2 GB: a few minutes
    python benchmarks/reading.py --quick    # smaller, no record

Computing has one thread, so that a second core is free for the reader, as it is beside a graphics card. The ways take
turns and the least of each counts: other programs only ever add to them. Record: book/results/benchmarks/.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from torch import nn

import samil_lite as sl
from samil_lite.data import FeatureBags
from samil_lite.experiments import RESULTS
from samil_lite.experiments.records import origin, write_record


class Held:
    """As many bags as the files have, two of which are in memory and stand for all: computing without reading."""

    read_ahead = False

    def __init__(self, bags: FeatureBags) -> None:
        self.labels, self.sizes, self.n_instances = bags.labels, bags.sizes, bags.n_instances
        self.two = [bags[0], bags[1]]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, key: torch.Tensor) -> sl.Bags:
        return self.two[int(key[0]) % 2]


def write_files(folder: Path, n_files: int, n: int) -> FeatureBags:
    x = np.random.RandomState(0).randn(n, 768).astype(np.float16)
    for b in range(n_files):
        with h5py.File(folder / f"s{b:02}.h5", "w") as file:
            file["features"] = x + np.float16(b % 2)
    os.sync()
    names = [f"s{b:02}" for b in range(n_files)]
    return sl.data.feature_bags(folder, pd.DataFrame({"slide_id": names, "label": [b % 2 for b in range(n_files)]}))


def epoch(bags: FeatureBags | Held, ahead: bool) -> None:
    """AbMILP on features made 256 wide, one bag a step."""
    torch.manual_seed(0)
    model = sl.build("abmilp", nn.Sequential(nn.Linear(768, 256), nn.ReLU()), dim=256)
    FeatureBags.read_ahead = ahead
    sl.fit(model, bags, epochs=1, bags_per_step=1, progress=False, device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller, no record")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        bags = write_files(Path(place), *((10, 2_000) if args.quick else (40, 20_000)))
        held = Held(bags)
        ways = {
            "reading": lambda: [bags[b] for b in range(len(bags))],
            "computing": lambda: epoch(held, ahead=False),
            "one after the other": lambda: epoch(bags, ahead=False),
            "reading ahead": lambda: epoch(bags, ahead=True),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(3):
            for way, run in ways.items():
                start = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - start)
    rows = [{"way": way, "seconds": min(found)} for way, found in seconds.items()]
    for row in rows:
        print(f"{row['way']:20} {row['seconds']:8.3f} s")
    larger = max(min(seconds["reading"]), min(seconds["computing"]))
    print(f"reading ahead, to the larger of reading and computing: {min(seconds['reading ahead']) / larger:.2f}")
    if not args.quick:
        record = {"rows": rows, **origin(torch.get_num_threads())}
        print(write_record(RESULTS / "benchmarks" / "reading_cpu.json", record))


if __name__ == "__main__":
    main()
