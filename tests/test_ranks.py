"""Training by two processes under torchrun, with gloo: the numbers are those of one process on the same bags."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_ranks import SETTINGS, TRAIN, UNEQUAL, VALIDATION, gradients, model

import samil_lite as sl
from samil_lite.ranks import Ranks

SCRIPT = Path(__file__).with_name("two_ranks.py")


def torchrun(folder: Path, what: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        SCRIPT,
        folder,
        what,
    ]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(sl.__file__).parents[1])}
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory) -> list[dict]:
    """What each of the two ranks found, in a run that had been killed in its third epoch and went on."""
    folder = tmp_path_factory.mktemp("ranks")
    killed = torchrun(folder, "kill")
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr
    state = torch.load(folder / "run_of_0.pt", weights_only=True)
    assert len(state["history"]["train_loss"]) == 2
    done = torchrun(folder, "finish")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (folder / "run_of_1.pt").exists()  # only rank 0 writes
    return [torch.load(folder / f"found_{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_gradients_are_those_of_one_process(of_two):
    for n, expected in ((n, gradients(n)) for n in (1, 2, 3, 11)):  # by one, then by two ranks with 1 + 0, 1 + 1, …
        for found in of_two:
            assert len(found["gradients"][n]) == len(expected) > 5
            for a, b in zip(found["gradients"][n], expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_a_killed_run_goes_on_and_ends_as_one_process_does(of_two):
    alone, again, limited = model(0), model(0), model(0)
    history = sl.fit(alone, TRAIN, VALIDATION, **SETTINGS, progress=False)
    bag_by_bag = sl.fit(again, TRAIN, **{**SETTINGS, "bags_per_step": 1, "epochs": 1}, progress=False)
    few = sl.fit(limited, UNEQUAL, **SETTINGS, max_instances=6, progress=False)  # the instances that one process draws
    losses = history.train_loss, history.validation_loss, bag_by_bag.train_loss, few.train_loss
    for found in of_two:
        for a, b in zip(found["losses"], losses, strict=True):
            assert a == pytest.approx(b, abs=1e-6)
        for which, one in (("weights", alone), ("again", again), ("limited", limited)):
            for name, expected in one.state_dict().items():
                torch.testing.assert_close(found[which][name], expected, atol=1e-6, rtol=1e-6)


def test_shares_are_a_partition():
    numbers = torch.randperm(11)
    for count in (1, 2, 3, 20):
        shares = [Ranks(rank, count).share(numbers) for rank in range(count)]
        assert torch.equal(torch.cat(shares).sort().values, torch.arange(11))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
