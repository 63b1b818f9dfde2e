import pytest
import torch
from hypothesis import given
from ragged import offsets_of, rows, sizes

from samil_lite import segments
from samil_lite.segments import check_offsets, segment_logsumexp, segment_rank, segment_softmax

LOOPS = {
    "segment_sum": lambda x: x.sum(0),
    "segment_mean": lambda x: x.mean(0),
    "segment_max": lambda x: x.amax(0),
    "segment_logsumexp": lambda x: x.logsumexp(0),
}


@pytest.mark.parametrize("name", LOOPS)
@given(sizes)
def test_equals_a_loop_over_bags_in_values_and_gradients(name, sizes):
    x = rows(sizes).requires_grad_()
    result = getattr(segments, name)(x, offsets_of(sizes))
    loop = torch.stack([LOOPS[name](bag) for bag in x.split(sizes)])
    torch.testing.assert_close(result, loop)
    torch.testing.assert_close(
        torch.autograd.grad(result.square().sum(), x), torch.autograd.grad(loop.square().sum(), x)
    )


@given(sizes)
def test_softmax_equals_a_loop_over_bags(sizes):
    x = rows(sizes)
    loop = torch.cat([bag.softmax(0) for bag in x.split(sizes)])
    torch.testing.assert_close(segment_softmax(x, offsets_of(sizes)), loop)


@given(sizes)
def test_rank_counts_what_goes_before_in_the_bag(sizes):
    x = rows(sizes)[:, 0].round()  # rounded, so that some are equal: these stay in their order
    loop = [
        sum(a > b or (a == b and j < i) for j, a in enumerate(bag)) for bag in x.split(sizes) for i, b in enumerate(bag)
    ]
    assert segment_rank(x, offsets_of(sizes)).tolist() == loop


@pytest.mark.parametrize("name", [*LOOPS, "segment_softmax"])
def test_gradcheck(name):
    x = rows([1, 3, 2], 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: getattr(segments, name)(x, offsets_of([1, 3, 2])), x)


@pytest.mark.parametrize("scale", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_softmax_of_extreme_logits(scale, dtype):
    x = torch.tensor([scale, 0.0, scale, -scale, 7.0], dtype=dtype, requires_grad=True)
    a = segment_softmax(x, offsets_of([3, 1, 1]))
    expected = [0.5, 0, 0.5, 1, 1] if scale > 0 else [0, 1, 0, 1, 1]
    assert a.dtype == dtype
    assert a.tolist() == expected
    a[0].backward()
    assert torch.isfinite(x.grad).all()


def test_softmax_and_logsumexp_shift_with_their_bag():
    x, offsets = rows([2, 4]), offsets_of([2, 4])
    shift = torch.tensor([1e3, -1e3], dtype=torch.float64)[[0, 0, 1, 1, 1, 1], None]
    torch.testing.assert_close(segment_softmax(x + shift, offsets), segment_softmax(x, offsets))
    torch.testing.assert_close(
        segment_logsumexp(x + shift, offsets) - segment_logsumexp(x, offsets), shift[[0, 2]].expand(-1, 5)
    )


def test_a_bag_of_one_has_weight_one_and_no_gradient():
    x = torch.randn(1, requires_grad=True)
    a = segment_softmax(x, offsets_of([1]))
    assert a.item() == 1
    a.backward()
    assert x.grad.item() == 0


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        (torch.tensor([0, 2, 4]), "expected first 0 and last 5"),
        (torch.tensor([1, 5]), "expected first 0"),
        (torch.tensor([0, 9]), "expected first 0 and last 5 .* got 0 and 9"),
        (torch.tensor([0, 3, 3, 5]), "bag 1 is empty"),
        (torch.tensor([0, 4, 2, 5]), "bag 1 descends"),
        (torch.tensor([0.0, 5.0]), "vector of B \\+ 1 integers, got torch.float32"),
        (torch.tensor([0]), "vector of B \\+ 1 integers"),
        (torch.tensor([[0, 5]]), "vector of B \\+ 1 integers"),
    ],
)
def test_bad_offsets_are_named(offsets, message):
    with pytest.raises(ValueError, match="offsets: .*" + message):
        check_offsets(offsets, 5)
