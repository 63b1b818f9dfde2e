"""Figures: bags, attention on bags, curves with intervals, in a colour-blind palette.

Every figure is shown with `show(figure, alt)`, so that none is without a text that says what it shows.
"""

import base64
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from samil_lite.arguments import at_least, checked, columns, filled, shown
from samil_lite.bags import Bags
from samil_lite.checkpoints import History
from samil_lite.explorables import FIGURES as EXPLORABLES
from samil_lite.explorables import Explorable
from samil_lite.explorables import explorable as explorable  # sl.viz.explorable
from samil_lite.figures import dark_png, png
from samil_lite.figures import show as show
from samil_lite.heatmap import beta_row as beta_row
from samil_lite.heatmap import describe_heatmap as describe_heatmap
from samil_lite.heatmap import heatmap as heatmap
from samil_lite.metrics import mean_interval

PALETTE = sns.color_palette("colorblind")
KEY, OTHER, WEIGHT = PALETTE[1], "0.8", PALETTE[0]  # frame of key instances, of the others, bars of attention
PHONE = 6  # instances of a bag in a row on a narrow page
EFFECT = ["effect", "low", "high"]  # columns of a table of effects with their intervals
MARKERS = ("o", "s", "D", "^", "v", "P", "X")  # so that lines can be told apart without colour
STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False}


