import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

import samil_lite as sl
from samil_lite.metrics import bag_loss


def toy_bags(n_bags: int = 40, seed: int = 0) -> sl.Bags:
    """Bags of three to six numbers in five dimensions; positive if one instance has a large first coordinate."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(3, 7, (n_bags,), generator=generator)
    x = torch.randn(int(sizes.sum()), 5, generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    labels = torch.arange(n_bags) % 2
    x[offsets[:-1], 0] = torch.where(labels == 1, 4.0, 0.0)
    return sl.Bags(x, offsets, labels)


def toy_model(n_classes: int = 1, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout))
    return sl.build("abmilp", encoder, n_classes, dim=8, hidden=4)


def fit(model: nn.Module, *args, **kwargs) -> sl.History:
    return sl.fit(model, *args, **{"device": "cpu", "progress": False, "lr": 0.01, **kwargs})


def assert_same(model: nn.Module, other: nn.Module) -> None:
    for (name, p), q in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0, msg=name)


def test_learns_and_repeats_itself():
    first, second = toy_model(dropout=0.2), toy_model(dropout=0.2)
    history = fit(first, toy_bags(), epochs=20, seed=3)
    torch.rand(7)  # a different state of the global generator
    assert fit(second, toy_bags(), epochs=20, seed=3) == history
    assert_same(first, second)
    assert history.train_loss[-1] < 0.5 * history.train_loss[0]
    assert sl.evaluate(first, toy_bags(seed=1)).auc > 0.95
    assert history.best_epoch == 19
    assert not first.training


def test_leaves_the_global_generator_alone():
    model = toy_model(dropout=0.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(model, toy_bags(), epochs=2)
    assert torch.equal(torch.rand(3), expected)


def test_another_seed_is_another_run():
    runs = [toy_model(), toy_model()]
    for seed, model in enumerate(runs):
        fit(model, toy_bags(), epochs=1, seed=seed)
    assert not torch.equal(runs[0].classifier.weight, runs[1].classifier.weight)


def test_gamma_has_a_rate_and_a_decay_of_its_own():
    """Adam's first step moves a parameter by its learning rate, so γ moves by gamma_lr and nothing else does."""

    def train(**options):
        torch.manual_seed(0)
        model = sl.build("lsa-abmilp", nn.Sequential(nn.Linear(5, 8), nn.ReLU()), dim=8, gamma=1)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        history = fit(model, toy_bags(), epochs=1, bags_per_step=40, **options)
        return {n: (p.detach() - before[n]).abs().max().item() for n, p in model.named_parameters()}, history

    moved, history = train(lr=1e-3, gamma_lr=0.25)
    assert moved.pop("self_attention.gamma") == pytest.approx(0.25, rel=1e-3)
    assert max(moved.values()) == pytest.approx(1e-3, rel=1e-2)
    assert history.scalars["self_attention.gamma"] in ([pytest.approx(0.75)], [pytest.approx(1.25)])
    assert train(lr=1e-3, gamma_lr=0.0)[0]["self_attention.gamma"] == 0
    _, history = train(lr=1e-3, gamma_weight_decay=1e6)  # the penalty's gradient swamps that of the loss
    assert history.scalars["self_attention.gamma"] == [pytest.approx(0.999)]
    with pytest.raises(ValueError, match="gamma_lr, gamma_weight_decay: this model has no parameter named gamma"):
        fit(toy_model(), toy_bags(), gamma_lr=1.0)


def test_a_step_takes_the_mean_over_its_bags():
    """One step on four bags moves the weights as the mean of the gradients of the four bags does."""
    bags, model, reference = toy_bags(4), toy_model(), toy_model()
    fit(model, bags, epochs=1, bags_per_step=4, weight_decay=0)
    optimiser = torch.optim.Adam(reference.parameters(), lr=0.01)
    for bag in bags:
        (bag_loss(reference(bag).logits, bag.labels) / 4).backward()
    optimiser.step()
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_keeps_the_best_weights_and_stops_early():
    model, validation = toy_model(), toy_bags(seed=7)
    validation = sl.Bags(
        validation.instances, validation.offsets, 1 - validation.labels
    )  # what it learns is wrong here
    history = fit(model, toy_bags(), validation, epochs=30, patience=4)
    best = history.validation_loss.index(min(history.validation_loss))
    assert history.best_epoch == best
    assert len(history.train_loss) == best + 5 < 30
    assert sl.evaluate(model, validation).loss == pytest.approx(min(history.validation_loss))


@pytest.mark.parametrize("stop", [1, 3])
def test_resuming_is_exact(tmp_path, stop):
    train, validation = toy_bags(), toy_bags(seed=1)
    whole, halves, again = (toy_model(dropout=0.3) for _ in range(3))
    history = fit(whole, train, validation, epochs=6, patience=5)
    path = tmp_path / "new" / "run.pt"
    fit(halves, train, validation, epochs=stop, patience=5, checkpoint=path)
    assert fit(again, train, validation, epochs=6, patience=5, checkpoint=path) == history
    assert_same(whole, again)
    modified = path.stat().st_mtime_ns
    assert fit(toy_model(dropout=0.3), train, validation, epochs=6, patience=5, checkpoint=path) == history
    assert path.stat().st_mtime_ns == modified  # a finished run trains no more
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]


KILLED = """
import sys; sys.path[:0] = [{tests!r}]
from test_training import *
fit(toy_model(dropout=0.3), toy_bags(), toy_bags(seed=1), epochs=100_000, checkpoint={path!r})
"""


