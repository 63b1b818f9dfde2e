"""The kernels and `kernel_attention` against the equations, written as a double loop over queries and keys."""

import math
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_kernels import Cauchy, Sharper
from ragged import offsets_of, rows, shuffled, sizes
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import samil_lite as sl
from samil_lite.kernel_attention import autograd, blockwise, groups, l1, plan
from samil_lite.kernel_attention.distances import centred
from samil_lite.kernels import FORMS, KERNELS, RBF, InverseQuadratic, Module, squared_distances

# κ(k, q) of one pair, as the paper writes it; then the variants.
FORMULAS = {
    "dot": ("dot", lambda k, q, alpha: (k * q).sum()),
    "rbf": ("rbf", lambda k, q, alpha: torch.exp(-alpha * ((k - q) ** 2).sum())),
    "inverse_quadratic": ("inverse_quadratic", lambda k, q, alpha: 1 / (alpha * ((k - q) ** 2).sum() + 1)),
    "laplace": ("laplace", lambda k, q, alpha: -(k - q).abs().sum()),
    "module": ("module", lambda k, q, alpha: (k - q).norm() ** alpha - k.norm() ** alpha - q.norm() ** alpha),
    "log rbf": (RBF(log_scores=True), lambda k, q, alpha: torch.exp(-alpha * ((k - q) ** 2).sum()).log()),
    "log inverse_quadratic": (
        InverseQuadratic(log_scores=True),
        lambda k, q, alpha: torch.log(1 / (alpha * ((k - q) ** 2).sum() + 1)),
    ),
    "l1 module": (
        Module(norm="l1"),
        lambda k, q, alpha: (k - q).abs().sum() ** alpha - k.abs().sum() ** alpha - q.abs().sum() ** alpha,
    ),
}
formulas = pytest.mark.parametrize("name", FORMULAS)
kernels = pytest.mark.parametrize("kernel", [kernel for kernel, _ in FORMULAS.values()], ids=list(FORMULAS))
ALPHAS = [0.3, 1.0, 1.7, 2.0]
backends = pytest.mark.parametrize("backend", ["dense", "blockwise", "auto"])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that bags of a few instances take several tiles, with ragged ends, and groups of their own."""
    monkeypatch.setattr(blockwise, "ROWS", 3)
    monkeypatch.setattr(blockwise, "KEYS", 2)
    monkeypatch.setattr(groups, "LONG", 5)
    monkeypatch.setattr(groups, "GROUP_COST", 10)


def one(x: float, **options) -> Tensor:
    return torch.tensor(x, dtype=torch.float64, **options)


def inputs_of(sizes: list[int], d: int = 3, d_v: int = 4) -> list[Tensor]:
    return [rows(sizes, width, seed).requires_grad_() for width, seed in ((d, 0), (d, 1), (d_v, 2))]


def loop(q: Tensor, k: Tensor, v: Tensor, formula, alpha: Tensor, offsets: Tensor) -> Tensor:
    out = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for j in range(start, end):
            scores = torch.stack([formula(k[i], q[j], alpha) for i in range(start, end)])
            weights = scores.exp() / scores.exp().sum()
            out.append(sum(weights[i - start] * v[i] for i in range(start, end)))
    return torch.stack(out)


@formulas
@backends
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("sizes", [[1], [2, 1, 5], [7, 1, 1, 6, 3]])
def test_values_and_gradients_are_those_of_the_double_loop(name, backend, alpha, sizes):
    kernel, formula = FORMULAS[name]
    offsets, results = offsets_of(sizes), []
    for compute in (
        lambda q, k, v, a: sl.kernel_attention(q, k, v, kernel, a, offsets, backend),
        lambda q, k, v, a: loop(q, k, v, formula, a, offsets),
    ):
        inputs = [*inputs_of(sizes), one(alpha, requires_grad=True)]
        out = compute(*inputs)
        gradients = torch.autograd.grad(out.pow(3).sum(), inputs, allow_unused=True)
        # A kernel without α, and q's own term in a bag of one, have no gradient: in one form None, in the other 0.
        results.append(
            [out, *(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True))]
        )
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@formulas
@backends
def test_gradcheck(name, backend):
    kernel, _ = FORMULAS[name]
    inputs = [*inputs_of([3, 2]), one(1.3, requires_grad=True)]
    assert torch.autograd.gradcheck(
        lambda q, k, v, a: sl.kernel_attention(q, k, v, kernel, a, offsets_of([3, 2]), backend), inputs
    )


@pytest.mark.parametrize(
    ("kernel", "public"),
    [
        ("rbf", lambda q, k: (-((q - k) ** 2).sum()).exp()),
        ("inverse_quadratic", lambda q, k: 1 / (((q - k) ** 2).sum() + 1)),
        ("laplace", lambda q, k: (-(q - k).abs()).sum()),
        (Module(norm="l1"), lambda q, k: ((q - k).abs() - q.abs() - k.abs()).sum()),
    ],
)
def test_the_public_codes_formula_at_alpha_1(kernel, public):
    """Column by column, as the released code fills its score matrix."""
    q, k, v = inputs_of([7])
    columns = torch.stack([torch.stack([public(q[j], k[i]) for j in range(7)]) for i in range(7)], dim=1)
    expected = columns.softmax(1) @ v
    torch.testing.assert_close(sl.kernel_attention(q, k, v, kernel), expected, rtol=1e-12, atol=1e-12)


@kernels
@pytest.mark.parametrize("alpha", ALPHAS)
def test_slopes_are_the_derivatives_of_phi(kernel, alpha):
    kernel = sl.kernels.as_kernel(kernel)
    t, a = one([0.01, 0.5, 1.0, 9.0], requires_grad=True), one(alpha, requires_grad=True)
    dt, da = kernel.slopes(t.detach(), a.detach(), kernel.phi(t, a).detach())
    torch.testing.assert_close(torch.autograd.grad(kernel.phi(t, a).sum(), t)[0], dt.expand_as(t))
    assert (da is not None) == kernel.has_alpha
    for i in range(len(t) if kernel.has_alpha else 0):
        torch.testing.assert_close(torch.autograd.grad(kernel.phi(t[i], a), a)[0], da[i])
    zero, a = torch.zeros(1), torch.tensor(alpha)
    at_zero = kernel.slopes(zero, a, kernel.phi(zero, a))
    assert all(x is None or x.isfinite().all() for x in at_zero)


@kernels
@backends
@pytest.mark.parametrize("alpha", [0.01, *ALPHAS, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite_where_query_and_key_are_equal(kernel, backend, alpha, dtype):
    x = rows([5]).to(dtype)
    for row in (x, torch.zeros_like(x), torch.ones_like(x)):
        q, k, v = (row.clone().requires_grad_() for _ in range(3))
        a = torch.tensor(alpha, dtype=dtype, requires_grad=True)
        sl.kernel_attention(q, k, v, kernel, a, backend=backend).square().sum().backward()
        for y in (q, k, v, a):
            assert y.grad is None or y.grad.isfinite().all()


@kernels
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=sizes)
def test_weights(kernel, sizes):
    q, k, v = inputs_of(sizes)
    o, beta = sl.kernel_attention(q, k, v, kernel, offsets=offsets_of(sizes), return_weights=True)
    torch.testing.assert_close(o, sl.kernel_attention(q, k, v, kernel, offsets=offsets_of(sizes)))
    assert [tuple(b.shape) for b in beta] == [(n, n) for n in sizes]
    for b, values, mixed in zip(beta, v.split(sizes), o.split(sizes), strict=True):
        assert (b >= 0).all()
        torch.testing.assert_close(b.sum(1), torch.ones(len(b), dtype=b.dtype))
        torch.testing.assert_close(b @ values, mixed)


@kernels
@backends
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=sizes)
def test_bag_alone_equals_bag_in_batch_and_order_does_not_matter(kernel, backend, sizes):
    q, k, v = inputs_of(sizes)
    together = sl.kernel_attention(q, k, v, kernel, offsets=offsets_of(sizes), backend=backend)
    alone = [sl.kernel_attention(*bag, kernel) for bag in zip(*(x.split(sizes) for x in (q, k, v)), strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))
    order = shuffled(sizes)
    moved = sl.kernel_attention(q[order], k[order], v[order], kernel, offsets=offsets_of(sizes), backend=backend)
    torch.testing.assert_close(moved, together[order])


@kernels
def test_a_bag_of_one_instance_gets_its_own_value(kernel):
    q, k, v = inputs_of([1])
    torch.testing.assert_close(sl.kernel_attention(q, k, v, kernel), v)


@pytest.mark.parametrize("kernel", ["rbf", "inverse_quadratic"])
@pytest.mark.parametrize("n", [2, 10, 100])
def test_bounded_scores_bound_the_weights(kernel, n):
    """κ in (0, 1] leaves no weight above e/(e + n − 1); it is reached with one key near and all others far."""
    q = torch.zeros(n, 1, dtype=torch.float64)
    k = torch.full_like(q, 1e6)
    k[0] = 0
    beta = sl.kernel_attention(q, k, q, kernel, return_weights=True)[1][0]
    assert beta.max().item() == pytest.approx(math.e / (math.e + n - 1), abs=1e-9)
    near = KERNELS[kernel](log_scores=True)
    assert sl.kernel_attention(q, k, q, near, return_weights=True)[1][0].max() > 0.99


@backends
@pytest.mark.parametrize("offset", [0.0, 1.0, 10.0, 100.0, 1000.0])
def test_distances_survive_features_far_from_the_origin(offset, backend):
    """The mean key is subtracted first; the plain expansion would lose every digit at 1000."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(20, 8, generator=generator) * 0.1 for _ in range(3))
    q, k = q + offset, k + offset
    expected = sl.kernel_attention(q.double(), k.double(), v.double(), RBF(), 10.0)
    o = sl.kernel_attention(q, k, v, RBF(), 10.0, backend=backend)
    torch.testing.assert_close(o.double(), expected, rtol=1e-5, atol=1e-6)
    if offset == 1000:
        assert (squared_distances(q, k) - torch.cdist(q.double(), k.double()).square()).abs().max() > 0.1


