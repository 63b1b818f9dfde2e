"""Maps: numbers of the patches of a slide, such as attention, at the places where the patches lie."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from samil_lite.arguments import A_BAG, above, at_least, checked

Values = Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray]
LARGEST = 2000  # cells of a map in each direction
FRAME = "#d55e00"  # orange of the colour-blind palette
LABELS = {"raw": "attention", "even": "attention, in units of the even weight", "percentile": "percentile of the slide"}


@checked(patch_size=above(0), mpp=above(0), bag=A_BAG)
def heatmap(
    bag: Any,
    values: Values,
    *,
    patch_size: float | None = None,
    thumbnail: tuple[Any, float] | None = None,
    scale: str = "even",
    mpp: float | None = None,
    frames: Tensor | Sequence[int] | None = None,
    label: str | None = None,
) -> Figure:
    """The patches of a slide as squares at their places, coloured by a number; several models side by side.

    Where patches overlap, the map shows the mean of those that lie there. Maps of one figure share their colours.

    Args:
        bag: one slide with coordinates, the upper left corners of its patches (x, y): `Bags`, or on disk, as
            `slides.subset(3)`, which knows the size of its patches if its file says it.
        values: one number for each patch, shape (n,), such as attention; or several by name, a map for each.
        patch_size: side of a patch in the unit of the coordinates. None: what the bag knows; else the smallest step
            between neighbouring places, which a warning says.
        thumbnail: a picture of the whole slide to lie under the map, (height, width, 3), and how many units of the
            coordinates a pixel of it is; as `samil_lite.data.slides.thumbnail` gives them.
        scale: "raw" shows the numbers; "even" their ratio to 1/n, the weight of even attention; "percentile" their
            rank in the slide, from 0 to 100, which shows order where few patches have nearly all.
        mpp: micrometres per unit of the coordinates; then the axes are in millimetres.
        frames: numbers of patches, or a mask, that get a frame, such as the one whose β is shown.
        label: beside the colours; what `scale` says if None.

    Returns:
        The figure, with the slide's name above if it has one; show it by
        `samil_lite.viz.show(figure, describe_heatmap(bag, values))`.

    Raises:
        ValueError: if the bag is not one slide with coordinates, or numbers do not fit it.
    """
    corners, maps = places(bag), as_maps(bag, values, scale)
    side = size_of_patches(bag, patch_size)
    rasters = {name: _raster(corners, x, side) for name, x in maps.items()}
    unit, name = (1.0, "pixels") if mpp is None else (mpp / 1000, "mm")
    known = np.concatenate(list(maps.values()))
    low, high = float(known.min()), float(known.max())
    shown = np.asarray(thumbnail[0]).shape[1::-1] if thumbnail is not None else np.ptp(corners, axis=0) + side
    width, height = shown  # of what is shown; only their ratio matters
    tall = 0.6 + 4.2 * min(max(height / width, 0.4), 2.0)
    figure, axes = plt.subplots(
        1, len(maps), figsize=(4.2 * len(maps) + 0.9, tall), layout="constrained", squeeze=False, sharey=True
    )
    for axis, (title, (cells, extent)) in zip(axes[0], rasters.items(), strict=True):
        if thumbnail is not None:
            picture = np.asarray(thumbnail[0])
            h, w = (n * thumbnail[1] * unit for n in picture.shape[:2])
            axis.imshow(picture, extent=(0, w, h, 0))
        image = axis.imshow(
            cells, cmap="cividis", vmin=low, vmax=high if high > low else low + 1, extent=[x * unit for x in extent],
            alpha=None if thumbnail is None else 0.6, interpolation="nearest",
        )  # fmt: skip
        for x, y in corners[_chosen(frames, len(corners))]:
            axis.add_patch(
                Rectangle(
                    (x * unit, y * unit),
                    side * unit,
                    side * unit,
                    fill=False,
                    edgecolor=FRAME,
                    linewidth=2,
                    clip_on=False,
                )
            )
        axis.set(xlabel=f"x in {name}", title=title if len(maps) > 1 else "", aspect="equal")
        axis.locator_params(nbins=5)
    axes[0, 0].set_ylabel(f"y in {name}")
    if (names := getattr(bag, "names", None)) is not None:
        figure.suptitle(names[0], fontsize="medium")
    figure.colorbar(image, ax=axes[0].tolist(), label=label or LABELS[scale], shrink=0.8)
    return figure


@checked(bag=A_BAG)
def describe_heatmap(bag: Any, values: Values) -> str:
    """Alt text for `heatmap`: how concentrated the numbers are, and where the largest lies."""
    corners = places(bag)
    middle, spread = corners.mean(0), np.maximum(np.ptp(corners, axis=0), 1)
    parts = []
    for name, x in as_maps(bag, values, "raw").items():
        top = np.argsort(-x)[: max(1, round(0.1 * len(x)))]
        dx, dy = (corners[top].mean(0) - middle) / spread
        where = (
            f"{'upper' if dy < 0 else 'lower'} {'left' if dx < 0 else 'right'}" if max(abs(dx), abs(dy)) > 0.1 else ""
        )
        share = f", {x[top].sum() / x.sum():.0%} of all" if (x >= 0).all() and x.sum() > 0 else ""
        at = f"towards the {where}" if max(abs(dx), abs(dy)) > 0.1 else "around the middle"
        parts.append(f"{f'{name}: ' if name else ''}the tenth of patches with the largest numbers{share}, lies {at}")
    return f"Map of {len(corners)} patches of a slide, coloured by a number: " + "; ".join(parts) + "."


@checked(patch=at_least(0), bag=A_BAG)
@torch.no_grad()
def beta_row(model: Any, bag: Any, patch: int) -> Tensor:
    """β of one patch, shape (n,): how much it looks at each patch of its slide. For models with self-attention.

    It takes memory linear in the slide: the other rows are not made.

    Raises:
        ValueError: if the model has no self-attention, the bag is not one slide, or it has no such patch.
    """
    if getattr(model, "self_attention", None) is None:
        raise ValueError(f"model: expected one with self-attention, such as iqsa-abmilp, got {type(model).__name__}")
    if len(bag) != 1 or not 0 <= patch < bag.n_instances:
        raise ValueError(f"bag, patch: expected one slide and a patch of it, got {bag} and {patch}")
    bag = bag.to(next(model.parameters()).device)
    (row,) = model.self_attention.attention_rows(model.encoder(bag.instances), torch.tensor([patch], device=bag.device))
    return row.reshape(-1).cpu()  # type: ignore[no-any-return]


def places(bag: Any) -> np.ndarray:
    """The upper left corners of a slide's patches, (n, 2).

    Raises:
        ValueError: if this is not one bag with coordinates.
    """
    if len(bag) != 1:
        raise ValueError(f"bag: expected one slide, got {len(bag)} bags; choose one, as bags[0]")
    coordinates = bag[0].coordinates
    if coordinates is None:
        raise ValueError("bag: expected coordinates to draw by, this bag has none")
    return np.asarray(coordinates.cpu().double())


def as_maps(bag: Any, values: Values, scale: str = "raw") -> dict[str, np.ndarray]:
    """The numbers by name, (n,) each; those without a name have the empty one."""
    if scale not in LABELS:
        raise ValueError(f"scale: expected one of {', '.join(LABELS)}, got {scale!r}")
    named = values if isinstance(values, Mapping) else {"": values}
    n, found = bag.n_instances, {}
    if not named:
        raise ValueError("values: expected one number for each patch, got none")
    for name, x in named.items():
        numbers = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=float)
        what = f"values{f'[{name!r}]' if name else ''}"
        if numbers.shape != (n,):
            raise ValueError(f"{what}: expected {n} numbers, one for each patch of this slide, got {numbers.shape}")
        if not np.isfinite(numbers).all():
            raise ValueError(f"{what}: expected finite numbers, got NaN or infinity")
        if scale == "percentile":
            ordered = np.sort(numbers)
            below, up_to = (np.searchsorted(ordered, numbers, side) for side in ("left", "right"))
            numbers = 100 * (below + up_to) / (2 * n)  # ties share their rank
        found[name] = numbers * n if scale == "even" else numbers
    return found


def size_of_patches(bag: Any, patch_size: float | None) -> float:
    """The side of a patch: as given, as the bag knows it, or the smallest step between places, with a warning."""
    known = getattr(bag, "patch_size", None)
    if patch_size is None and known is not None and np.isfinite(float(known)):
        patch_size = float(known)
    if patch_size is None:
        steps = [np.diff(np.unique(column)) for column in places(bag).T]
        if not sum(map(len, steps)):
            raise ValueError("patch_size: expected the side of a patch, since one place does not tell it")
        patch_size = float(np.concatenate(steps).min())
        warnings.warn(
            f"patch_size: not given and not known; {patch_size:g} is taken, the smallest step between places. Where "
            "patches overlap they are larger",
            stacklevel=3,
        )
    if not 0 < patch_size < np.inf:
        raise ValueError(f"patch_size: expected a number above 0, got {patch_size}")
    return float(patch_size)


def _raster(corners: np.ndarray, values: np.ndarray, side: float) -> tuple[np.ndarray, tuple[float, ...]]:
    """Mean of the values at each cell of a grid, NaN where there is no patch, and the grid's extent for imshow."""
    first, last = corners.min(0), corners.max(0) + side
    cell = float((last - first).max()) / LARGEST
    exact = np.concatenate([(corners - first).ravel(), [side]])
    if (exact == exact.round()).all():  # a grid of whole numbers fits exactly, where it is not too fine
        cell = max(cell, float(np.gcd.reduce(exact.astype(np.int64))))
    start = ((corners - first) / cell).round().astype(int)  # (n, 2), columns and rows
    end = np.maximum(((corners - first + side) / cell).round().astype(int), start + 1)
    columns, rows = end.max(0)
    changes = np.zeros((2, rows + 1, columns + 1))  # of the sum and of the number of patches, at corners
    for (x, y), sign in ((start.T, 1), ((end[:, 0], start[:, 1]), -1), ((start[:, 0], end[:, 1]), -1), (end.T, 1)):
        np.add.at(changes[0], (y, x), sign * values)
        np.add.at(changes[1], (y, x), sign)
    total, count = changes.cumsum(1).cumsum(2)[:, :rows, :columns]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count.round() > 0, total / count, np.nan)
    x1, y1 = first + np.array([columns, rows]) * cell
    return mean, (float(first[0]), float(x1), float(y1), float(first[1]))


def _chosen(frames: Tensor | Sequence[int] | None, n: int) -> np.ndarray:
    if frames is None:
        return np.zeros(0, int)
    chosen = np.asarray(frames.cpu() if isinstance(frames, Tensor) else frames)
    if chosen.dtype == bool and chosen.shape == (n,):
        return np.flatnonzero(chosen)
    if chosen.dtype == bool or (chosen.size and not (chosen.min() >= 0 and chosen.max() < n)):
        raise ValueError(f"frames: expected numbers of patches from 0 to {n - 1} or a mask of {n}, got {chosen}")
    return chosen.astype(int)
