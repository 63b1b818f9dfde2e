"""Sphinx helper of the book: mathematics without a network, alt text of figures, the table of chapters."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from myst_nb.core.render import NbElementRenderer

ROOT = Path(__file__).parents[2]
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")  # what the pages load


def drop_repeated_scripts(app, pagename, templatename, context, doctree):
    """sphinx-thebe's inline script is added twice, and the second one is an error on every page."""
    scripts = {}
    for script in context.get("script_files", []):
        scripts.setdefault((script.filename or "", script.attributes.get("body")), script)
    context["script_files"] = list(scripts.values())


def copy_mathjax(app, exception):
    """Puts the parts of MathJax that pages load beside them, instead of asking another host."""
    if exception or app.builder.format != "html":
        return
    source = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX:
        copy = shutil.copytree if (source / part).is_dir() else shutil.copy2
        if not (target / part).exists():
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            copy(source / part, target / part)


def keep_alt_text():
    """Makes MyST-NB honour the alt text in the metadata of an output, as JupyterLab and nbconvert do."""
    render = NbElementRenderer.render_image

    def render_image(self, data):
        image = render(self, data)
        image[0]["alt"] = data.output_metadata.get(data.mime_type, {}).get("alt", "")
        return image

    NbElementRenderer.render_image = render_image


class Chapters(Directive):
    """A table of the chapters: what each needs and how long it runs, as `make notebooks` measured it."""

    def run(self):
        measured = json.loads((ROOT / "book" / "results" / "chapters.json").read_text())
        rows = ["| Chapter | Needs | Runs in |", "|---|---|---|"]
        for name, chapter in measured["chapters"].items():
            needs = ", ".join(f"[{n[:2]}](../notebooks/{n}.ipynb)" for n in chapter["needs"]) or "—"
            rows.append(f"| [{chapter['title']}](../notebooks/{name}.ipynb) | {needs} | {chapter['seconds']} s |")
        rows += ["", f"Measured on {measured['device']}."]
        node = nodes.Element()
        self.state.nested_parse(StringList(rows, source="chapters.json"), self.content_offset, node)
        return node.children


def setup(app):
    keep_alt_text()
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.add_directive("chapters", Chapters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
