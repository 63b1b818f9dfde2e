"""Grades a folder or zip file of notebooks: make grade ASSIGNMENT=a1 SUBMISSIONS=folder SEED=0 OUT=folder.

Only the source of code cells counts, and in it only the names of functions: names of files, cell ids, metadata, outputs
and the order of cells may be anything. OUT gets grades.csv, rubric.csv with the points that a person gives (fill it in
and run again), and feedback/NAME.html for each student. What was graded before is not graded again.

It does not protect against: answers that somebody else wrote; a hole in the kernel of the operating system; on systems
without `unshare`, code that means harm at all. A student's code sees the arguments of the tests, though never the right
values. What stands in a public repository, the tests among it, is not secret: a class's own belong in a private fork.
"""

import argparse
import hashlib
import importlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from course import feedback, submissions
from course.answers import Answer, Assignment, Wrong
from course.feedback import Result
from course.release import released
from course.sandbox import Worker, sandboxed
from course.submissions import NotReadable, Submission

COURSE = Path(__file__).parent
WARNING = """
################################################################################
#  WARNING: this machine cannot shut the students' code in (no `unshare`).     #
#  It could read and change your files and use the network. Grade only people  #
#  whom you trust, or run this on Linux or inside a container.                 #
################################################################################
"""


def load(name: str, seed: int, again: float | None = None) -> Assignment:
    """The tasks of an assignment for a class's seed.

    Args:
        name: a1, a2, a3 or a4.
        seed: the seed that the class's release was made with.
        again: what `train_again` returned, for assignment 4.

    Raises:
        ValueError: if there is no assignment of this name.
    """
    known = sorted(path.stem for path in (COURSE / "hidden").glob("a?.py"))
    if name not in known:
        raise ValueError(f"ASSIGNMENT: expected one of {', '.join(known)}, got {name!r}")
    module = importlib.import_module(f"course.hidden.{name}")
    found: Assignment = module.assignment(seed) if again is None else module.assignment(seed, again)
    return found


def train_again(name: str, seed: int, out: Path) -> float:
    """Test AUC of one of the runs that assignment 4 asks for, trained here, once: OUT/spot.json keeps it.

    Raises:
        ValueError: for another assignment.
    """
    if name != "a4":
        raise ValueError(f"SPOT: only a4 asks for runs that can be trained again, not {name}")
    from course.hidden import a4

    path = out / "spot.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.get("class") != seed:
        print(f"training the run of seed {a4.spot(seed)} again", flush=True)
        known = {"class": seed, "seed": a4.spot(seed), "auc": a4.train(seed)}
        out.mkdir(parents=True, exist_ok=True)
        feedback.write(path, json.dumps(known))
    return float(known["auc"])


def grade(submission: Submission, assignment: Assignment, name: str, seed: int, limit: float = 10) -> Result:
    """Runs one submission's code in a process of its own and tests every task."""
    start = time.monotonic()
    result = Result(submission.student, notes=[submission.note] if submission.note else [])
    if not submission.notebooks:
        return result
    path = submission.notebooks[0]
    result.file = path.name
    release = released(name, seed)
    try:
        cells = submissions.code_cells(path)
        result.written = submissions.written(path, {cell.source.strip() for cell in release.cells})
    except NotReadable as error:
        result.notes.append(str(error))
        return result
    if others := {int(s) for s in re.findall(r"^SEED = (\d+)$", "\n".join(cells), re.M)} - {seed}:
        result.notes.append(f"the notebook is of seed {min(others)}, but graded with {seed}")
    checks = {cell.source.strip() for cell in release.cells if "sl.checks." in cell.source}
    worker = Worker([plain_python(cell) for cell in cells if cell.strip() not in checks], limit)
    try:
        for task in assignment.tasks:
            answer = Answer(worker, task, seed)
            for part in task.parts:
                found = _try(answer, part.test)
                result.parts.append((task.name, 0 if found else part.points, part.points, part.what, found))
    finally:
        worker.stop()
    result.notes += [n for n in worker.notes.values() if "NotImplementedError" not in n and "CheckError" not in n]
    result.seconds = time.monotonic() - start
    return result


