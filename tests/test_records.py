import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samil_lite.experiments import RESULTS, FailedCellsError, crossval, load_table, mnist, run_grid, scores, tabular
from samil_lite.experiments.__main__ import main
from samil_lite.experiments.records import read_record, record_path, write_record
from samil_lite.experiments.settings import from_text, normal


def grid(folder: Path, run=lambda cell: {"x": cell["i"]}, n: int = 5, **options) -> None:
    run_grid([{"i": i} for i in range(n)], run, folder, progress=False, **options)


NAMES = st.sampled_from(["gamma", "lr", "epochs", "mean_size", "other"])
PLAIN = st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), st.booleans(), st.text(max_size=5), st.none())


@given(st.dictionaries(NAMES, PLAIN, max_size=4))
def test_one_setting_has_one_name(config):
    """Written as a whole number, as a float, by NumPy or in another order, it is the same record."""
    path = record_path(Path(), config)
    whole = {k: int(x) if isinstance(x, float) and x.is_integer() else x for k, x in config.items()}
    real = {k: float(x) if isinstance(x, int) and not isinstance(x, bool) else x for k, x in config.items()}
    of_numpy = {k: np.float64(x) if isinstance(x, float) else x for k, x in reversed(config.items())}
    assert record_path(Path(), whole) == record_path(Path(), real) == record_path(Path(), of_numpy) == path
    assert normal(normal(config)) == normal(config)
    assert json.loads(json.dumps(normal(config))) == normal(config)
    assert record_path(Path(), {**config, "more": 1}) != path


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 2}, np.ones(2)])
def test_what_no_record_can_hold_is_named(value, tmp_path):
    with pytest.raises(ValueError, match="lr: expected a"):
        run_grid([{"lr": value}], lambda cell: {}, tmp_path, progress=False)


def test_every_published_record_is_named_by_its_configuration():
    found = [read_record(path) for folder in RESULTS.iterdir() for path in folder.glob("*.json")
             if folder.name not in ("folds", "benchmarks")]  # fmt: skip
    assert len(found) > 2000
    assert [reason for reason in found if isinstance(reason, str)] == []


TORN = '{"config": {"i"'
OLDER = '{"config": {"i": 1}, "result": {}}'


@pytest.mark.parametrize(
    "text", ["", TORN, OLDER, "[]", "\0\5\26\7", "null", '{"config": 1, "result": {}, "seconds": 1}']
)
def test_a_bad_record_is_left_out_named_and_made_again(tmp_path, text):
    grid(tmp_path)
    path = sorted(tmp_path.glob("*.json"))[2]
    path.write_text(text)
    with pytest.warns(UserWarning, match=f"{path.name} is left out: it"):
        assert len(load_table(tmp_path)) == 4
    grid(tmp_path)
    assert sorted(load_table(tmp_path)["x"]) == [0, 1, 2, 3, 4]


def test_foreign_files_are_left_alone(tmp_path):
    grid(tmp_path)
    (tmp_path / "._a.json").write_bytes(b"\0\5\26\7")  # as macOS leaves them
    assert len(load_table(tmp_path)) == 5
    first = sorted(tmp_path.glob("[!.]*.json"))[0]
    first.rename(tmp_path / "copy.json")
    with pytest.warns(UserWarning, match="copy.json is left out: its name is not the hash of its configuration"):
        assert len(load_table(tmp_path)) == 4
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"has no records; notes.json: it is no record"):
        load_table(tmp_path / "new")


def fails(cell):
    if cell["i"] == 3:
        raise FloatingPointError("the training loss became nan")
    return {"x": 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_cell_stops_no_other(tmp_path, workers):
    for _ in range(2):
        with pytest.raises(FailedCellsError, match=r"1 of 6 cells failed.*FloatingPointError.*in \{'i': 3\}"):
            grid(tmp_path, fails, 6, workers=workers)
        assert len(list(tmp_path.glob("*.json"))) == 5
    failure = json.loads(record_path(tmp_path, {"i": 3}).with_suffix(".failed").read_text())
    assert failure["config"] == {"i": 3}
    assert failure["error"] == "FloatingPointError: the training loss became nan"
    assert any("fails" in line for line in failure["traceback"])
    grid(tmp_path, n=6)  # the cause is mended
    assert len(load_table(tmp_path)) == 6
    assert list(tmp_path.glob("*.failed")) == []


def dies(cell):
    if cell["i"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": 1}


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_cell_that_ends_its_worker_stops_no_other(tmp_path):
    with pytest.raises(FailedCellsError, match=r"1 of 8 cells failed.*in \{'i': 2\}"):
        grid(tmp_path, dies, 8, workers=2)
    assert sorted(load_table(tmp_path)["i"]) == [0, 1, 3, 4, 5, 6, 7]


def test_writers_of_one_record_do_not_meet(tmp_path):
    path, errors = tmp_path / "a.json", []

    def write(n: int) -> None:
        try:
            for _ in range(30):
                write_record(path, {"x": list(range(5_000 + 1_000 * n))})
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            json.loads(path.read_text())  # never torn
    assert errors == []
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_every_process_of_several_computes_on_one_thread(tmp_path):
    grid(tmp_path, lambda cell: {"threads": __import__("torch").get_num_threads()}, 1, workers=-1)
    assert load_table(tmp_path)["threads"].tolist() == [1]
    for workers in (0, -2, 1.5):
        with pytest.raises(ValueError, match=r"workers: expected a whole number"):
            grid(tmp_path, workers=workers)


KNOWN = {**mnist.TRAINING, **mnist.BAGS, **mnist.SELF_ATTENTION}


@pytest.mark.parametrize("text", ["False", "false", "no", "off", "0"])
def test_a_text_that_says_no_means_no(text):
    assert from_text(KNOWN, {"log_scores": text}) == {"log_scores": False}
    assert from_text(crossval.SETTINGS, {"grouped": text, "n_folds": "5"}) == {"grouped": False, "n_folds": 5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "epochs: expected a whole number of at least 1, got -1"),
        ({"epochs": 1.5}, "epochs: expected a whole number"),
        ({"lr": 0}, "lr: expected a number above 0, got 0"),
        ({"log_scores": "maybe"}, "log_scores: expected True or False, got 'maybe'"),
        ({"pool": "half"}, "pool: expected one of subset, full, got 'half'"),
        ({"gamma_lr": -1}, "gamma_lr: expected a number of at least 0 or None, got -1"),
    ],
)
def test_settings_are_checked_against_their_defaults(changes, message):
    with pytest.raises(ValueError, match=message):
        mnist.cells(["standard"], ["abmilp"], [8], [0], **changes)


