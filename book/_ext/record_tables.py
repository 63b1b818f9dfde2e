"""Tables of the book, each a directive that makes its rows from stored records, so that no number is typed."""

import json
from functools import cache
from math import isnan

import numpy as np
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList

from samil_lite.data import KEY_DIGITS
from samil_lite.experiments import RESULTS, image_ledger, ledger, load_table, mnist, scores, tabular
from samil_lite.kernels import KERNELS
from samil_lite.metrics import mean_interval
from samil_lite.models import KERNEL_OF, MODELS

ATTENTION_MODELS = ("abmilp", "gated-abmilp", *KERNEL_OF)  # the models of the learning curves
BENCHMARKS = ("attention", "bags", "histology")  # records of benchmarks/*.py


class Table(Directive):
    """The rows are Markdown, from the method `rows`."""

    def run(self):
        self.state.document.settings.env.note_reread()  # records may have come although the page is as it was
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
        table = records("mnist").query("n_bags == 200")
        rows = [
            "| Assumption | Model | γ from | Runs | Test AUC | minus AbMILP | Attention AUC |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in mnist.summary(table).itertuples():
            runs = table.query("assumption == @row.assumption and model == @row.model")
            runs = runs[runs["gamma"].isna() if isnan(row.gamma) else runs["gamma"] == row.gamma]
            gamma = gamma_of(row)
            difference = "—" if isnan(row.low) else signed(row.difference, row.low, row.high)
            numbers = f"{mean(runs['auc'])} | {difference} | {mean(runs['attention_auc'])}"
            order = list(KEY_DIGITS).index(row.assumption), MODELS.index(row.model), gamma
            rows.append((order, f"| {row.assumption} | {row.model} | {gamma} | {row.runs} | {numbers} |"))
        return rows[:2] + [text for _, text in sorted(rows[2:])]


class MnistCurves(Table):
    """Mean test AUC of every model under one assumption, by number of training bags."""

    required_arguments = 1  # the assumption

    def rows(self):
        table = records("mnist")
        table = table[(table["assumption"] == self.arguments[0]) & table["model"].isin(ATTENTION_MODELS)]
        sizes = [str(n) for n in sorted(table["n_bags"].unique())]
        cells = {}
        for row in mnist.summary(table).itertuples():
            mark = "\u00a0▲" if row.low > 0 else "\u00a0▼" if row.high < 0 else ""
            model = MODELS.index(row.model), gamma_of(row)
            cells.setdefault(model, {})[str(row.n_bags)] = f"{row.mean:.3f}{mark}"
        head = table_head("Model", "γ from", *sizes).splitlines()
        found = sorted(cells.items())
        return head + [table_row(name_of(MODELS[m]), g, *(c.get(n, "—") for n in sizes)) for (m, g), c in found]


class PaperSetting(Table):
    """Test AUC with the paper's learning rate and batch, beside that of the recorded runs of the same seeds."""

    def rows(self):
        rows = [table_head("Assumption", "Model", "γ from", "Runs", "Test AUC", "As chosen, same bags")]
        chosen = records("mnist").query("n_bags == 200")
        trials = records("mnist_settings")
        of_paper = np.logical_and.reduce([trials[name] == value for name, value in mnist.PAPER.items()])
        # Merging takes NaN, the γ of models without self-attention, for equal to itself.
        pairs = trials[of_paper].merge(chosen, on=["assumption", "model", "gamma", "seed"], suffixes=("", "_chosen"))
        order = [*KEY_DIGITS, *MODELS].index
        pairs = pairs.sort_values(
            ["assumption", "model", "gamma"], key=lambda c: c if c.name == "gamma" else c.map(order)
        )
        for _, runs in pairs.groupby(["assumption", "model", "gamma"], dropna=False, sort=False):
            first = next(runs.itertuples())
            where = first.assumption, name_of(first.model), gamma_of(first), str(len(runs))
            means = [f"{runs[name].mean():.3f}" for name in ("auc", "auc_chosen")]
            rows.append(table_row(*where, *means))
        return "\n".join(rows).splitlines()


class MnistLedger(Table):
    """Every comparison behind the verdicts on the paper's claims about MNIST."""

    def rows(self):
        rows = [
            "| Claim | Comparison | Assumption | Bags | γ from | Pairs | Effect | Verdict |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in ledger(records("mnist")).itertuples():
            effect = signed(row.effect, row.low, row.high)
            where = f"{row.assumption} | {row.n_bags} | {row.gamma:g} | {row.pairs}"
            rows.append(f"| {row.claim} | {row.what} | {where} | {effect} | {row.verdict} |")
        return rows


class CrossValidation(Table):
    """Two tables on one data set: the usual scores of every model; more scores, and how far each is from AbMILP."""

    required_arguments = 1  # the data set
    option_spec = {"grouped": directives.flag}  # noqa: RUF012  # as docutils asks for
    usual = ("Accuracy", "Precision", "Recall", "F-score", "AUC")
    more = ("Recall at precision 0.9", "Calibration error", "AUC minus AbMILP")

    def rows(self):
        data = self.arguments[0]
        table = tabular.by_fold(records("tables")) if data[:4] == "musk" else records("images")
        table = table[(table["data"] == data) & (table["grouped"] == ("grouped" in self.options))]
        differences = {(r.model, gamma_of(r)): r for r in scores.compare(table).itertuples()}
        tables = [table_head("Model", "γ from", *self.usual)], [table_head("Model", "γ from", "Repeats", *self.more)]
        found = sorted(scores.over_repeats(table).itertuples(), key=lambda r: (MODELS.index(r.model), gamma_of(r)))
        for row in found:
            numbers = [f"{getattr(row, n):.2f}\u00a0±\u00a0{getattr(row, f'{n}_error'):.2f}" for n in scores.SCORES]
            d = differences.get((row.model, gamma_of(row)))
            effect = signed(d.difference, d.low, d.high) if d else "—"
            name = name_of(row.model), gamma_of(row)
            tables[0].append(table_row(*name, *numbers[:5]))
            tables[1].append(table_row(*name, str(row.repeats), *numbers[5:], effect))
        return "\n".join([*tables[0], "", *tables[1]]).splitlines()


class Trials(Table):
    """Validation losses of other settings beside those of the settings that were chosen."""

    def rows(self):
        rows = [table_head("Data", "Changed", "Models", "Runs", "Validation loss", "As chosen, same folds")]
        for kind in ("images", "tables"):
            of_kind = records(kind), records(f"{kind}_settings")
            for row in scores.trial_losses(*of_kind).itertuples():
                counts = row.data, row.changed, str(row.models), str(row.runs)
                rows.append(table_row(*counts, f"{row.loss:.3f}", f"{row.chosen:.3f}"))
        return "\n".join(rows).splitlines()


class ImageLedger(Table):
    """Every comparison behind the verdicts on the paper's claims about breast and colon."""

    def rows(self):
        rows = [
            "| Claim | Comparison | Data | Score | γ from | Folds | Effect | Verdict |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in image_ledger(records("images")).itertuples():
            data = f"{row.data}, by slide" if row.grouped else row.data
            effect = signed(row.effect, row.low, row.high)
            where = f"{data} | {row.score.replace('_', ' ')} | {row.gamma:g} | {row.pairs}"
            rows.append(f"| {row.claim} | {row.what} | {where} | {effect} | {row.verdict} |")
        return rows


class BenchmarkGoals(Table):
    """What the benchmarks measured, beside the goals that were set before."""

    def rows(self):
        attention, bags, patches = (
            json.loads((RESULTS / "benchmarks" / f"{n}_cpu.json").read_text()) for n in BENCHMARKS
        )
        of = {(row["way"], row["kernel"], row["n"]): row for row in attention["rows"]}
        rows = ["| What | Goal | Measured | |", "|---|---|---|---|"]
        for what, measured, sign, bound, unit in (
            *attention_goals(of),
            *bag_goals({r["way"]: r for r in bags["rows"]}),
            *patch_goals({r["way"]: r["seconds"] for r in patches["rows"]}),
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


def patch_goals(seconds):
    """An epoch on 100 bags like those of colon; `seconds` by the name of the way."""
    for way, what in (("one by one, with Lab", "as public code does, Lab at each look"), ("one by one", "without Lab")):
        ratio = seconds[way] / seconds["all at once"]
        yield f"an epoch like colon's: time patch by patch ({what}), to ours", ratio, "≥", 3, "×"


@cache  # a page has many tables of the same records; whoever changes one must take a copy
def records(folder):
    return load_table(RESULTS / folder)


def mean(values):
    if values.isna().any() or values.nunique() < 2:  # no weights, or the same weight for every instance
        return "—"
    return "{:.3f} ({:.3f}\u00a0to\u00a0{:.3f})".format(*mean_interval(values))


def signed(effect, low, high):
    return f"{effect:+.3f} ({low:+.3f}\u00a0to\u00a0{high:+.3f})".replace("-", "−")  # breaks before the interval only


def table_row(*cells):
    return f"| {' | '.join(cells)} |"


def table_head(*names):
    return f"{table_row(*names)}\n{'|---' * len(names)}|"


def name_of(model):
    return model.replace("-", "\u2011")  # a hyphen that does not break


def gamma_of(row):
    return "—" if isnan(row.gamma) else f"{row.gamma:g}"


def setup(app):
    app.add_directive("chapters", Chapters)
    app.add_directive("mnist-results", MnistResults)
    app.add_directive("mnist-curves", MnistCurves)
    app.add_directive("paper-setting", PaperSetting)
    app.add_directive("mnist-ledger", MnistLedger)
    app.add_directive("cross-validation", CrossValidation)
    app.add_directive("image-ledger", ImageLedger)
    app.add_directive("trials", Trials)
    app.add_directive("benchmark-goals", BenchmarkGoals)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
