"""Draws the pictures of the README, the first page and the openings of chapters, into book/_static/.

Beside each lie those for dark pages and for phones, which the book shows there.
"""

import base64
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

import samil_lite as sl
from samil_lite.figures import NARROW, pictures

STATIC = Path(__file__).parents[1] / "book" / "_static"


def attention() -> Figure:
    """A positive bag of ten digits with one 9, and the attention of an AbMILP trained on 400 bags."""
    torch.manual_seed(0)
    model = sl.build("abmilp")
    sl.fit(model, sl.data.mnist_bags(n_bags=400), sl.data.mnist_bags(n_bags=100, split="validation"), epochs=25)
    for bag in sl.data.mnist_bags(n_bags=200, split="test", std_size=0):
        assert bag.instance_labels is not None
        key = torch.eq(bag.instance_labels, 9)  # (10,)
        if key.sum() == 1:
            break
    weights = sl.predict(model, bag).attention
    print(sl.viz.describe_bag(bag, weights, key))
    return sl.viz.bag(bag, weights, key, titles=[""])


def bags() -> Figure:
    """Three bags as a learner meets them: pictures and one label each."""
    three = sl.data.mnist_bags(n_bags=20, seed=2, mean_size=9)[[0, 1, 2]]
    print(sl.viz.describe_bag(three))
    return sl.viz.bag(sl.Bags(three.instances, three.offsets, three.labels))


def pooling(width: float = 6) -> Figure:
    """Many rows become one; on a phone side by side as well, since the arrow leads from one to the other."""
    h = torch.tensor([[0.1, 0.2], [0.9, 0.1], [0.2, 0.8], [0.1, 0.1], [0.3, 0.4], [0.2, 0.4]])  # chapter 2's bag
    figure, axes = plt.subplots(1, 3, figsize=(width, 1.9), width_ratios=[2, width / 2, 2])
    rows = [[f"{value:.1f}" for value in row] for row in h.tolist()]
    for axis, colours, texts, title in (
        (axes[0], h, rows, "six embeddings"),
        (axes[2], torch.zeros(1, 2), [["?", "?"]], "one vector"),
    ):
        axis.imshow(colours, cmap="Blues", vmin=0, vmax=1.2, aspect="auto" if len(texts) > 1 else 0.35)
        for i, row in enumerate(texts):
            for c, text in enumerate(row):
                axis.text(c, i, text, ha="center", va="center")
        axis.set(title=title, xticks=[], yticks=[])
    axes[1].annotate("", (1, 0.5), (0, 0.5), arrowprops={"arrowstyle": "-|>", "lw": 2, "color": "0.3"})
    axes[1].text(0.5, 0.6, "pooling", ha="center", fontsize=12 if width > NARROW else 9)
    axes[1].axis("off")
    if width > NARROW:
        figure.narrow = lambda: pooling(NARROW)  # type: ignore[attr-defined]
    return figure


if __name__ == "__main__":
    for draw in (attention, bags, pooling):
        for kind, content in pictures(draw()).items():
            suffix = "" if kind == "light" else f"_{kind}"
            (STATIC / f"{draw.__name__}{suffix}.png").write_bytes(base64.b64decode(content))
