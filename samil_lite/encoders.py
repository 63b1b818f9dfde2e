"""Encoders: from one instance to its embedding."""

import torch
from torch import Tensor, nn


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

    def __init__(self, width: int = 500, chunk_size: int | None = 320) -> None:
        super().__init__()
        self.out_features = width
        self.chunk_size = chunk_size
        self.layers = nn.Sequential(  # (n, 1, 28, 28)
            nn.Conv2d(1, 20, kernel_size=5),  # (n, 20, 24, 24)
            nn.ReLU(),
            nn.MaxPool2d(2),  # (n, 20, 12, 12)
            nn.Conv2d(20, 50, kernel_size=5),  # (n, 50, 8, 8)
            nn.ReLU(),
            nn.MaxPool2d(2),  # (n, 50, 4, 4)
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
        if x.shape[1:] != (1, 28, 28):
            raise ValueError(f"x: expected images of shape (N, 1, 28, 28), got {tuple(x.shape)}")
        chunks = x.contiguous(memory_format=torch.channels_last).split(self.chunk_size or max(1, len(x)))
        return torch.cat([self.layers(chunk) for chunk in chunks])  # (N, d)
