"""Encoders: from one instance to its embedding."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from samil_lite.arguments import at_least, between, checked, shown
from samil_lite.bags import Bags


class LeNet5(nn.Module):
    """The convolutional encoder of the MNIST experiments: 28 × 28 digit to embedding.

    Convolution 5 × 5 to 20 maps, ReLU, max-pooling by 2; convolution 5 × 5 to 50 maps, ReLU, max-pooling by 2;
    linear to `width`, ReLU. Source: `Ilse et al. (2018) <https://arxiv.org/abs/1802.04712>`__, whose width is 500; the
    public code of SA-AbMILP has 512. All layers start from PyTorch's defaults (uniform in ±1/√fan-in), as in both
    public codes.

    Args:
        width: width d of the embedding, also at hand as `out_features`.
        chunk_size: how many instances are convolved at a time. Large batches are slower on a CPU: their buffers go
            back to the system at every step (3,200 digits at once took 1.6 times as long as in chunks). None: all.
    """

    @checked(width=at_least(1), chunk_size=at_least(1))
    def __init__(self, width: int = 500, chunk_size: int | None = 320) -> None:
        super().__init__()
        self.out_features = width
        self.chunk_size = chunk_size
        self.layers = nn.Sequential(  # (n, 1, 28, 28)
            nn.Conv2d(1, 20, kernel_size=5),  # (n, 20, 24, 24)
            nn.MaxPool2d(2),  # (n, 20, 12, 12); before the ReLU: the same numbers, and a quarter of them to clip
            nn.ReLU(),
            nn.Conv2d(20, 50, kernel_size=5),  # (n, 50, 8, 8)
            nn.MaxPool2d(2),  # (n, 50, 4, 4)
            nn.ReLU(),
            nn.Flatten(),  # (n, 800)
            nn.Linear(800, width),  # (n, d)
            nn.ReLU(),
        )
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster, same numbers

    def forward(self, x: Tensor) -> Tensor:
        """Encodes images (N, 1, 28, 28) as embeddings (N, d).

        Raises:
            ValueError: if the images have another shape.
        """
        if not isinstance(x, Tensor) or x.shape[1:] != (1, 28, 28):
            raise ValueError(f"x: expected images of shape (N, 1, 28, 28), got {shown(x)}{_of_features(x)}")
        if x.dtype == torch.uint8:
            raise ValueError(
                "x: expected floating-point instances, got bytes (uint8); convert them, as .float() / 255 does"
            )
        chunks = x.contiguous(memory_format=torch.channels_last).split(self.chunk_size or max(1, len(x)))
        return torch.cat([self.layers(chunk) for chunk in chunks])  # (N, d)


class PatchCNN(nn.Module):
    """The convolutional encoder of the histology experiments: a small colour patch to its embedding.

    Convolution 4 × 4 to 36 maps, ReLU, max-pooling by 2; convolution 3 × 3 to 48 maps, ReLU, max-pooling by 2; two
    linear layers to `width`, each with ReLU and dropout. Source: the public code of
    `Rymarczyk et al. (2021) <https://arxiv.org/abs/2005.12991>`__ after Ilse et al. (2018). Weights start from Glorot's
    uniform distribution, biases from 0, as there.

    Args:
        size: height and width of the patches: 27 for the nuclei of colon, 32 for the grid of breast.
        width: width d of the embedding, also at hand as `out_features`.
        dropout: probability after each linear layer, in training.
        augment: a module that maps images in [0, 1], shape (n, 3, size, size), to others; see `samil_lite.augment`.
        chunk_size: how many patches are convolved at a time; None: all. 64 were a third faster than 320 on a CPU.
    """

    @checked(size=at_least(10), width=at_least(1), dropout=between(0, 1), chunk_size=at_least(1))
    def __init__(
        self,
        size: int = 27,
        width: int = 512,
        dropout: float = 0.2,
        augment: nn.Module | None = None,
        chunk_size: int | None = 64,
    ) -> None:
        super().__init__()
        self.size, self.out_features, self.chunk_size = size, width, chunk_size
        self.augment = nn.Identity() if augment is None else augment
        side = ((size - 3) // 2 - 2) // 2  # of the last maps: 5 for 27, 6 for 32
        self.layers = nn.Sequential(  # (n, 3, size, size)
            nn.Conv2d(3, 36, kernel_size=4),
            nn.MaxPool2d(2),  # before the ReLU, as in LeNet5
            nn.ReLU(),
            nn.Conv2d(36, 48, kernel_size=3),
            nn.MaxPool2d(2),  # (n, 48, side, side)
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48 * side**2, width),  # (n, d)
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),  # (n, d)
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster, same numbers

    def forward(self, x: Tensor) -> Tensor:
        """Encodes images (N, 3, size, size), bytes or numbers in [0, 1], as embeddings (N, d).

        Raises:
            ValueError: if the images have another shape.
        """
        if not isinstance(x, Tensor) or x.shape[1:] != (3, self.size, self.size):
            shape = f"(N, 3, {self.size}, {self.size})"
            raise ValueError(f"x: expected images of shape {shape}, got {shown(x)}{_of_features(x)}")
        return torch.cat([self._encode(chunk) for chunk in x.split(self.chunk_size or max(1, len(x)))])  # (N, d)

    def _encode(self, x: Tensor) -> Tensor:
        x = x.to(self.layers[0].weight.dtype) / 255 if x.dtype == torch.uint8 else x  # type: ignore[arg-type]
        x = (self.augment(x) - 0.5) / 0.5  # to [-1, 1], as the public code does
        return self.layers(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


class Standardise(nn.Module):
    r"""Features with mean 0 and deviation 1 over the training instances, :math:`(x - \mu) / \sigma`, as a first layer.

    The two vectors are stored with the model, so new bags are treated as the training bags were.

    Args:
        width: number of features d, also at hand as `out_features`.
    """

    mean: Tensor
    deviation: Tensor

    @checked(width=at_least(1))
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = self.out_features = width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @classmethod
    def of(cls, bags: Iterable[Bags]) -> "Standardise":
        """The layer with mean and deviation of the instances of these bags, read one by one; a constant column keeps 1.

        The sums are taken in double precision around the first bag's mean.
        """
        count, first = 0, None
        for bag in bags:
            x = bag.instances.double()  # (n, d)
            if first is None:
                first, total, squares = x.mean(0), torch.zeros(x.shape[1:]), torch.zeros(x.shape[1:])
            shifted = x - first
            total, squares = total + shifted.sum(0), squares + shifted.square().sum(0)
            count += len(x)
        if first is None:
            raise ValueError("bags: expected at least one bag, got none")
        layer, mean = cls(len(first)), total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        layer.mean.copy_(first + mean)
        layer.deviation.copy_(torch.where(deviation > 1e-6 * (1 + layer.mean.abs()), deviation, 1))
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Standardises features (N, d)."""
        if x.shape[-1] != self.width:
            raise ValueError(f"x: expected {self.width} features, got {x.shape[-1]}")
        return (x - self.mean) / self.deviation


def _of_features(x: Tensor) -> str:
    """What to do where features reach an encoder of images: most often nobody chose it."""
    if not isinstance(x, Tensor) or x.ndim != 2:
        return ""
    layer = f"torch.nn.Sequential(torch.nn.Linear({x.shape[1]}, 256), torch.nn.ReLU())"
    return f"; for features build the model with encoder={layer} and dim=256"
