"""Augmentation against scikit-image, and its symmetries."""

import numpy as np
import pytest
import torch
from ragged import offsets_of

import samil_lite as sl
from samil_lite.augment import Dihedral, StainJitter, normalise_lab

skimage_color = pytest.importorskip("skimage.color")


def images(n: int, size: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1


@pytest.mark.parametrize("module", [StainJitter(0.1), Dihedral()], ids=["stains", "dihedral"])
def test_only_training_changes_images_and_a_seed_repeats_the_change(module):
    x = images(20)
    assert torch.equal(module.eval()(x), x)
    module.train()
    first, second = (torch.random.manual_seed(s) and module(x) for s in (1, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, x)
    assert first.shape == x.shape


def test_stains_are_those_of_scikit_image():
    x, jitter = images(5), StainJitter(0.1).train()
    torch.manual_seed(3)
    changed = jitter(x)
    torch.manual_seed(3)
    factors = 1 + 0.1 * torch.randn(5, 3)
    for before, after, factor in zip(x, changed, factors, strict=True):
        density = -np.log(before.permute(1, 2, 0).double().numpy())
        stains = density @ skimage_color.hed_from_rgb
        expected = np.exp(-(stains * factor.double().numpy()) @ skimage_color.rgb_from_hed).clip(0, 1)
        np.testing.assert_allclose(after.permute(1, 2, 0).numpy(), expected, atol=1e-4)


def test_no_jitter_is_the_identity_and_black_stays_finite():
    x = torch.cat([images(2), torch.zeros(1, 3, 12, 12)])
    assert torch.equal(StainJitter(0).train()(x), x)
    assert StainJitter(0.5).train()(x).isfinite().all()


def test_the_eight_positions_all_occur_alike():
    x = images(1).expand(4000, -1, -1, -1)
    eight = [f for y in (x[0], x[0].mT) for f in (y, y.flip(-1), y.flip(-2), y.flip(-1, -2))]
    turned = Dihedral().train()(x)
    counts = torch.stack([(turned == y).flatten(1).all(1).sum() for y in eight])
    assert counts.sum() == 4000
    assert (counts > 400).all()


def test_normalised_bags_have_one_colour():
    pale, dark = images(6) * 0.3 + 0.6, images(4, seed=1) * 0.3 + 0.2
    x = (torch.cat([pale, dark]) * 255).to(torch.uint8)
    bags = sl.Bags(x, offsets_of([6, 4]), torch.tensor([0, 1]))
    normal = normalise_lab(bags)
    assert normal.instances.dtype == torch.uint8
    assert torch.equal(normal.labels, bags.labels)

    def gap(b):
        means = [skimage_color.rgb2lab(y.permute(0, 2, 3, 1).numpy()).mean((0, 1, 2)) for y in b.split(b.instances)]
        return np.abs(means[0] - means[1]).max()

    assert gap(bags) > 20
    assert gap(normal) < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StainJitter(-1), "std: expected a number of at least 0, got -1"),
        (lambda: StainJitter(float("inf")), "std: expected a number of at least 0, got inf"),
        (lambda: StainJitter()((images(3) * 255).byte()), r"x: expected images .* got torch.uint8 of shape \(3, 3, 12"),
        (lambda: StainJitter()(images(3)[:, :1]), r"x: expected images \(n, 3, s, s\) .* shape \(3, 1, 12, 12\)"),
        (lambda: Dihedral()(images(3)[..., :9]), r"x: expected images \(n, 3, s, s\), got shape \(3, 3, 12, 9\)"),
        (lambda: normalise_lab(sl.Bags(images(3), offsets_of([3]))), "bags: expected uint8 images"),
        (lambda: sl.PatchCNN(8), "size: expected a whole number of at least 10"),
        (lambda: sl.PatchCNN()(images(2)), r"x: expected images of shape \(N, 3, 27, 27\), got .* \(2, 3, 12, 12\)"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("size", [27, 32])
def test_patches_are_encoded_one_by_one_and_bytes_are_scaled(size):
    torch.manual_seed(0)
    encoder = sl.PatchCNN(size, width=16, chunk_size=4).eval()
    x = (images(10, size) * 255).to(torch.uint8)
    h = encoder(x)
    assert h.shape == (10, 16)
    torch.testing.assert_close(h, torch.cat([encoder(y[None].float() / 255) for y in x]), rtol=1e-4, atol=1e-5)


def test_training_augments_and_is_repeatable():
    bags = sl.Bags((images(12, 27) * 255).to(torch.uint8), offsets_of([5, 7]), torch.tensor([0, 1]))
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = sl.PatchCNN(width=16, augment=torch.nn.Sequential(StainJitter(), Dihedral()))
        history = sl.fit(sl.build("iqsa-abmilp", encoder), bags, epochs=2, progress=False, device="cpu")
        losses.append(history.train_loss)
    assert losses[0] == losses[1]
