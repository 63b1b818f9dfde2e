"""Seconds of one epoch on bags as many and as large as those of colon: all patches at once, or one by one by PIL.

    python benchmarks/histology.py            # a few minutes on two cores
    python benchmarks/histology.py --quick    # ten bags, no record

The patches are noise: time does not depend on what they show. Every measurement is a process of its own. Record:
book/results/benchmarks/.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from attention import best_of
from PIL import Image
from skimage.color import hed2rgb, lab2rgb, rgb2hed, rgb2lab
from torch import Tensor, nn

import samil_lite as sl
from samil_lite.augment import Dihedral, StainJitter
from samil_lite.experiments import RESULTS
from samil_lite.experiments.records import origin, write_record
from samil_lite.metrics import bag_loss

TURNS = (*Image.Transpose, None)  # mirror images and rotations by right angles


def colon_like(n_bags: int) -> sl.Bags:
    """100 bags have 22,400 nuclei, as the real set has about as many; sizes from 24 to 424."""
    generator = torch.Generator().manual_seed(0)
    sizes = (24 + torch.arange(n_bags) * 400 // (n_bags - 1)).tolist()
    patches = [torch.randint(0, 256, (n, 3, 27, 27), dtype=torch.uint8, generator=generator) for n in sizes]
    return sl.Bags.from_list(patches, torch.arange(n_bags) % 2)


def one_by_one(patch: Image.Image, lab: bool) -> Tensor:
    """Stain jitter, Lab colours if asked for, a turn: a patch at a time, as public code does it."""
    hed = rgb2hed(np.asarray(patch)) * np.random.default_rng().normal(1, 0.02, 3)
    rgb = hed2rgb(hed)
    if lab:  # a real normalisation scales here; it is the way there and back that takes time
        rgb = lab2rgb(rgb2lab(rgb))
    patch = Image.fromarray((rgb.clip(0, 1) * 255).astype(np.uint8))
    turn = random.choice(TURNS)
    patch = patch if turn is None else patch.transpose(turn)
    return torch.from_numpy(np.asarray(patch).copy()).permute(2, 0, 1).float() / 255


def epoch(way: str, n_bags: int) -> Callable[[], None]:
    bags = colon_like(n_bags)
    torch.manual_seed(0)
    if way == "all at once":
        model = sl.build("sa-abmilp", sl.PatchCNN(27, augment=nn.Sequential(StainJitter(), Dihedral())))
        return lambda: sl.fit(model, bags, epochs=1, bags_per_step=4, progress=False, device="cpu") and None
    model = sl.build("sa-abmilp", sl.PatchCNN(27, chunk_size=None)).to(memory_format=torch.contiguous_format)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4)
    pictures = [[Image.fromarray(x.permute(1, 2, 0).numpy()) for x in bag.instances] for bag in bags]

    def one_bag_at_a_time() -> None:
        for bag, patches in zip(bags, pictures, strict=True):
            x = torch.stack([one_by_one(patch, lab=way.endswith("Lab")) for patch in patches])  # (n, 3, 27, 27)
            augmented = sl.Bags(x, bag.offsets, bag.labels)
            optimiser.zero_grad()
            loss = bag_loss(model(augmented).logits, bag.labels)
            model(augmented)  # the public code runs the model a second time, for the error
            loss.backward()
            optimiser.step()

    return one_bag_at_a_time


WAYS = ("all at once", "one by one", "one by one, with Lab")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten bags, no record")
    parser.add_argument("--cell", choices=WAYS, help="one measurement, as JSON")
    args = parser.parse_args()
    n_bags = 10 if args.quick else 100
    if args.cell:
        print(json.dumps({"seconds": best_of(1 if args.quick else 2, epoch(args.cell, n_bags))}))
        return
    rows = []
    for way in WAYS:
        command = [sys.executable, __file__, "--cell", way, *(["--quick"] if args.quick else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"way": way, **json.loads(done.stdout)})
        print(f"{way:22} {rows[-1]['seconds']:8.2f} s", flush=True)
    if not args.quick:
        record = {"rows": rows, **origin(torch.get_num_threads())}
        print(write_record(RESULTS / "benchmarks" / "histology_cpu.json", record))


if __name__ == "__main__":
    main()
