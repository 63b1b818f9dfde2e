"""Student's interval as an answer: assignments 3 and 4 ask for it."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from course.answers import Wrong, describe


def numbers(value: Any, n: int) -> Tensor:
    """A row of n numbers, in any form."""
    try:
        x = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"expected {n} numbers, came {describe(value)}") from None
    if x.shape != (n,):
        raise Wrong(f"expected {n} numbers, came the shape {tuple(x.shape)}")
    return x


def student(x: Sequence[float], level: float) -> Tensor:
    """Mean and ends of the interval, (3,)."""
    low, high = stats.t.interval(level, len(x) - 1, fmean(x), stats.sem(x))
    return torch.tensor([fmean(x), float(low), float(high)], dtype=torch.float64)


def problem(x: Sequence[float], level: float, got: Tensor, tolerance: float = 1e-6) -> str:
    """What is wrong with the mean and ends that an answer gives for the numbers x; empty if nothing is."""
    n, want = len(x), student(x, level)
    if torch.allclose(got, want, rtol=1e-4, atol=tolerance):
        return ""
    if not torch.isclose(got[0], want[0], rtol=1e-4, atol=tolerance):
        return "the first number is not the mean"
    ratio = float((got[2] - got[0]) / (want[2] - want[0]))
    right = stats.t.ppf((1 + level) / 2, n - 1)
    known = {
        stats.norm.ppf((1 + level) / 2) / right: "the quantile is the normal one, not Student's",
        n**0.5: "the standard deviation is not divided by √n",
        ((n - 1) / n) ** 0.5: "the standard deviation divides by n, not by n − 1",
        2.0: "the half width is doubled",
        stats.t.ppf(level, n - 1) / right: "the quantile is that of a one-sided interval",
        stats.t.ppf((1 + level) / 2, max(n - 2, 1)) / right: "there are n − 1 degrees of freedom",
        -1.0: "the ends have changed places",
    }
    near = [text for value, text in known.items() if abs(ratio - value) < 1e-3]
    return "the ends are wrong" + (f": {near[0]}" if near else "")