@checked(columns=at_least(1))
def bag(
    bags: Bags,
    attention: Tensor | None = None,
    key: Tensor | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 12,
) -> Figure:
    """Image bags as rows of pictures, each instance with its label and, if given, a bar for its attention weight.

    Args:
        bags: images (N, 1, height, width) or (N, 3, height, width), values on any scale; one row or more for each bag.
        attention: weights, shape (N,); bars of one figure share their scale.
        key: booleans, shape (N,): key instances get a thick frame.
        titles: one line above each bag; the bag's label if None.
        columns: instances in a row before it wraps.
    """
    shape = tuple(bags.instances.shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"bags: expected images of shape (N, 1 or 3, height, width), got (N, {str(shape)[1:]}")
    _check_marks(bags, attention, key)
    if titles is not None and len(titles) != len(bags):
        raise ValueError(f"titles: expected {len(bags)}, one for each bag, got {len(titles)}")
    if titles is None:
        titles = [""] * len(bags) if bags.labels is None else [f"label {y}" for y in bags.labels.tolist()]
    n_rows = [-(-n // columns) for n in bags.sizes.tolist()]  # of each bag, and how many it has in a row
    in_row = [-(-n // k) for n, k in zip(bags.sizes.tolist(), n_rows, strict=True)]
    width = max(in_row)
    space = 0.3 + 0.7 + (0.05 if attention is None else 0.35)  # inches of a row: name, picture, weight
    tops = np.cumsum([0.3 * bool(title) for title in titles]) + space * np.cumsum([0, *n_rows[:-1]]) + 0.3  # of bags
    height = float(tops[-1]) + space * n_rows[-1] - 0.3
    figure = plt.figure(figsize=(0.78 * width, height))
    tallest = 1.0 if attention is None else float(attention.max()) or 1.0  # weights of zero have no bar
    for b, one in enumerate(bags):
        start = int(bags.offsets[b])
        for i in range(one.n_instances):
            row, column = divmod(i, in_row[b])
            bottom = (height - tops[b] - space * row - 0.7) / height
            axis = figure.add_axes((column / width, bottom, 0.7 / 0.78 / width, 0.7 / height))
            name = None if one.instance_labels is None else str(one.instance_labels[i].item())
            _instance(axis, one.instances[i], name, key is not None and bool(key[start + i]))
            if attention is not None:
                _weight_bar(axis, float(attention[start + i]), tallest)
            if i == 0:
                axis.text(0, 1.34, titles[b], transform=axis.transAxes, fontsize=10, va="bottom")
    if width > PHONE:
        figure.narrow = lambda: bag(bags, attention, key, titles, PHONE)  # type: ignore[attr-defined]
    return figure


def _check_marks(bags: Bags, attention: Tensor | None, key: Tensor | None) -> None:
    """Raises ValueError unless weights and marks are one for each instance of these bags."""
    n = bags.n_instances
    if attention is not None and (
        attention.shape != (n,) or not attention.isfinite().all() or float(attention.min()) < 0
    ):
        raise ValueError(
            f"attention: expected {n} finite weights of at least 0, one for each instance, got {_of(attention)}"
        )
    if key is not None and (key.shape != (n,) or key.dtype != torch.bool):
        raise ValueError(f"key: expected {n} booleans, one for each instance, got {shown(key)}")


def _of(x: Tensor) -> str:
    return shown(x) if x.isfinite().all() else f"NaN or infinity in {shown(x)}"


@checked()
def describe_bag(bags: Bags, attention: Tensor | None = None, key: Tensor | None = None) -> str:
    """Alt text for `bag`: the label of each bag and its instances, with weight and mark where there are any."""
    _check_marks(bags, attention, key)
    texts = []
    for b, one in enumerate(bags):
        start = int(bags.offsets[b])
        parts = []
        for i in range(one.n_instances):
            name = "?" if one.instance_labels is None else str(one.instance_labels[i].item())
            notes = ["key"] if key is not None and bool(key[start + i]) else []
            notes += [f"weight {float(attention[start + i]):.2f}"] if attention is not None else []
            parts.append(f"{name} ({', '.join(notes)})" if notes else name)
        label = "" if one.labels is None else f" with label {one.labels.item()}"
        texts.append(f"Bag of {one.n_instances} instances{label}: {', '.join(parts)}.")
    return " ".join(texts)


@checked(weights=filled())
def self_attention(
    weights: Sequence[Tensor], names: Sequence[str], titles: Sequence[str], key: Tensor | None = None
) -> Figure:
    """The β of one bag, as one matrix for each model: row j is the query, column i the key that it attends to.

    Args:
        weights: matrices (n, n) whose rows sum to one; their colours share one scale.
        names: what each instance is, n texts.
        titles: one above each matrix.
        key: booleans, shape (n,): the names of key instances are bold.
    """
    _check_matrices(weights, names, titles)
    n, count = len(names), len(weights)
    if key is not None and (key.shape != (n,) or key.dtype != torch.bool):
        raise ValueError(f"key: expected {n} booleans, one for each instance, got {shown(key)}")
    side = max(2.2, 0.24 * n)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, count, figsize=(side * count + 0.8, side + 0.6), layout="constrained", squeeze=False
        )
    tallest = max(float(beta.max()) for beta in weights)
    for axis, beta, title in zip(axes[0], weights, titles, strict=True):
        image = axis.imshow(beta.detach().cpu(), cmap="Blues", vmin=0, vmax=tallest)
        axis.set(xticks=range(n), yticks=range(n), xlabel="key $i$", title=title)
        for ticks in (axis.set_xticklabels(names), axis.set_yticklabels(names)):
            for tick, is_key in zip(ticks, [False] * n if key is None else key.tolist(), strict=True):
                tick.set_fontweight("bold" if is_key else "normal")
        axis.tick_params(length=0, labelsize=8)
    axes[0, 0].set_ylabel("query $j$")
    figure.colorbar(image, ax=axes[0].tolist(), label=r"$\beta_{ji}$", shrink=0.8)
    return figure


def _check_matrices(weights: Sequence[Tensor], names: Sequence[str], titles: Sequence[str]) -> None:
    """Raises ValueError unless every matrix is (n, n), for n names, and has a title."""
    n = len(names)
    for i, beta in enumerate(weights):
        if beta.shape != (n, n) or not beta.isfinite().all():
            raise ValueError(
                f"weights[{i}]: expected finite numbers of shape ({n}, {n}), for {n} names, got {_of(beta)}"
            )
    if len(titles) != len(weights):
        raise ValueError(f"titles: expected {len(weights)}, one for each matrix, got {len(titles)}")


@checked(weights=filled())
def describe_self_attention(weights: Sequence[Tensor], names: Sequence[str], titles: Sequence[str]) -> str:
    """Alt text for `self_attention`: the largest weight of each matrix and how even its rows are."""
    _check_matrices(weights, names, titles)
    parts = []
    for beta, title in zip(weights, titles, strict=True):
        j, i = divmod(int(beta.argmax()), len(names))
        row_max = beta.max(1).values
        parts.append(
            f"{title}: the largest weight, {float(beta.max()):.2f}, goes from query {names[j]} to key {names[i]}; "
            f"the largest weights of the rows lie between {float(row_max.min()):.2f} and {float(row_max.max()):.2f}"
        )
    return f"Self-attention among {len(names)} instances ({', '.join(names)}). " + "; ".join(parts) + "."


@checked()
def losses(history: History) -> Figure:
    """Training and validation loss over epochs, with a line at the epoch whose weights were kept."""
    _check_epochs(history)
    figure, axis = _axes(5.2, 3)
    epochs = range(1, len(history.train_loss) + 1)
    axis.plot(epochs, history.train_loss, color=PALETTE[0], label="training")
    if history.validation_loss:
        axis.plot(epochs, history.validation_loss, color=PALETTE[1], linestyle="--", label="validation")
        axis.axvline(history.best_epoch + 1, color="0.5", linestyle=":", label="kept")
    axis.set(xlabel="epoch", ylabel="mean loss of a bag", ylim=(0, None))
    axis.legend(frameon=False)
    return figure


def _check_epochs(history: History) -> None:
    if not history.train_loss:
        raise ValueError("history: expected at least one epoch, got none")


@checked()
def describe_losses(history: History) -> str:
    """Alt text for `losses`."""
    _check_epochs(history)
    first, last = (f"{history.train_loss[epoch]:.2f}" for epoch in (0, -1))
    if first == last:
        text = f"Training loss begins and ends at {first}"
    else:
        falls = history.train_loss[-1] < history.train_loss[0]
        text = f"Training loss {'falls' if falls else 'rises'} from {first} to {last}"
    text += f" in {len(history.train_loss)} epochs."
    if history.validation_loss:
        text += f" Validation loss is lowest, {min(history.validation_loss):.2f}, in epoch {history.best_epoch + 1}."
    return text


@checked()
def curves(
    table: pd.DataFrame, x: str, y: str, by: str, labels: dict[str, str] | None = None, panels: str | None = None
) -> Figure:
    """Learning curves: the mean of y over runs at each x, one line for each `by`, with 95 % intervals (Student).

    Args:
        table: one row for each run, with columns x, y and by.
        x: column of the horizontal axis.
        y: column whose mean is drawn.
        by: column that tells the lines apart.
        labels: texts for the axes, by column; the column's name if missing.
        panels: column that cuts the table into panels side by side, in the order in which its values appear.
    """
    _check_table(table, *(column for column in (x, y, by, panels) if column is not None))
    names = [""] if panels is None else list(dict.fromkeys(table[panels]))
    order, places = list(dict.fromkeys(table[by])), sorted(table[x].unique())
    step = 0.03 * min([b - a for a, b in pairwise(places)], default=1.0)  # side by side, so that no interval hides one
    table = table.assign(**{x: table[x] + step * (table[by].map(order.index) - (len(order) - 1) / 2)})
    with plt.rc_context(STYLE):
        size = (6, 3.6) if len(names) == 1 else (3.7 * len(names), 4)
        figure, axes = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        sns.lineplot(
            table if panels is None else table[table[panels] == name], x=x, y=y, hue=by, style=by, hue_order=order,
            style_order=order, palette=PALETTE[: len(order)], markers=list(MARKERS[: len(order)]), errorbar=_interval,
            err_style="bars", err_kws={"capsize": 3}, ax=axis,
        )  # fmt: skip
        axis.set(xlabel=(labels or {}).get(x, x), ylabel=(labels or {}).get(y, y), title=name, xticks=places)
        handles, texts = axis.get_legend_handles_labels()
        if panels is None:
            axis.legend(frameon=False, title=None)
        else:
            axis.get_legend().remove()
    if panels is not None:
        figure.legend(handles, texts, loc="outside lower center", ncols=len(order), frameon=False)
    return figure


@checked()
def describe_curves(
    table: pd.DataFrame, x: str, y: str, by: str, labels: dict[str, str] | None = None, panels: str | None = None
) -> str:
    """Alt text for `curves`: where the mean of every line starts and ends."""
    _check_table(table, *(column for column in (x, y, by, panels) if column is not None))
    if panels is not None:
        parts = [
            f"{name}: {describe_curves(runs, x, y, by, labels)}" for name, runs in table.groupby(panels, sort=False)
        ]
        return " ".join(parts)
    ends = sorted({table[x].min(), table[x].max()})  # one, if there is one x only
    means = table.groupby([by, x])[y].mean()
    lines = [
        f"{name} " + " to ".join(f"{means[name, end]:.3f}" if (name, end) in means else "—" for end in ends)
        for name in dict.fromkeys(table[by])
    ]
    x_name, y_name = ((labels or {}).get(column, column) for column in (x, y))
    return f"Mean {y_name} from {x_name} {ends[0]} to {ends[-1]}: {'; '.join(lines)}."


@checked()
def comparison(table: pd.DataFrame, value: str, by: str, label: str | None = None) -> Figure:
    """Every run as a dot, and for each `by` the mean of the runs with its 95 % interval (Student).

    Args:
        table: one row for each run, with columns `value` and `by`.
        value: column that is compared.
        by: column of the groups, one line each, in the order in which they first appear.
        label: text of the axis; the column's name if None.
    """
    _check_table(table, by, value)
    order = list(dict.fromkeys(table[by]))
    figure, axis = _axes(6, 0.9 + 0.42 * len(order))
    sns.pointplot(
        table, x=value, y=by, order=order, color=PALETTE[0], linestyle="none", marker="D", markersize=5,
        capsize=0.25, err_kws={"linewidth": 1.5}, errorbar=_interval, ax=axis, zorder=3,
    )  # fmt: skip
    for place, (_, runs) in enumerate(table.groupby(by, sort=False)[value]):  # in the order of `order`
        spread = np.linspace(-0.12, 0.12, len(runs))  # not at random: the same runs make the same picture
        axis.scatter(runs, place + spread, color="0.6", s=16, alpha=0.8, linewidths=0, zorder=1)
    axis.set(xlabel=label or value, ylabel="")
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    return figure


@checked()
def forest(names: Sequence[str], effects: Sequence[Sequence[float]], label: str) -> Figure:
    """Effects with their intervals under each other, beside a line at zero; filled where the interval excludes zero.

    Args:
        names: one text for each effect.
        effects: effect, lower and upper end of its interval, for each name.
        label: text of the axis.

    Raises:
        ValueError: if the effects are not three numbers for each name.
    """
    if (shape := np.shape(effects)) != (len(names), 3):
        raise ValueError(f"effects: expected an effect and two ends for each of {len(names)} names, got shape {shape}")
    figure, axis = _axes(7, 0.9 + 0.26 * len(names))
    for place, numbers in enumerate(effects):
        _effect(axis, place, numbers, 0)
    axis.axvline(0, color="0.5", linestyle=":", zorder=0)
    axis.set(xlabel=label, yticks=range(len(names)), yticklabels=list(names))
    axis.invert_yaxis()
    return figure


@checked()
def forests(table: pd.DataFrame, by: str, groups: str, label: str, panels: str | None = None) -> Figure:
    """The forest of a table: a line for each `by`, with one effect for each group, told apart by marks.

    Args:
        table: one row for each effect, with columns effect, low and high and those named; NaN is left out.
        by: column of the lines, in the order in which its values first appear.
        groups: column of the effects that share a line, from above.
        label: text of the axis.
        panels: column that cuts the table into panels side by side.
    """
    _check_table(table, *(name for name in (by, groups, panels) if name is not None), *EFFECT)
    lines, marks = list(dict.fromkeys(table[by])), list(dict.fromkeys(table[groups]))
    names = [""] if panels is None else list(dict.fromkeys(table[panels]))
    with plt.rc_context(STYLE):
        size = (7 if len(names) == 1 else 9, 1.3 + len(lines) * (0.12 + 0.17 * len(marks)))
        figure, axes = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axis, name in zip(axes[0], names, strict=True):
        part = table if panels is None else table[table[panels] == name]
        for line, mark, *numbers in part[[by, groups, *EFFECT]].dropna().itertuples(index=False):
            i = marks.index(mark)
            shift = 0.72 * (i - (len(marks) - 1) / 2) / len(marks)
            _effect(axis, lines.index(line) + shift, numbers, i)
        axis.axvline(0, color="0.5", linestyle=":", zorder=0)
        axis.set(xlabel=label, title=name, yticks=range(len(lines)))
        axis.set_yticklabels([textwrap.fill(str(line), 24) for line in lines])
        axis.locator_params(axis="x", nbins=6 if len(names) < 4 else 3)
    axes[0, 0].invert_yaxis()
    handles = [Line2D([], [], color=PALETTE[i], marker=MARKERS[i], markersize=5) for i in range(len(marks))]
    figure.legend(handles, [str(m) for m in marks], loc="outside lower center", ncols=len(marks), frameon=False)
    return figure


def _effect(axis: Axes, place: float, numbers: Sequence[float], i: int) -> None:
    """One effect with its interval, in the i-th colour and mark; filled where the interval leaves out zero."""
    effect, low, high = numbers
    color, sure = PALETTE[i], low > 0 or high < 0
    axis.plot([low, high], [place, place], color=color, linewidth=1.6)
    axis.plot(effect, place, MARKERS[i], color=color, markersize=5, markerfacecolor=color if sure else "white")


@checked()
def describe_forests(table: pd.DataFrame, by: str, groups: str, label: str, panels: str | None = None) -> str:
    """Alt text for `forests`: every effect, and whether its interval leaves out zero."""
    _check_table(table, *(name for name in (by, groups, panels) if name is not None), *EFFECT)
    parts = []
    keys = [name for name in (panels, groups) if name is not None]
    for names, rows in table.groupby(keys, sort=False):
        found = [
            f"{line} {effect:+.2f}{'*' if low > 0 or high < 0 else ''}"
            for line, effect, low, high in rows[[by, *EFFECT]].dropna().itertuples(index=False)
        ]
        parts.append(f"{', '.join(map(str, names))}: {'; '.join(found)}")
    return f"{label}; a star where the 95 % interval leaves out zero. {'. '.join(parts)}."


@checked()
def describe_comparison(table: pd.DataFrame, value: str, by: str, label: str | None = None) -> str:
    """Alt text for `comparison`: mean and interval of every group."""
    _check_table(table, by, value)
    parts = []
    for name, values in table.groupby(by, sort=False)[value]:
        interval = "{1:.3f} to {2:.3f}".format(*mean_interval(values.to_numpy())) if len(values) > 1 else "one run"
        parts.append(f"{name} {values.mean():.3f} ({interval})")
    runs = table.groupby(by).size()
    count = f"{runs.min()}" if runs.min() == runs.max() else f"{runs.min()} to {runs.max()}"
    return f"{label or value}, mean and 95 % interval over {count} runs: {'; '.join(parts)}."


@checked(figures=filled(), label=filled())
def stepper(figures: Sequence[Figure], captions: Sequence[str], label: str) -> Explorable:
    """A slider over figures drawn beforehand: it works without a kernel, with keys and on a phone.

    A figure that looks like the one before it shows nothing new and is left out.

    Args:
        figures: one for each step; they are closed.
        captions: what each figure shows, one for each; also its alt text.
        label: what the slider changes, such as "Epoch".

    Returns:
        An object that a notebook shows when it is the last line of a cell.
    """
    if len(figures) != len(captions) or not figures:
        raise ValueError(f"captions: expected one for each of {len(figures)} figures, got {len(captions)}")
    pictures = [png(figure, ground="white", cut=False) for figure in figures]  # all frames have one size
    dark = [dark_png(figure, cut=False) for figure in figures]
    for figure in figures:
        plt.close(figure)
    new = [i for i, picture in enumerate(pictures) if i == 0 or picture != pictures[i - 1]]
    frames, texts, dark = ([of[i] for i in new] for of in (pictures, captions, dark))
    data = EXPLORABLES["stepper"].data(frames, texts, label, dark)
    return Explorable("stepper", data, base64.b64decode(pictures[0]), captions[0])


def _check_table(table: pd.DataFrame, *names: str) -> None:
    columns("table", table, *names)
    if table.empty:
        raise ValueError("table: expected at least one run, got no rows")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    with plt.rc_context(STYLE):
        return plt.subplots(figsize=(width, height), layout="constrained")


def _interval(values: pd.Series) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan  # one run has no interval
    return mean_interval(values.to_numpy())[1:]


def _instance(axis: Axes, x: Tensor, name: str | None, is_key: bool) -> None:
    """One picture with its name above and a frame that tells key instances."""
    picture = x.permute(1, 2, 0).squeeze(-1).cpu()  # (height, width) or (height, width, 3)
    low, high = picture.min(), picture.max()
    axis.imshow((picture - low) / (high - low).clamp_min(1e-8), cmap="gray_r", vmin=0, vmax=1)
    axis.axis("on")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=True, color=KEY if is_key else OTHER, linewidth=3 if is_key else 1)
    if name is not None:
        axis.set_title(name, fontsize=9, pad=3, fontweight="bold" if is_key else "normal")


def _weight_bar(axis: Axes, weight: float, tallest: float) -> None:
    """The attention weight under a picture: a bar, full where the weight is the largest of the figure, and a number."""
    for share, color in ((1.0, "0.93"), (weight / tallest, WEIGHT)):
        axis.add_patch(Rectangle((0, -0.24), share, 0.14, color=color, transform=axis.transAxes, clip_on=False, lw=0))
    axis.text(0.5, -0.29, f"{weight:.2f}", transform=axis.transAxes, ha="center", va="top", fontsize=8)


def __getattr__(name: str) -> Any:
    # Live figures need ipywidgets, so they are imported when they are asked for.
    if name in ("browse", "playground", "train"):
        from samil_lite import widgets

        return getattr(widgets, name)
    raise AttributeError(f"module 'samil_lite.viz' has no attribute {name!r}")