def test_distances_are_never_negative():
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) + 100
    assert (squared_distances(x, x) >= 0).all()


@kernels
def test_autocast_does_not_touch_the_scores(kernel):
    q, k, v = (x.detach().float() for x in inputs_of([9]))
    _, expected = sl.kernel_attention(q, k, v, kernel, return_weights=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o, beta = sl.kernel_attention(q, k, v, kernel, return_weights=True)
    assert torch.equal(beta[0], expected[0])
    torch.testing.assert_close(o.float(), sl.kernel_attention(q, k, v, kernel), rtol=0.02, atol=0.02)


@kernels
@backends
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_gives_half_precision_output(kernel, backend, dtype):
    inputs = [x.detach().to(dtype).requires_grad_() for x in inputs_of([4, 2])]
    wide = [x.detach().float().requires_grad_() for x in inputs]
    out, expected = (
        sl.kernel_attention(*x, kernel, offsets=offsets_of([4, 2]), backend=backend) for x in (inputs, wide)
    )
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.02)
    for x, y in ((out, inputs), (expected, wide)):
        x.sum().backward()
        assert all(z.grad.isfinite().all() for z in y)
    assert [x.grad.dtype for x in inputs] == [dtype] * 3
    for x, y in zip(inputs, wide, strict=True):
        torch.testing.assert_close(x.grad.float(), y.grad, rtol=0.1, atol=0.1)