def test_resuming_after_sigkill_is_exact(tmp_path):
    path = tmp_path / "run.pt"
    script = KILLED.format(tests=str(Path(__file__).parent), path=str(path))
    with subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.1)  # let it be in the middle of something
        process.send_signal(signal.SIGKILL)
    done = len(torch.load(path, weights_only=True)["history"]["train_loss"])
    assert done >= 1
    resumed, whole = toy_model(dropout=0.3), toy_model(dropout=0.3)
    history = fit(resumed, toy_bags(), toy_bags(seed=1), epochs=done + 2, checkpoint=path)
    assert history == fit(whole, toy_bags(), toy_bags(seed=1), epochs=done + 2)
    assert_same(resumed, whole)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    fit(toy_model(), toy_bags(), epochs=1, checkpoint=path)
    before = path.read_bytes()

    def disk_full(state, file):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        fit(toy_model(), toy_bags(), epochs=2, checkpoint=path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_interrupting_leaves_the_best_weights(monkeypatch):
    model, epochs = toy_model(), []

    def interrupted(*args):
        epochs.append(model.classifier.weight.clone())
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return [0.1, 0.2][len(epochs) - 1]

    monkeypatch.setattr("samil_lite.training._mean_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(model, toy_bags(), toy_bags())
    assert torch.equal(model.classifier.weight, epochs[0])


def test_many_classes():
    bags = toy_bags(60)
    labels = torch.arange(60) % 3
    bags.instances[bags.offsets[:-1], 0] = labels * 5.0
    bags = sl.Bags(bags.instances, bags.offsets, labels)
    model = toy_model(n_classes=3)
    fit(model, bags, epochs=40)
    assert sl.evaluate(model, bags).accuracy > 0.9


@pytest.mark.parametrize("bags_per_step", [0, -1])
def test_predict_takes_at_least_one_bag_a_step(bags_per_step):
    for use in (sl.predict, sl.evaluate):
        with pytest.raises(
            ValueError, match=f"bags_per_step: expected a whole number of at least 1 or None, got {bags_per_step}"
        ):
            use(toy_model(), toy_bags(), bags_per_step)


def test_predict_is_the_model_in_evaluation_mode():
    model, bags = toy_model(dropout=0.5), toy_bags()
    output = sl.predict(model, bags, bags_per_step=7)
    assert model.training
    assert not output.logits.requires_grad
    expected = model.eval()(bags)
    for a, b in zip(output, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs: expected a whole number of at least 1, got 0"),
        ({"bags_per_step": 0}, "bags_per_step: expected"),
        ({"lr": -1}, "lr: expected"),
        ({"patience": 0, "validation": toy_bags()}, "patience: expected"),
        ({"patience": 3}, "patience: early stopping needs validation bags"),
        ({"validation": sl.Bags(toy_bags().instances, toy_bags().offsets)}, "labels: expected one for each bag"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(toy_model(), toy_bags(), **arguments)


def test_labels_beyond_the_model_are_named():
    bags = sl.Bags(toy_bags().instances, toy_bags().offsets, torch.full((40,), 2))
    with pytest.raises(ValueError, match="labels: a model with n_classes=1 expects 0 to 1, got 2"):
        fit(toy_model(), bags)
    with pytest.raises(ValueError, match="labels: a model with n_classes=1"):
        sl.evaluate(toy_model(), bags)


def test_a_loss_that_is_not_finite_is_an_error():
    bags = toy_bags()
    with pytest.raises(FloatingPointError, match=r"loss became (nan|inf) in epoch"):
        fit(toy_model(), bags, lr=1e38, epochs=3)


def test_checkpoints_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "run.pt"
    fit(toy_model(), toy_bags(), epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match=r"run.pt is of a run with other settings .*'lr': \(0.01, 0.1\)"):
        fit(toy_model(), toy_bags(), epochs=2, checkpoint=path, lr=0.1)
    with pytest.raises(ValueError, match=r"run.pt is of another model"):
        fit(sl.build("gated-abmilp", nn.Identity(), dim=5), toy_bags(), epochs=2, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"run.pt cannot be read .* delete it"):
        fit(toy_model(), toy_bags(), epochs=2, checkpoint=path)


def test_checkpoints_do_not_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"settings": Trap()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        fit(toy_model(), toy_bags(), checkpoint=tmp_path / "run.pt")
    assert not (tmp_path / "ran").exists()


def test_undefined_scores_are_nan_with_a_warning():
    bags = toy_bags(4)
    negative = sl.Bags(bags.instances, bags.offsets, torch.zeros(4, dtype=torch.long))
    model = toy_model()
    nn.init.constant_(model.classifier.bias, -100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = asdict(sl.evaluate(model, negative))
    assert [name for name, value in metrics.items() if value != value] == ["precision", "recall", "f_score", "auc"]
    text = " ".join(str(w.message) for w in caught)
    assert "AUC is not defined on these 4 bags: it needs bags of all 2 classes" in text
    assert "precision is not defined" in text
    assert "recall is not defined" in text


def test_accelerator():
    device = sl.training.default_device()
    if device.type == "cpu":
        pytest.skip("no accelerator on this machine")
    model = toy_model()
    sl.fit(model, toy_bags(), toy_bags(seed=1), epochs=20, lr=0.01, progress=False)
    assert next(model.parameters()).device.type == device.type
    assert sl.evaluate(model, toy_bags(seed=1)).auc > 0.95
