"""Tables of the book, each a directive that makes its rows from stored records, so that no number is typed."""

import base64
import csv
import json
import re
from functools import cache
from html import escape
from itertools import groupby
from math import isnan
from pathlib import Path
from statistics import geometric_mean

import numpy as np
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from gpu_records import card_lines, gpu_records

import samil_lite
from samil_lite.data import KEY_DIGITS
from samil_lite.experiments import (
    RESULTS,
    attributions,
    image_ledger,
    ledger,
    load_table,
    mnist,
    photographs,
    scores,
    tabular,
    unit_tests,
)
from samil_lite.kernels import KERNELS
from samil_lite.metrics import mean_interval
from samil_lite.models import KERNEL_OF, MODELS

ATTENTION_MODELS = ("abmilp", "gated-abmilp", *KERNEL_OF)  # the models of the learning curves
BENCHMARKS = ("attention", "bags", "histology", "predicting", "reading", "before")  # records of benchmarks/*.py

CHAPTER_FILES = {
    int(path.stem[:2]): path.stem for path in (Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb")
}
# Number of the claim: what it says, the chapter, the verdict where no record gives it, which comparisons are shown.
CLAIMS = {
    1: (
        "AbMILP sees each instance alone; self-attention lets instances depend on each other",
        6,
        "**holds**, exactly",
        {},
    ),
    2: ("Standard: SA-AbMILP is as good as AbMILP", 6, "", {"gamma": 1.0}),
    3: (
        "Presence and threshold: SA-AbMILP and its kernels are clearly better",
        11,
        "",
        {"gamma": 1.0, "assumption": "threshold"},
    ),
    4: (
        "The dot product is best with few bags, kernels with more",
        11,
        "",
        {"gamma": 1.0, "n_bags": 500},
    ),
    5: (
        "Presence: both the 9 and the 7 get high weight",
        11,
        "",
        {"gamma": 1.0},
    ),
    6: (
        "Breast and colon: better AUC and recall than earlier methods",
        14,
        "",
        {"gamma": 1.0, "data": "colon", "score": "auc"},
    ),
    7: (
        "Colon: fewer, more concentrated patches; β spreads to related nuclei",
        14,
        "",
        {"gamma": 1.0, "score": "top_tenth"},
    ),
    8: ("Fungi: best with both backbones", 15, "**not tested**: data not available to us", {}),
    9: ("Messidor: 76.3 % accuracy, the most of all", 16, "**not tested**: data not available to us", {}),
    10: ("Which kernel is best depends on the data", 11, "", {"gamma": 1.0, "assumption": "threshold"}),
}


class Table(Directive):
    """The rows are Markdown, from the method `rows`. Long tables are folded; each can be had as a CSV file."""

    folded = True

    def run(self):
        env = self.state.document.settings.env
        rows, node = self.rows(), nodes.Element()
        if not self.folded or not any(row.startswith("|") for row in rows):
            self.state.nested_parse(StringList(rows, source="records"), self.content_offset, node)
            return node.children
        tables = [list(part) for is_row, part in groupby(rows, lambda row: row.startswith("|")) if is_row]
        links = [self.save(env, i, table) for i, table in enumerate(tables)]
        count = sum(len(table) - 2 for table in tables)
        files = " ".join(f'<a href="../tables/{name}" download>{name}</a>' for name in links)
        before = f'<details class="records"><summary>Show the table, {count} rows</summary><p>As CSV: {files}</p>'
        self.state.nested_parse(StringList(rows, source="records"), self.content_offset, node)
        return [nodes.raw("", before, format="html"), *node.children, nodes.raw("", "</details>", format="html")]

    def save(self, env, i, table):
        """Writes a Markdown table beside the pages, as CSV; returns the file's name."""
        words = [self.name, *self.arguments, *self.options, *([str(i + 1)] if i else [])]
        name, folder = "-".join(words) + ".csv", Path(env.app.outdir) / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            for row in (table[0], *table[2:]):
                cells = (
                    cell.strip().replace("\u00a0", " ").replace("\u2011", "-") for cell in row.strip("| ").split(" | ")
                )
                writer.writerow(re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell) for cell in cells)
        return name


