"""Trains AbMILP on MNIST bags and draws book/_static/attention.png, the picture of the README and the first page."""

from pathlib import Path

import torch

import samil_lite as sl

torch.manual_seed(0)
model = sl.build("abmilp")
sl.fit(model, sl.data.mnist_bags(n_bags=400), sl.data.mnist_bags(n_bags=100, split="validation"), epochs=25)
for bag in sl.data.mnist_bags(n_bags=200, split="test", std_size=0):
    assert bag.instance_labels is not None
    key = torch.eq(bag.instance_labels, 9)  # (10,)
    if key.sum() == 1:
        break
attention = sl.predict(model, bag).attention
path = Path(__file__).parents[1] / "book" / "_static" / "attention.png"
figure = sl.viz.bag(bag, attention, key, titles=[""])
figure.savefig(path, dpi=200, bbox_inches="tight", facecolor="white")
print(sl.viz.describe_bag(bag, attention, key))