@pytest.mark.parametrize("folds", [[99], [-1], [1.5], [], ["2"]])
def test_a_fold_that_does_not_exist_is_named(folds):
    with pytest.raises(ValueError, match="folds"):
        crossval.cells(["colon"], ["abmilp"], [0], n_folds=4, n_validation=1, folds=folds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mnist", "--set", "log_scores=maybe"], "log_scores: expected True or False, got 'maybe'"),
        (["run", "mnist", "--set", "epochs=1.5"], "epochs: expected a whole number of at least 1, got 1.5"),
        (["run", "mnist", "--set", "epoch=2"], r"unknown settings \['epoch'\]; known are"),
        (["run", "mnist", "--set", "models=2"], r"unknown settings \['models'\]; known are"),
        (["run", "mnist", "--seeds", "-1"], "--seeds: expected a whole number of at least 1, got '-1'"),
        (["run", "mnist", "--gammas", "nan"], r"gammas\[0\]: expected a number, got nan"),
        (["run", "images", "--folds", "99"], "folds: expected numbers from 0 to 9, since n_folds is 10, got 99"),
        (["run", "tables", "--set", "lr=-1"], "lr: expected a number above 0, got -1"),
        (["run", "tables", "--workers", "0"], "workers: expected a whole number of at least 1, or -1 for all cores"),
        (["summary", "images", "--folder", str(RESULTS / "mnist_settings")], "these are no records of images"),
        (["summary", "tables", "--folder", str(RESULTS / "mnist_settings")], "these are no records of tables"),
        (["summary", "mnist", "--folder", str(RESULTS / "tables_settings")], "these are no records of mnist"),
        (["summary", "mnist", "--folder", str(RESULTS / "folds")], "has no records; "),
        (["summary", "mnist", "--folder", "/no/such"], "folder: /no/such is not a folder"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main([*arguments, *(["--folder", str(tmp_path)] if arguments[0] == "run" else [])])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert __import__("re").search(message, error), error
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_one_if_a_cell_failed(tmp_path, monkeypatch, capsys):
    def run(config):
        if config["model"] == "gated-abmilp":
            raise FloatingPointError("nan")
        return {"auc": 0.5 + config["seed"] / 10}

    monkeypatch.setattr(mnist, "run", run)
    choice = ["--assumptions", "standard", "--models", "abmilp", "gated-abmilp", "--n-bags", "8", "--seeds", "2"]
    with pytest.raises(SystemExit) as stop:
        main(["run", "mnist", "--folder", str(tmp_path), *choice])
    assert "2 of 4 cells failed" in str(stop.value.code)  # a text makes the exit status 1
    assert "abmilp" in capsys.readouterr().out  # what is there is summarised


def test_a_diverged_run_is_no_record(monkeypatch):
    import samil_lite as sl
    from samil_lite.cross_validation import make_folds

    bags = sl.data.mnist_bags(n_bags=12, mean_size=3)
    columns = sl.Bags(bags.instances.flatten(1)[:, 300:310], bags.offsets, bags.labels)
    monkeypatch.setattr(tabular, "load", lambda *_: columns)
    (cell,) = tabular.cells(["musk1"], ["abmilp"], [0], [1.0], n_folds=3, n_validation=1, epochs=5, lr=1e30)
    monkeypatch.setattr(tabular, "stored_folds", lambda *_: make_folds(bags.labels, 3, 0))
    with pytest.raises(FloatingPointError, match="the loss of fold 0 was not finite in epoch"):
        tabular.run(cell)


def test_tables_of_something_else_are_named():
    table = load_table(RESULTS / "tables_settings")
    for use in (scores.summary, scores.over_repeats, mnist.summary):
        with pytest.raises(ValueError, match="table: expected a column"):
            use(table.drop(columns=["model"]))
