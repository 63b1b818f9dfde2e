"""One drawing for every reader: a figure with its alt text, also on a dark page and on a narrow one.

Notebooks show the picture that matplotlib draws. Beside it, in the output's metadata, travel the same figure in dark
colours and, for phones, with its panels under each other; the book chooses among them.
"""

import base64
import io
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.ticker import AutoLocator, MaxNLocator

DPI = 160  # of stored pictures, which are shown at 100 dots an inch
LARGE = 300_000  # bytes of a photograph beyond which it is stored in fewer colours
NARROW = 3.9  # inches: the column of a phone, with text of the size that it has on a wide page
TALLEST = 2.9  # inches of a panel in a narrow figure
LETTERS = 40  # of a line of text in a narrow figure
COLORS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


def show(figure: Figure, alt: str) -> None:
    """Shows a figure in a notebook with a text for those who cannot see it, and closes it.

    Args:
        figure: what to show. If it has an attribute `narrow`, a function that draws the same `NARROW` inches wide, that
            is what a phone gets; else its panels move under each other.
        alt: what it shows, in words. The text travels in the output's metadata, where JupyterLab, nbconvert and the
            book look for it.
    """
    from IPython.display import display

    if not isinstance(figure, Figure):
        raise ValueError(f"figure: expected a Figure, got {figure!r}")
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt: expected a text that says what the figure shows, got an empty one")
    metadata: dict[str, Any] = {"alt": alt, "width": round(figure.get_figwidth() * 100)}
    of_page = pictures(figure)
    picture = of_page.pop("light")
    display({"image/png": picture, "text/plain": alt}, metadata={"image/png": metadata | of_page}, raw=True)


def pictures(figure: Figure) -> dict[str, str]:
    """PNGs, base64: "light", "dark" and, where a phone needs others, "narrow", "narrow_dark"; closes the figure."""
    found = {"light": png(figure, ground="white"), "dark": dark_png(figure)}
    small = figure.narrow() if hasattr(figure, "narrow") else figure if stack(figure) else None
    if small is not None:
        found |= {"narrow": png(small, ground="white"), "narrow_dark": dark_png(small)}
        plt.close(small)
    plt.close(figure)
    return found


