"""The checks of all exercises: right answers pass, wrong ones of every kind fail with a hint in words."""

import contextlib
import io
import re
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from exercise_answers import ANSWERS
from exercises import SOLUTION, before, exercise_cells
from torch import Tensor

from samil_lite.checks import CheckError

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
CHAPTERS = {path.stem: nbformat.read(path, as_version=4).cells for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}
EXERCISES = [(name, function) for name, cells in CHAPTERS.items() for function in exercise_cells(cells)]


def off(y):
    """A value that is a little wrong."""
    if isinstance(y, (tuple, list)):
        return type(y)(off(x) for x in y)
    if isinstance(y, (set, str)):
        return y ^ {"nobody"} if isinstance(y, set) else y + "x"
    if isinstance(y, Tensor) and not y.is_floating_point():
        return y + 1
    return 1.2 * y + 0.3


def deeper(y):
    """A value with one axis more."""
    if isinstance(y, tuple):
        return (deeper(y[0]), *y[1:])
    return y[None] if isinstance(y, Tensor) else [y, y]


def numpy(y):
    return (
        type(y)(map(numpy, y))
        if isinstance(y, tuple)
        else y.detach().numpy()
        if isinstance(y, Tensor) and y.ndim
        else y
    )


def single(y):
    return (
        type(y)(map(single, y))
        if isinstance(y, tuple)
        else y.float()
        if isinstance(y, Tensor) and y.dtype == torch.float64
        else y
    )


def detached(y):
    return type(y)(map(detached, y)) if isinstance(y, tuple) else y.detach() if isinstance(y, Tensor) else y


class Wrong:
    """A right function made wrong in one way; `acted` tells whether that made a difference."""

    def __init__(self, function, kind):
        self.function, self.kind, self.acted, self.first = function, kind, False, None

    def __call__(self, *args, **options):
        if self.kind == "stub":
            self.acted = True
            raise NotImplementedError("nothing is filled in yet")
        y = self.function(*args, **options)
        tensors = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        if self.kind == "changes an argument" and tensors:
            self.acted = True
            tensors[0].data.add_(1)
        if self.kind == "the first value for ever":
            self.acted |= self.first is not None
            self.first = y = y if self.first is None else self.first
        changes = {
            "nothing": lambda y: None,
            "off": off,
            "deeper": deeper,
            "NumPy": numpy,
            "single": single,
            "detached": detached,
        }
        if self.kind in changes:
            z = changes[self.kind](y)
            self.acted |= self.kind in ("nothing", "off", "deeper") or differs(y, z)
            return z
        return y


def differs(y, z):
    if isinstance(y, tuple):
        return any(map(differs, y, z))
    if isinstance(y, Tensor) and isinstance(z, Tensor):
        return y.dtype != z.dtype or y.requires_grad != z.requires_grad
    return type(y) is not type(z)


KINDS = (
    "stub",
    "nothing",
    "the first value for ever",
    "changes an argument",
    "off",
    "deeper",
    "NumPy",
    "single",
    "detached",
)


NOT_WRONG = {
    ("05_self_attention", "backward"): {"detached"},  # its results are gradients already
    ("06_sa_abmilp", "sharp_enough"): {"off"},  # a little sharper is sharp enough
    ("06_sa_abmilp", "one_kind_only"): {"the first value for ever"},  # it has no arguments
    ("13_breast", "from_siblings"): {"NumPy", "single"},  # a row of numbers of any kind is asked for
    ("14_colon", "by_distance"): {"NumPy", "detached"},
    ("17_auditing", "deletion_area"): {"single"},  # one number, of either precision
}


def clear(space):
    """Removes the folders that a chapter has made."""
    for folder in space.values():
        if isinstance(folder, tempfile.TemporaryDirectory):
            folder.cleanup()


def run(check, space, source="", wrong=None):
    """Runs a check cell after an answer; returns what it raises."""
    space = dict(space)
    state = np.random.get_state(), torch.random.get_rng_state()
    with contextlib.redirect_stdout(io.StringIO()):
        exec(source, space)
        if wrong:
            space[wrong[0]] = wrong[1]
        try:
            exec(compile(check, "check", "exec"), space)
        except Exception as error:
            return error
        finally:
            np.random.set_state(state[0])
            torch.random.set_rng_state(state[1])
    return None


def test_every_exercise_has_answers():
    assert sorted(EXERCISES) == sorted(ANSWERS)
    assert len(EXERCISES) >= 3 * len(CHAPTERS)


@pytest.mark.parametrize(("chapter", "function"), EXERCISES, ids=["-".join(e) for e in EXERCISES])
def test_checks_tell_right_from_wrong(chapter, function, capsys, request):
    cells = CHAPTERS[chapter]
    exercise, check = exercise_cells(cells)[function]
    space, check = before(cells, exercise, check), cells[check].source
    request.addfinalizer(lambda: clear(space))
    solution = SOLUTION.sub("", cells[exercise].source)
    style, mistakes = ANSWERS[chapter, function]
    right = [solution, solution.replace(*style) if isinstance(style, tuple) else style]
    assert right[0] != right[1]
    for source in right:
        assert run(check, space, source) is None, source
    answered = dict(space)
    exec(solution, answered)
    failed = []
    for kind in sorted({*KINDS} - NOT_WRONG.get((chapter, function), set())) if function in answered else ():
        wrong = Wrong(answered[function], kind)
        error = run(check, answered, wrong=(function, wrong))
        if wrong.acted:
            assert isinstance(error, (CheckError, NotImplementedError)), (kind, error)
            failed.append(kind)
    for old, new in mistakes:
        assert old in solution, old
        error = run(check, space, solution.replace(old, new))
        assert isinstance(error, CheckError), (old, new, error)
        assert re.search("[a-z]{3,} .*[a-z]{2,}", str(error)), "a hint in words"
        failed.append(old)
    assert len(failed) >= 6
    with capsys.disabled():
        print(f"\n{chapter} {function}: {len(right)} right answers pass, {len(failed)} wrong ones fail", end="")
