"""Augmentation of stained tissue, all patches at once: stains, right angles, mirror images; and a common colour.

The modules act in training mode only and draw from PyTorch's generator, which `fit` seeds in every epoch, so a resumed
run repeats them. Images have numbers in [0, 1] and the shape (n, 3, s, s); every patch gets its own change.
"""

import warnings
from dataclasses import replace

import torch
from torch import Tensor, nn

from samil_lite.arguments import at_least, checked
from samil_lite.bags import Bags
from samil_lite.extras import from_extra


class StainJitter(nn.Module):
    r"""Multiplies the amounts of haematoxylin, eosin and a rest by :math:`N(1, \text{std}^2)`, a patch at a time.

    .. math::
        x = \exp(-S M), \qquad x' = \exp(-S \, \operatorname{diag}(f) \, M)

    with a pixel's three colours x, its amounts of stain S, and M, the colours of the stains, from `Ruifrok and Johnston
    (2001) <https://pubmed.ncbi.nlm.nih.gov/11531144/>`__ as scikit-image has them. S is never computed: the optical
    density −log x is multiplied by :math:`M^{-1} \operatorname{diag}(f) M`.

    Args:
        std: deviation of the factors; 0.02 in the public code of Rymarczyk et al. (2021).
    """

    to_stains: Tensor
    to_colours: Tensor

    @checked(std=at_least(0))
    def __init__(self, std: float = 0.02) -> None:
        super().__init__()
        with from_extra("histology", "StainJitter needs scikit-image"):
            from skimage.color import hed_from_rgb, rgb_from_hed
        self.std = std
        self.register_buffer("to_stains", torch.tensor(hed_from_rgb, dtype=torch.float32), persistent=False)  # (3, 3)
        self.register_buffer("to_colours", torch.tensor(rgb_from_hed, dtype=torch.float32), persistent=False)  # (3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, s, s) with other stains; in evaluation mode the images themselves.

        Raises:
            ValueError: in training, if these are no such images or bytes.
        """
        if not self.training or self.std == 0:
            return x
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise ValueError(f"x: expected images (n, 3, s, s) in [0, 1], got {x.dtype} of shape {tuple(x.shape)}")
        factors = 1 + self.std * torch.randn(len(x), 3, dtype=x.dtype, device=x.device)  # (n, 3)
        mix = (self.to_stains.to(x) * factors[:, None]) @ self.to_colours.to(x)  # (n, 3, 3)
        density = -x.clamp_min(1e-3).log().flatten(2)  # (n, 3, s²); black would be infinitely dense
        return (-(mix.mT @ density)).exp().clamp(0, 1).view_as(x)


class Dihedral(nn.Module):
    """One of the eight rotations by right angles and mirror images, drawn for each patch; tissue has no upright."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, s, s), turned; in evaluation mode the images themselves.

        Raises:
            ValueError: in training, if these are no square images.
        """
        if not self.training:
            return x
        if x.ndim != 4 or x.shape[2] != x.shape[3]:
            raise ValueError(f"x: expected images (n, 3, s, s), got shape {tuple(x.shape)}")
        coins = torch.rand(3, len(x), 1, 1, 1, device=x.device) < 0.5
        for coin, changed in zip(coins, (lambda y: y.flip(-1), lambda y: y.flip(-2), lambda y: y.mT), strict=True):
            x = torch.where(coin, changed(x), x)
        return x


@checked()
def normalise_lab(bags: Bags) -> Bags:
    """Gives every bag the same mean and deviation of each Lab channel, which takes out the strength of its staining.

    After `Reinhard et al. (2001) <https://doi.org/10.1109/38.946629>`__; the target is the mean over the bags of their
    own means and deviations. It uses no label, but it uses every bag.

    Args:
        bags: of uint8 images, shape (N, 3, s, s).

    Returns:
        The same bags with changed colours, uint8.

    Raises:
        ValueError: if the instances are no such images.
    """
    with from_extra("histology", "normalise_lab needs scikit-image"):
        from skimage.color import lab2rgb, rgb2lab
    if bags.instances.dtype != torch.uint8 or bags.instances.ndim != 4 or bags.instances.shape[1] != 3:
        raise ValueError(
            f"bags: expected uint8 images (N, 3, s, s), got {bags.instances.dtype} {tuple(bags.instances.shape)}"
        )
    lab = [torch.from_numpy(rgb2lab(x.permute(0, 2, 3, 1).numpy())).float() for x in bags.split(bags.instances)]
    means = torch.stack([x.mean((0, 1, 2)) for x in lab])  # (B, 3)
    deviations = torch.stack([x.std((0, 1, 2)) for x in lab]).clamp_min(1e-3)  # (B, 3)
    images = []
    for x, mean, deviation in zip(lab, means, deviations, strict=True):
        x = (x - mean) / deviation * deviations.mean(0) + means.mean(0)  # (n, s, s, 3)
        x[..., 0].clamp_(0, 100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # colours that no screen has are clipped, as intended
            rgb = lab2rgb(x.numpy())  # (n, s, s, 3)
        images.append(torch.from_numpy(rgb).mul(255).round().to(torch.uint8).permute(0, 3, 1, 2))
    return replace(bags, instances=torch.cat(images))
