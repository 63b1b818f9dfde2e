"""Memory of predicting slides from their files with the defaults: 40 of 20,000 × 768 half-precision features.

    python benchmarks/predicting.py            # 1.2 GB of files in a temporary folder, a few minutes
    python benchmarks/predicting.py --quick    # smaller, no record

Every model is a process of its own: what counts is how far its memory rises above what it has with the model loaded.
Linux only. Record: book/results/benchmarks/.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from reading import write_files
from torch import nn

import samil_lite as sl
from samil_lite.data import FeatureBags
from samil_lite.experiments import RESULTS
from samil_lite.experiments.records import origin, write_record

SLIDES = {"abmilp": 40, "iqsa-abmilp": 4}  # self-attention takes longer, not more memory for more slides


def memory(name: str) -> float:
    """VmRSS, what this process has now, or VmHWM, the most it had since it was last asked to forget, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def measure(folder: Path, name: str, n_slides: int) -> dict[str, float]:
    """Megabytes above the loaded model, and those of one slide in single precision."""
    import pandas as pd

    files = sorted(path.stem for path in folder.glob("*.h5"))[:n_slides]
    slides: FeatureBags = sl.data.feature_bags(
        folder, pd.DataFrame({"slide_id": files}), label=None, allow_unlisted=True
    )
    model = sl.build(name, nn.Sequential(nn.Linear(slides.width, 256), nn.ReLU()), dim=256)
    sl.predict(model, sl.Bags.from_list([torch.zeros(2, slides.width)]))  # what is loaded at the first use
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    sl.predict(model, slides)
    slide = float(slides.sizes.max()) * slides.width * 4 / 2**20
    return {"megabytes": memory("VmHWM") - before, "slide_megabytes": slide}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller, no record")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "MODEL", "SLIDES"), help="a measurement, as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(Path(args.one[0]), args.one[1], int(args.one[2]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as place:
        n_files, size = (4, 2_000) if args.quick else (40, 20_000)
        write_files(Path(place), n_files, size)
        for name, n in SLIDES.items():
            n = min(n, n_files)
            command = [sys.executable, __file__, "--one", place, name, str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append({"model": name, "slides": n, **json.loads(done.stdout)})
            print(f"{name:12} {n:3} slides: {rows[-1]['megabytes']:5.0f} MB above the model")
    if not args.quick:
        print(write_record(RESULTS / "benchmarks" / "predicting_cpu.json", {"rows": rows, **origin(1)}))


if __name__ == "__main__":
    main()
