"""The Triton kernels against the dense form: by Triton's interpreter on any machine, natively where there is CUDA."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import samil_lite as sl
from samil_lite.kernels import KERNELS, RBF, InverseQuadratic, Module

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed (it is for Linux only)")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
VARIANTS = [*KERNELS, RBF(log_scores=True), InverseQuadratic(log_scores=True), Module(norm="l1")]


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="runs the others, unless they run as they are")
def test_by_the_interpreter():
    """Triton decides at its import whether to interpret, so the tests below run in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(Path(__file__))]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


native = pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="needs CUDA or the interpreter")


def inputs_of(n: int, d: int, d_v: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [
        (0.5 * torch.randn(n, width, generator=generator)).to(device, dtype).requires_grad_() for width in (d, d, d_v)
    ]


@native
@pytest.mark.parametrize("kernel", VARIANTS, ids=str)
@pytest.mark.parametrize(("n", "d", "d_v"), [(1, 3, 4), (2, 16, 8), (70, 5, 130)])
def test_values_and_gradients_are_those_of_the_dense_form(kernel, n, d, d_v):
    inputs = inputs_of(n, d, d_v)
    alpha = torch.tensor(1.3, device=inputs[0].device, requires_grad=True)
    results = []
    for backend, dtype in (("triton", torch.float32), ("dense", torch.float64)):
        o = sl.kernel_attention(*(x.to(dtype) for x in inputs), kernel, alpha.to(dtype), backend=backend)
        gradients = torch.autograd.grad(o.pow(2).sum(), [*inputs, alpha], allow_unused=True)
        results.append([o.double(), *(torch.zeros(()) if g is None else g for g in gradients)])
    for ours, dense in zip(*results, strict=True):
        torch.testing.assert_close(ours, dense, rtol=2e-4, atol=2e-5)
    if sl.kernels.as_kernel(kernel).has_alpha and n > 1:
        assert results[0][-1].abs() > 1e-4


@native
@pytest.mark.parametrize("kernel", KERNELS)
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
@pytest.mark.parametrize("kernel", KERNELS)
def test_bags_and_repetition(kernel):
    q, k, v = inputs_of(50, 4, 6)
    offsets = torch.tensor([0, 3, 45, 50], device=q.device)
    runs = [sl.kernel_attention(q, k, v, kernel, offsets=offsets, backend="triton") for _ in range(2)]
    torch.testing.assert_close(runs[0], sl.kernel_attention(q, k, v, kernel, offsets=offsets, backend="dense"))
    gradients = [torch.autograd.grad(o.pow(2).sum(), (q, k, v)) for o in runs]
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)  # summed in a fixed order