class Claims(Table):
    """The paper's ten claims: what they say, what became of them, one effect with its interval, and where."""

    folded = False

    def rows(self):
        found = {n: rows for table in ledgers() for n, rows in table.groupby("claim")}
        rows = [table_head("No.", "Claim", "Verdict", "Effect", "Chapter")]
        for number, (text, chapter, verdict, chosen) in CLAIMS.items():
            effect = "—"
            if number in found:
                verdict = verdict_of(found[number])
                effect = effects_of(found[number], chosen)
            link = f"[{chapter}](../notebooks/{CHAPTER_FILES[chapter]}.ipynb)"
            rows.append(table_row(str(number), text, verdict, effect, link))
        return "\n".join(rows).splitlines()


class Headlines(Table):
    """What the book found, in three lines of numbers from the records."""

    folded = False

    def rows(self):
        rows = ledgers()[0].set_index(["claim", "assumption", "gamma", "what", "n_bags"])

        def effect(what, gamma, claim=3, assumption="threshold"):
            row = rows.loc[(claim, assumption, gamma, what, 200)]
            return signed(row.effect, row.low, row.high)

        return [
            f"- Kernels that look at pairs help where labels depend on counts or pairs: on threshold bags the inverse "
            f"quadratic kernel gains {effect('IQSA − AbMILP', 1.0)} test AUC over AbMILP at 200 bags if γ starts at 1.",
            f"- From γ = 0, as the paper is quoted, nothing is gained at 200 bags: {effect('IQSA − AbMILP', 0.0)}.",
            tissue(ledgers()[1]),
        ]


def tissue(rows):
    """The third headline: how often self-attention is better on images of tissue, and less concentrated."""
    better = rows[(rows["claim"] == 6) & (rows["score"] == "auc") & rows["what"].str.endswith("AbMILP")]
    concentrated = rows[(rows["claim"] == 7) & (rows["score"] == "top_tenth")]
    found = [(part["verdict"] == word).sum() for part, word in ((better, "reproduced"), (concentrated, "contradicted"))]
    return (
        f"- On colon and breast the best model with self-attention is clearly better than AbMILP in {found[0]} of "
        f"{len(better)} comparisons of AUC; on colon the attention of {found[1]} of {len(concentrated)} kernels is "
        "*less* concentrated, against the claim."
    )


class Forest(Directive):
    """The comparisons behind claims 2 and 3 at 200 bags with γ from 1, and the best models on colon and breast."""

    def run(self):
        from samil_lite import figures, viz  # a build in which no page of records changed need not wait for seaborn

        env = self.state.document.settings.env
        mnist_rows, image_rows = ledgers()
        chosen = mnist_rows[
            mnist_rows["claim"].isin([2, 3]) & (mnist_rows["gamma"] == 1) & ~mnist_rows["what"].str.startswith("best")
        ]
        images = image_rows[(image_rows["claim"] == 6) & (image_rows["score"] == "auc") & (image_rows["gamma"] == 1)]
        images = images[images["what"].str.endswith("AbMILP")]
        lines = [(f"{r.assumption}: {r.what.split()[0]}", r.effect, r.low, r.high) for r in chosen.itertuples()]
        lines += [
            (f"{r.data}{', by slide' * r.grouped}: {r.what.split('(')[1].split(')')[0]}", r.effect, r.low, r.high)
            for r in images.itertuples()
        ]
        alt = "Differences of test AUC from AbMILP with 95 % intervals. " + "; ".join(
            f"{name} {signed(*numbers)}" for name, *numbers in lines
        )
        folder = Path(env.app.outdir) / "_static"
        folder.mkdir(parents=True, exist_ok=True)
        names, effects = [name for name, *_ in lines], [numbers for _, *numbers in lines]
        figure = viz.forest(names, effects, "test AUC minus AbMILP's")
        tags = []
        for kind, picture in figures.pictures(figure).items():
            (folder / f"forest_{kind}.png").write_bytes(base64.b64decode(picture))
            classes = f"only-{'dark' if 'dark' in kind else 'light'} {'narrow' if 'narrow' in kind else 'wide'}"
            tags.append(f'<img class="{classes}" src="../_static/forest_{kind}.png" alt="{escape(alt, quote=True)}">')
        return [nodes.raw("", f'<div class="forest">{"".join(tags)}</div>', format="html")]


