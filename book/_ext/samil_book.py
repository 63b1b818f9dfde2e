"""Sphinx helper of the book: mathematics without a network, alt text of figures, valid HTML."""

import base64
import hashlib
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from myst_nb.core.render import NbElementRenderer
from myst_nb.sphinx_ import HideCodeCellNode

FIRST_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="_static/logo.svg"><meta http-equiv="refresh" content="0; url={page}"></head>
<body><a href="{page}">{title}</a></body></html>
"""
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")  # what the pages load
VARIANTS = {"dark": ["only-dark"], "narrow": ["only-light", "narrow"], "narrow_dark": ["only-dark", "narrow"]}


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


def render_figures():
    """Makes MyST-NB honour the alt text in the metadata of an output, as JupyterLab and nbconvert do.

    Figures of `samil_lite.figures` bring more pictures in their metadata, for dark pages and for narrow ones. Each gets
    its place in the page, and the style sheet shows the one that fits.
    """
    render = NbElementRenderer.render_image

    def render_image(self, data):
        metadata = data.output_metadata.get(data.mime_type, {})
        images = render(self, data)
        images[0]["alt"] = metadata.get("alt", "")
        if "dark" in metadata:
            images[0]["classes"] += ["only-light", "wide" if "narrow" in metadata else "any-width"]
        for name, classes in VARIANTS.items():
            if name in metadata:
                content = metadata[name]
                file = f"{hashlib.sha256(content.encode()).hexdigest()}.png"
                uri = self.write_file([file], base64.b64decode(content), overwrite=False, exists_ok=True)
                if name == "dark":
                    classes = [*classes, "wide" if "narrow" in metadata else "any-width"]
                images.append(nodes.image(uri=uri, alt=metadata["alt"], classes=["figure", *classes]))
                if "narrow" not in name and "width" in metadata:
                    images[-1]["width"] = str(metadata["width"])
        return images

    NbElementRenderer.render_image = render_image


def add_pictures(app, doctree):
    """Beside a picture of _static that has others for dark pages and for phones, they stand too."""
    for image in list(doctree.findall(nodes.image)):
        stem = Path(image["uri"]).stem
        if not (Path(app.srcdir) / "book" / "_static" / f"{stem}_dark.png").exists():
            continue
        image["classes"] += ["only-light", "wide"]
        for name, classes in VARIANTS.items():
            other = image.deepcopy()
            uri = image["uri"].replace(f"{stem}.png", f"{stem}_{name}.png")
            other["uri"], other["candidates"] = uri, {"*": uri}
            other["classes"] = [*classes, *([] if "narrow" in classes else ["wide"])]
            app.env.images.add_file(app.env.docname, uri)
            image.parent.insert(image.parent.index(image) + 1, other)


def mend_body(app, pagename, templatename, context, doctree):
    """A picture that is not shown, such as that for dark pages, is not fetched; no role that browsers gave up."""
    if context.get("body"):
        context["body"] = re.sub(r"<style scoped.*?</style>", "", context["body"], flags=re.DOTALL)  # no HTML any more
        empty = r"<th(?: class=\"head\")?>(?:<p></p>)?</th>"  # a corner of a table is no header
        context["body"] = re.sub(empty, "<td></td>", context["body"])
        body = re.sub(r"<img (?!loading)", '<img loading="lazy" ', context["body"])
        context["body"] = body.replace(' role="doc-biblioentry"', "").replace(
            '<div role="list" class="citation', '<div class="citation'
        )


def read_side_by_side(app):
    """Reads and writes pages in several processes, which `jupyter-book` has no option for.

    Two for each core: the pages of results and of the API take the longest, and would come to the same process.
    """
    app.parallel = max(app.parallel, 2 * (os.cpu_count() or 1))
    # This extension does not say that it is safe; it numbers chapters after all are read, and ours have their numbers.
    if numbering := app.extensions.get("sphinx_multitoc_numbering"):
        numbering.parallel_read_safe = True


def setup(app):
    read_side_by_side(app)
    render_figures()
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("html-page-context", mend_body)
    app.connect("doctree-read", add_pictures)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_first_page)
    app.add_node(HideCodeCellNode, override=True, html=(show_summary, end_details))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
