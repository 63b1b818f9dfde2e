import pytest
import torch
from hypothesis import given
from own_kernels import Sharper
from ragged import offsets_of, rows, shuffled, sizes
from torch import Tensor, nn

import samil_lite as sl
from samil_lite.kernel_attention.operator import attend_compiled
from samil_lite.kernels import KERNELS, RBF, as_kernel
from samil_lite.models import KERNEL_OF

kernels = pytest.mark.parametrize("kernel", KERNELS)
models = pytest.mark.parametrize("name", KERNEL_OF)


def layer(kernel: str, **options) -> sl.KernelSelfAttention:
    torch.manual_seed(0)
    return sl.KernelSelfAttention(5, kernel, dim_qk=3, **{"gamma": 0.7, **options}).double()


def small(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return sl.build(name, nn.Sequential(nn.Linear(5, 8), nn.Tanh()), dim=8, hidden=3, **options).double()


def bags_of(sizes: list[int]) -> sl.Bags:
    return sl.Bags(rows(sizes), offsets_of(sizes))


@kernels
@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_is_its_equation(kernel, bias):
    attention, h, offsets = layer(kernel, bias=bias), rows([4, 2]), offsets_of([4, 2])
    maps = (attention.W_q, attention.W_k, attention.W_v)
    assert [x.bias is not None for x in maps] == [bias] * 3
    q, k, v = (x(h) for x in maps)
    expected = h + attention.gamma * sl.kernel_attention(q, k, v, kernel, attention.alpha, offsets)
    torch.testing.assert_close(attention(h, offsets), expected)


@kernels
@given(sizes=sizes)
def test_order_batch_and_weights(kernel, sizes):
    attention, h, offsets, order = layer(kernel), rows(sizes), offsets_of(sizes), shuffled(sizes)
    mixed = attention(h, offsets)
    torch.testing.assert_close(attention(h[order], offsets), mixed[order])
    alone = [attention(bag, torch.tensor([0, len(bag)])) for bag in h.split(sizes)]
    torch.testing.assert_close(torch.cat(alone), mixed)
    _, beta = attention(h, offsets, return_weights=True)
    for b in beta:
        torch.testing.assert_close(b.sum(1), torch.ones(len(b), dtype=b.dtype))


@kernels
def test_asking_for_the_weights_changes_nothing(kernel):
    attention, h, offsets = layer(kernel), rows([3, 5]), offsets_of([3, 5])
    with_weights, _ = attention(h, offsets, return_weights=True)
    without = attention(h, offsets)
    assert torch.equal(with_weights, without)
    parameters = list(attention.parameters())
    gradients = [torch.autograd.grad(x.pow(3).sum(), parameters) for x in (with_weights, without)]
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
        assert (a != 0).any()


@kernels
def test_alpha_starts_where_asked_and_stays_positive(kernel):
    attention = layer(kernel)
    if not KERNELS[kernel].has_alpha:
        assert attention.alpha is None
        assert "raw_alpha" not in dict(attention.named_parameters())
        return
    assert attention.alpha.item() == pytest.approx(1)
    assert layer(kernel, alpha=0.2).alpha.item() == pytest.approx(0.2)
    assert layer(kernel, alpha=40.0).alpha.item() == pytest.approx(40)
    assert not layer(kernel, learn_alpha=False).raw_alpha.requires_grad
    with torch.no_grad():
        attention.raw_alpha.fill_(-20)
    assert attention.alpha > 0
    attention(rows([4]), offsets_of([4])).pow(3).sum().backward()
    assert attention.raw_alpha.grad != 0


def test_default_width_of_queries():
    assert sl.KernelSelfAttention(64).W_q.out_features == 8
    assert sl.KernelSelfAttention(5).W_k.out_features == 1


@models
@given(sizes=sizes)
def test_gamma_0_is_abmilp(name, sizes):
    """From the same seed, and with AbMILP's weights loaded: not one bit differs."""
    abmilp, model = small("abmilp"), small(name)
    assert model.self_attention.gamma == 0
    expected, output = abmilp(bags_of(sizes)), model(bags_of(sizes))
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(output.attention, expected.attention)


@models
def test_abmilps_weights_load_both_ways(name):
    abmilp, model = small("abmilp"), small(name, gamma=1)
    missing = model.load_state_dict(abmilp.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("self_attention.") for key in missing.missing_keys)
    surplus = abmilp.load_state_dict(model.state_dict(), strict=False)
    assert not surplus.missing_keys
    assert all(key.startswith("self_attention.") for key in surplus.unexpected_keys)


@models
def test_model_returns_beta_only_when_asked(name):
    model, bags = small(name, gamma=1), bags_of([3, 1, 4])
    without, with_weights = model(bags), model(bags, return_weights=True)
    assert without.self_attention is None
    assert [tuple(b.shape) for b in with_weights.self_attention] == [(3, 3), (1, 1), (4, 4)]
    for a, b in zip(without[:3], with_weights[:3], strict=True):
        assert torch.equal(a, b)


def test_abmilp_has_no_beta():
    assert small("abmilp")(bags_of([3]), return_weights=True).self_attention is None


def test_options_reach_the_layer():
    model = small("gsa-abmilp", gamma=1, alpha=2.0, bias=True, dim_qk=4, kernel=RBF(log_scores=True))
    attention = model.self_attention
    assert attention.kernel.log_scores
    assert attention.W_q.weight.shape == (4, 8)
    assert attention.alpha.item() == pytest.approx(2)


@kernels
def test_pictures_of_attention_are_rows_and_column_means_of_beta(kernel):
    attention, h, offsets = layer(kernel), rows([3, 5]), offsets_of([3, 5])
    _, beta = attention(h, offsets, return_weights=True)
    (row,) = attention.attention_rows(h, torch.tensor([4]), offsets)
    torch.testing.assert_close(row, beta[1][1].detach())
    received = attention.attention_received(h, offsets)
    torch.testing.assert_close(received, torch.cat([b.mean(0) for b in beta]).detach())


@kernels
def test_autocast_does_not_round_queries_and_keys(kernel):
    attention, h, offsets = layer(kernel), rows([40]) + 10, offsets_of([40])
    received = attention.attention_received(h, offsets)
    _, beta = attention(h, offsets, return_weights=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attention.attention_received(h, offsets), received)
        assert torch.equal(attention(h, offsets, return_weights=True)[1][0], beta[0])


@pytest.fixture
def breaks():
    """What made torch.compile break a graph; the compiler is as new."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters["graph_break"]
    torch._dynamo.reset()


def test_compiling_the_model_changes_nothing_and_breaks_no_graph(breaks):
    model = small("msa-abmilp", gamma=1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)  # all but the C++ compiler
    for bag_sizes in ([3, 600, 2], [4, 1]):
        results = []
        for function in (model, compiled):
            logits = function(bags_of(bag_sizes)).logits
            results.append([logits, *torch.autograd.grad(logits.pow(2).sum(), list(model.parameters()))])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other)
    assert not breaks


@kernels
def test_the_operator_of_torch_compile_is_the_same(kernel):
    """What the compiler puts into its graph, called as it is."""
    inputs = [rows([3, 600, 2], width, seed).requires_grad_() for width, seed in ((3, 0), (3, 1), (4, 2))]
    alpha, offsets = torch.tensor(1.3, dtype=torch.float64, requires_grad=True), offsets_of([3, 600, 2])
    results = []
    for o in (
        sl.kernel_attention(*inputs, kernel, alpha, offsets),
        attend_compiled(*inputs, alpha, offsets, as_kernel(kernel), "auto"),
    ):
        gradients = torch.autograd.grad(o.pow(2).sum(), [*inputs, alpha], allow_unused=True)
        results.append([o, *(torch.zeros_like(alpha) if g is None else g for g in gradients)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # the compiler looks at it, to no harm
def test_a_kernel_of_ones_own_compiles_with_one_break(breaks):
    model = small("gsa-abmilp", gamma=1, kernel=Sharper())
    expected = model(bags_of([3, 2])).logits
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(bags_of([3, 2])).logits, expected)
    assert len(breaks) == 1  # for one reason, told in each function that calls
    assert (expected - small("gsa-abmilp", gamma=1)(bags_of([3, 2])).logits).abs().max() > 1e-6


@kernels
@pytest.mark.parametrize("backend", ["auto", "blockwise"])
def test_many_layers_at_once_are_one_after_the_other(kernel, backend):
    h, offsets = rows([3, 6]), offsets_of([3, 6])
    layers = [layer(kernel, gamma=gamma) for gamma in (0.5, 2.0)]
    for each in layers:
        each.backend = backend
        nn.init.normal_(each.W_q.weight)
    alone = [torch.autograd.grad(each(h, offsets).pow(2).sum(), tuple(each.parameters())) for each in layers]
    stacked, _ = torch.func.stack_module_state(layers)

    def mix(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layers[0], parameters, (h, offsets))

    together = torch.autograd.grad(torch.vmap(mix)(stacked).pow(2).sum(), tuple(stacked.values()))
    for one, two, both in zip(*alone, together, strict=True):
        torch.testing.assert_close(both, torch.stack([one, two]))


def test_data_parallel_training_has_the_same_gradients():
    """One process of DistributedDataParallel: its hooks must find the gradients of every parameter."""
    model, bags = small("msa-abmilp", gamma=1), bags_of([3, 600, 2])
    model.self_attention.backend = "blockwise"
    model(bags).logits.square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        nn.parallel.DistributedDataParallel(model)(bags).logits.square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def bad_forward() -> Tensor:
    return sl.KernelSelfAttention(4)(torch.zeros(3, 5), torch.tensor([0, 3]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_forward, r"h: expected embeddings of shape \(N, 4\), got .* \(3, 5\)"),
        (lambda: sl.KernelSelfAttention(4, "rbf", alpha=0), "alpha: expected a number above 0, got 0"),
        (lambda: sl.KernelSelfAttention(4, "rfb"), "kernel: unknown kernel 'rfb'; did you mean rbf"),
        (lambda: sl.build("abmilp", gamma=1), "gamma: abmilp has no self-attention; sa-abmilp, gsa-abmilp"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
