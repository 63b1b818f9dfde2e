"""The tasks of assignment 3 that put the student's kernel to work: in the package's layer, and in a measurement."""

import torch
from scipy import stats
from torch import Tensor

import samil_lite as sl
from course.answers import Answer, Mistake, Part, Task, Wrong
from course.hidden import intervals

LAYER = '''
def drive(h, offsets, W_q, W_k, W_v, gamma, raw_alpha):
    """What the layer with the student's kernel makes of a batch; bags of any size are computed by the slopes."""
    import samil_lite as sl
    kernel = own_kernel()
    layer = sl.KernelSelfAttention(h.shape[1], kernel, len(W_q), backend="blockwise").to(h.dtype)
    for method in ("phi", "slopes"):
        if getattr(type(kernel), method) is getattr(sl.kernels.Kernel, method):
            raise TypeError(f"the kernel has no method {method} of its own")
    if layer.raw_alpha is None:
        raise TypeError("has_alpha should be True: the layer learns alpha")
    weights = {"W_q.weight": W_q, "W_k.weight": W_k, "W_v.weight": W_v, "gamma": gamma, "raw_alpha": raw_alpha}
    return torch.func.functional_call(layer, weights, (h, offsets))
'''
OTHERS = tuple(sl.kernels.KERNELS)


def in_the_layer(right: str, statistic: str) -> Task:
    """The kernel as a class for `KernelSelfAttention`, on the assignment's statistic."""

    def inputs(f: Answer, number: int, sizes: list[int], dtype: torch.dtype) -> list[Tensor]:
        h, W_q, W_k, W_v = f.random(number, (sum(sizes), 4), (3, 4), (3, 4), (4, 4), dtype=dtype)
        return [h, torch.tensor([0, *sizes]).cumsum(0), W_q, W_k, W_v, *torch.tensor([0.7, 0.4], dtype=dtype)]

    def expected(f: Answer, args: list[Tensor], statistic: str, alpha: Tensor | None = None) -> Tensor:
        h, offsets, W_q, W_k, W_v, gamma, raw_alpha = (x.double() if x.is_floating_point() else x for x in args)
        alpha, mixed = torch.nn.functional.softplus(raw_alpha) if alpha is None else alpha, []
        for x in h.split(offsets.diff().tolist()):
            t = sl.kernels.STATISTICS[statistic](x @ W_q.T, x @ W_k.T)
            phi = f.value(t, alpha, function="phi")
            if not isinstance(phi, Tensor) or phi.shape != t.shape:
                raise Wrong("phi does not give a score for each pair")
            mixed.append(x + gamma * phi.double().softmax(1) @ x @ W_v.T)
        return torch.cat(mixed)

    def values(f: Answer) -> None:
        for number, (sizes, dtype) in enumerate([([4, 1, 3], torch.float64), ([5, 2], torch.float32)]):
            args = inputs(f, number, sizes, dtype)
            got, what = f.value(*args), f"bags of {sizes}, {dtype}: the layer does not give h + γ β v with your phi"
            if not isinstance(got, Tensor) or got.dtype != dtype:
                raise Wrong(f"{what}, in the type of h")
            if torch.allclose(got.double(), expected(f, args, statistic), rtol=1e-3, atol=1e-4):
                continue
            one = torch.ones((), dtype=torch.float64)
            if torch.allclose(got.double(), expected(f, args, statistic, one), rtol=1e-3, atol=1e-4):
                raise Wrong(f"{what}; it is the one for alpha = 1, whatever alpha the layer has")
            others = [s for s in sl.kernels.STATISTICS if s != statistic]
            same = [s for s in others if torch.allclose(got.double(), expected(f, args, s), rtol=1e-3, atol=1e-4)]
            raise Wrong(what + (f"; its t is another one, {same[0]}" if same else ""))

    def slopes(f: Answer) -> None:
        args, step = inputs(f, 5, [4, 1, 3], torch.float64), 1e-5
        grads = f.reply(*args, grad=True).get("grads")
        if grads is None:
            raise Wrong("no gradient reaches the layer")
        places = [i for i, x in enumerate(args) if x.is_floating_point()]  # of the arguments with a gradient
        for names, chosen in (("the vectors", places[:4]), ("alpha", places[5:])):
            way = {i: torch.where(grads[places.index(i)] < 0, -1.0, 1.0) for i in chosen}
            moved = [[x + s * way[i] if i in way else x for i, x in enumerate(args)] for s in (step, -step)]
            high, low = (f.value(*each).double().square().sum() for each in moved)
            slope = sum(grads[places.index(i)].abs().sum() for i in chosen)
            if not torch.isclose(slope, (high - low) / (2 * step), rtol=1e-3, atol=1e-5):
                raise Wrong(f"the gradient in {names} is not what small steps give: look at your slopes")

    def at_zero(f: Answer) -> None:
        args = inputs(f, 6, [3, 2], torch.float64)
        args[3] = args[2]  # each query is its own key
        values(f)
        if not all(g.isfinite().all() for g in f.reply(*args, grad=True).get("grads") or [torch.tensor(torch.nan)]):
            raise Wrong(
                "the gradient is not finite where a query meets its own key, t = 0: slopes needs its limit there"
            )

    whole = (
        "class Sixth(sl.kernels.Kernel):\n    has_alpha = True\n    def __init__(self, statistic):\n"
        "        self.statistic = statistic\n    def phi(self, t, alpha):\n        return phi(t, alpha)\n"
        "    def slopes(self, t, alpha, value):\n        return slopes(t, alpha)\n\n"
        f"def own_kernel():\n    return Sixth({statistic!r})"
    )
    by_autograd = (
        "        def slopes(self, t, alpha, value):\n            with torch.enable_grad():\n"
        "                t, alpha = t.detach().clamp_min(1e-12).requires_grad_(), (alpha + 0 * t).detach().requires_grad_()\n"
        "                return torch.autograd.grad(phi(t, alpha).sum(), (t, alpha))\n"
    )
    method = "        def slopes(self, t, alpha, value):\n            return slopes(t, alpha)\n"
    styles = (whole, right.replace(method, by_autograd))
    other = "l1_distance" if statistic == "squared_distance" else "squared_distance"
    mistakes = (
        Mistake(f'"{statistic}"', f'"{other}"', "its t is another one"),
        Mistake("return phi(t, alpha)", "return phi(t, torch.ones_like(alpha))", "whatever alpha the layer has"),
        Mistake("return slopes(t, alpha)", "return slopes(t, alpha)[::-1]", "the gradient in the vectors is not"),
        Mistake("return slopes(t, alpha)", "return slopes(t, alpha)[0], 0 * t", "the gradient in alpha is not"),
        Mistake(method, "", "no method slopes"),
        Mistake(f'has_alpha = "{statistic}", True', f'has_alpha = "{statistic}", False', "has_alpha should be"),
        Mistake("return Own()", "return Own", "not an object of it"),
        Mistake("return Own()", "Own()", "got None"),
        Mistake(
            "return slopes(t, alpha)", "return tuple(s + 0 * t.log() for s in slopes(t, alpha))", "not finite where a query"
        ),
    )  # fmt: skip
    parts = (
        Part(1, "values in the layer, in both precisions", values),
        Part(1, "gradients in the layer, at t = 0 too", lambda f: (slopes(f), at_zero(f))[0]),  # type: ignore[func-returns-value]
    )
    return Task("in the layer", "own_kernel", parts, right, styles, mistakes, LAYER)


