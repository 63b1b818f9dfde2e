"""Trains the two small models of the explorable "digits" and stores them in 8 bits: python -m tools.train_digits

One LeNet5 of width 64 feeds two heads, an AbMILP and an SA-AbMILP (dot product, γ from 1), which learn together: the
page then carries one encoder. The rule is presence, a 9 and a 7, on bags of 1 to 12 digits of MNIST's training side
(all 60,000, from SAMIL_DATA or downloaded). Bags are drawn anew in every epoch, in four kinds (neither digit, 9s only,
7s only, both), digits are moved by up to two pixels, so that one drawn by hand need not be centred, and one instance
in twenty is noise or a blot, so that a scribble is not taken for a digit. Takes a few minutes on a CPU.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import samil_lite as sl
from samil_lite.data.mnist import full_pool
from samil_lite.explorables.digits import WEIGHTS, digit_models, empty_models, round_to_8_bits
from samil_lite.metrics import bag_loss

OTHERS = np.array([0, 1, 2, 3, 4, 5, 6, 8])


def draw_bags(n_bags: int, images: Tensor, digits: np.ndarray, rng: np.random.Generator, augment: bool) -> sl.Bags:
    """Bags of 1 to 12 digits: a fifth each with neither key digit, 9s only and 7s only, two fifths with both."""
    where = [np.flatnonzero(digits == d) for d in range(10)]
    parts, labels, names = [], [], []
    for kind in rng.permutation(np.arange(n_bags) % 5):  # 0 neither, 1 only 9s, 2 only 7s, 3 and 4 both
        n = int(rng.integers(2 if kind >= 3 else 1, 13))
        most = min(n - (kind >= 3), 3)
        nines = int(rng.integers(1, most + 1)) if kind in (1, 3, 4) else 0
        sevens = int(rng.integers(1, min(n - nines, 3) + 1)) if kind >= 2 else 0
        chosen = np.concatenate([[9] * nines, [7] * sevens, rng.choice(OTHERS, n - nines - sevens)]).astype(int)
        x = images[[rng.choice(where[d]) for d in chosen]]  # (n, 28, 28), in [0, 1]
        parts.append(torch.stack([disturb(one, d, rng) for one, d in zip(x, chosen, strict=True)]) if augment else x)
        labels.append(int(kind >= 3))
        names.append(torch.from_numpy(chosen))
    return sl.Bags.from_list([((x - 0.1307) / 0.3081)[:, None] for x in parts], labels, names)


def disturb(x: Tensor, digit: int, rng: np.random.Generator) -> Tensor:
    """One picture (28, 28) moved by up to two pixels; now and then, unless it is a key digit, something else."""
    if digit not in (7, 9) and rng.random() < 0.05:
        blot = torch.from_numpy(rng.random((7, 7)).astype(np.float32)).repeat_interleave(4, 0).repeat_interleave(4, 1)
        return torch.where(blot > rng.uniform(0.5, 0.95), 1.0, 0.0)
    return x.roll(tuple(rng.integers(-2, 3, 2)), (0, 1))


def store(models: dict[str, sl.MILClassifier], path: Path) -> None:
    """All weights of both models; the encoder, which they share, once."""
    arrays: dict[str, Any] = {}
    for name, model in models.items():
        for key, weight in model.state_dict().items():
            label = key if key.startswith("encoder") else f"{name}.{key}"
            arrays[label], arrays[f"{label}/scale"] = round_to_8_bits(weight.detach())
    np.savez_compressed(path, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--bags", type=int, default=2000, help="drawn for each epoch")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train_side, digits, test_side, test_digits = full_pool()
    images, test_images = (torch.tensor(side).float() / 255 for side in (train_side, test_side))
    models = empty_models()
    parameters = nn.ModuleList(models.values()).parameters()  # the shared encoder once
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.epochs)
    for epoch in range(args.epochs):
        bags = draw_bags(args.bags, images, digits, rng, augment=True)
        total = 0.0
        for chosen in torch.randperm(len(bags)).split(16):
            batch = bags[chosen]
            assert batch.labels is not None
            loss = torch.stack([bag_loss(model(batch).logits, batch.labels) for model in models.values()]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(chosen)
        schedule.step()
        print(f"epoch {epoch + 1}: loss {total / args.bags / 2:.3f}", flush=True)
    store(models, args.out)
    test = draw_bags(2000, test_images, test_digits, np.random.default_rng(1), augment=False)
    for name, model in digit_models(args.out).items():
        print(f"{name}, 8 bits, 2,000 bags of MNIST's test side: {sl.evaluate(model, test)}")


if __name__ == "__main__":
    main()
