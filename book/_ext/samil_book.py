"""Sphinx helper of the book: mathematics without a network, alt text of figures, tables from records, valid HTML."""

import json
import shutil
from importlib.util import find_spec
from math import isnan
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from myst_nb.core.render import NbElementRenderer
from myst_nb.sphinx_ import HideCodeCellNode

from samil_lite.data import KEY_DIGITS
from samil_lite.experiments import RESULTS, ledger, load_table, mnist
from samil_lite.kernels import KERNELS
from samil_lite.metrics import mean_interval
from samil_lite.models import MODELS

FIRST_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="_static/logo.svg"><meta http-equiv="refresh" content="0; url={page}"></head>
<body><a href="{page}">{title}</a></body></html>
"""
BENCHMARKS = ("attention", "bags")  # records of benchmarks/*.py
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
    translator.body.append(f'<details class="hide {classes}"><summary>{node["prompt_show"]}</summary>\n')


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


class Table(Directive):
    """A directive whose Markdown rows a function makes from stored records, so that no number is typed."""

    def run(self):
        node = nodes.Element()
        self.state.nested_parse(StringList(self.rows(), source="records"), self.content_offset, node)
        return node.children


class Chapters(Table):
    """What each chapter needs and how long it runs, as `make notebooks` measured it."""

    def rows(self):
        measured = json.loads((RESULTS / "chapters.json").read_text())
        rows = ["| Chapter | Builds on | Runs in |", "|---|---|---|"]
        for name, chapter in measured["chapters"].items():
            needs = ", ".join(f"[{n[:2].lstrip('0')}](../notebooks/{n}.ipynb)" for n in chapter["needs"]) or "—"
            minutes = f"{chapter['seconds'] / 60:.1f} min"
            rows.append(f"| [{chapter['title']}](../notebooks/{name}.ipynb) | {needs} | {minutes} |")
        return [*rows, "", f"Measured on {measured['device']}."]


class MnistResults(Table):
    """Test AUC, difference to AbMILP and attention AUC of every model under every assumption, at 200 training bags."""

    def rows(self):
        table = load_table(RESULTS / "mnist").query("n_bags == 200")
        rows = [
            "| Assumption | Model | γ from | Runs | Test AUC | minus AbMILP | Attention AUC |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in mnist.summary(table).itertuples():
            runs = table.query("assumption == @row.assumption and model == @row.model")
            runs = runs[runs["gamma"].isna() if isnan(row.gamma) else runs["gamma"] == row.gamma]
            gamma = "—" if isnan(row.gamma) else f"{row.gamma:g}"
            difference = "—" if isnan(row.low) else signed(row.difference, row.low, row.high)
            numbers = f"{mean(runs['auc'])} | {difference} | {mean(runs['attention_auc'])}"
            order = list(KEY_DIGITS).index(row.assumption), MODELS.index(row.model), gamma
            rows.append((order, f"| {row.assumption} | {row.model} | {gamma} | {row.runs} | {numbers} |"))
        return rows[:2] + [text for _, text in sorted(rows[2:])]


class MnistLedger(Table):
    """Every comparison behind the verdicts on the paper's claims about MNIST."""

    def rows(self):
        rows = [
            "| Claim | Comparison | Assumption | Bags | γ from | Pairs | Effect | Verdict |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in ledger(load_table(RESULTS / "mnist")).itertuples():
            effect = signed(row.effect, row.low, row.high)
            where = f"{row.assumption} | {row.n_bags} | {row.gamma:g} | {row.pairs}"
            rows.append(f"| {row.claim} | {row.what} | {where} | {effect} | {row.verdict} |")
        return rows


class BenchmarkGoals(Table):
    """What the benchmarks measured, beside the goals that were set before."""

    def rows(self):
        attention, bags = (json.loads((RESULTS / "benchmarks" / f"{n}_cpu.json").read_text()) for n in BENCHMARKS)
        of = {(row["way"], row["kernel"], row["n"]): row for row in attention["rows"]}
        rows = ["| What | Goal | Measured | |", "|---|---|---|---|"]
        for what, measured, sign, bound, unit in (
            *attention_goals(of),
            *bag_goals({r["way"]: r for r in bags["rows"]}),
        ):
            met = "✓" if (measured >= bound if sign == "≥" else measured <= bound) else "missed"
            rows.append(f"| {what} | {sign} {bound} {unit} | {measured:.3g} {unit} | {met} |")
        return [*rows, "", f"Measured on: {attention['device']}, PyTorch {attention['versions']['torch']}."]


def attention_goals(of):
    """What, measured, sign, bound and unit of the goals for attention; `of` has rows by way, kernel and instances."""
    ours, fused = of["auto", "rbf", 4096], of["fused", "dot", 16384]
    for loop, bound in (("loop", 150), ("loop, malloc", 30)):
        yield (
            f"RBF, 4,096: time of the {loop}, to ours",
            of[loop, "rbf", 4096]["seconds"] / ours["seconds"],
            "≥",
            bound,
            "×",
        )
    yield "RBF, 4,096: memory", ours["megabytes"], "≤", 150, "MB"
    for kernel in KERNELS:
        name, way, bound = ("laplace, compiled", "compiled", 1.5) if kernel == "laplace" else (kernel, "auto", 1)
        row = of[way, kernel, 16384]
        yield (
            f"{name}, 16,384: time, to PyTorch's fused dot product",
            row["seconds"] / fused["seconds"],
            "≤",
            bound,
            "×",
        )
        memory = "memory, the compiler included" if way == "compiled" else "memory"
        yield f"{name}, 16,384: {memory}", row["megabytes"], "≤", 450, "MB"
        if kernel != "laplace":  # no matrix product
            yield f"{name}, 16,384: time, to the floor", row["seconds"] / row["floor"], "≤", 1.5, "×"
    growth = of["auto", "rbf", 32768]["megabytes"] / of["auto", "rbf", 16384]["megabytes"]
    yield "RBF: memory at 32,768, to that at 16,384", growth, "≤", 2.2, "×"


def bag_goals(way):
    """The same for ragged batches, training and a large bag; `way` has rows by their name."""
    yield "a training step on 100,000: memory", way["large bag, one step"]["megabytes"] / 1024, "≤", 3, "GB"
    for what, bound in (("pooling", 15), ("attention", 8)):
        padded, ragged = way[f"{what}, padded"], way[f"{what}, ragged"]
        yield (
            f"{what} of 32 skewed bags: time padded, to ragged",
            padded["seconds"] / ragged["seconds"],
            "≥",
            bound,
            "×",
        )
    yield "the same: memory padded, to ragged", padded["megabytes"] / ragged["megabytes"], "≥", 5, "×"
    alone, batches = way["epoch, one bag at a time"], way["epoch, batches"]
    yield "an epoch on MNIST bags: time bag by bag, to batches", alone["seconds"] / batches["seconds"], "≥", 4, "×"


def mean(values):
    if values.isna().any() or values.nunique() < 2:  # no weights, or the same weight for every instance
        return "—"
    return "{:.3f} ({:.3f} to {:.3f})".format(*mean_interval(values))


def signed(effect, low, high):
    return f"{effect:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")


def setup(app):
    keep_alt_text()
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_first_page)
    app.add_node(HideCodeCellNode, override=True, html=(show_summary, end_details))
    app.add_directive("chapters", Chapters)
    app.add_directive("mnist-results", MnistResults)
    app.add_directive("mnist-ledger", MnistLedger)
    app.add_directive("benchmark-goals", BenchmarkGoals)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