def dense_and_blockwise(kernel, inputs: list[Tensor], offsets: Tensor | None = None) -> list[list[Tensor]]:
    """Output and gradients of both backends, those of α last, for kernels that have it."""
    results = []
    for backend in ("dense", "blockwise"):
        o = sl.kernel_attention(*inputs[:3], kernel, inputs[3], offsets, backend)
        wanted = [x for x in inputs if x.requires_grad]
        gradients = (
            torch.autograd.grad(o.pow(2).sum(), wanted, allow_unused=True) if o.requires_grad else [None] * len(wanted)
        )
        results.append([o, *(torch.zeros_like(x) if g is None else g for x, g in zip(wanted, gradients, strict=True))])
    return results


@kernels
@pytest.mark.parametrize("n", [1, 2, 17, 255, 256, 257, 1000, 1030])
def test_blocks_of_the_real_size(kernel, n, monkeypatch):
    monkeypatch.undo()
    for a, b in zip(*dense_and_blockwise(kernel, [*inputs_of([n]), one(1.2, requires_grad=True)]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("kernel", ["laplace", Module(norm="l1"), "rbf"], ids=str)
def test_compiled_distances_are_the_same(kernel):
    inputs = [*inputs_of([10]), one(1.2, requires_grad=True)]  # full tiles, which are compiled, and ragged ends
    wanted = inputs if sl.kernels.as_kernel(kernel).has_alpha else inputs[:3]
    results = []
    for backend in ("compiled", "blockwise"):
        o = sl.kernel_attention(*inputs[:3], kernel, inputs[3], backend=backend)
        results.append([o, *torch.autograd.grad(o.pow(2).sum(), wanted)])
    assert len(l1._compiled()) == 2
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_without_a_compiler_there_is_a_warning_and_the_same_result(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda function, **options: broken)
    monkeypatch.setattr(l1, "_compiled", l1._compiled.__wrapped__)
    q, k, v = inputs_of([10])
    with pytest.warns(UserWarning, match="not compiled, torch.cdist is slower: no working C"):
        o = sl.kernel_attention(q, k, v, "laplace", backend="compiled")
    assert torch.equal(o, sl.kernel_attention(q, k, v, "laplace", backend="blockwise"))


@kernels
@backends
def test_values_may_be_of_a_lower_precision(kernel, backend):
    q, k, v = inputs_of([9])
    o = sl.kernel_attention(q, k, v.half(), kernel, backend=backend)
    assert o.dtype == torch.float16
    torch.testing.assert_close(o.double(), sl.kernel_attention(q, k, v, kernel), rtol=2e-3, atol=2e-3)
    o.square().sum().backward()
    assert [x.grad.dtype for x in (q, k, v)] == [torch.float64] * 3


@kernels
def test_many_tiny_bags_and_a_large_one(kernel, monkeypatch):
    monkeypatch.undo()
    sizes = [1, 3, 2] * 10 + [600] + [5] * 7
    q, k, v = inputs_of(sizes)
    results = []
    for backend in ("dense", "blockwise", "auto"):
        o = sl.kernel_attention(q, k, v, kernel, offsets=offsets_of(sizes), backend=backend)
        results.append([o, *torch.autograd.grad(o.pow(2).sum(), (q, k, v))])
    for dense, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(dense, other, rtol=1e-9, atol=1e-10)


@kernels
@pytest.mark.parametrize("wanted", range(16))
def test_any_subset_of_inputs_may_want_a_gradient(kernel, wanted):
    inputs = [x.detach() for x in (*inputs_of([9]), one(1.2))]
    for i, x in enumerate(inputs):
        x.requires_grad_(bool(wanted >> i & 1))
    for a, b in zip(*dense_and_blockwise(kernel, inputs), strict=True):
        torch.testing.assert_close(a, b)


@kernels
def test_input_need_not_be_contiguous(kernel):
    inputs = inputs_of([9])
    columns = [x.detach().T.contiguous().T.requires_grad_() for x in inputs]
    assert not columns[0].is_contiguous()
    results = [dense_and_blockwise(kernel, [*x, one(1.2)])[1] for x in (inputs, columns)]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@kernels
@backends
@pytest.mark.parametrize(
    "x", [torch.zeros(9, 4), torch.ones(9, 4), 1e3 + torch.eye(9, 4), 100 * torch.eye(9, 4), -100 * torch.eye(9, 4)]
)
def test_extreme_input_is_finite_and_right(kernel, backend, x):
    """Scores up to ±1e4, identical instances, zeros, features far from the origin."""
    q, k, v = (y.clone().requires_grad_() for y in (x, -x, torch.eye(9, 4)))
    o = sl.kernel_attention(q, k, v, kernel, 1.5, backend=backend)
    expected = sl.kernel_attention(q.double(), k.double(), v.double(), kernel, 1.5, backend="dense")
    # ‖k‖^1.5 is about 1e5 far from the origin: float32 knows it, and so the weights, to some 0.005.
    tolerance = 2e-2 if kernel == "module" and x.mean() > 100 else 1e-4
    torch.testing.assert_close(o.double(), expected, rtol=tolerance, atol=tolerance)
    o.square().sum().backward()
    assert all(y.grad.isfinite().all() for y in (q, k, v))


@kernels
def test_works_under_activation_checkpointing(kernel):
    q, k, v = inputs_of([9])
    expected = torch.autograd.grad(sl.kernel_attention(q, k, v, kernel, backend="blockwise").pow(2).sum(), (q, k, v))
    o = checkpoint(sl.kernel_attention, q, k, v, kernel, backend="blockwise", use_reentrant=False)
    for a, b in zip(torch.autograd.grad(o.pow(2).sum(), (q, k, v)), expected, strict=True):
        torch.testing.assert_close(a, b)


own_too = pytest.mark.parametrize(
    "kernel", [*FORMS.values(), Cauchy(), Sharper()], ids=[*FORMS, "Cauchy()", "Sharper()"]
)


@own_too
@pytest.mark.parametrize("backend", ["blockwise", "auto"])
def test_second_derivatives(kernel, backend):
    inputs = [*inputs_of([6]), one(1.3, requires_grad=True)]
    assert torch.autograd.gradgradcheck(lambda *x: sl.kernel_attention(*x[:3], kernel, x[3], backend=backend), inputs)


@own_too
def test_second_derivatives_however_they_are_asked_for(kernel):
    q, k, v = (x.detach() for x in inputs_of([6]))

    def function(backend):
        return lambda x: sl.kernel_attention(x, k, v, kernel, 0.7, backend=backend).pow(2).sum()

    def penalty(f):
        x = q.clone().requires_grad_()
        (first,) = torch.autograd.grad(f(x), x, create_graph=True)
        return x, first.pow(2).sum()

    def by_backward(f):
        x, p = penalty(f)
        p.backward()
        return x.grad

    def by_grad(f):
        x, p = penalty(f)
        return torch.autograd.grad(p, x)[0]

    def by_func(f):
        return torch.func.grad(lambda x: torch.func.grad(f)(x).pow(2).sum())(q)

    def by_hessian(f):
        hessian = torch.autograd.functional.hessian(f, q)  # (n, d, n, d)
        first = torch.func.grad(f)(q)
        return 2 * torch.einsum("abcd,ab->cd", hessian, first)

    right = by_func(function("blockwise"))
    for way in (by_backward, by_grad, by_hessian):
        torch.testing.assert_close(way(function("blockwise")), right)
    if sl.kernels.as_kernel(kernel).statistic == "l1_distance" and torch.__version__ < (2, 15):
        with pytest.raises(RuntimeError, match=r"derivative for .*cdist_backward.* is not implemented"):
            by_grad(function("dense"))
    else:
        torch.testing.assert_close(by_grad(function("dense")), right)


def test_a_second_derivative_that_does_not_fit_is_an_error(monkeypatch):
    monkeypatch.setattr(autograd, "DENSE", 30)
    q, k, v = inputs_of([6])
    o = sl.kernel_attention(q, k, v, "rbf", backend="blockwise")
    (first,) = torch.autograd.grad(o.pow(2).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"second derivatives keep all scores, here 36 numbers .* at most 30"):
        torch.autograd.grad(first.sum(), q)


@own_too
@pytest.mark.parametrize("n", [4, 9])  # dense and in blocks
def test_gradients_inside_vmap(kernel, n):
    q, k, v = (x.detach() for x in inputs_of([n]))
    many = torch.stack([q, 2 * q, q - 1])
    alphas = one([0.5, 1.0, 2.0])

    def loss(q, k, alpha):
        return sl.kernel_attention(q, k, v, kernel, alpha).pow(2).sum()

    together = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)), in_dims=(0, None, 0))(many, k, alphas)
    for i in range(3):
        alone = torch.func.grad(loss, argnums=(0, 1, 2))(many[i], k, alphas[i])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b)
    second = torch.vmap(torch.func.grad(lambda x: torch.func.grad(loss)(x, k, alphas[0]).sum()))
    if n == 9:
        alone = torch.func.grad(lambda x: torch.func.grad(loss)(x, k, alphas[0]).sum())(many[1])
        torch.testing.assert_close(second(many)[1], alone)


