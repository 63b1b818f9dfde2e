"""The assignments and their grader: right answers pass, known mistakes fail with their hint, nothing is lost."""

import csv
import io
import json
import math
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from scipy import stats

import samil_lite as sl
from course import feedback, grade, release, submissions
from course.answers import Answer, Mistake, Wrong, load
from course.feedback import Result
from course.hidden import a4
from course.sandbox import Worker, make, needed, rooted, sandboxed
from course.variants import VARIANTS
from course.worker import Lent, Shell, answer, short
from tools.repository import slug

ROOT = Path(__file__).parents[1]
NAMES = sorted(VARIANTS)
SEEDS = range(max(len(known) for known in VARIANTS.values()))
FIRSTS = {name: [task.right for task in grade.load(name, 0).tasks] for name in NAMES}
TASKS = [
    (name, seed, task)
    for name in NAMES
    for seed in range(len(VARIANTS[name]))
    for task, first in zip(grade.load(name, seed).tasks, FIRSTS[name], strict=True)
    if seed == 0 or task.right != first or task.function == "phi"  # whose known kernels depend on the seed
]
tasks = pytest.mark.parametrize(("name", "seed", "task"), TASKS, ids=[f"{n}-{s}-{t.name}" for n, s, t in TASKS])
COUNTS: dict[str, list[int]] = {}


class Here:
    """Answers as a `Worker` does, but in this process: fast enough for hundreds of mutants."""

    def __init__(self, cells, limit=0):
        self.space = {
            "__name__": "__main__",
            "get_ipython": Shell,
            "torch": torch,
            "nn": torch.nn,
            "sl": sl,
            "math": math,
            "stats": stats,
        }
        replies = {number: self.ask({"cell": cell, "number": number}) for number, cell in enumerate(cells, 1)}
        self.notes = {number: reply["error"] for number, reply in replies.items() if reply}

    def stop(self):
        pass

    def ask(self, request, lent=()):
        try:
            return answer(request, self.space, lambda number: Lent(lent[number]))
        except BaseException as error:
            return {"error": short(error)}


def found(name, seed, task, source):
    """What the tests of a task find in an answer, part by part; the other functions are the right ones."""
    others = [text for f, text in release.answers(name, seed).items() if f != task.function]
    student, problems = Answer(Here([*others, source]), task, seed), []
    assert not student.process.notes
    for part in task.parts:
        try:
            part.test(student)
        except Wrong as wrong:
            problems.append(str(wrong))
    return problems


@tasks
def test_right_answers_of_three_styles_get_full_points(name, seed, task):
    assert len(task.styles) >= 2
    for source in (task.right, *task.styles):
        assert found(name, seed, task, source) == [], source


@tasks
def test_every_mistake_loses_points_and_gets_its_hint(name, seed, task):
    assert len({m.hint for m in task.mistakes}) >= 6
    assert len({task.mutant(m) for m in task.mistakes}) == len(task.mistakes)
    for mistake in task.mistakes:
        problems = found(name, seed, task, task.mutant(mistake))
        assert any(mistake.hint in problem for problem in problems), (mistake, problems)
    COUNTS[f"{name} {task.name}, seed {seed}"] = [1 + len(task.styles), len(task.mistakes)]


