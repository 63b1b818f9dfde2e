import logging
from importlib.util import find_spec

import pytest
import torch
from ragged import rows
from torch import Tensor, nn

import samil_lite as sl
from samil_lite import one_bag
from samil_lite.kernels import FORMS, Kernel
from samil_lite.models import KERNEL_OF, MODELS
from samil_lite.pooling import NoisyOrPool

with_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript")), reason="the extra onnx is not installed"
)


class Cauchy(Kernel):
    """A kernel of a reader's own."""

    statistic, has_alpha = "squared_distance", True

    def phi(self, t: Tensor, alpha: Tensor) -> Tensor:
        return -torch.log1p(alpha * t)


def model_of(name: str, n_classes: int = 1, encoder: nn.Module | None = None, **options) -> sl.MILClassifier:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh()) if encoder is None else encoder
    options = {"gamma": 0.7, **options} if name in KERNEL_OF else {}
    return sl.build(name, encoder, n_classes, dim=8, hidden=3, **options)


def same(model: sl.MILClassifier, one: object, n: int) -> None:
    x = rows([n]).to(model.classifier.weight.dtype)
    expected = model(sl.Bags.from_list([x]))
    logits, *attention = one(x)
    torch.testing.assert_close(logits, expected.logits.squeeze(0))
    for a in attention:
        torch.testing.assert_close(a, expected.attention)


@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_one_bag_has_the_models_outputs(name, n_classes):
    model = model_of(name, n_classes).double()
    for n in (1, 2, 7):
        same(model, one_bag.OneBag(model), n)


@pytest.mark.parametrize("kernel", [*FORMS.values(), Cauchy()], ids=[*FORMS, "Cauchy"])
def test_every_kernel_has_the_models_outputs(kernel):
    model = model_of("gsa-abmilp", kernel=kernel, alpha=1.3).double()
    same(model, one_bag.OneBag(model), 7)


def test_pooling_of_another_class():
    model = model_of("instance-mean")
    model.pool = NoisyOrPool()
    same(model.double(), one_bag.OneBag(model), 4)
    model.pool = nn.Identity()
    with pytest.raises(ValueError, match="model: pooling of Identity has no form for one bag"):
        one_bag.OneBag(model)


def test_torch_export_takes_any_number_of_instances():
    model = model_of("msa-abmilp")
    n = torch.export.Dim("n", min=1)
    program = torch.export.export(one_bag.OneBag(model), (torch.rand(5, 5),), dynamic_shapes=({0: n},)).module()
    for size in (1, 2, 40):
        same(model, program, size)


@with_onnx
@pytest.mark.parametrize(
    "model",
    [
        lambda: model_of("gsa-abmilp", 3, alpha=2.0),
        lambda: sl.build("lsa-abmilp", sl.PatchCNN(27), dim_qk=4, gamma=1.0),
    ],
)
def test_onnx_has_the_models_outputs(model, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    runtime = pytest.importorskip("onnxruntime")
    model = model()
    path = sl.export.onnx(model, tmp_path / "new" / "model.onnx")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    for n in (1, 6, 50):
        x = torch.rand(n, *shape[1:])
        logits, attention = session.run(["logits", "attention"], {"instances": x.numpy()})
        expected = model(sl.Bags.from_list([x]))
        torch.testing.assert_close(torch.from_numpy(logits), expected.logits.detach().squeeze(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(attention), expected.attention.detach(), rtol=1e-4, atol=1e-5)


@with_onnx
def test_onnx_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(one_bag, "_embed", lambda encoder, x: 1.1 * encoder(x))
    with pytest.raises(RuntimeError, match=r"logits of 1 instances are off by .*; no file is written"):
        sl.export.onnx(model_of("abmilp"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@with_onnx
def test_an_encoder_that_does_not_say_its_shape(tmp_path):
    model = model_of("abmilp", encoder=nn.Sequential(nn.Flatten(), nn.Linear(4, 8)))
    with pytest.raises(ValueError, match="example: Sequential does not say what it takes"):
        sl.export.onnx(model, tmp_path / "model.onnx")
    assert sl.export.onnx(model, tmp_path / "model.onnx", example=torch.zeros(1, 2, 2)).stat().st_size > 1000
