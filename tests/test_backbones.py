import importlib
import sys
import types

import pytest
import torch
from torch import nn

from samil_lite import Bags
from samil_lite.backbones import BACKBONES, IMAGENET_MEAN, IMAGENET_STD, frozen_features


class Small(nn.Module):
    """Convolution, batch normalisation and dropout: training mode would mix instances and draw at random."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5)
        )
        self.layers[1].running_mean.uniform_(-1, 1)

    def forward(self, x):
        return self.layers(x)


def example(dtype=torch.uint8, height=9, width=8):
    x = torch.randint(0, 256, (7, 3, height, width), dtype=torch.uint8)
    return Bags(
        x if dtype == torch.uint8 else x.to(dtype) / 255,
        torch.tensor([0, 4, 5, 7]),
        torch.tensor([2, 0, 1]),
        instance_labels=torch.arange(7),
        coordinates=torch.rand(7, 2),
    )


def features(bags, backbone, **options):
    return frozen_features(bags, backbone, progress=False, **options)


def by_hand(x, network):
    """One image and one colour at a time."""
    rows = []
    for image in x.float() / 255:
        colours = [(image[c] - IMAGENET_MEAN[c]) / IMAGENET_STD[c] for c in range(3)]
        rows.append(network.eval()(torch.stack(colours)[None])[0])
    return torch.stack(rows).detach()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_equal_to_one_image_at_a_time_whatever_the_batch(batch_size):
    bags, network = example(), Small()
    expected = by_hand(bags.instances, network)
    network.train()
    torch.testing.assert_close(features(bags, network, batch_size=batch_size).instances, expected)


def test_bytes_and_fractions_give_the_same():
    torch.manual_seed(1)
    network, bags = Small(), example()
    fractions = Bags(bags.instances.float() / 255, bags.offsets)
    torch.testing.assert_close(features(bags, network).instances, features(fractions, network).instances)


def test_everything_but_the_images_is_kept():
    bags = example()
    out = features(bags, Small())
    assert out.instances.shape == (7, 16)
    for name in ("offsets", "labels", "instance_labels", "coordinates"):
        assert torch.equal(getattr(out, name), getattr(bags, name))
    bare = features(Bags(bags.instances, bags.offsets), Small())
    assert bare.labels is bare.instance_labels is bare.coordinates is None


def test_the_module_is_left_as_it_was():
    network = Small().train()
    network.layers[1].eval()  # frozen normalisation, as in fine-tuning
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    features(example(), network)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_the_mode_is_put_back_after_an_error():
    network = nn.Sequential(nn.Conv2d(3, 1, 20), nn.Flatten()).train()  # larger than the images
    with pytest.raises(RuntimeError):
        features(example(), network)
    assert network.training


def test_models_can_be_trained_on_the_result():
    out = features(example(), Small())
    assert not out.instances.requires_grad
    head = nn.Linear(16, 1)
    head(out.instances).sum().backward()
    assert head.weight.grad is not None


def test_precision_of_the_module_and_modules_without_parameters():
    assert features(example(), Small().double()).instances.dtype == torch.float64
    bags = example()
    means = features(bags, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())).instances
    x = bags.instances.float().mean((2, 3)) / 255
    torch.testing.assert_close(means, (x - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD))


def test_progress_can_be_shown(capsys):
    frozen_features(example(), Small())
    assert "7/7" in capsys.readouterr().err
    features(example(), Small())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("bags", "options", "message"),
    [
        (Bags(torch.rand(3, 5), torch.tensor([0, 3])), {}, r"expected colour images .* got \(3, 5\)"),
        (Bags(torch.rand(3, 1, 9, 9), torch.tensor([0, 3])), {}, r"expected colour images .* got \(3, 1, 9, 9\)"),
        (Bags(torch.full((3, 3, 9, 9), 1.5), torch.tensor([0, 3])), {}, "images from 0 to 1 or uint8, got 1.5 to 1.5"),
        (Bags(torch.full((3, 3, 9, 9), -0.5), torch.tensor([0, 3])), {}, "images from 0 to 1 or uint8, got -0.5"),
        ([torch.rand(3, 3, 9, 9)], {}, "bags: expected Bags of colour images, got list"),
        (
            example(height=62, width=70),
            {"backbone": "alexnet"},
            "alexnet expects images of at least 63 × 63, got 62 × 70",
        ),
        (
            example(),
            {"backbone": Small},
            "expected a module or one of resnet18, alexnet, efficientnet-lite0, efficientnet-lite1, got .*Small",
        ),
        (
            example(),
            {"backbone": None},
            "expected a module or one of resnet18, alexnet, efficientnet-lite0, efficientnet-lite1, got 'None'",
        ),
        (example(), {"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        (
            example(),
            {"backbone": "resnet81"},
            "one of resnet18, alexnet, efficientnet-lite0, efficientnet-lite1, got 'resnet81'; did you mean 'resnet18'",
        ),
        (
            example(),
            {"backbone": "zzz"},
            "one of resnet18, alexnet, efficientnet-lite0, efficientnet-lite1, got 'zzz'$",
        ),
        (
            example(),
            {"backbone": nn.Conv2d(3, 2, 3)},
            r"backbone: expected embeddings of shape \(7, d\), got \(7, 2, 7",
        ),
        (example(), {"backbone": nn.Flatten(0)}, r"backbone: expected embeddings of shape \(7, d\), got \(1512,\)"),
    ],
)
def test_bad_input_is_named(bags, options, message):
    with pytest.raises(ValueError, match=message):
        features(bags, **({"backbone": Small()} | options))


def resnet():
    network = nn.Module()
    network.body, network.fc = Small(), nn.Linear(16, 1000)
    network.forward = lambda x: network.fc(network.body(x))
    return network


def alexnet():
    network = nn.Module()
    network.body, network.classifier = Small(), nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 1000))
    network.forward = lambda x: network.classifier(network.body(x))
    return network


@pytest.fixture
def torchvision(monkeypatch):
    """A torchvision with the two functions that are used, and small networks with heads of a thousand classes."""
    package, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    package.models = models
    default = types.SimpleNamespace(url="https://example.org/weights-123.pth")
    models.get_model_weights = lambda name: types.SimpleNamespace(DEFAULT=(name, default)[1])
    models.made = {}

    def get_model(name, weights):
        assert weights is default
        models.made[name] = {"resnet18": resnet, "alexnet": alexnet}[name]()
        return models.made[name]

    models.get_model = get_model
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


@pytest.mark.parametrize(("name", "width"), [("resnet18", 16), ("alexnet", 5)])
def test_names_stand_for_pretrained_networks_without_their_heads(torchvision, name, width):
    bags = example(height=63, width=64)
    out = features(bags, name, device="cpu")
    assert out.instances.shape == (7, width)
    network = torchvision.made[name].eval()
    expected = by_hand(bags.instances, network.body)
    if name == "alexnet":
        expected = network.classifier(expected).detach()
    torch.testing.assert_close(out.instances, expected)


def test_weights_that_cannot_be_downloaded(torchvision, monkeypatch):
    def get_model(name, weights):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision, "get_model", get_model)
    message = r"weights of resnet18: no route to host. Without .*/weights-123.pth into .*/checkpoints"
    with pytest.raises(OSError, match=message):
        features(example(), "resnet18")


@pytest.mark.parametrize("problem", ["missing", "does not fit"])
def test_a_torchvision_that_is_missing_or_does_not_fit(monkeypatch, problem):
    if problem == "missing":
        monkeypatch.setitem(sys.modules, "torchvision", None)
    else:

        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "torchvision":
                    raise RuntimeError("operator torchvision::nms does not exist")

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(ImportError, match=r"needs a torchvision that fits torch .*\[backbones\]' \((Mod|Runtime)"):
        features(example(), "resnet18")


@pytest.mark.parametrize(("name", "width", "side"), [("resnet18", 512, 32), ("alexnet", 4096, 63)])
def test_real_torchvision(monkeypatch, name, width, side):
    try:
        models = importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    real = models.get_model
    monkeypatch.setattr(models, "get_model", lambda name, weights: real(name))  # random weights: no network
    x = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    out = features(Bags(x, torch.tensor([0, 3])), name, device="cpu")
    assert out.instances.shape == (3, width)
    assert set(BACKBONES) == {"resnet18", "alexnet"}
