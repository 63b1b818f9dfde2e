"""The Triton kernels against the dense form: by Triton's interpreter on any machine, natively where there is CUDA."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from own_kernels import Cauchy, Sharper

import samil_lite as sl
from samil_lite.kernels import FORMS

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed (it is for Linux only)")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
native = pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="needs CUDA or the interpreter")

if find_spec("triton") is not None:
    import triton
    import triton.language as tl

    @triton.jit
    def cauchy(t, alpha):
        return -tl.log(1 + t)

    @triton.jit
    def cauchy_slopes(t, value, alpha):
        return -1 / (1 + t), 0 * t

    @triton.jit
    def element_by_element(t_at, alpha, values, of_t, of_alpha, PHI: tl.constexpr, SLOPES: tl.constexpr):
        t = tl.load(t_at + tl.arange(0, 16))
        value = PHI(t, alpha)
        slope_t, slope_alpha = SLOPES(t, value, alpha)
        tl.store(values + tl.arange(0, 16), value)
        tl.store(of_t + tl.arange(0, 16), slope_t)
        tl.store(of_alpha + tl.arange(0, 16), slope_alpha)


class JittedCauchy(Cauchy):
    """Offers its φ to Triton."""

    def jitted(self):
        return cauchy, cauchy_slopes


class Wider(JittedCauchy):
    """A subclass with another φ, which offers nothing: what it inherits would be the Cauchy kernel."""

    def phi(self, t, alpha):
        return -torch.log1p(0.1 * t)

    def slopes(self, t, alpha, value):
        return -0.1 / (1 + 0.1 * t), None


OWN = {"Cauchy": JittedCauchy(), "Wider": Wider(), "Sharper": Sharper()}


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="runs the others, unless they run as they are")
def test_by_the_interpreter():
    """Triton decides at its import whether to interpret, so the tests below run in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(Path(__file__))]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="there it can be launched")
def test_without_a_gpu_it_says_so():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match='backend: "triton" needs a GPU'):
        sl.kernel_attention(x, x, x, backend="triton")


def inputs_of(n: int, d: int, d_v: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        (0.5 * torch.randn(n, width, generator=generator)).to(DEVICE, dtype).requires_grad_() for width in (d, d, d_v)
    ]


def compare(kernel, inputs, offsets=None, tolerance: float = 1e-4) -> list[torch.Tensor]:
    """Output and gradients of the programs, which must be those of the dense form in float64."""
    alpha = torch.tensor(1.3, device=DEVICE, requires_grad=True)
    results = []
    for backend, dtype in (("triton", torch.float32), ("dense", torch.float64)):
        o = sl.kernel_attention(*(x.to(dtype) for x in inputs), kernel, alpha.to(dtype), offsets, backend)
        gradients = torch.autograd.grad(o.pow(2).sum(), [*inputs, alpha], allow_unused=True)
        results.append([o.double(), *(torch.zeros((), device=DEVICE) if g is None else g for g in gradients)])
    atol = 2e-5
    if not INTERPRETED:  # a card's products keep 21 bits, and gradients are differences of numbers up to Σ |do| |v|
        largest = (2 * results[1][0].abs() @ inputs[2].detach().double().abs().T).max().item()
        atol = max(atol, 2**-20 * largest)
    for ours, dense in zip(*results, strict=True):
        torch.testing.assert_close(ours, dense, rtol=tolerance, atol=atol)
    return results[0]


@native
@pytest.mark.parametrize("name", [*FORMS, *OWN])
def test_values_and_gradients_are_those_of_the_dense_form(name):
    """Ragged, of odd sizes and widths: bags of less than a block, of one instance, of several blocks."""
    kernel = {**FORMS, **OWN}[name]
    offsets = torch.tensor([0, 1, 4, 71], device=DEVICE)
    *_, of_alpha = compare(kernel, inputs_of(71, 5, 70), offsets)
    if kernel.has_alpha:
        assert of_alpha.abs() > 1e-4


@native
@pytest.mark.parametrize("kernel", ["rbf", "laplace"])
@pytest.mark.parametrize(("n", "d", "d_v"), [(1, 3, 4), (33, 20, 530), (20, 70, 3)])
def test_other_widths(kernel, n, d, d_v):
    compare(kernel, inputs_of(n, d, d_v))