@cache
def ledgers():
    return ledger(records("mnist")), image_ledger(records("images"))


def where_of(row):
    if hasattr(row, "assumption"):
        return f"{row.assumption}, {row.n_bags} bags, γ from {row.gamma:g}"
    return f"{row.data}{', folds by slide' if row.grouped else ''}, {row.score.replace('_', ' ')}, γ from {row.gamma:g}"


def effects_of(rows, chosen):
    """Every effect of the rows chosen, with its interval, none left out for being the better one."""
    rows = rows[np.logical_and.reduce([rows[name] == value for name, value in chosen.items()])]
    places = [where_of(row) for row in rows.itertuples()]
    names = list(rows["what"])
    if len(set(places)) == 1 and len(names) > 1:  # what all have in common is said once
        ending = names[0][names[0].find(" − ") :]
        ending = ending if all(name.endswith(ending) for name in names) else ""
        names = [name.removesuffix(ending) for name in names]
        places = [places[0] + ending.replace(" − ", ", minus ")]
    effects = [signed(row.effect, row.low, row.high) for row in rows.itertuples()]
    lines = [f"{name}: {effect}" for name, effect in zip(names, effects, strict=True)]
    if len(places) == 1:
        return "<br>".join([f"*{places[0]}*", *lines])
    return "<br>".join(f"{line}, {place}" for line, place in zip(lines, places, strict=True))


def verdict_of(rows):
    """One verdict where all comparisons agree, else how many gave which."""
    counts = rows["verdict"].value_counts()
    if len(counts) == 1:
        return f"**{counts.index[0]}**"
    return "; ".join(
        f"{'**' * (i == 0)}{verdict}{'**' * (i == 0)} in {count} of {len(rows)}"
        for i, (verdict, count) in enumerate(counts.items())  # from the most frequent one
    )


class Environments(Table):
    """Where chapters and tests were tried beside the pinned versions, and what came of it."""

    names = {  # noqa: RUF012
        "colab": "Colab, chapters",
        "card": "Colab, chapters with a pretended card",
        "copies": "Colab, student copies",
        "lowest": "lowest versions",
        "newest": "newest versions",
        "sphinx": "newest Sphinx",
    }

    def rows(self):
        path = RESULTS / "environments.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        rows = [table_head("Environment", "Tried on", "Versions", "What", "Passed", "Failed")]
        for name, found in known.items():
            versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
            for what, result in found["runs"].items():
                numbers = str(result["passed"]), str(len(result["failed"]))
                rows.append(table_row(self.names[name], found["date"], versions, what, *numbers))
        text = "\n".join(rows) if known else "Not tried yet: `make colab` and `make versions` do."
        return text.splitlines()


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
            order = list(KEY_DIGITS).index(row.assumption), mnist.TESTED.index(row.model), gamma
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


class UnitTests(Table):
    """Every model against every algorithmic unit test, in the forms and sizes that have records."""

    def rows(self):
        names = ["Test", "Form, bags", "Model", "Seeds", "Train AUC", "Test AUC (95 % interval)", "Verdict"]
        rows = [table_head(*names, "Minus AbMILP", "Minus noisy‑or")]
        runs = records("audit")
        where = ["test", "committed", "n_train"]
        apart = [
            unit_tests.differences(runs, other).set_index([*where, "model"])[["effect", "low", "high"]].sort_index()
            for other in ("abmilp", "noisy-or")
        ]
        found = unit_tests.summary(runs).set_index("model").loc[list(unit_tests.TESTED)].reset_index()
        for row in found.sort_values(where, kind="stable").itertuples():
            form = f"{'committed' if row.committed else 'intended'}, {row.n_train:,}"
            many = row.runs > 1
            test = f"{row.test_auc:.3f}" + (f" ({max(row.low, 0):.3f} to {min(row.high, 1):.3f})" if many else "")
            verdict = row.verdict if many else "one seed"
            place = (row.test, row.committed, row.n_train, row.model)
            effects = [signed(*d.loc[place]) if place in d.index else "—" for d in apart]
            train = f"{row.train_auc:.3f}"
            rows.append(table_row(row.test, form, name_of(row.model), str(row.runs), train, test, verdict, *effects))
        return "\n".join(rows).splitlines()