class Learned(Cauchy):
    """A kernel with a parameter besides α, of which only the dense form can have a gradient."""

    def __init__(self, where: str) -> None:
        self.scale, self.where = torch.ones((), dtype=torch.float64, requires_grad=True), where

    def phi(self, t, alpha):
        return -torch.log1p(t) * (self.scale if self.where == "phi" else 1)

    def key_term(self, k, alpha):
        return k.square().sum(-1) * self.scale if self.where == "key_term" else None


@pytest.mark.parametrize("where", ["phi", "key_term"])
def test_a_kernel_with_parameters_of_its_own_is_dense_or_an_error(where):
    q, k, v = inputs_of([6])
    kernel = Learned(where)
    sl.kernel_attention(q, k, v, kernel, backend="dense").pow(2).sum().backward()
    assert kernel.scale.grad.abs() > 1e-6
    for backend in ("blockwise", "auto"):
        with pytest.raises(ValueError, match="has parameters besides alpha"):
            sl.kernel_attention(q, k, v, kernel, backend=backend)
    with torch.no_grad():
        sl.kernel_attention(q, k, v, kernel, backend="blockwise")


SPREADS = {
    "two groups": lambda n, far: far * torch.cat([torch.ones(n // 2, 1), -torch.ones(n - n // 2, 1)]),
    "three groups": lambda n, far: far * (torch.arange(n)[:, None] % 3).float(),
    "one far key": lambda n, far: far * n * torch.eye(n)[:, :1],
    "one far key of many": lambda n, far: far * torch.eye(n)[:, :1],
}


@pytest.mark.filterwarnings("ignore:instances lie so far apart:UserWarning")  # 40,000 is that, for the module kernel
@pytest.mark.parametrize("kernel", [k for k in FORMS.values() if k.statistic == "squared_distance"], ids=repr)
@pytest.mark.parametrize("backend", ["dense", "blockwise"])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("far", [3.0, 100.0, 1000.0])
def test_distances_of_far_groups_are_as_exact_as_plain_differences(kernel, backend, spread, far, monkeypatch):
    monkeypatch.undo()
    generator = torch.Generator().manual_seed(0)
    side = SPREADS[spread](40, far)
    q, k = (0.3 * torch.randn(40, 8, generator=generator) + side for _ in range(2))
    v = torch.randn(40, 6, generator=generator)

    def results(compute, dtype):
        inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        o = compute(*inputs)
        return [x.double() for x in (o, *torch.autograd.grad(o.pow(2).sum(), inputs))]

    def plain(q, k, v):
        t = (q[:, None] - k[None]).square().sum(-1)  # (n, n)
        b = kernel.key_term(k, torch.ones((), dtype=k.dtype))
        s = kernel.phi(t, torch.ones((), dtype=k.dtype))
        return (s if b is None else s + b).softmax(-1) @ v

    true, theirs = (results(plain, dtype) for dtype in (torch.float64, torch.float32))
    ours = results(lambda *x: sl.kernel_attention(*x, kernel, 1.0, backend=backend), torch.float32)
    for name, a, b, c in zip("oqkv", ours, theirs, true, strict=True):
        scale = max(1.0, float(c.abs().max())) if name != "o" else 1.0
        # ‖k‖^α of the module kernel is itself rounded by as much as it is large, theirs like ours.
        room = 3 if isinstance(kernel, Module) else 1
        assert (a - c).abs().max() <= room * (b - c).abs().max() + 1e-5 * scale, name


@pytest.mark.parametrize(("kernel", "d_v"), [("dot", 3), ("dot", 1), (RBF(log_scores=True), 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dot_products_by_pytorchs_fused_attention(kernel, d_v, dtype, monkeypatch):
    """Forward, where values are no wider than queries, with one more column for squared distances."""
    calls = []
    taken = groups.FUSED.forward
    fused = groups.Engine(lambda *x: (calls.append(1), taken(*x))[1], groups.FUSED.backward)
    monkeypatch.setattr(groups, "FUSED", fused)
    inputs = [x.detach().to(dtype).requires_grad_() for x in (*inputs_of([9, 2], d_v=d_v), one(1.2))]
    wanted = inputs[: 4 if isinstance(kernel, RBF) else 3]
    results = []
    for backend in ("auto", "dense"):
        o = sl.kernel_attention(*inputs[:3], kernel, inputs[3], offsets_of([9, 2]), backend)
        results.append([o, *torch.autograd.grad(o.pow(2).sum(), wanted)])
    for ours, dense in zip(*results, strict=True):
        torch.testing.assert_close(ours, dense)
    assert len(calls) == 1
    wider = [inputs[0], inputs[1], torch.cat([inputs[2]] * 4, 1)]
    for others in (("rbf", inputs[:3]), (Sharper(log_scores=True), inputs[:3]), (kernel, wider)):
        sl.kernel_attention(*others[1], others[0], offsets=offsets_of([9, 2]))
    assert len(calls) == 1


@pytest.mark.parametrize("kernel", [RBF(), InverseQuadratic()], ids=str)
def test_ordinary_bags_stay_in_float32(kernel):
    x = 0.3 * torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    for q, k, dtype in ((x, x, torch.float32), (100 * x, x, torch.float64), (x, 100 * x, torch.float64)):
        assert [y.dtype for y in centred(q, k, torch.zeros(1, 64), kernel, torch.tensor(1.0))[:2]] == [dtype] * 2


def test_features_that_no_float_can_square_are_a_warning():
    x = torch.tensor([[0.0], [1.0], [1e8]])
    with pytest.warns(UserWarning, match="so far apart that distances lose digits"):
        sl.kernel_attention(x, x, x, "rbf")


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([10, 12, 9, 11], [[0, 1, 2, 3]]),  # many small bags: one product
        ([10, 2000, 9], [[1], [0, 2]]),  # a long bag alone
        ([300, 5, 4, 290, 6], [[0, 3], [1, 2, 4]]),  # a skewed batch in two groups
        ([512], [[0]]),
    ],
)
def test_plan(sizes, groups, monkeypatch):
    monkeypatch.undo()
    assert plan(sizes) == groups


@given(sizes=st.lists(st.integers(1, 900), min_size=1, max_size=40))
def test_plan_takes_every_bag_once(sizes):
    assert sorted(b for group in plan(sizes) for b in group) == list(range(len(sizes)))


@kernels
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=sizes)
def test_rows_and_column_means_of_beta(kernel, sizes):
    q, k, v = (x.detach() for x in inputs_of(sizes))
    offsets = offsets_of(sizes)
    _, beta = sl.kernel_attention(q, k, v, kernel, 1.2, offsets, return_weights=True)
    rows = [row for b in beta for row in b]
    indices = torch.arange(len(q)).flip(0)
    for index, row in zip(indices.tolist(), sl.attention_rows(q, k, indices, kernel, 1.2, offsets), strict=True):
        torch.testing.assert_close(row, rows[index])
    received = sl.attention_received(q, k, kernel, 1.2, offsets)
    torch.testing.assert_close(received, torch.cat([b.mean(0) for b in beta]))


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sl.kernel_attention(X, X, X, "gauss"), "kernel: unknown kernel 'gauss'; did you mean"),
        (lambda: sl.kernel_attention(X, X, X, "inverse_quadric"), "did you mean inverse_quadratic"),
        (
            lambda: sl.kernel_attention(X, X, X, backend="fast"),
            "backend: expected one of auto, dense, blockwise, compiled, triton, got 'fast'",
        ),
        (lambda: sl.kernel_attention(X, X[:2], X), "k: expected 3 rows, as q has, got 2"),
        (lambda: sl.kernel_attention(X, X[:, :1], X), "k: expected the width of q, 2, got 1"),
        (
            lambda: sl.kernel_attention(X, X, X[0]),
            r"v: expected floating-point rows \(N, d\), got torch.float32 of shape",
        ),
        (lambda: sl.kernel_attention(X, X.double(), X), "k: expected torch.float32, as q, got torch.float64"),
        (lambda: sl.kernel_attention(X, X, X, "rbf", -1.0), "alpha: expected a number above 0, got -1"),
        (lambda: sl.kernel_attention(X, X, X, "rbf", float("nan")), "alpha: expected a number above 0, got nan"),
        (lambda: sl.kernel_attention(X, X, X, "rbf", X), r"alpha: expected one number, got shape \(3, 2\)"),
        (lambda: sl.kernel_attention(X, X, X, offsets=torch.tensor([0, 2])), "offsets: expected first 0 and last 3"),
        (lambda: sl.attention_rows(X, X, torch.tensor([3])), "indices: expected a vector of integers from 0 to 2"),
        (lambda: sl.attention_received(X, X[:2]), "k: expected 3 rows"),
        (lambda: Module(norm="l2"), "norm: expected one of euclidean, l1, got 'l2'"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_kernels_name_themselves():
    assert repr(Module(norm="l1")) == "Module(norm='l1')"
    assert repr(RBF()) == "RBF(log_scores=False)"
    assert set(KERNELS) == {"dot", "rbf", "inverse_quadratic", "laplace", "module"}