@native
@pytest.mark.parametrize("kernel", ["module", "dot", "laplace"])
def test_stripes_and_parts(kernel, monkeypatch):
    """The backward pass takes a stripe of two blocks at a time, and each stripe its keys in parts."""
    fused = __import__("samil_lite.kernel_attention.triton", fromlist=["triton"])
    monkeypatch.setattr(fused, "STRIPE", 2 * 32 * 110)
    monkeypatch.setattr(fused, "PROGRAMS", 6)
    compare(kernel, inputs_of(110, 4, 6), torch.tensor([0, 20, 105, 110], device=DEVICE))


@native
@pytest.mark.parametrize(
    "name", ["RBF(log_scores=False)", "RBF(log_scores=True)", "InverseQuadratic(log_scores=False)"]
)
def test_groups_far_apart_are_as_exact_as_plain_differences(name):
    """One bag of two groups and one with a far key, beside an ordinary one."""
    q, k, v = inputs_of(60, 6, 5)
    shift = torch.zeros(60, 1, device=DEVICE)
    shift[:20:2], shift[1:20:2], shift[33] = 100.0, -100.0, 1000.0
    far = [(x + shift).detach().requires_grad_() for x in (q, k)]
    compare(FORMS[name], [*far, v], torch.tensor([0, 20, 40, 60], device=DEVICE))


@native
@pytest.mark.parametrize("name", [*FORMS, "Cauchy"])
def test_phi_and_slopes_are_those_of_torch(name):
    kernel = {**FORMS, **OWN}[name]
    t = torch.tensor([0.0, 1e-4, 0.01, 0.3, 1.0, 2.0, 5.0, 9.0], device=DEVICE).repeat(2)
    phi, slopes = kernel.jitted()
    if kernel.statistic == "dot":
        t[8:] *= -1
    for alpha in (0.3, 1.0, 2.0, 2.7):
        results = [torch.empty_like(t) for _ in range(3)]
        element_by_element[(1,)](t, alpha, *results, PHI=phi, SLOPES=slopes)
        a = torch.tensor(alpha, device=DEVICE)
        value = kernel.phi(t, a)
        expected = [value, *(torch.zeros(()) if x is None else x for x in kernel.slopes(t, a, value))]
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours, theirs.to(t).expand_as(t), rtol=1e-5, atol=1e-6)


@native
@pytest.mark.parametrize("kernel", ["dot", "module", "laplace"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kernel, dtype):
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("the interpreter takes the bits of bfloat16 for integers in a product")
    inputs = inputs_of(40, 8, 20, dtype)
    wide = [x.detach().float().requires_grad_() for x in inputs]
    o, expected = (
        sl.kernel_attention(*x, kernel, 1.3, backend=backend) for x, backend in ((inputs, "triton"), (wide, "dense"))
    )
    assert o.dtype == dtype
    torch.testing.assert_close(o.float(), expected, rtol=0.02, atol=0.02)
    for y in (o, expected):
        y.sum().backward()
    for x, y in zip(inputs, wide, strict=True):
        assert x.grad.dtype == dtype
        torch.testing.assert_close(x.grad.float(), y.grad, rtol=0.05, atol=0.05)


@native
@pytest.mark.parametrize("kernel", ["module", "laplace"])
def test_repetition(kernel):
    q, k, v = inputs_of(50, 4, 6)
    offsets = torch.tensor([0, 3, 45, 50], device=q.device)
    runs = [sl.kernel_attention(q, k, v, kernel, offsets=offsets, backend="triton") for _ in range(2)]
    gradients = [torch.autograd.grad(o.pow(2).sum(), (q, k, v)) for o in runs]
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)  # summed in a fixed order


@native
def test_a_launch_that_fails_is_a_warning_and_blockwise(monkeypatch):
    fused = __import__("samil_lite.kernel_attention.triton", fromlist=["triton"])

    def broken(*args):
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(fused, "launches", broken)
    monkeypatch.setattr(fused, "failed", set())
    inputs = inputs_of(40, 3, 4)
    with pytest.warns(UserWarning, match="cannot be launched here, blockwise is slower: out of resource"):
        compare("rbf", inputs)
    compare("rbf", inputs)  # the second time nobody tries


@native
def test_second_derivatives():
    q, k, v = inputs_of(6, 3, 4)
    results = []
    for backend in ("triton", "dense"):
        o = sl.kernel_attention(q, k, v, "rbf", backend=backend)
        (first,) = torch.autograd.grad(o.pow(2).sum(), q, create_graph=True)
        results.append(torch.autograd.grad(first.pow(2).sum(), q)[0])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)
    assert results[0].abs().max() > 1e-4