class Attributions(Table):
    """How attention, gradient × input and leaving one out find key instances, on the same trainings."""

    def rows(self):
        names = ["Data", "Model", "Trainings", "AUC of labels", "Attention", "Gradient", "One out"]
        rows = [table_head(*names, "Gradient minus attention", "One out minus attention")]
        found = attributions.summary(records("attributions")).sort_values("model", key=lambda m: m.map(MODELS.index))
        for row in found.sort_values("data", kind="stable", ascending=False).to_dict("records"):
            means = ["—" if isnan(row[name]) else f"{row[name]:.3f}" for name in ("auc", *attributions.AUCS)]
            more = [[row[f"{m}_{end}"] for end in ("more", "low", "high")] for m in ("gradient", "leave-one-out")]
            effects = ["—" if isnan(effect[0]) else signed(*effect) for effect in more]
            rows.append(table_row(row["data"], name_of(row["model"]), str(row["runs"]), *means, *effects))
        return "\n".join(rows).splitlines()


class Photographs(Table):
    """Scores of all models on one set of photographs; of retinas also how attributions find lesions."""

    required_arguments = 1  # "idrid" or "defungi"

    def rows(self):
        data = self.arguments[0]
        folds = photographs.by_fold(records("photographs").query("data == @data"))
        names = ["Backbone", "Split", "Model", "Repeats", "Accuracy", "Mean over classes", "AUC", "AUC minus AbMILP"]
        rows = [table_head(*names)]
        lesions = [table_head("Model", "Any", *photographs.KINDS, "Small", "Large", "Precision", "Gradient", "One out")]
        columns = ["any", *photographs.KINDS, "small", "large"]
        columns = [f"lesion_auc_{c}" for c in columns] + ["lesion_precision_at_k"]
        columns += ["lesion_auc_gradient", "lesion_auc_leave-one-out"]
        for (backbone, split), of_split in folds.groupby(["backbone", "split"]):
            for model, runs in sorted(of_split.groupby("model"), key=lambda x: MODELS.index(x[0])):
                d = None
                if model != "abmilp":
                    d = scores.fold_difference(of_split, {"model": model}, {"model": "abmilp"}, "auc")
                means = [f"{runs[name].mean():.3f}" for name in ("accuracy", "balanced_accuracy", "auc")]
                network, repeats = backbone.removeprefix("efficientnet-").title(), str(runs["repeat"].nunique())
                rows.append(table_row(network, split, name_of(model), repeats, *means, signed(*d[1:]) if d else "—"))
                if data == "idrid" and split == "grouped":
                    numbers = runs[columns].mean()
                    lesions.append(table_row(name_of(model), *("—" if isnan(x) else f"{x:.2f}" for x in numbers)))
        return "\n".join([*rows, "", *lesions] if data == "idrid" else rows).splitlines()


class BenchmarkGoals(Table):
    """What the benchmarks measured, beside the goals that were set before."""

    def rows(self):
        attention, bags, patches, slides, reading, before = (
            json.loads((RESULTS / "benchmarks" / f"{n}_cpu.json").read_text()) for n in BENCHMARKS
        )
        of = {(row["way"], row["kernel"], row["n"]): row for row in attention["rows"]}
        rows = ["| What | Goal | Measured | |", "|---|---|---|---|"]
        for what, measured, sign, bound, unit in (
            *attention_goals(of),
            *bag_goals({r["way"]: r for r in bags["rows"]}),
            *patch_goals({r["way"]: r["seconds"] for r in patches["rows"]}),
            *slide_goals(slides["rows"]),
            *reading_goals({r["way"]: r["seconds"] for r in reading["rows"]}),
            *before_goals(before["rows"]),
        ):
            met = "✓" if (measured >= bound if sign == "≥" else measured <= bound) else "missed"
            rows.append(f"| {what} | {sign} {bound} {unit} | {measured:.3g} {unit} | {met} |")
        return [*rows, "", f"Measured on: {attention['device']}, PyTorch {attention['versions']['torch']}."]


