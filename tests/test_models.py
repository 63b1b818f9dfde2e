import pytest
import torch
from hypothesis import given, settings
from ragged import offsets_of, rows, shuffled, sizes
from torch import nn

import samil_lite as sl
from samil_lite.models import MODELS

models = pytest.mark.parametrize("name", MODELS)

# The convolutions: 20·(25+1) + 50·(20·25+1) = 25,570. Width w adds 800w + w, the attention 128w + 128 + 128, its gate
# 128w + 128, the classifier w + 1. The public code of SA-AbMILP counts 501,988 for abmilp at width 512: it has a bias
# in w, which the softmax cancels.
PARAMETERS = {
    ("abmilp", 500): 490_827,
    ("abmilp", 512): 501_987,
    ("gated-abmilp", 500): 554_955,
    ("gated-abmilp", 512): 567_651,
    ("instance-max", 500): 426_571,
    ("instance-mean", 500): 426_571,
    ("embedding-max", 500): 426_571,
    ("embedding-mean", 500): 426_571,
}


def small(name: str, n_classes: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return sl.build(name, nn.Sequential(nn.Linear(5, 4), nn.Tanh()), n_classes, dim=4, hidden=3).double()


def bags_of(sizes: list[int]) -> sl.Bags:
    return sl.Bags(rows(sizes), offsets_of(sizes))


@pytest.mark.parametrize(("name", "width"), PARAMETERS)
def test_parameter_counts(name, width):
    assert sum(p.numel() for p in sl.build(name, sl.LeNet5(width)).parameters()) == PARAMETERS[name, width]


@models
@pytest.mark.parametrize("n_classes", [1, 2, 4])
def test_shapes(name, n_classes):
    output = small(name, n_classes)(bags_of([3, 1, 2]))
    tail = () if n_classes == 1 else (n_classes,)
    assert output.logits.shape == (3, *tail)
    assert output.attention is None if name.endswith("max") else output.attention.shape == (6,)
    if name.startswith("instance"):
        assert output.embedding is None
        assert output.instance_logits.shape == (6, *tail)
    else:
        assert output.embedding.shape == (3, 4)
        assert output.instance_logits is None


@models
@pytest.mark.parametrize("n_classes", [1, 3])
@given(sizes=sizes)
def test_order_of_instances_does_not_matter(name, n_classes, sizes):
    model, order = small(name, n_classes), shuffled(sizes)
    output, moved = model(bags_of(sizes)), model(sl.Bags(rows(sizes)[order], offsets_of(sizes)))
    torch.testing.assert_close(moved.logits, output.logits)
    for before, after in zip(output[1::2], moved[1::2], strict=True):  # attention and instance logits
        if before is not None:
            torch.testing.assert_close(after, before[order])


@models
@given(sizes=sizes)
def test_bag_alone_equals_bag_in_batch(name, sizes):
    model, bags = small(name), bags_of(sizes)
    together, alone = model(bags).logits, torch.cat([model(bag).logits for bag in bags])
    torch.testing.assert_close(together, alone)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(together.square().sum(), parameters), torch.autograd.grad(alone.square().sum(), parameters)
    )


@models
@settings(max_examples=5)
@given(sizes=sizes)
def test_the_same_with_digits(name, sizes):
    torch.manual_seed(0)
    model = sl.build(name, sl.LeNet5(8, chunk_size=3))
    bags = sl.Bags(torch.randn(sum(sizes), 1, 28, 28), offsets_of(sizes))
    torch.testing.assert_close(model(bags).logits, torch.cat([model(bag).logits for bag in bags]))


def test_instance_max_is_the_largest_instance_logit():
    bags = bags_of([3, 2])
    output = small("instance-max")(bags)
    assert output.logits.tolist() == [x.max().item() for x in bags.split(output.instance_logits)]


@pytest.mark.parametrize("chunk_size", [1, 4, 7, 100, None])
def test_chunks_do_not_change_values_or_gradients(chunk_size):
    torch.manual_seed(0)
    whole = sl.LeNet5(6, chunk_size=None)
    chunked = sl.LeNet5(6, chunk_size)
    chunked.load_state_dict(whole.state_dict())
    x = torch.randn(7, 1, 28, 28)
    torch.testing.assert_close(chunked(x), whole(x))
    whole(x).square().sum().backward()
    chunked(x).square().sum().backward()
    for p, q in zip(whole.parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad)


def test_lenet_is_the_stated_stack():
    """The layers of Ilse et al., put together anew and given the same weights."""
    lenet = sl.LeNet5()
    x = torch.randn(2, 1, 28, 28)
    w = list(lenet.parameters())
    f = nn.functional
    y = f.max_pool2d(f.relu(f.conv2d(x, w[0], w[1])), 2)
    y = f.max_pool2d(f.relu(f.conv2d(y, w[2], w[3])), 2)
    torch.testing.assert_close(lenet(x), f.relu(f.linear(y.flatten(1), w[4], w[5])))
    bound = 1 / 5  # uniform in ±1/√fan-in, fan-in 25
    assert 0.9 * bound < w[0].abs().max() <= bound


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sl.build("abmlip"), "name: unknown model 'abmlip'; did you mean abmilp"),
        (lambda: sl.build("transformer"), "name: unknown model 'transformer'; did you mean .*instance-max"),
        (lambda: sl.build("abmilp", nn.Identity()), "dim: expected the width of the embeddings, since Identity"),
        (lambda: sl.build("abmilp", n_classes=0), "n_classes: expected a whole number of at least 1, got 0"),
        (
            lambda: sl.LeNet5()(torch.zeros(2, 28, 28)),
            r"x: expected images of shape \(N, 1, 28, 28\), got .* \(2, 28, 28",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bags_on_another_device_are_an_error_that_says_what_to_do():
    bags = bags_of([3, 1])
    with pytest.raises(
        ValueError, match=r"bags: expected them on the model's device, meta, got cpu; .*bags\.to\('meta'\)"
    ):
        small("lsa-abmilp").to("meta")(bags)
    with pytest.raises(ValueError, match=r"device, cpu, got meta"):
        small("instance-max")(bags.to("meta"))


@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_probabilities_of_all_classes_sum_to_one(n_classes):
    bags = sl.Bags.from_list([torch.randn(3, 4), torch.randn(5, 4)])
    output = sl.build("abmilp", nn.Linear(4, 8), n_classes=n_classes)(bags)
    assert output.probabilities.shape == (2, max(2, n_classes))
    torch.testing.assert_close(output.probabilities.sum(1), torch.ones(2))
    if n_classes == 1:
        torch.testing.assert_close(output.probabilities[:, 1], output.logits.sigmoid())
