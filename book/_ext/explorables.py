"""Sphinx directive of the book: a figure that answers, alive on the page, its picture where there are no scripts."""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import samil_lite as sl


class Explorable(SphinxDirective):
    """```{explorable} NAME``` puts `sl.viz.explorable(NAME)` with its default data into a page."""

    required_arguments = 1

    def run(self):
        return [nodes.raw("", sl.viz.explorable(self.arguments[0]).html, format="html")]


def setup(app):
    app.add_directive("explorable", Explorable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
