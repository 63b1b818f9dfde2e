import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import samil_lite as sl
from samil_lite.data import mnist_bags
from samil_lite.experiments import RESULTS, crossval, load_table, mnist, run_grid, tabular
from samil_lite.experiments.__main__ import main
from samil_lite.experiments.records import record_path

TINY = {"pool": "subset", "n_test": 20, "epochs": 2, "mean_size": 3, "width": 4}


def tiny_cells(seeds: int = 2) -> list[dict]:
    return mnist.cells(["standard"], ["abmilp", "instance-max"], [8], range(seeds), **TINY)


def measured(folder: Path) -> dict[str, dict]:
    """What was measured, by record name, without when and where."""
    return {path.name: json.loads(path.read_text())["result"] for path in folder.glob("*")}


def test_a_grid_makes_one_record_a_cell_and_repeats_nothing(tmp_path):
    run_grid(tiny_cells(), mnist.run, tmp_path, progress=False)
    table = load_table(tmp_path)
    assert len(table) == 4
    assert table["auc"].between(0, 1).all()
    assert set(table["model"]) == {"abmilp", "instance-max"}
    assert table.loc[table["model"] == "abmilp", "attention_auc"].notna().all()
    record = json.loads(record_path(tmp_path, tiny_cells()[0]).read_text())
    assert record["config"] == tiny_cells()[0]
    assert {"commit", "device", "versions", "seconds"} <= set(record)

    def never(config):
        raise AssertionError("a finished cell ran again")

    run_grid(tiny_cells(), never, tmp_path, progress=False)


