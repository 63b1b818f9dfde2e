"""A report of a cross-validation: one HTML page that needs nothing beside it."""

import html
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from samil_lite import score_figures, viz
from samil_lite.cards import card_of
from samil_lite.cross_validation import CrossValidation
from samil_lite.predicting import P, class_names
from samil_lite.report_maps import figure_with, what_was_looked_at
from samil_lite.writing import write_atomically

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --ground: #fff; --line: #ccc; --quiet: #444; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --ground: #16181b; --line: #4a4d52; --quiet: #b9bcc0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto;
  max-width: 62rem; padding: 1rem; overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
.wide { overflow-x: auto; } .row { display: grid; grid-template-columns: repeat(auto-fill,
  minmax(min(17rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .9rem; color: var(--quiet); }
"""
SCORES = {
    "auc": "AUC", "average_precision": "average precision", "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy", "recall": "recall (sensitivity)", "specificity": "specificity",
    "precision": "precision", "f_score": "F-score", "brier": "Brier score", "log_loss": "log loss",
}  # fmt: skip


def write_report(
    run: CrossValidation,
    bags: Any,
    path: str | Path,
    title: str = "Cross-validation",
    n_maps: int = 1,
    slide_files: str | Path | None = None,
) -> Path:
    """Writes a page with scores and their intervals, curves, calibration, courses of training, maps and predictions.

    Maps and top patches are of slides chosen by a rule, not by looks: for each class the slides of median probability
    of it among those rightly called, and among those wrongly called; each by the model that had not seen it.

    Args:
        run: what `cross_validate` found.
        bags: the bags it was found on. Maps need coordinates; pictures of the top patches need instances that are
            images, or the slides' files, otherwise their places are told.
        path: of the page.
        title: of the page.
        n_maps: slides for each class and verdict; 0: no maps.
        slide_files: folder with the scanner's files, named as the slides, to cut the top patches from; extra `slides`.

    Returns:
        The path.
    """
    table = run.predictions
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _opening(run),
        "<h2>Scores</h2>",
        _scores(run.scores),
        "<h2>Curves</h2>",
        _curves(table),
        "<h2>What was called what</h2>",
        _confusion(table),
        "<h2>Courses of training</h2>",
        _courses(run),
    ]
    if n_maps and (seen := what_was_looked_at(run, bags, n_maps, slide_files)):
        parts += ["<h2>What the models looked at</h2>", seen]
    parts += ["<h2>Predictions</h2>", _predictions(table)]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>"
    )
    write_atomically(Path(path), lambda file: file.write(page.encode()))
    return Path(path)


def _opening(run: CrossValidation) -> str:
    table, card = run.predictions, card_of(run.models[0])
    counts = ", ".join(f"{n} {html.escape(str(name))}" for name, n in table["label"].value_counts().items())
    groups = f" of {table['group'].nunique()} groups, none of them divided" if "group" in table else ""
    auc = run.scores[(run.scores["score"] == "auc") & run.scores["class"].isin(["macro", class_names(table)[-1]])]
    finding = ". ".join(
        f"By {row.unit}: AUC {row.value:.2f} (95 % interval {row.low:.2f} to {row.high:.2f})"
        for row in auc.drop_duplicates("unit").itertuples()
    )
    settings = (card.training or {}).get("settings", {})
    training = ", ".join(
        f"{name} {value}" for name, value in settings.get("training", {}).items() if name != "progress"
    )
    versions = ", ".join(f"{name} {value}" for name, value in (card.versions or {}).items())
    return (
        f"<p><strong>{finding}.</strong> {len(table)} bags ({counts}){groups}; {len(run.models)} folds, each bag "
        f"tested once by a model that had not seen it; {card.width} features an instance.</p>"
        f"<p>Model: {html.escape(_name_of(run.models[0]))}. Threshold: {html.escape(str(settings.get('threshold')))}. "
        f"Training: {html.escape(training or 'defaults')}. {html.escape(versions)}</p>"
        "<p>These scores are of single models, each trained without its tested fold. The ensemble of all has seen "
        "every bag here, so its own score is not known. Nothing here is fit for diagnosis.</p>"
    )


def _name_of(model: Any) -> str:
    attention = getattr(model, "self_attention", None)
    pool = type(getattr(model, "pool", model)).__name__
    return f"{type(attention.kernel).__name__} self-attention, then {pool}" if attention is not None else pool


def _scores(scores: pd.DataFrame) -> str:
    rows = pd.DataFrame(
        {
            "score": [
                f"{SCORES.get(s, s)}{f' ({c})' if c else ''}"
                for s, c in zip(scores["score"], scores["class"], strict=True)
            ],
            "unit": scores["unit"] + " (" + scores["n"].astype(str) + ")",
            "value": [
                f"{v:.3f}, {low:.3f} to {high:.3f}" for v, low, high in scores[["value", "low", "high"]].to_numpy()
            ],
        }
    )
    wide = rows.pivot_table(index="score", columns="unit", values="value", aggfunc="first", sort=False)
    return (
        "<p>Value, and 95 % interval over resampled groups (bags where there are none): how the score would vary with "
        f"other patients, not with another training.</p>{_table(wide.reset_index())}"
    )


def _curves(table: pd.DataFrame) -> str:
    positive = class_names(table)[-1]
    of = f"of {positive} against the others"
    figures = (
        (score_figures.roc(table), f"ROC curve {of}, mean over folds, with a 95 % band."),
        (score_figures.precision_recall(table), f"Precision against recall {of}; dotted, its share of the bags."),
        (score_figures.calibration(table), f"Calibration {of}: on the dotted line probabilities hold."),
    )
    return f'<div class="row">{"".join(figure_with(*pair) for pair in figures)}</div>'


def _confusion(table: pd.DataFrame) -> str:
    counts = pd.crosstab(table["label"], table["predicted"]).reindex(class_names(table), axis=0, fill_value=0)
    counts = counts.reindex(class_names(table), axis=1, fill_value=0).reset_index()
    return _table(counts.rename(columns={"label": "label \\ predicted"}))


def _courses(run: CrossValidation) -> str:
    figures = []
    for number, history in enumerate(run.histories):
        figures.append(figure_with(viz.losses(history), f"Fold {number}. {viz.describe_losses(history)}"))
    return f'<div class="row">{"".join(figures)}</div>'


def _predictions(table: pd.DataFrame) -> str:
    p = table[[P + name for name in class_names(table)]].to_numpy()
    own = np.array([row[class_names(table).index(label)] for row, label in zip(p, table["label"], strict=True)])
    ordered = table.assign(_own=own).sort_values("_own").drop(columns="_own")
    return (
        "<p>All bags, those first whose own class was given the least probability.</p>"
        f"<details><summary>{len(table)} rows</summary>{_table(ordered.round(3))}</details>"
    )


def _table(table: pd.DataFrame) -> str:
    table = table.rename_axis(columns=None)  # or its name would take a column of its own
    return f'<div class="wide" tabindex="0">{table.to_html(index=False, escape=True, border=0)}</div>'
