"""Figures that answer back: alive on the static page, from disk and in a notebook, without a kernel or a network.

A figure is a classic script and a style sheet of its own (`NAME.js`, `NAME.css`) beside the shared ones, a picture of
how it starts (`NAME.png`), and a function in `figures` that says what it takes and what it teaches. `explorable` puts
them into one piece of HTML. Where scripts do not run (GitHub, PDF, a notebook that is not trusted) the picture stands.
"""

import base64
import html
import json
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from samil_lite.explorables.catalogue import FIGURES as FIGURES


class Explorable:
    """A figure that a notebook shows when it is the last line of a cell; `html` is all of it, for other pages.

    Attributes:
        html: the figure, its script and its data; any number of figures may share a page.
        alt: what the figure shows, in words.
        picture: how it looks at the start, a PNG.
    """

    def __init__(self, name: str, data: dict[str, Any], picture: bytes | None = None, alt: str | None = None) -> None:
        self.alt = FIGURES[name].alt if alt is None else alt
        self.picture = _file(f"{name}.png") if picture is None else picture
        self.html = _page_part(name, data, self.alt, self.picture)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        png = base64.b64encode(self.picture).decode()
        bundle = {"text/html": self.html, "image/png": png, "text/plain": self.alt}
        return bundle, {"image/png": {"alt": self.alt}}


def explorable(name: str, **data: Any) -> Explorable:
    """A figure that answers: numbers are computed in the page as the package computes them.

    Args:
        name: one of `samil_lite.explorables.FIGURES`.
        data: what this figure takes, see the function of its name in `samil_lite.explorables.figures`; every argument
            has a default.

    Raises:
        ValueError: if there is no figure of this name, or its function refuses the data.
    """
    if name not in FIGURES:
        near = get_close_matches(str(name), FIGURES, n=2) or list(FIGURES)
        raise ValueError(f"name: unknown figure {name!r}; did you mean {' or '.join(near)}?")
    return Explorable(name, FIGURES[name].data(**data))


def script(name: str) -> str:
    """What a page runs for a figure: the shared functions, the figure's own, and its start with the styles."""
    style = "\n".join(_text(f"{part}.css") for part in ("shared", name))
    start = f"samilLite.start({json.dumps(name)}, {json.dumps(style)});"
    return "\n".join([_text("shared.js"), _text(f"{name}.js"), start])


def _page_part(name: str, data: dict[str, Any], alt: str, picture: bytes) -> str:
    values = html.escape(json.dumps(data, separators=(",", ":"), ensure_ascii=False), quote=False).replace("'", "&#39;")
    png = base64.b64encode(picture).decode()
    return (
        # JupyterLab would take the arrow keys, and two Ds delete a cell: the attribute keeps its shortcuts out.
        f'<div class="samil-explorable" data-figure="{name}" data-title="{html.escape(FIGURES[name].title)}" '
        f"data-lm-suppress-shortcuts=\"true\" data-values='{values}'>"
        f'<img style="max-width:100%" alt="{html.escape(alt)}" src="data:image/png;base64,{png}"></div>'
        f"<script>\n{script(name)}\n</script>"
    )


@cache
def _file(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()


def _text(name: str) -> str:
    text = _file(name).decode()
    if "</script" in text or "<!--" in text:
        raise ValueError(f"{name}: '</script' or '<!--' would end the script in the middle")
    return text
