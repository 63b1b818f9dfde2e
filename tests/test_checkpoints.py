import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ragged import offsets_of
from torch import nn

import samil_lite as sl
from samil_lite import fingerprint
from samil_lite.data import feature_bags
from samil_lite.data.synthetic import write_features
from samil_lite.experiments.crossval import Subsampled
from samil_lite.writing import clear_leftovers, write_atomically


def toy_bags(seed: int = 0, sizes: tuple[int, ...] = (3, 2, 4, 3)) -> sl.Bags:
    x = torch.randn(sum(sizes), 4, generator=torch.Generator().manual_seed(seed))
    return sl.Bags(x, offsets_of(list(sizes)), torch.arange(len(sizes)) % 2)


def fit(path: Path, train: sl.Bags | None = None, model: str | nn.Module = "gsa-abmilp", **options) -> sl.History:
    torch.manual_seed(0)
    model = sl.build(model, nn.Identity(), dim=4) if isinstance(model, str) else model
    options = {"epochs": 2, "progress": False, "device": "cpu", **options}
    return sl.fit(model, toy_bags() if train is None else train, checkpoint=path, **options)


def changed(bags: sl.Bags, what: str, row: int) -> sl.Bags:
    """The same bags with one number, one label, two bags or one border exchanged."""
    x, offsets, labels = bags.instances.clone(), bags.offsets.clone(), bags.labels.clone()
    if what == "instance":
        x[row % len(x), 0] += 1e-3
    elif what == "sign":
        x = -x
    elif what == "label":
        labels[row % len(labels)] ^= 1
    elif what == "border":
        offsets[1] -= 1
    else:
        return bags[[1, 0, *range(2, len(bags))]]
    return sl.Bags(x, offsets, labels)


@given(st.sampled_from(["instance", "sign", "label", "border", "order"]), st.integers(0, 11))
def test_bags_are_known_by_their_contents(what, row):
    bags = toy_bags()
    assert fingerprint.of_bags(bags) == fingerprint.of_bags(toy_bags())
    assert fingerprint.of_bags(changed(bags, what, row)) != fingerprint.of_bags(bags)


def test_other_sources_are_known_by_what_they_hold(tmp_path):
    class Source:
        def __init__(self, bags: sl.Bags, scale: float = 1.0) -> None:
            self.bags, self.scale, self.looks = bags, torch.tensor(scale), 0
            self.labels, self.n_instances = bags.labels, bags.n_instances

        def __len__(self) -> int:
            return len(self.bags)

    of = fingerprint.of_bags
    same, counted = Source(toy_bags()), Source(toy_bags())
    counted.looks = 7  # a count of what happened is not what it holds
    assert of(same) == of(counted)
    assert of(same) != of(Source(toy_bags(1)))
    assert of(same) != of(Source(toy_bags(), 2.0))
    assert of(Subsampled(toy_bags(), 2)) == of(Subsampled(toy_bags(), 2)) != of(Subsampled(toy_bags(), 3))
    write_features(tmp_path)
    slides = feature_bags(tmp_path, tmp_path / "labels.csv")
    before = of(slides)
    assert of(slides.subset([1, 0])) != of(slides.subset([0, 1]))
    os.utime(slides.paths[0], ns=(0, 0))
    assert of(slides) != before


MODELS = ("embedding-max", "embedding-mean", "instance-max", "instance-mean", "gsa-abmilp", "iqsa-abmilp", "lsa-abmilp")


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_models_are_known_by_classes_options_and_shapes():
    encoders = [nn.Identity(), nn.ReLU(), nn.Dropout(0.1), nn.Dropout(0.2), Scaled(1.0), Scaled(2.0)]
    models = [sl.build(name, nn.Identity(), dim=4) for name in MODELS]
    models += [sl.build("abmilp", encoder, dim=4) for encoder in encoders]
    models += [sl.build("gsa-abmilp", nn.Identity(), dim=4, kernel=sl.kernels.RBF(log_scores=True))]
    models += [sl.build("gsa-abmilp", nn.Identity(), dim=4, learn_alpha=False)]
    known = ["\n".join(fingerprint.of_model(model)) for model in models]
    assert len(set(known)) == len(models)
    assert known[0] == "\n".join(fingerprint.of_model(sl.build(MODELS[0], nn.Identity(), dim=4).eval()))
    assert "0x" not in "".join(known)  # no address, which the next process would not have


