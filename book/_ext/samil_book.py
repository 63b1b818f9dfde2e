"""Sphinx helper of the book: mathematics without a network, alt text of figures, valid HTML."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from myst_nb.core.render import NbElementRenderer
from myst_nb.sphinx_ import HideCodeCellNode

FIRST_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="_static/logo.svg"><meta http-equiv="refresh" content="0; url={page}"></head>
<body><a href="{page}">{title}</a></body></html>
"""
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


def write_first_page(app, exception):
    """The page at the book's address leads to the first one; Jupyter Book's own is not valid HTML."""
    if not exception and app.builder.format == "html":
        page = FIRST_PAGE.format(title=app.config.html_title, page=f"{app.config.root_doc}.html")
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def show_summary(translator, node):
    """A folded cell's summary as one phrase; MyST-NB puts paragraphs there, which HTML does not allow."""
    classes = " ".join(node["classes"])
    prompt = "Show the solution" if "tag_exercise" in node.parent["classes"] else node["prompt_show"]
    translator.body.append(f'<details class="hide {classes}"><summary>{prompt}</summary>\n')


def end_details(translator, node):
    translator.body.append("</details>\n")


def keep_alt_text():
    """Makes MyST-NB honour the alt text in the metadata of an output, as JupyterLab and nbconvert do."""
    render = NbElementRenderer.render_image

    def render_image(self, data):
        image = render(self, data)
        image[0]["alt"] = data.output_metadata.get(data.mime_type, {}).get("alt", "")
        return image

    NbElementRenderer.render_image = render_image


def setup(app):
    keep_alt_text()
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_first_page)
    app.add_node(HideCodeCellNode, override=True, html=(show_summary, end_details))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
