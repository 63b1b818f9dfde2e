"""Maps and top patches of a report: what the models looked at, on slides chosen by a rule."""

import html
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from samil_lite import viz
from samil_lite.bags import Bags
from samil_lite.cross_validation import CrossValidation
from samil_lite.figures import png
from samil_lite.heatmap import size_of_patches
from samil_lite.predicting import P, class_names
from samil_lite.training import predict

TOP, PIXELS = 6, 96  # patches that are shown, and their side


def what_was_looked_at(run: CrossValidation, bags: Any, n: int, slide_files: str | Path | None = None) -> str:
    """HTML of the map and the top patches of chosen slides; empty where bags have neither places nor pictures.

    Args:
        run: what `cross_validate` found.
        bags: the bags it was found on.
        n: slides for each class and verdict.
        slide_files: folder with the scanner's files, to cut the top patches from.
    """
    figures = []
    for number, why in chosen(run.predictions, n):
        row = run.predictions.loc[number]
        bag = bags.subset([number]) if hasattr(bags, "subset") else bags[number]
        held = bag[:]  # read once
        attention = predict(run.models[int(row["fold"])], bag).attention
        if attention is None:
            return "<p>This model has no attention to show.</p>"
        top = attention.argsort(descending=True)[:TOP]
        pictures = _pictures(bag, held, top, str(row["bag"]), slide_files)
        if held.coordinates is None and pictures is None:
            return ""
        text = f"{row['bag']}: {why}, {row[P + str(row['label'])]:.2f}."
        if held.coordinates is not None:
            map_ = viz.heatmap(bag, attention, frames=top.tolist())
            figures.append(figure_with(map_, f"{text} {_places(held.coordinates, attention, top)}"))
        if pictures is not None:
            strip = viz.bag(Bags.from_list([pictures]), attention[top], titles=[""], columns=3)
            told = ", ".join(f"{w:.1f}" for w in (attention[top] * len(attention)).tolist())
            figures.append(
                figure_with(strip, f"{text} Its top patches; attention in units of the even weight: {told}.")
            )
    return f'<div class="row">{"".join(figures)}</div>' if figures else ""


def chosen(table: pd.DataFrame, n: int) -> list[tuple[int, str]]:
    """The rows of median probability of their class, of each class and verdict, and why each was chosen."""
    found = []
    for name in class_names(table):
        for verdict in ("rightly", "wrongly"):
            right = table["label"] == table["predicted"]
            own = table[(table["label"] == name) & (right if verdict == "rightly" else ~right)].sort_values(P + name)
            middle = len(own) // 2
            for place in range(max(0, middle - n // 2), min(len(own), middle - n // 2 + n)):
                found.append((int(own.index[place]), f"{name}, {verdict} called, of median probability"))
    return found


def _places(places: Tensor, attention: Tensor, top: Tensor) -> str:
    where = "; ".join(
        f"({places[i, 0]:.0f}, {places[i, 1]:.0f}) {attention[i] * len(attention):.1f}" for i in top.tolist()
    )
    return f"Top patches, framed, by place (x, y), with their attention in units of the even weight: {where}."


def _pictures(bag: Any, held: Bags, top: Tensor, name: str, slide_files: str | Path | None) -> Tensor | None:
    """The top patches as images (k, 3, h, w): the instances themselves, or cut from the slide's file."""
    x = held.instances
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x[top].float()
    if slide_files is None or held.coordinates is None:
        return None
    from samil_lite.data.slides import Tiling, read_tiles

    path = next((p for p in sorted(Path(slide_files).glob("*")) if p.stem == name and p.is_file()), None)
    if path is None:
        warnings.warn(
            f"slide_files: {slide_files} has no file named {name}; its top patches are not shown", stacklevel=2
        )
        return None
    corners = np.asarray(held.coordinates[top].double())
    parts = [part.instances for part in read_tiles(path, Tiling(corners, size_of_patches(bag, None), None), PIXELS)]
    return torch.cat(parts).float() / 255


def figure_with(figure: Any, text: str) -> str:
    """The figure as HTML, its text beside it and as its alt text."""
    safe = html.escape(text)
    picture = png(figure, ground="white")
    plt.close(figure)
    return f'<figure><img alt="{safe}" src="data:image/png;base64,{picture}"><figcaption>{safe}</figcaption></figure>'