@pytest.mark.parametrize("what", ["instance", "label", "border", "order"])
def test_the_checkpoint_of_another_run_is_refused(tmp_path, what):
    fit(tmp_path / "run.pt")
    with pytest.raises(
        ValueError, match=r"run.pt is of a run with other settings or bags .*'train\.(contents|labels)'"
    ):
        fit(tmp_path / "run.pt", changed(toy_bags(), what, 0))
    with pytest.raises(ValueError, match=r"other settings or bags .*'validation\.bags'"):
        fit(tmp_path / "run.pt", validation=toy_bags(3))
    with pytest.raises(ValueError, match=r"of another model \(there ≠ here\): self_attention: .*RBF.*InverseQuadratic"):
        fit(tmp_path / "run.pt", model="iqsa-abmilp")
    assert len(fit(tmp_path / "run.pt", epochs=3).train_loss) == 3  # its own run goes on


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "run.pt"
    fit(path)
    good, random = path.read_bytes(), torch.Generator().manual_seed(0)
    for at in torch.randint(len(good), (40,), generator=random).tolist():
        for damaged in (good[:at], good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :]):
            path.write_bytes(damaged)
            try:
                history = fit(path)
            except ValueError as error:
                assert "run.pt cannot be read" in str(error)  # noqa: PT017  # some bytes have no meaning
            else:
                path.write_bytes(good)
                assert history == fit(path)
    path.write_bytes(good)
    state = torch.load(path, weights_only=True)
    for change in ({"model": {}}, {"history": {}}, {"optimiser": {}}, {"best": {"x": torch.ones(1)}}, {"settings": 1}):
        torch.save(state | change, path)
        with pytest.raises(ValueError, match=r"run.pt cannot be read .*; delete it to start from the beginning"):
            fit(path, epochs=3)


KILLED = """
import os, signal, sys
from pathlib import Path
from samil_lite.writing import write_atomically
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), lambda file: file.write(b"half"))
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path):
    path = tmp_path / "run.pt"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 1  # the second cleared what the first had left
    assert left[0].name.endswith(".part")
    write_atomically(path, lambda file: file.write(b"whole"))
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.skipif(os.name == "nt", reason="no umask")
def test_other_writers_are_left_alone_and_the_umask_decides(tmp_path):
    foreign = tmp_path / ".run.pt.elsewhere.1.abc.part"
    living = tmp_path / f".run.pt.elsewhere.{os.getppid()}.abc.part"
    for part in (foreign, living):
        part.write_bytes(b"")
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "run.pt", lambda file: file.write(b"x"))
    finally:
        os.umask(before)
    assert foreign.exists()
    assert living.exists()
    assert (tmp_path / "run.pt").stat().st_mode & 0o777 == 0o640
    os.utime(foreign, (0, 0))
    clear_leftovers(tmp_path)
    assert not foreign.exists()  # a day old


def test_a_validation_loss_that_is_not_finite_is_an_error(tmp_path):
    huge = sl.Bags.from_list([torch.tensor([[3e38, -3e38, 3e38, -3e38]] * 3)] * 2, [0, 1])
    with pytest.raises(FloatingPointError, match=r"the validation loss became (nan|inf) in epoch 0"):
        fit(None, model="embedding-mean", validation=huge)


def test_a_last_step_that_breaks_the_weights_is_an_error():
    with pytest.raises(FloatingPointError, match=r"\w+ became nan in epoch 0; try a lower lr"):
        fit(None, model="abmilp", lr=1e39, epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 1.5}, "epochs: expected a whole number of at least 1, got 1.5"),
        ({"epochs": float("inf")}, "epochs: expected a whole number"),
        ({"gamma_lr": -1}, "gamma_lr: expected a number of at least 0 or None, got -1"),
        ({"train": [torch.ones(3, 4)]}, "train: expected Bags, or an object that makes the chosen ones"),
        ({"model": sl.build("abmilp", nn.Identity(), dim=4).requires_grad_(False)}, "model: expected parameters to"),
    ],
)
def test_settings_that_make_no_sense_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(None, **arguments)
