"""A short run of the fuzzer (`make fuzz` is the long one), and that it sees what it looks for."""

import random

import fuzzing
import pytest

FILES = 6


@pytest.fixture(scope="module")
def outcomes():
    return fuzzing.run(list(fuzzing.formats()), 0, FILES, workers=1)


def test_damaged_files_are_named(outcomes):
    assert len(outcomes) == FILES * len(fuzzing.formats())
    bad = [one for one in outcomes if one[2] in ("crash", "hang", "silent")]
    unnamed = [one for one in outcomes if one[2] == "unnamed"]
    assert not bad
    assert not unnamed
    counts = [sum(one[2] == what for one in outcomes) for what in ("named", "same", "changed")]
    assert sum(counts) == len(outcomes)
    assert counts[0] > len(outcomes) / 2  # the damage is no trifle


def test_damage_is_repeatable_and_differs():
    data = bytes(range(256)) * 8
    copies = [fuzzing.damaged(data, random.Random(seed)) for seed in range(200)]
    assert copies == [fuzzing.damaged(data, random.Random(seed)) for seed in range(200)]
    assert len({copy for copy in copies if copy != data}) > 150


def test_a_crash_a_hang_and_a_raw_error_are_seen(tmp_path, monkeypatch):
    """Children that answer as a test wants: the watcher must count each, begin a new child and go on."""
    script = tmp_path / "child.py"
    script.write_text(
        "import os, sys, time\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    what = line.split('\\t')[0]\n"
        "    if what == 'crash': os.abort()\n"
        "    if what == 'hang': time.sleep(60)\n"
        "    print(what + '\\tdetails', flush=True)\n"
    )
    monkeypatch.setattr(fuzzing, "__file__", str(script))
    monkeypatch.setattr(fuzzing, "SECONDS", 3)
    tasks = [(name, 0) for name in ("named", "crash", "unnamed", "hang", "same")]
    assert [outcome for _, _, outcome, _ in fuzzing.watch(tasks)] == ["named", "crash", "unnamed", "hang", "same"]
