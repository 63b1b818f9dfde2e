import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import samil_lite as sl
from samil_lite.building import describe
from samil_lite.models import MODELS
from samil_lite.saving import Card, Ensemble, card_of

BAGS = [torch.linspace(-1, 1, 24).view(6, 4), torch.linspace(2, -1, 12).view(3, 4)]


@pytest.fixture
def bags():
    return sl.Bags.from_list(BAGS, [0, 1])


def encoder(width=4):
    return nn.Sequential(nn.Linear(width, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.1))


@pytest.mark.parametrize("n_classes", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_as_it_was(name, n_classes, bags, tmp_path):
    model = sl.build(name, encoder(), dim=8, n_classes=n_classes)
    path = sl.save(model, tmp_path / "m.safetensors", extractor="uni", magnification="20x")
    state = torch.random.get_rng_state()
    loaded = sl.load(path)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(sl.predict(loaded, bags).logits, sl.predict(model, bags).logits)
    assert describe(loaded) == describe(model)
    assert not loaded.training
    assert (loaded.card.width, loaded.card.extractor, loaded.card.magnification) == (4, "uni", "20x")
    assert loaded.card.versions["torch"] == torch.__version__


@pytest.mark.parametrize(
    "options",
    [{"kernel": sl.kernels.RBF(log_scores=True)}, {"kernel": sl.kernels.Module(norm="l1")}, {"learn_alpha": False},
     {"bias": True, "dim_qk": 3}, {"backend": "dense", "gamma": 1.0}],
)  # fmt: skip
def test_options_of_self_attention_come_back(options, bags, tmp_path):
    model = sl.build("gsa-abmilp", encoder(), dim=8, **options)
    loaded = sl.load(sl.save(model, tmp_path / "m.safetensors"))
    assert describe(loaded) == describe(model)
    learned = [{name: p.requires_grad for name, p in m.named_parameters()} for m in (loaded, model)]
    assert learned[0] == learned[1]
    assert torch.equal(sl.predict(loaded, bags).logits, sl.predict(model, bags).logits)


@pytest.mark.parametrize("model", ["lenet", "patches"])
def test_encoders_of_images_come_back(model, tmp_path):
    own = sl.LeNet5(16) if model == "lenet" else sl.PatchCNN(12, width=16, dropout=0.3)
    built = sl.build("abmilp", own)
    loaded = sl.load(sl.save(built, tmp_path / "m.safetensors"))
    x = torch.rand(5, *((1, 28, 28) if model == "lenet" else (3, 12, 12)))
    assert torch.equal(loaded(sl.Bags.from_list([x])).logits, built.eval()(sl.Bags.from_list([x])).logits)
    assert describe(loaded) == describe(built)


def test_other_types_of_numbers_come_back(tmp_path):
    model = sl.build("abmilp", encoder(), dim=8).double()
    assert sl.load(sl.save(model, tmp_path / "m.safetensors")).classifier.weight.dtype == torch.float64


def test_an_ensemble_is_the_mean_of_probabilities(bags, tmp_path):
    models = [sl.build("abmilp", encoder(), dim=8) for _ in range(3)]
    path = sl.save(models, tmp_path / "e.safetensors", classes=("MSS", "MSI-H"), threshold=0.3)
    loaded = sl.load(path)
    assert isinstance(loaded, Ensemble)
    outputs = [sl.predict(model, bags) for model in models]
    mean = torch.stack([output.logits.sigmoid() for output in outputs]).mean(0)
    output = sl.predict(loaded, bags)
    torch.testing.assert_close(output.logits.sigmoid(), mean)
    torch.testing.assert_close(output.attention, torch.stack([o.attention for o in outputs]).mean(0))
    table = sl.predictions(loaded, bags)
    assert table["p_MSI-H"].tolist() == pytest.approx(mean.tolist(), abs=1e-6)
    assert table["threshold"].tolist() == pytest.approx([0.3, 0.3])
    assert (table["predicted"] == "MSI-H").tolist() == (mean >= 0.3).tolist()
    again = sl.load(sl.save(loaded, tmp_path / "again.safetensors"))
    assert torch.equal(sl.predict(again, bags).logits, output.logits)


def test_weights_do_not_load_into_another_model(tmp_path):
    path = sl.save(sl.build("iqsa-abmilp", encoder(), dim=8), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"kernel.name 'inverse_quadratic' and 'rbf'"):
        sl.load(path, sl.build("gsa-abmilp", encoder(), dim=8))
    with pytest.raises(ValueError, match=r"encoder.layers\[0\].in_features 4 and 5"):
        sl.load(path, sl.build("iqsa-abmilp", encoder(5), dim=8))
    with pytest.raises(ValueError, match=r"log_scores False and True"):
        sl.load(path, sl.build("iqsa-abmilp", encoder(), dim=8, kernel=sl.kernels.InverseQuadratic(log_scores=True)))
    with pytest.raises(ValueError, match=r"self_attention KernelSelfAttention and None"):
        sl.load(path, sl.build("abmilp", encoder(), dim=8))


class Own(nn.Linear):
    """A part that the package does not know."""


def test_a_part_of_ones_own_needs_the_model(bags, tmp_path):
    model = sl.build("abmilp", Own(4, 8))
    path = sl.save(model, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"part of the class .*Own.*give it as model"):
        sl.load(path)
    loaded = sl.load(path, sl.build("abmilp", Own(4, 8)))
    assert torch.equal(sl.predict(loaded, bags).logits, sl.predict(model, bags).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("a", "b", "c")}, "classes: expected 2 names"),
        ({"classes": ("a", "a")}, "each once"),
        ({"width": 5}, "width: the model's first layer takes 4 features, got 5"),
        ({"bags": sl.Bags.from_list([torch.zeros(2, 7)])}, "bags: the model's first layer takes 4 features, got 7"),
        ({"extracter": "uni"}, "extracter: expected fields of a card"),
        ({"threshold": 2.0}, "threshold: expected a probability"),
        ({"notes": object()}, "values that JSON can hold"),
        ({"scores": {"auc": float("nan")}}, "values that JSON can hold"),
    ],
)
def test_what_cannot_be_saved(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sl.save(sl.build("abmilp", encoder(), dim=8), tmp_path / "m.safetensors", **fields)
    assert not list(tmp_path.iterdir())


def rewritten(path: Path, header=None, **changed):
    """The file with another header or other numbers, and nothing else."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        found = file.metadata()
    save_file({**tensors, **changed}, path, {**found, **(header or {})})
    return path


def test_a_file_that_was_changed_is_refused_and_nothing_is_executed(tmp_path):
    path = sl.save(sl.build("abmilp", encoder(), dim=8), tmp_path / "m.safetensors")
    content = path.read_bytes()
    for place in range(20, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match=str(path)):
            sl.load(path)
    for end in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="cannot be read"):
            sl.load(path)
    for bad in (pickle.dumps(Bomb()), b"PK\x03\x04", b"{}" * 100):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="cannot be read"):
            sl.load(path)
    assert not Bomb.exploded


class Bomb:
    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


def test_a_forged_header_builds_only_known_parts(tmp_path):
    """Even where the digest was computed anew."""
    from samil_lite.saving import _digest

    path = sl.save(sl.build("abmilp", encoder(), dim=8), tmp_path / "m.safetensors")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        told = json.loads(file.metadata()["samil_lite"])
    first = told["models"][0]["build"]["encoder"]["layers"][0]

    def forged():
        about = json.dumps(told)
        return rewritten(path, {"samil_lite": about, "sha256": _digest(about, tensors)})

    first["in_features"] = 10**15  # petabytes
    with pytest.raises(ValueError, match="header and its numbers disagree"):
        sl.load(forged())
    first["part"] = "os.system"
    with pytest.raises(ValueError, match=r"class os\.system, which cannot be built"):
        sl.load(forged())
    del first["part"]
    with pytest.raises(ValueError, match="damaged"):
        sl.load(forged())
    told["format"] = 99
    with pytest.raises(ValueError, match="format 99"):
        sl.load(forged())


def test_a_file_of_somebody_else(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"not written by sl\.save"):
        sl.load(tmp_path / "m.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sl.load(tmp_path / "nowhere.safetensors")


def test_members_of_an_ensemble_must_agree():
    one, two = (sl.build("abmilp", encoder(), dim=8, n_classes=n) for n in (1, 2))
    with pytest.raises(ValueError, match="agree in n_classes"):
        Ensemble([one, two])
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
    assert card_of(one) == Card()