def test_the_table_of_answers(capsys):
    with capsys.disabled():
        for what, (right, wrong) in COUNTS.items():
            print(f"\n{what}: {right} right answers pass, {wrong} mistakes lose points", end="")
    assert all(right >= 3 and wrong >= 6 for right, wrong in COUNTS.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_release_is_that_of_seed_0(name):
    assert release.released(name, 0) == nbformat.read(release.RELEASED / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", NAMES)
def test_a_release(name):
    for seed in SEEDS:
        notebook = release.released(name, seed)
        nbformat.validate(notebook)
        text = "\n".join(cell.source for cell in notebook.cells)
        assert "SOLUTION" not in text
        assert f"SEED = {seed}\n" in text + "\n"
        assert f"/{slug(ROOT)}/blob/main/notebooks/assignments/{name}.ipynb" in notebook.cells[0].source
        assert not any(cell.get("outputs") for cell in notebook.cells)
        points = sum(int(n) for n in re.findall(r"^## Task .*\((\d+) points?", text, re.M))
        assignment = grade.load(name, seed)
        assert points == sum(t.points for t in assignment.tasks) + sum(assignment.by_hand.values())
    texts = {"\n".join(c.source for c in release.released(name, s).cells if "SEED" not in c.source) for s in SEEDS}
    assert len(texts) == len(VARIANTS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_release_runs_to_the_end_and_its_solutions_pass_their_checks(name, capsys):
    for make_notebook, expected in ((release.released, {NotImplementedError}), (release.solved, set())):
        space, errors = {"__name__": "__main__", "get_ipython": Shell}, []
        for cell in make_notebook(name, 1).cells:
            if cell.cell_type == "code":
                try:
                    exec(grade.plain_python(cell.source), space)
                except Exception as error:
                    errors.append(error)
        assert {NotImplementedError if isinstance(e, NotImplementedError) else type(e) for e in errors} == expected, (
            errors
        )
    assert capsys.readouterr().out.count("✓") >= 3


def test_a_line_of_a_solution_that_is_left_is_an_error(monkeypatch):
    notebook = release.solved("a1", 0)
    line = next(m for c in notebook.cells for m in release.SOLUTION.findall(c.source))[1].splitlines()[0].strip()
    notebook.cells.append(nbformat.v4.new_markdown_cell(f"Hint: `{line}`"))
    monkeypatch.setattr(release, "solved", lambda *_: notebook)
    with pytest.raises(ValueError, match="lines of a solution are left"):
        release.released("a1", 0)


def test_a_mistake_must_be_a_change_of_the_right_answer():
    task = TASKS[0][2]
    with pytest.raises(ValueError, match="no part of the right answer"):
        task.mutant(Mistake("not in there", "", ""))
    assert load(task.right, task).__name__ == task.function


@pytest.mark.filterwarnings("ignore:precision is not defined:UserWarning")  # after one epoch
def test_a_run_that_was_trained_again_must_be_near(tmp_path, monkeypatch, capsys):
    task = next(t for t in grade.load("a4", 0, 0.7682).tasks if t.function == "my_runs")
    assert found("a4", 0, task, task.right) == []
    task = next(t for t in grade.load("a4", 0, 0.95).tasks if t.function == "my_runs")
    assert "seed 0 was trained again and gave 0.950" in found("a4", 0, task, task.right)[0]
    assert 0 <= a4.train(7, pool="subset", epochs=1, n_test=20, width=10) <= 1
    assert a4.spot(7) == 1
    monkeypatch.setattr(a4, "train", lambda seed: 0.7)
    assert grade.train_again("a4", 7, tmp_path) == 0.7
    monkeypatch.setattr(a4, "train", None)  # it is kept
    assert grade.train_again("a4", 7, tmp_path) == 0.7
    with pytest.raises(ValueError, match="SPOT: only a4 asks for runs"):
        grade.train_again("a1", 7, tmp_path)


# ------------------------------------------------------------------ whole submissions, each in a process of its own
def notebook(*cells, **more):
    return json.dumps(
        {"cells": [{"cell_type": "code", "source": c, **more} for c in cells], "nbformat": 4, "nbformat_minor": 5}
    )


RIGHT = list(dict.fromkeys(release.answers("a1", 0).values()))
SETUP = "import torch\nfrom torch import nn\nSEED = 0"
FIRST = replace(grade.load("a1", 0), tasks=grade.load("a1", 0).tasks[:2])  # the tasks that need no optimizer


def graded(tmp_path, text, limit=10.0, assignment=FIRST, name="a1"):
    path = tmp_path / "Ann.ipynb"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = grade.grade(submissions.find(tmp_path, ["attention_weights"])[0], assignment, name, 0, limit)
    return {task.name: result.points(task.name) for task in assignment.tasks}, result


def test_what_does_not_matter(tmp_path, monkeypatch):
    """A doubled cell, cells without metadata, ids or a language, a magic, a warning, a megabyte of output."""
    noise = "import warnings\nwarnings.warn('look here')\nprint('x' * 2**20)\nimport sys; sys.stderr.write('y' * 2**20)"
    noisy = RIGHT[0].replace('"""\n', '"""\n    import warnings; warnings.warn("deprecated"); print("z" * 2**20)\n', 1)
    cells = [SETUP, "%matplotlib inline\n!ls", noise, noisy, "broken (", *RIGHT[1:], noisy, "%%bash\nls"]
    points, result = graded(tmp_path, notebook(*cells, metadata={"id": "Xy"}))
    assert points == {"weights": 3, "ragged": 4}
    assert any("SyntaxError" in note for note in result.notes)
    monkeypatch.setattr(grade, "Worker", Here)
    bare = json.loads(notebook(SETUP, *RIGHT))
    for cell in bare["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    assert graded(tmp_path, "\ufeff" + json.dumps({"cells": bare["cells"]}))[0] == {"weights": 3, "ragged": 4}


def test_deleted_and_renamed_functions_lose_only_their_task(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "Worker", Here)
    renamed = RIGHT[0].replace("attention_weights", "my_weights")
    points, result = graded(tmp_path, notebook(SETUP, renamed, RIGHT[1]))
    assert points == {"weights": 0, "ragged": 4}
    assert "no function or class named attention_weights" in result.parts[0][4]
    old = notebook(SETUP.replace("SEED = 0", "SEED = 7"), "del missing", "raise NotImplementedError")
    points, result = graded(tmp_path, old)
    assert sum(points.values()) == 0
    assert any("of seed 7" in note for note in result.notes)


def test_a_dying_kernel_and_hangs_lose_only_their_task(tmp_path):
    stubborn = "def attention_weights(h, V, w):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass"
    sleeping = "import time\ntime.sleep(1000)"
    points, result = graded(
        tmp_path, notebook(SETUP, "import os\nos._exit(1)", sleeping, stubborn, *RIGHT[1:]), limit=3
    )
    assert points == {"weights": 0, "ragged": 4}
    assert "endless loop" in result.parts[0][4]
    assert "ended its Python process" in "".join(result.notes)
    assert "cell 3: no result after 3 s" in "".join(result.notes)


def test_files_that_are_no_notebook(tmp_path):
    for text, why in (
        (b"", "empty"),
        (b"no JSON", "JSONDecodeError"),
        (b'{"cells": 3}', "TypeError"),
        (b"\xff\xfe\x00", "Unicode"),
    ):
        points, result = graded(tmp_path, text)
        assert sum(points.values()) == 0
        assert why in result.notes[0]


@pytest.mark.parametrize("name", NAMES[1:])
def test_whole_submissions_of_the_other_assignments(tmp_path, name):
    """Right, wrong and empty at once: one task is solved as it should be, one is broken, the rest as it is released."""
    assignment = grade.load(name, 0)
    solved, empty = (list(make_notebook(name, 0).cells) for make_notebook in (release.solved, release.released))
    last = assignment.tasks[-1].function
    broken = assignment.tasks[0].mutant(assignment.tasks[0].mistakes[0])
    cells = [c.source for c in (*empty, *(c for c in solved if f"def {last}(" in c.source)) if c.cell_type == "code"]
    helpers = [text for f, text in release.answers(name, 0).items() if f == "phi"]  # the others of a3 build on it
    text = notebook(*cells, *helpers[: name == "a3"], broken)
    points, result = graded(tmp_path, text, assignment=assignment, name=name)
    if name != "a3":  # whose last task builds on the first
        assert points[assignment.tasks[-1].name] == assignment.tasks[-1].points
    assert points[assignment.tasks[0].name] < assignment.tasks[0].points
    assert assignment.tasks[0].mistakes[0].hint in "".join(part[4] for part in result.parts)
    assert "nothing is filled in yet" in "".join(part[4] for part in result.parts)


ATTACKS = {
    "read the hidden tests": f"open({str(ROOT / 'course/hidden/a1.py')!r}).read()",
    "import the hidden tests": f"import sys; sys.path.insert(0, {str(ROOT)!r}); import course.hidden.a1",
    "delete a file": "import os; os.remove(victim)",
    "change the grades": "open(victim, 'w').write('ann,18')",
    "open a socket": "import socket; socket.create_connection(('1.1.1.1', 53), 2)",
    "start a process": "import subprocess; subprocess.run(['touch', victim + '.new'])",
    "end the grader": "import os; os.kill(os.getppid(), 9)",
    "take all memory": "x = bytearray(2**34)",
    "write outside": "open('/home/../tmp/left_behind', 'w')",
    "list the other submissions": "import os; os.listdir(os.path.dirname(victim))",
}


def test_attacks_fail_and_what_is_right_still_counts(tmp_path):
    victim = make(tmp_path / "others") / "grades.csv"
    victim.write_text("as it was")
    tries = [f"victim = {str(victim)!r}\nDONE = {{}}"]
    tries += [
        f"try:\n    {code}\n    DONE[{name!r}] = 'done'\nexcept BaseException as e:\n    DONE[{name!r}] = type(e).__name__"
        for name, code in ATTACKS.items()
    ]
    tries += ["def outcome():\n    return DONE", "import torch\ntorch.equal = torch.allclose = lambda *a, **k: True"]
    worker = Worker([SETUP, *tries, RIGHT[0]], 10)
    try:
        outcome = worker.ask({"function": "outcome", "driver": "", "args": [], "grad": False, "seed": 0})
        student = Answer(worker, FIRST.tasks[0], 0)
        for part in FIRST.tasks[0].parts:
            part.test(student)
    finally:
        worker.stop()
    assert set(outcome["value"]) == set(ATTACKS)
    assert "done" not in outcome["value"].values(), outcome["value"]
    assert victim.read_text() == "as it was"
    assert list(victim.parent.iterdir()) == [victim]
    assert not worker.notes


def test_forged_replies_are_wrong_answers(tmp_path):
    forge = "import os, struct, torch, io\nfor fd in range(3, 40):\n    try:\n        os.write(fd, struct.pack('<q', 5) + b'hello')\n    except OSError:\n        pass"
    points, result = graded(tmp_path, notebook(SETUP, forge, RIGHT[0]))
    assert points["ragged"] == 0
    assert "unreadable reply" in "".join(result.notes)
    assert points["weights"] == 3, "the cell that forges is left out, the rest counts"


@pytest.mark.skipif(not sandboxed(), reason="this machine does not let unshare shut a process in")
def test_the_sandbox_holds_without_the_guard():
    """The process sees no file of ours, no network and no other process, and can write in its own folder only."""
    code = """
import os, socket
ways = {"/"}
for path in SHOWN:
    while (path := os.path.dirname(path)) != "/":
        ways.add(path)
for way in ways:
    if not any(way == p or way.startswith(p + "/") for p in SHOWN):
        strange = {os.path.join(way, name) for name in os.listdir(way)} - ways - set(SHOWN)
        assert strange <= {"/bin", "/sbin", "/lib", "/lib64", "/dev", "/proc", "/home"}, (way, strange)
assert os.listdir("/home") == []
assert not os.path.exists(HIDDEN) and not os.path.exists("/etc/passwd")
for path in (torch_file, "/usr/x", *(way + "/x" for way in ways if way != "/")):
    try:
        open(path, "a").close()
        raise SystemExit(path + " can be written")
    except OSError:
        pass
try:
    socket.create_connection(("1.1.1.1", 53), 2)
    raise SystemExit("a network")
except OSError:
    pass
assert len([p for p in os.listdir("/proc") if p.isdigit()]) <= 2
open("mine", "w").close()
"""
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        make(Path(folder) / "home")
        hidden = str(ROOT / "course" / "hidden")
        names = f"HIDDEN, SHOWN, torch_file = {hidden!r}, {sorted(needed())!r}, {torch.__file__!r}"
        command = rooted(Path(folder), [sys.executable, "-c", names + code])
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ folders, tables and pages
def test_who_handed_in_what(tmp_path):
    text = notebook("x = 1")
    flat = make(tmp_path / "flat")
    for name in ("Ann.ipynb", "bob_123_late_a1.ipynb", "Cy.ipynb.txt", "Di.json"):
        (flat / name).write_text(text)
    (flat / "Ed.pdf").write_text("%PDF")
    assert [s.student for s in submissions.find(flat, [])] == ["Ann", "Cy", "Di", "Ed.pdf", "bob_123_late_a1"]
    assert submissions.find(flat, [])[3].note == "no notebook, only Ed.pdf"
    platform = tmp_path / "export" / "course 7"
    for student in ("Ann Lee_17_assignsubmission_file_", "Bo Chan_18_assignsubmission_file_"):
        folder = platform / student / "deep"
        folder.mkdir(parents=True)
        (folder / "Untitled.ipynb").write_text(text)
        (folder / "a1 (1).ipynb").write_text(notebook("def attention_weights(h): ..."))
        (make(folder / ".ipynb_checkpoints") / "a1.ipynb").write_text(text)
    (platform / "Cleo_19_assignsubmission_file_").mkdir()
    students = submissions.find(tmp_path / "export", ["attention_weights"])
    assert [s.student.split("_")[0] for s in students] == ["Ann Lee", "Bo Chan", "Cleo"]
    assert students[0].notebooks[0].name == "a1 (1).ipynb"
    assert students[0].note == "2 notebooks; a1 (1).ipynb was graded"
    assert students[2].note == "an empty folder"


def test_zip_files_of_learning_platforms(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("work/a1.ipynb", notebook("x = 1"))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        file.writestr("Ann_1_assignsubmission_file_/a1.ipynb", notebook("x = 1"))
        file.writestr("Bo_2_assignsubmission_file_/handed in.zip", inner.getvalue())
        file.writestr("__MACOSX/._a1.ipynb", b"")
        file.writestr("../../escaped.ipynb", b"")
    where = submissions.unpacked(tmp_path / "all.zip", make(tmp_path / "new"))
    assert {"Ann_1_assignsubmission_file_", "Bo_2_assignsubmission_file_"} <= {
        s.student for s in submissions.find(where, [])
    }
    assert not (tmp_path / "escaped.ipynb").exists()
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"bad\.zip cannot be unpacked"):
        submissions.unpacked(tmp_path / "bad.zip", make(tmp_path / "newer"))
    with pytest.raises(FileNotFoundError, match="no folder or zip file"):
        submissions.unpacked(tmp_path / "nothing", tmp_path)


def test_points_by_hand_are_kept_and_merged(tmp_path):
    path, items = tmp_path / "rubric.csv", {"text": 4}
    assert feedback.rubric(path, ["Ann", "Bo"], items) == {("Ann", "text"): (None, ""), ("Bo", "text"): (None, "")}
    path.write_text(
        '\ufeffstudent;item;of;points;comment\nAnn;text;4;3,5;"good; short"\nBo;text;4;;\n', encoding="utf-8"
    )
    known = feedback.rubric(path, ["Ann", "Bo", "Cy"], items)
    assert known["Ann", "text"] == (3.5, "good; short")
    assert list(csv.reader(path.read_text().splitlines()))[1:] == [
        ["Ann", "text", "4", "3.5", "good; short"],
        ["Bo", "text", "4", "", ""],
        ["Cy", "text", "4", "", ""],
    ]
    for points in ("5", "-1", "many"):
        path.write_text(f"student,item,of,points,comment\nAnn,text,4,{points},\n")
        with pytest.raises(ValueError, match=rf"line 2: points for 'text' of 'Ann' should be 0 to 4, not '{points}'"):
            feedback.rubric(path, ["Ann"], items)


def test_tables_and_pages_are_harmless(tmp_path):
    name = '=HYPERLINK("x")<script>alert(1)</script>'
    result = Result(
        name, "a.ipynb", [("weights", 0, 3, "values", "<b>wrong</b>")], ["-note"], ["<img src=http://x>"], 1.0
    )
    feedback.grades(tmp_path / "grades.csv", [result], {"weights": 3}, {"text": 4}, {(name, "text"): (2.0, "ok")})
    row = next(csv.DictReader((tmp_path / "grades.csv").read_text().splitlines()))
    assert row["student"].startswith("'=")
    assert (row["tested"], row["text"], row["total"], row["notes"]) == ("0", "2", "2", "'-note")
    page = feedback.page("Title", result, {"weights": 3}, {"text": 4}, {(name, "text"): (2.0, "ok")})
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r"<[^>]*(src|href)=\"(?!data:)", page)


def test_the_command_grades_a_class_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    folder = make(tmp_path / "in")
    wrong = RIGHT[0].replace("e.softmax(0)", "e / e.sum()")
    (folder / "Right.ipynb").write_text(notebook(SETUP, *RIGHT))
    (folder / "Wrong.ipynb").write_text(notebook(SETUP, wrong, *RIGHT[1:]))
    nbformat.write(release.released("a1", 0), folder / "Empty.ipynb")
    arguments = ["grade", "a1", str(folder), "--seed", "0", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--workers", "2"])
    grade.main()
    rows = {row["student"]: row for row in csv.DictReader((tmp_path / "out" / "grades.csv").read_text().splitlines())}
    assert [rows[name]["tested"] for name in ("Right", "Wrong", "Empty")] == ["18", "15", "0"]
    assert rows["Right"]["total"] == ""
    page = (tmp_path / "out" / "feedback" / "Wrong.html").read_text()
    assert "the exponential is missing" in page
    assert page.count("nothing is filled in yet") == 0
    assert "nothing is filled in yet" in (tmp_path / "out" / "feedback" / "Empty.html").read_text()
    rubric = tmp_path / "out" / "rubric.csv"
    rubric.write_text(
        rubric.read_text().replace(
            "Right,which weights can be read as reasons,4,,", "Right,which weights can be read as reasons,4,4,Fine"
        )
    )
    monkeypatch.setattr(grade, "grade", None)  # nothing is graded again
    grade.main()
    rows = {row["student"]: row for row in csv.DictReader((tmp_path / "out" / "grades.csv").read_text().splitlines())}
    assert rows["Right"]["total"] == "22"
    assert "Fine" in (tmp_path / "out" / "feedback" / "Right.html").read_text()
    assert sandboxed() or "WARNING" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["grade", "a9", str(folder)])
    with pytest.raises(SystemExit, match="ASSIGNMENT: expected one of a1"):
        grade.main()


def test_without_a_sandbox_there_is_a_loud_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grade, "sandboxed", lambda: False)
    monkeypatch.setattr(sys, "argv", ["grade", "a1", str(make(tmp_path / "in")), "--out", str(tmp_path / "out")])
    with warnings.catch_warnings():
        grade.main()
    assert "WARNING: this machine cannot shut the students' code in" in capsys.readouterr().err
