"""Pages made from all chapters: contents, all exercises, all figures, an index of terms, one page for print."""

import json
import re
from functools import cache
from html import escape
from pathlib import Path

import nbformat
import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx import addnodes

ROOT = Path(__file__).parents[2]
WORDS_A_MINUTE = 200


@cache
def chapters():
    """What chapters.yml says of the chapters that are there, in their order, by name."""
    known = yaml.safe_load((ROOT / "book" / "chapters.yml").read_text(encoding="utf-8"))
    there = {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    return {name: known.get(name, {"about": "", "own": [], "also": []}) for name in sorted(there)}


@cache
def paths():
    """Ways through the book: names of chapters by the name of the way."""
    ways = yaml.safe_load((ROOT / "book" / "chapters.yml").read_text(encoding="utf-8"))["paths"]
    return {way: [name for name in names if name in chapters()] for way, names in ways.items()}


@cache
def notebook(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def title_of(name):
    return notebook(name).cells[0].source.splitlines()[0].removeprefix("# ")


def reading_minutes(name):
    words = sum(len(re.findall(r"\w+", c.source)) for c in notebook(name).cells if c.cell_type == "markdown")
    return max(5, 5 * round(words / WORDS_A_MINUTE / 5))


class Markdown(Directive):
    """A directive whose content is Markdown, from the method `lines`."""

    has_content = True

    def run(self):
        self.state.document.settings.env.note_reread()  # chapters may have changed although the page is as it was
        node = nodes.Element()
        self.state.nested_parse(StringList(self.lines(), source="chapters"), self.content_offset, node)
        return node.children


class Contents(Markdown):
    """One line a chapter: title, what it is about, minutes to read and to run."""

    def lines(self):
        measured = json.loads((ROOT / "book" / "results" / "chapters.json").read_text())
        rows = []
        for name, chapter in chapters().items():
            seconds = measured["chapters"].get(name, {}).get("seconds")
            run = "" if seconds is None else f", {seconds / 60:.1f}\u00a0min to run"
            link = f"**[{title_of(name)}](../notebooks/{name}.ipynb)**"
            rows.append(f"- {link} {chapter['about']}. *{reading_minutes(name)}\u00a0min to read{run}*")
        rows += ["", f"{WORDS_A_MINUTE} words a minute; runs were measured on {measured['device']}."]
        return rows


class Paths(Markdown):
    """Three ways through the chapters."""

    def lines(self):
        about = {
            "Practitioner": "You have slides, tiles or features and want a model, its scores and its maps.",
            "Theory": "You want to know what these models can express, and why.",
            "Critic": "You want to know what holds up.",
        }
        lines = []
        for way, names in paths().items():
            links = " → ".join(f"[{int(n[:2])}](../notebooks/{n}.ipynb)" for n in names)
            lines += [f"**{way}.** {about[way]} {links}", ""]
        return lines


class Exercises(Markdown):
    """Every exercise of the book, with its stars and the first sentence of its task."""

    def lines(self):
        lines = []
        for name in chapters():
            found = [exercise(line) for cell in notebook(name).cells for line in cell.source.splitlines()]
            if found := list(filter(None, found)):
                link = f'<a href="../notebooks/{name}.html#exercises">{escape(title_of(name))}</a>'
                lines += [f"**{link}**", ""]
                lines += [f"- {line}" for line in found] + [""]
        return lines


def exercise(line):
    """Stars, title and first sentence of an exercise from the line that begins it; None for any other line."""
    if not (found := re.match(r"(?:\*\*)?(★+) (?:\*\*)?(.+?)\*\* (.+)", line)):
        return None
    stars, title, task = found.groups()
    task = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", task)
    first = re.split(r"(?<=[.?]) ", task)[0]
    return f"{stars} **{title}** {first if first.count('$') % 2 == 0 else task}"


class Terms(Markdown):
    """Every term of the book and the chapters that treat it; the first one explains it."""

    def lines(self):
        where = {}
        for kind in ("own", "also"):
            for name, chapter in chapters().items():
                for term in chapter[kind]:
                    where.setdefault(term, []).append(name)
        lines = []
        for term in sorted((t for t in where if f"{t} kernel" not in where), key=str.casefold):
            first, *others = (f"[{int(n[:2])}](../notebooks/{n}.ipynb)" for n in where[term])
            lines.append(f"- {term}: **{first}**" + "".join(f", {n}" for n in others))
        return lines


class Figures(Directive):
    """A place for all figures; they are known when all chapters are read."""

    def run(self):
        self.state.document.settings.env.note_reread()  # chapters may have changed although the page is as it was
        return [nodes.comment("", "all figures")]


def fill_figures(app, doctree, docname):
    """Small pictures of all figures, each with its text and a link to its section."""
    for place in [n for n in doctree.findall(nodes.comment) if n.astext() == "all figures"]:
        parts = []
        for name in chapters():
            parts.append(f'<h2 id="figures-{name}">{escape(title_of(name))}</h2><ul class="all-figures">')
            chapter = app.env.get_doctree(f"notebooks/{name}")
            for image in chapter.findall(nodes.image):
                file = app.env.images.get(image["uri"])
                if file is None or "narrow" in image["classes"]:
                    continue
                app.builder.images[image["uri"]] = file[1]  # copied also if the chapter's own page is not written anew
                alt, section = image.get("alt", ""), image.parent
                while not isinstance(section, nodes.section):
                    section = section.parent
                theme = next((c for c in image["classes"] if c in ("only-light", "only-dark")), "dark-light still")
                picture = (
                    f'<img loading="lazy" class="{theme}" src="../_images/{file[1]}" alt="{escape(alt, quote=True)}">'
                )
                if theme == "only-dark":  # stands after its light twin
                    parts[-1] = parts[-1].replace("</a>", f"{picture}</a>")
                    continue
                short = escape(caption(alt), quote=True)
                parts.append(
                    f'<li><a href="../notebooks/{name}.html#{section["ids"][0]}">{picture}</a><span>{short}</span></li>'
                )
            parts.append("</ul>")
        place.replace_self(nodes.raw("", "".join(parts), format="html"))


def caption(alt):
    """The beginning of a figure's text, up to where it lists what is seen; what stands before a first colon is kept."""
    begin = len(re.match(r"(?:\w+(?: \w+)?: )?", alt)[0])  # "Left: …" or "First row: …" says nothing alone
    end = re.search(r"[.:;] ", alt[begin:])
    short = alt[: begin + end.start()] if end else alt.rstrip(".")
    return (short[0].upper() if short[0].isascii() else short[0]) + short[1:] + "."


def add_terms(app, doctree):
    """Puts the terms of a chapter into the index that the search asks first."""
    chapter = chapters().get(app.env.docname.removeprefix("notebooks/"))
    if chapter is None:
        return
    sections = list(doctree.findall(nodes.section))
    for kind, main in (("own", "main"), ("also", "")):
        for term in chapter[kind]:
            titled = (s for s in sections[1:] if term.lower() in s.next_node(nodes.title).astext().lower())
            target = next(titled, sections[0])["ids"][0]
            sections[0].insert(0, addnodes.index(entries=[("single", term, target, main, None)], inline=False))


def keep_terms(app, env):
    """Gives Sphinx back the terms of pages that are not written anew: its search index forgets them."""
    kept = getattr(env, "_search_index_index_entries", None)
    for name in chapters() if kept is not None else ():
        entries = [e for n in env.get_doctree(f"notebooks/{name}").findall(addnodes.index) for e in n["entries"]]
        kept[f"notebooks/{name}"] = sorted({(term, target, main) for _, term, target, main, _ in entries})


PRINT = """<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}, one page</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="../_static/logo.svg">
<link rel="stylesheet" href="../_static/pygments.css"><link rel="stylesheet" href="../_static/book.css">
<link rel="stylesheet" href="../_static/print.css">
<script>window.MathJax = {{"options": {{"processHtmlClass": "math"}}}}</script>
<script defer src="../_static/mathjax/tex-mml-chtml.js"></script></head>
<body class="print"><main class="bd-article">{body}</main></body></html>
"""


def write_print_page(app, exception):
    """The chapters one after the other in one file, with ids and links that stay apart."""
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    parts = []
    for name in chapters():
        page = (out / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        article = re.search(r'<article class="bd-article"[^>]*>(.*?)</article>', page, re.DOTALL)[1]
        article = re.sub(r'<img[^>]*class="[^"]*(?:only-dark|narrow)[^"]*"[^>]*/?>', "", article)
        article = re.sub(r'<a class="headerlink".*?</a>', "", article)
        number = name[:2]
        article = re.sub(r'\bid="([^"]+)"', rf'id="c{number}-\1"', article)
        article = re.sub(r'\bfor="([^"]+)"', rf'for="c{number}-\1"', article)
        article = re.sub(r'href="#([^"]*)"', rf'href="#c{number}-\1"', article)
        article = re.sub(r'href="(\d\d)_\w+\.html#([^"]+)"', r'href="#c\1-\2"', article)
        article = re.sub(r'href="(\d\d)_\w+\.html"', r'href="#c\1"', article)
        article = re.sub(r"<script\b.*?</script>", "", article, flags=re.DOTALL)
        parts.append(f'<section class="chapter" id="c{number}">{article}</section>')
    text = PRINT.format(title=escape(app.config.html_title), body="\n".join(parts))
    (out / "book" / "print.html").write_text(text, encoding="utf-8")


def setup(app):
    app.add_directive("contents-table", Contents)
    app.add_directive("paths", Paths)
    app.add_directive("exercises", Exercises)
    app.add_directive("terms", Terms)
    app.add_directive("all-figures", Figures)
    app.connect("doctree-read", add_terms)
    app.connect("env-updated", keep_terms)
    app.connect("doctree-resolved", fill_figures)
    app.connect("build-finished", write_print_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
