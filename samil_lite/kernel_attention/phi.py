"""φ of every kernel and its slopes for Triton's compiler; `samil_lite.kernels` explains them, tests compare the two.

A pair of functions, `phi(t, alpha)` and `slopes(t, value, alpha)`, is what a kernel's `jitted` returns.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl


@triton.jit
def dot(t, alpha):
    return t


@triton.jit
def dot_slopes(t, value, alpha):
    return 0 * t + 1.0, 0 * t


@triton.jit
def rbf(t, alpha):
    return tl.exp(-alpha * t)


@triton.jit
def rbf_slopes(t, value, alpha):
    return -alpha * value, -t * value


@triton.jit
def log_rbf(t, alpha):
    return -alpha * t


@triton.jit
def log_rbf_slopes(t, value, alpha):
    return 0 * t - alpha, -t


@triton.jit
def inverse_quadratic(t, alpha):
    return 1 / (alpha * t + 1)


@triton.jit
def inverse_quadratic_slopes(t, value, alpha):
    return -alpha * value * value, -t * value * value


@triton.jit
def log_inverse_quadratic(t, alpha):
    return -tl.log(alpha * t + 1)


@triton.jit
def log_inverse_quadratic_slopes(t, value, alpha):
    return -alpha / (alpha * t + 1), -t / (alpha * t + 1)


@triton.jit
def laplace(t, alpha):
    return -t


@triton.jit
def laplace_slopes(t, value, alpha):
    return 0 * t - 1.0, 0 * t


@triton.jit
def module(t, alpha):  # of squared distances
    return tl.where(t > 0, tl.exp(0.5 * alpha * tl.log(tl.where(t > 0, t, 1.0))), 0.0)


@triton.jit
def module_slopes(t, value, alpha):
    base = tl.where(t > 0, t, 1.0)
    return 0.5 * alpha * value / base, 0.5 * value * tl.log(base)


@triton.jit
def l1_module(t, alpha):
    return tl.where(t > 0, tl.exp(alpha * tl.log(tl.where(t > 0, t, 1.0))), 0.0)


@triton.jit
def l1_module_slopes(t, value, alpha):
    base = tl.where(t > 0, t, 1.0)
    return alpha * value / base, value * tl.log(base)