def stack(figure: Figure) -> bool:
    """Makes a figure `NARROW` inches wide: panels under each other, many small pictures in half as many columns.

    Returns False, and leaves the figure, if it is narrow enough as it is.
    """
    width, height = figure.get_size_inches()
    if width <= NARROW + 0.3:
        return False
    panels = [axis for axis in figure.axes if axis.get_subplotspec() is not None]
    if not panels:
        return False
    pictures = any(axis.images for axis in panels)
    grids = {axis.get_subplotspec().get_gridspec() for axis in panels}  # type: ignore[union-attr]
    grid = grids.pop() if len(grids) == 1 else None
    if grid is not None and 3 < grid.ncols <= 7 and pictures and (grid.nrows > 1 or width / grid.ncols < 1.6):
        return False
    _legends_below(figure)
    columns = 1
    if grid is None or grid.ncols == 1:
        figure.set_size_inches(NARROW, height * max(NARROW / width, 0.85))
    else:
        columns = 1 if grid.ncols <= 3 else -(-grid.ncols // 2)
        places = _places(panels, columns)
        _label(panels if columns == 1 else [axis for axis, (_, column) in places.items() if not column])
        n_rows = 1 + max(row for row, _ in places.values())
        panel = width / grid.ncols, height / grid.nrows
        tall = panel[1] * NARROW / columns / panel[0] if pictures else min(panel[1], TALLEST)
        figure.set_size_inches(NARROW, n_rows * tall)
        new = figure.add_gridspec(n_rows, columns)
        for axis, (row, column) in places.items():
            axis.set_subplotspec(new[row, :] if column is None else new[row, column])
    _fold_text(figure, LETTERS // columns)
    for axis in panels:
        if isinstance(axis.xaxis.get_major_locator(), AutoLocator):  # numbers of five letters need room
            axis.xaxis.set_major_locator(MaxNLocator(max(1, 4 // columns), steps=[1, 2, 4, 5, 10]))
    if figure.get_layout_engine() is not None:
        figure.set_layout_engine("compressed")  # no gaps between panels that keep their proportions
    return True


def _places(panels: list[Axes], columns: int) -> dict[Axes, tuple[int, int | None]]:
    """Row and column of each panel when rows have so many columns at most; a panel of several cells has its own row."""
    places: dict[Axes, tuple[int, int | None]] = {}
    spec = {axis: axis.get_subplotspec() for axis in panels}
    large = [axis for axis, s in spec.items() if s is not None and (len(s.rowspan) > 1 or len(s.colspan) > 1)]
    for row, axis in enumerate(large):
        places[axis] = row, None
    first, rest = len(large), [axis for axis in panels if axis not in large]
    for _, of_row in groupby(rest, key=lambda axis: spec[axis].rowspan.start):  # type: ignore[union-attr]
        row_of_panels = list(of_row)
        for i, axis in enumerate(row_of_panels):
            places[axis] = first + i // columns, i % columns
        first += -(-len(row_of_panels) // columns)
    return places


def _legends_below(figure: Figure) -> None:
    """Legends at the right of a panel would take its width: they go below."""
    figure.draw_without_rendering()
    for axis in figure.axes:
        legend = axis.get_legend()
        if legend is None or legend.get_window_extent().x0 < axis.bbox.x1 or figure.get_layout_engine() is None:
            continue
        _lay_below(figure, legend)


def _lay_below(figure: Figure, legend: Legend, **look: Any) -> None:
    """Puts what a legend says into one of the figure, below all panels."""
    handles = [handle for handle in legend.legend_handles if handle is not None]
    names, title = [text.get_text() for text in legend.get_texts()], legend.get_title().get_text()
    legend.remove()
    figure.legend(handles, names, title=title or None, loc="outside lower center", frameon=False, **look)


def _label(panels: list[Axes]) -> None:
    """Panels side by side may have shared the labels of the first one; where a row begins they need their own."""
    for axis in panels:
        if axis.images or not axis.axison:
            continue
        axis.tick_params(labelleft=True, labelbottom=True)
        for partner in axis.get_shared_y_axes().get_siblings(axis):
            if not axis.get_ylabel():
                axis.set_ylabel(partner.get_ylabel())


def _fold_text(figure: Figure, letters: int) -> None:
    """Breaks long titles and labels into lines of so many letters, and puts legends' entries under each other."""
    labels = [text for axis in figure.axes for text in (axis.title, axis.xaxis.label, axis.yaxis.label)]
    folded = [(text, letters) for text in labels]
    if figure._suptitle:  # type: ignore[attr-defined]
        folded.append((figure._suptitle, LETTERS))  # type: ignore[attr-defined]
    for text, width in folded:
        text.set_text("\n".join(textwrap.fill(line, width) for line in text.get_text().split("\n")))
    for legend in list(figure.legends):
        names = [text.get_text() for text in legend.get_texts()]
        ncols = 1 if max(map(len, names), default=0) > LETTERS // 2 else 2
        _lay_below(figure, legend, ncols=ncols, fontsize=legend.get_texts()[0].get_fontsize())


@contextmanager
def dark(figure: Figure) -> Iterator[None]:
    """Within it the figure has the colours of a dark page: greys turned round, others lighter; pictures stay."""
    undo: list[Callable[[], Any]] = []
    for artist in figure.findobj(lambda artist: artist is not figure):
        if not _keeps_colors(artist):
            undo += _recolor(artist)
    for image in (image for axis in figure.axes for image in axis.images if image.get_cmap().name == "gray_r"):
        image.set_cmap("gray")  # digits
        undo.append(partial(image.set_cmap, "gray_r"))
    try:
        yield
    finally:
        for step in reversed(undo):
            step()


def _recolor(artist: Artist) -> list[Callable[[], Any]]:
    """Sets the dark colours; returns what sets the old ones again. All are read first: a mark may follow its line."""
    found = []
    for name in COLORS:
        getter, setter = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
        if getter is None or setter is None or (name == "color" and hasattr(artist, "set_facecolor")):
            continue
        old = getter()
        if not (isinstance(old, str) and old in ("none", "auto", "face", "inherit")) and len(to_rgba_array(old)):
            found.append((setter, old))
    for setter, old in found:
        new = _dark_colors(to_rgba_array(old))
        setter(new if np.ndim(old) == 2 else tuple(new[0]))
    return [partial(setter, old) for setter, old in found]


def _dark_colors(colors: np.ndarray) -> np.ndarray:
    """Colours (n, 4) for a dark ground: greys have their lightness turned round, the others a quarter of white."""
    rgb, opacity = colors[:, :3], colors[:, 3:]
    gray = np.ptp(rgb, axis=1, keepdims=True) < 0.02
    new = np.where(gray, 0.92 - 0.82 * rgb, 0.75 * rgb + 0.25)
    return np.concatenate([new, opacity], 1)


def _keeps_colors(artist: Artist) -> bool:
    """Colours that stand for values, and everything drawn on a picture, which stays as it is."""
    axis = artist.axes
    if getattr(artist, "get_array", lambda: None)() is not None:
        return True
    if not isinstance(axis, Axes) or isinstance(artist, Spine | Axis) or artist not in axis.get_children():
        return False
    if not (axis.images or _has_scale(axis)) or artist in (axis.title, axis.patch):
        return False
    if isinstance(artist, Text):
        place = artist.get_transform().transform(artist.get_unitless_position())
        return bool(axis.bbox.contains(*place))
    return bool(artist.get_clip_on())


def _has_scale(axis: Axes) -> bool:
    """Whether points have colours that stand for values: scales are made for a light ground."""
    return any(points.get_array() is not None for points in axis.collections)


def dark_png(figure: Figure, cut: bool = True) -> str:
    """The figure as a PNG, base64, in the colours of a dark page and on no ground."""
    with dark(figure):
        return png(figure, ground="none", cut=cut)


def png(figure: Figure, ground: str, cut: bool = True) -> str:
    """The figure as a PNG, base64: of few colours, unless it holds photographs; those of 256 if they are large."""
    from PIL import Image

    buffer, small = io.BytesIO(), io.BytesIO()
    ground_of_panels = [(axis, axis.get_facecolor()) for axis in figure.axes]
    if ground == "none":
        for axis, _ in ground_of_panels:
            axis.set_facecolor("0.9" if _has_scale(axis) else "none")
    figure.savefig(buffer, format="png", facecolor=ground, dpi=DPI, bbox_inches="tight" if cut else None)
    for axis, color in ground_of_panels:
        axis.set_facecolor(color)
    image = Image.open(buffer).convert("RGBA" if ground == "none" else "RGB")
    is_photograph = image.getcolors(1 << 15) is None
    if not is_photograph or len(buffer.getvalue()) > LARGE:
        colors = 256 if is_photograph else 128
        image = image.quantize(colors, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(small, "png", optimize=True)
    return base64.b64encode(min(buffer.getvalue(), small.getvalue(), key=len)).decode()