def measured(right: str) -> Task:
    """Five paired runs against the kernels of the package, with the intervals that follow from them."""

    def read(f: Answer) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
        aucs, claimed = f.results(2, "the AUCs and the intervals")
        if not isinstance(aucs, dict) or set(aucs) != {"own", *OTHERS}:
            raise Wrong(f"expected AUCs for own, {', '.join(OTHERS)}")
        for name, x in aucs.items():
            if not isinstance(x, (list, tuple)) or len(x) != 5 or not all(type(a) is float and 0 <= a <= 1 for a in x):
                raise Wrong(f"{name}: expected five AUCs between 0 and 1, those of seeds 0 to 4")
            if len(set(x)) < 2:
                raise Wrong(f"{name}: five runs do not give the same AUC: is it one run five times?")
        if not isinstance(claimed, dict) or set(claimed) != set(OTHERS):
            raise Wrong(f"expected intervals for {', '.join(OTHERS)}")
        return aucs, {name: intervals.numbers(value, 3) for name, value in claimed.items()}

    def right_intervals(f: Answer) -> None:
        aucs, claimed = read(f)
        for name, got in claimed.items():
            pairs = [a - b for a, b in zip(aucs["own"], aucs[name], strict=True)]
            if problem := intervals.problem(pairs, 0.95, got, 1e-3):
                raise Wrong(f"own minus {name}: {known(aucs['own'], aucs[name], got) or problem}")

    def known(a: list[float], b: list[float], got: Tensor) -> str:
        if not intervals.problem([y - x for x, y in zip(a, b, strict=True)], 0.95, got, 1e-4):
            return "the sign is wrong: your kernel minus the other"
        apart = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
        pooled = stats.ttest_ind(a, b).confidence_interval(0.95)
        ends = [torch.tensor([float(c.low), float(c.high)], dtype=torch.float64) for c in (apart, pooled)]
        if any(torch.allclose(got[1:], e, atol=1e-4) for e in ends):
            return "the interval is unpaired: seeds that make all kernels better or worse count as noise"
        return ""

    half = "stats.t.ppf(0.975, 4) * error"
    styles = (
        right.replace("half = " + half, "half = 2.7764451 * torch.tensor(d).double().std().item() / 5**0.5"),
        right.replace("return aucs, intervals", "return aucs, {n: torch.tensor(x) for n, x in intervals.items()}"),
    )
    mistakes = (
        Mistake("x - y for", "y - x for", "the sign is wrong"),
        Mistake(half, "1.96 * error", "the quantile is the normal one"),
        Mistake("/ 4 / 5)", "/ 4)", "is not divided by √n"),
        Mistake("/ 4 / 5)", "/ 5 / 5)", "divides by n, not by n − 1"),
        Mistake(half, "2 * " + half, "the half width is doubled"),
        Mistake('"own": [', '"own": 5 * [0.9], "mine": [', "expected AUCs for own"),
        Mistake("return aucs,", "return {n: 5 * x[:1] for n, x in aucs.items()},", "is it one run five times"),
        Mistake("return aucs,", "return {n: x[:3] for n, x in aucs.items()},", "expected five AUCs"),
        Mistake("return aucs, intervals", "return intervals", "expected 2 results"),
        Mistake("mean - half, mean + half)", "mean + half)", "expected 3 numbers"),
        Mistake(
            "half = " + half,
            'c = stats.ttest_ind(aucs["own"], aucs[name], equal_var=False).confidence_interval()\n'
            "        half = (c.high - c.low) / 2",
            "the interval is unpaired",
        ),
    )
    parts = (
        Part(1, "five seeds for each of six kernels", lambda f: (read(f), None)[1]),
        Part(1, "the intervals that follow from these numbers", right_intervals),
    )
    return Task("measured", "my_measurement", parts, right, styles, mistakes)