def test_workers_measure_the_same(tmp_path):
    run_grid(tiny_cells(1), mnist.run, tmp_path / "one", progress=False)
    run_grid(tiny_cells(1), mnist.run, tmp_path / "two", workers=2, progress=False)
    one, two = measured(tmp_path / "one"), measured(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        examples = [measured[name].pop("example", {"attention": []}) for measured in (one, two)]
        assert examples[0]["attention"] == pytest.approx(examples[1]["attention"], abs=1e-3)
        assert one[name] == pytest.approx(two[name], abs=1e-4)


KILLED = """
import sys; sys.path[:0] = [{tests!r}]
from test_experiments import *
run_grid(tiny_cells(30), mnist.run, {folder!r}, progress=False)
"""


def test_a_killed_grid_goes_on(tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = measured_json(tmp_path)
    assert 2 <= len(before) < 60
    cells = tiny_cells(30)[: len(before) + 1]
    run_grid(cells, mnist.run, tmp_path, progress=False)
    after = measured_json(tmp_path)
    assert len(after) == len(cells)
    assert before.items() <= after.items()  # the finished ones were left alone


@pytest.mark.filterwarnings("ignore")  # of a cluster that loses a worker
def test_a_cluster_that_loses_a_worker_loses_and_repeats_no_record(tmp_path):
    distributed = pytest.importorskip("distributed")
    cells = tiny_cells(8)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            pids = list(client.run(os.getpid).values())
        killed = threading.Thread(target=kill_after_two_records, args=(tmp_path, pids[0]))
        killed.start()
        run_grid(cells, mnist.run, tmp_path, progress=False, scheduler=cluster.scheduler_address)
        killed.join()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)  # it is gone indeed
    assert {path.name for path in tmp_path.iterdir()} == {record_path(tmp_path, cell).name for cell in cells}
    assert len(measured_json(tmp_path)) == len(cells)
    other = tmp_path / "alone"
    run_grid(cells[:2], mnist.run, other, progress=False)
    for name, result in measured(other).items():
        here = json.loads((tmp_path / name).read_text())["result"]
        assert here["auc"] == pytest.approx(result["auc"], abs=1e-3)


def kill_after_two_records(folder: Path, pid: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)


def measured_json(folder: Path) -> dict[str, str]:
    texts = {path.name: path.read_text() for path in folder.glob("*.json")}
    for text in texts.values():
        json.loads(text)  # none is torn
    return texts


def test_models_with_self_attention_have_a_cell_for_each_start_of_gamma(tmp_path):
    cells = mnist.cells(["presence"], ["abmilp", "gsa-abmilp"], [8], [0], gammas=[0, 1], log_scores=True, **TINY)
    assert [cell.get("gamma") for cell in cells] == [None, 0, 1]
    assert ["log_scores" in cell for cell in cells] == [False, True, True]  # AbMILP's record keeps its name
    run_grid(cells, mnist.run, tmp_path, progress=False)
    table = load_table(tmp_path).set_index("gamma")
    assert len(table.loc[1.0, "gamma_path"]) == table.loc[1.0, "epochs_run"]
    assert abs(table.loc[1.0, "gamma_path"][0] - 1) < 0.1
    assert abs(table.loc[0.0, "gamma_path"][0]) < 0.1
    assert len(table.loc[0.0, "raw_alpha_path"]) == table.loc[0.0, "epochs_run"]
    examples = list(table["example"])
    assert examples[0]["digits"] == examples[1]["digits"]
    assert {7, 9} <= set(examples[0]["digits"])
    assert sum("self_attention" in example for example in examples) == 2
    for example in examples:
        for row in [example["attention"], *example.get("self_attention", [])]:
            assert len(row) == len(example["digits"])
            assert sum(row) == pytest.approx(1, abs=1e-3)


def test_the_papers_setting():
    (cell,) = mnist.cells(["standard"], ["abmilp"], [200], [0], **mnist.PAPER)
    assert (cell["lr"], cell["bags_per_step"]) == (1e-5, 1)


def runs(model: str, aucs: list[float], **settings) -> list[dict]:
    return [
        {"assumption": "presence", "n_bags": 50, "model": model, "seed": s, "auc": auc, **settings}
        for s, auc in enumerate(aucs)
    ]


def test_summary_compares_on_the_same_bags():
    """The third seed of the kernel model has no AbMILP partner: it counts for the mean, not for the difference."""
    table = pd.DataFrame(
        runs("abmilp", [0.6, 0.8], lr=0.1)
        + runs("lsa-abmilp", [0.7, 0.9, 0.1], lr=0.1, gamma=1.0)
        + runs("lsa-abmilp", [0.6], lr=0.2, gamma=0.0)
    )
    result = mnist.summary(table).set_index(["model", "gamma"])
    assert list(result["lr"]) == [0.1, 0.1, 0.2]  # a setting that varies tells rows apart
    row = result.loc[("lsa-abmilp", 1.0)]
    assert (row["runs"], row["pairs"]) == (3, 2)
    assert row["mean"] == pytest.approx(1.7 / 3)
    assert row["standard_error"] == pytest.approx(np.std([0.7, 0.9, 0.1], ddof=1) / 3**0.5)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert result.loc[("lsa-abmilp", 0.0), ["difference", "low", "high"]].isna().all()  # one pair has no interval
    with pytest.raises(ValueError, match="reference: expected one AbMILP run"):
        mnist.summary(pd.DataFrame(runs("abmilp", [0.6]) + runs("abmilp", [0.7])))


def test_command_line(tmp_path, capsys):
    choice = ["--assumptions", "standard", "--models", "abmilp", "msa-abmilp", "--gammas", "1", "--n-bags", "8"]
    tiny = [f"{name}={value}" for name, value in TINY.items()]
    main(["run", "mnist", "--folder", str(tmp_path), *choice, "--seeds", "2", "--set", *tiny])
    out = capsys.readouterr().out
    assert len(load_table(tmp_path)) == 4
    assert len([line for line in out.splitlines() if "abmilp" in line]) == 2
    main(["summary", "mnist", "--folder", str(tmp_path)])
    assert capsys.readouterr().out == out
    with pytest.raises(SystemExit):
        main(["run", "mnist", "--set", "lr"])
    assert "expected NAME=VALUE, got 'lr'" in capsys.readouterr().err


@pytest.mark.parametrize(("experiment", "data"), [("images", "colon"), ("tables", "musk1")])
def test_command_line_of_cross_validation(experiment, data, tmp_path, capsys, monkeypatch):
    bags = mnist_bags(n_bags=12, mean_size=3)
    columns = sl.Bags(bags.instances.flatten(1)[:, 300:310], bags.offsets, bags.labels)
    patches = sl.Bags(bags.instances[:, :, :27, :27].expand(-1, 3, -1, -1).clamp(0, 1), bags.offsets, bags.labels)
    monkeypatch.setattr(crossval, "load", lambda *_: (patches, None))
    monkeypatch.setattr(tabular, "load", lambda *_: columns)
    monkeypatch.setenv("SAMIL_RESULTS", str(tmp_path))
    tiny = ["n_folds=3", "n_validation=1", "epochs=1"]
    choice = ["--data", data, "--models", "abmilp", "gsa-abmilp", "--gammas", "1", "--repeats", "2", "--set", *tiny]
    main(["run", experiment, "--folder", str(tmp_path / "runs"), *choice])
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if "abmilp" in line]
    assert [line[1] for line in lines] == ["abmilp", "gsa-abmilp"]
    assert all("2" in line for line in lines)  # repeats
    main(["summary", experiment, "--folder", str(tmp_path / "runs")])
    assert capsys.readouterr().out == out
    if experiment == "images":
        main(["run", "images", "--folder", str(tmp_path / "part"), "--folds", "2", *choice])
        assert capsys.readouterr().out == "no repeat has all of its folds yet\n"
        assert load_table(tmp_path / "part")[["model", "repeat", "fold"]].value_counts().tolist() == [1] * 4


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="workers, scheduler: expected one of them"):
        run_grid([], mnist.run, tmp_path, workers=2, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"unknown settings \['epoch'\]; known are \['bags_per_step'"):
        mnist.cells(["standard"], ["abmilp"], [8], [0], epoch=3)
    with pytest.raises(FileNotFoundError, match="has no records"):
        load_table(tmp_path)


def test_the_learning_rate_is_the_one_that_validation_chose():
    """The mean validation loss over models, starts of γ, assumptions and two seeds; no test score is looked at."""
    settings = load_table(RESULTS / "mnist_settings").query("bags_per_step == 8")
    settings = settings[settings["gamma_lr"].isna() & settings["gamma_weight_decay"].isna()]
    default = load_table(RESULTS / "mnist").query("n_bags == 200")
    table = pd.concat([default, settings], ignore_index=True)
    table = table[table["model"].str.endswith("abmilp") & (table["seed"] < 2)]
    assert set(table.groupby("lr").size()) == {72}  # (2 models + 5 × 2 starts of γ) × 3 assumptions × 2 seeds
    assert table.groupby("lr")["validation_loss"].mean().idxmin() == mnist.TRAINING["lr"]