class Classical(Table):
    """Accuracy of the estimator of `sl.sklearn` on the classical sets."""

    folded = False

    def rows(self):
        rows = json.loads((RESULTS / "benchmarks" / "classical_cpu.json").read_text())["rows"]
        shown = (table_row(r["set"], f"{r['accuracy']:.3f} ± {r['standard_error']:.3f}") for r in rows)
        return [*table_head("Set", "Accuracy").splitlines(), *shown]


class Cards(Table):
    """What was measured on graphics cards; where there is no record, that there is none."""

    def rows(self):
        cards = gpu_records(RESULTS / "benchmarks")
        if not cards:
            return ["Nothing was measured on a GPU: none was at hand."]
        return [line for record in cards for line in card_lines(record)]


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


def slide_goals(rows):
    """The same for predicting slides of 20,000 × 768 half-precision features from their files."""
    for row in rows:
        what = f"predicting {row['slides']} slides of 20,000 patches from disk, {row['model']}: memory above the model"
        yield what, row["megabytes"], "≤", 400, "MB"


def patch_goals(seconds):
    """An epoch on 100 bags like those of colon; `seconds` by the name of the way."""
    for way, what in (("one by one, with Lab", "as public code does, Lab at each look"), ("one by one", "without Lab")):
        ratio = seconds[way] / seconds["all at once"]
        yield f"an epoch like colon's: time patch by patch ({what}), to ours", ratio, "≥", 3, "×"


def reading_goals(seconds):
    """An epoch on files of features that are read while the bags before compute; `seconds` by the name of the way."""
    ratio = seconds["reading ahead"] / max(seconds["reading"], seconds["computing"])
    yield (
        "an epoch on 40 feature files, read ahead: time, to the larger of reading and computing",
        ratio,
        "≤",
        1.15,
        "×",
    )


def before_goals(rows):
    """Attention now and before its distances were exact in far groups and it became an operator of PyTorch's."""
    ratios = [row["now"] / row["before"] for row in rows]
    yield (
        "attention, all bags and kernels: time, to that of the version before, mean",
        geometric_mean(ratios),
        "≤",
        1.05,
        "×",
    )
    yield "the same, the worst of them", max(ratios), "≤", 1.1, "×"


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


DIRECTIVES = {
    "environments": Environments,
    "mnist-results": MnistResults,
    "mnist-curves": MnistCurves,
    "paper-setting": PaperSetting,
    "mnist-ledger": MnistLedger,
    "cross-validation": CrossValidation,
    "image-ledger": ImageLedger,
    "trials": Trials,
    "unit-tests": UnitTests,
    "photographs": Photographs,
    "attributions": Attributions,
    "benchmark-goals": BenchmarkGoals,
    "cards": Cards,
    "classical": Classical,
    "claims": Claims,
    "forest": Forest,
    "headlines": Headlines,
}


def outdated_pages(app, env, added, changed, removed):
    """The pages with tables, if records or the code that reads them are not those of the last build.

    Sphinx looks at the pages alone; to read these in every build would take most of its time.
    """
    code = [Path(__file__), *Path(samil_lite.__file__).parent.rglob("*.py")]
    state = sorted((str(path), path.stat().st_mtime_ns) for path in [*code, *RESULTS.rglob("*.json")])
    before, env.samil_records = getattr(env, "samil_records", None), state
    if state == before:
        return []
    texts = {name: Path(env.doc2path(name)) for name in env.found_docs}
    marks = [f"```{{{name}}}" for name in DIRECTIVES]
    return [n for n, path in texts.items() if path.suffix == ".md" and any(m in path.read_text() for m in marks)]


def setup(app):
    for name, directive in DIRECTIVES.items():
        app.add_directive(name, directive)
    app.connect("env-get-outdated", outdated_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