def _try(answer: Answer, test) -> str:  # type: ignore[no-untyped-def]
    try:
        test(answer)
    except Wrong as wrong:
        return str(wrong) or "wrong"
    except Exception as error:  # a value that no test foresaw: the student's, not the grader's, fault
        return f"the value cannot be used: {type(error).__name__}"
    return ""


def plain_python(cell: str) -> str:
    """A cell with its `%magic` and `!command` lines as calls that do nothing."""
    from IPython.core.inputtransformer2 import TransformerManager

    if re.match(r"\s*%%", cell):
        cell = "\n" + cell.partition("\n")[2] if re.match(r"\s*%%(time|timeit|capture)\b", cell) else ""
    try:
        return str(TransformerManager().transform_cell(cell))
    except Exception:  # no Python at all: running it says so
        return cell


def grade_all(
    found: Sequence[Submission],
    name: str,
    seed: int,
    out: Path,
    workers: int,
    limit: float = 10,
    again: float | None = None,
) -> list[Result]:
    """Grades everyone in parallel; a submission that was graded before, with the same tests, is read from OUT."""
    assignment = load(name, seed, again)
    sources = [COURSE / "answers.py", COURSE / "variants.py", *sorted((COURSE / "hidden").glob("*.py"))]
    tests = b"".join(path.read_bytes() for path in sources) + f"{name} {seed} {limit} {again}".encode()
    (out / "results").mkdir(parents=True, exist_ok=True)

    def one(submission: Submission) -> Result:
        content = b"".join(path.read_bytes() for path in submission.notebooks)
        key = hashlib.sha256(tests + submission.student.encode() + content).hexdigest()[:24]
        record = out / "results" / f"{key}.json"
        if record.exists():
            known = json.loads(record.read_text(encoding="utf-8"))
            return Result(**{**known, "parts": [tuple(part) for part in known["parts"]]})
        result = grade(submission, assignment, name, seed, limit)
        feedback.write(record, json.dumps(asdict(result), ensure_ascii=False, indent=1))
        print(
            f"{submission.student}: {sum(part[1] for part in result.parts)} points, {result.seconds:.0f} s", flush=True
        )
        return result

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return list(pool.map(one, found))


def write(results: Sequence[Result], name: str, seed: int, out: Path) -> None:
    """grades.csv, rubric.csv and the feedback pages."""
    assignment = load(name, seed)
    tasks = {task.name: task.points for task in assignment.tasks}
    hand = feedback.rubric(out / "rubric.csv", [r.student for r in results], assignment.by_hand)
    feedback.grades(out / "grades.csv", results, tasks, assignment.by_hand, hand)
    title = released(name, seed).cells[0].source.splitlines()[0].removeprefix("# ")
    (out / "feedback").mkdir(exist_ok=True)
    used: set[str] = set()
    for result in results:
        file = stem = re.sub(r"[^\w.-]+", "_", result.student).strip("._") or "student"
        while file.lower() in used:
            file = f"{stem}_{len(used)}"
        used.add(file.lower())
        text = feedback.page(title, result, tasks, assignment.by_hand, hand)
        feedback.write(out / "feedback" / f"{file}.html", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assignment")
    parser.add_argument("submissions", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="the seed that the class's release was made with")
    parser.add_argument("--out", type=Path, default=Path("graded"))
    parser.add_argument("--limit", type=float, default=10, help="seconds for a cell or a call")
    parser.add_argument("--spot", action="store_true", help="a4: train one of the five runs again and compare")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        functions = [task.function for task in load(args.assignment, args.seed).tasks]
        if not sandboxed():
            print(WARNING, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="grade-") as folder:
            found = submissions.find(submissions.unpacked(args.submissions, Path(folder)), functions)
            again = train_again(args.assignment, args.seed, args.out) if args.spot else None
            results = grade_all(found, args.assignment, args.seed, args.out, args.workers, args.limit, again)
        write(results, args.assignment, args.seed, args.out)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"{len(results)} submissions: {args.out}/grades.csv, rubric.csv (points by hand) and feedback/")


if __name__ == "__main__":
    main()
