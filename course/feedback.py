"""What comes out of grading: the tables of a class, and a page for each student."""

import csv
import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = Sequence[Mapping[str, Any]]


@dataclass
class Result:
    """One graded submission.

    Attributes:
        parts: name of the task, points got, points possible, what was tested, what was found ("" if all is right).
        notes: for the student and the table: cells that did not run, which file was graded, and the like.
        written: the text cells that a person reads.
    """

    student: str
    file: str = ""
    parts: list[tuple[str, int, int, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def points(self, task: str) -> int:
        return sum(got for name, got, *_ in self.parts if name == task)


Hand = dict[tuple[str, str], tuple[float | None, str]]  # student, item: points (None: not yet read), comment


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="")
    os.replace(part, path)


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a CSV file; text that a spreadsheet would take for a formula gets an apostrophe before it."""
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([_harmless(x) for x in row] for row in rows)])
    os.replace(part, path)


def _harmless(x: object) -> object:
    return f"'{x}" if isinstance(x, str) and x[:1] in ("=", "+", "-", "@", "\t") else x


def rubric(path: Path, students: Sequence[str], items: Mapping[str, int]) -> Hand:
    """The points that a person gives: reads what was filled in, and adds the rows that are missing.

    Raises:
        ValueError: if points in it are no number between 0 and what the item is worth; nothing is written then.
    """
    known: Hand = {}
    if path.exists():
        text = path.read_text(encoding="utf-8-sig")
        delimiter = ";" if text.partition("\n")[0].count(";") > 2 else ","  # as some spreadsheets save it
        for number, row in enumerate(csv.DictReader(text.splitlines(), delimiter=delimiter), 2):
            if missing := {"student", "item", "points", "comment"} - set(row):
                raise ValueError(f"{path}: the columns {sorted(missing)} are missing")
            known[row["student"], row["item"]] = (_points(row, items, f"{path}, line {number}"), row["comment"] or "")
    rows = {(s, i): known.get((s, i), (None, "")) for s in students for i in items} | known
    cells = [[s, i, items.get(i, ""), "" if p is None else f"{p:g}", comment] for (s, i), (p, comment) in rows.items()]
    table(path, ["student", "item", "of", "points", "comment"], cells)
    return {(str(_harmless(s)).removeprefix("'"), i): value for (s, i), value in rows.items()}


def _points(row: Mapping[str, str], items: Mapping[str, int], where: str) -> float | None:
    text = (row["points"] or "").strip().replace(",", ".")
    if not text:
        return None
    most = items.get(row["item"])
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if most is not None and not 0 <= points <= most:
        raise ValueError(
            f"{where}: points for {row['item']!r} of {row['student']!r} should be 0 to {most}, not {text!r}"
        )
    return points


def grades(
    path: Path, results: Sequence[Result], tasks: Mapping[str, int], items: Mapping[str, int], hand: Hand
) -> None:
    """grades.csv: a row for each student, with the points of every task; the total is empty until all is read."""
    rows: list[list[object]] = []
    for r in results:
        read = [hand.get((r.student, item), (None, ""))[0] for item in items]
        tested = sum(r.points(task) for task in tasks)
        done = None not in read
        by_hand = sum(p for p in read if p is not None)
        rows.append([
            r.student, r.file, *(r.points(task) for task in tasks), tested,
            *("" if p is None else f"{p:g}" for p in read), f"{tested + by_hand:g}" if done else "",
            f"{r.seconds:.1f}", "; ".join(r.notes),
        ])  # fmt: skip
    table(path, ["student", "file", *tasks, "tested", *items, "total", "seconds", "notes"], rows)


STYLE = """
:root{color-scheme:light dark;--line:#8884;--good:#0a7a3d;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--good:#5fd08f;--bad:#ff8a80}}
body{font:1rem/1.5 system-ui,sans-serif;max-width:46rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.15rem;border-top:1px solid var(--line);
padding-top:1rem;margin-top:1.5rem}
ul{list-style:none;padding:0}li{margin:.75rem 0;padding-left:2rem;text-indent:-2rem}li>*{text-indent:0}
.mark{display:inline-block;width:2rem;font-weight:700}.good{color:var(--good)}.bad{color:var(--bad)}
.found{display:block;margin-top:.15rem}.points{float:right;font-weight:400}
pre,blockquote{white-space:pre-wrap;border-left:3px solid var(--line);margin:.75rem 0;
padding:.25rem .75rem;font:inherit}
"""


def page(title: str, result: Result, tasks: Mapping[str, int], items: Mapping[str, int], hand: Hand) -> str:
    """The feedback for one student: a page of HTML that asks no other host for anything."""
    e = html.escape
    tested = sum(result.points(task) for task in tasks)
    body = [
        f"<h1>{e(title)}</h1><p>{e(result.student)}: <strong>{tested} of {sum(tasks.values())} points</strong> from the"
        " tests" + (f"; a person gives up to {sum(items.values())} more.</p>" if items else ".</p>")
    ]
    if not result.parts:
        body.append("<p>Nothing could be tested.</p>")
    for task, most in tasks.items():
        rows = [row for row in result.parts if row[0] == task]
        if rows:
            body.append(f'<h2>{e(task)} <span class="points">{result.points(task)} of {most}</span></h2><ul>')
            body += [_part(got, of, what, found) for _, got, of, what, found in rows] + ["</ul>"]
    for item, most in items.items():
        points, comment = hand.get((result.student, item), (None, ""))
        got = "not yet read" if points is None else f"{points:g} of {most}"
        body.append(f'<h2>{e(item)} <span class="points">{got}</span></h2>')
        body += [f"<blockquote>{e(comment)}</blockquote>"] if comment else []
    if result.notes:
        body.append("<h2>Notes</h2>" + "".join(f"<p>{e(note)}</p>" for note in result.notes))
    if result.written:
        body.append("<h2>What you wrote</h2>" + "".join(f"<pre>{e(text)}</pre>" for text in result.written))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{e(title)}: {e(result.student)}</title><style>{STYLE}</style></head><body><main>"
        + "\n".join(body)
        + "</main></body></html>\n"
    )


def _part(got: int, of: int, what: str, found: str) -> str:
    mark = '<span class="mark bad">✗</span>' if found else '<span class="mark good">✓</span>'
    detail = f'<span class="found">{html.escape(found)}</span>' if found else ""
    return f"<li>{mark}{html.escape(what)} ({got} of {of}){detail}</li>"
