import pytest
import torch
from hypothesis import given
from ragged import offsets_of, rows, shuffled, sizes

from samil_lite.pooling import AttentionPool, MaxPool, MeanPool, MeanProbabilityPool

POOLS = {
    "plain": lambda: AttentionPool(5, 3),
    "gated": lambda: AttentionPool(5, 3, gated=True),
    "max": MaxPool,
    "mean": MeanPool,
    "mean probability": MeanProbabilityPool,
}
pools = pytest.mark.parametrize("name", POOLS)


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return POOLS[name]().double()


@pools
@given(sizes)
def test_bag_alone_equals_bag_in_batch(name, sizes):
    pool, h = make(name), rows(sizes).requires_grad_()
    z, a = pool(h, offsets_of(sizes))
    alone = [pool(bag, torch.tensor([0, len(bag)])) for bag in h.split(sizes)]
    z_alone = torch.cat([z for z, _ in alone])
    torch.testing.assert_close(z, z_alone)
    if a is not None:
        torch.testing.assert_close(a, torch.cat([a for _, a in alone]))
    wanted = [h, *pool.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(z.square().sum(), wanted), torch.autograd.grad(z_alone.square().sum(), wanted)
    )


@pools
@given(sizes)
def test_order_of_instances_does_not_matter(name, sizes):
    pool, h, order = make(name), rows(sizes), shuffled(sizes)
    z, a = pool(h, offsets_of(sizes))
    z_shuffled, a_shuffled = pool(h[order], offsets_of(sizes))
    torch.testing.assert_close(z_shuffled, z)
    if a is not None:
        torch.testing.assert_close(a_shuffled, a[order])


@pools
@given(sizes)
def test_weights_sum_to_one(name, sizes):
    _, a = make(name)(rows(sizes), offsets_of(sizes))
    if a is None:
        assert name == "max"
        return
    assert (a >= 0).all()
    torch.testing.assert_close(torch.stack([x.sum() for x in a.split(sizes)]), torch.ones(len(sizes)).double())


@pools
def test_gradcheck(name):
    pool, offsets = make(name), offsets_of([1, 3, 2])
    h = rows([1, 3, 2]).requires_grad_()
    parameters = list(pool.parameters())
    assert torch.autograd.gradcheck(lambda h, *_: pool(h, offsets)[0], (h, *parameters))


@pytest.mark.parametrize("gated", [False, True])
def test_attention_is_its_equation(gated):
    pool = AttentionPool(5, 3, gated).double()
    bag = rows([4])
    scores = []
    for h in bag:
        e = torch.tanh(pool.V.weight @ h + pool.V.bias)
        if gated:
            e = e * torch.sigmoid(pool.U.weight @ h + pool.U.bias)
        scores.append(pool.w.weight[0] @ e)
    weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
    z, a = pool(bag, torch.tensor([0, 4]))
    torch.testing.assert_close(a, weights)
    torch.testing.assert_close(z[0], sum(w * h for w, h in zip(weights, bag, strict=True)))


def test_equal_weights_are_mean_pooling():
    pool, h, offsets = AttentionPool(5, 3).double(), rows([4, 2]), offsets_of([4, 2])
    torch.nn.init.zeros_(pool.w.weight)
    torch.testing.assert_close(pool(h, offsets), MeanPool()(h, offsets))


def test_gradient_of_a_maximum_is_shared_by_ties():
    h = torch.tensor([[2.0], [2.0], [1.0]], requires_grad=True)
    MaxPool()(h, torch.tensor([0, 3]))[0].backward()
    assert h.grad.flatten().tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("classes", [1, 3])
def test_mean_probability_is_its_equation(classes):
    s = rows([3], classes)
    pooled, _ = MeanProbabilityPool()(s, torch.tensor([0, 3]))
    probability = torch.sigmoid if classes == 1 else lambda x: x.softmax(-1)
    torch.testing.assert_close(probability(pooled[0]), probability(s).mean(0))


def test_mean_probability_of_certain_instances_is_finite():
    s = torch.tensor([[1e4], [1e4], [-1e4]], requires_grad=True)
    pooled, _ = MeanProbabilityPool()(s, torch.tensor([0, 2, 3]))
    pooled.sum().backward()
    assert torch.isfinite(pooled).all()
    assert torch.isfinite(s.grad).all()


@pools
def test_bad_input_is_named(name):
    with pytest.raises(ValueError, match="offsets: "):
        make(name)(rows([3]), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="h: expected embeddings of shape"):
        make(name)(rows([3])[:, 0], torch.tensor([0, 3]))


def test_another_width_is_named():
    with pytest.raises(ValueError, match=r"h: expected embeddings of shape \(N, 5\), floating point, got .* \(3, 4\)"):
        AttentionPool(5)(torch.zeros(3, 4), torch.tensor([0, 3]))
