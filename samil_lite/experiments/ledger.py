"""The paper's claims, tested on the records: effect, 95 % interval and verdict, all by rule."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from samil_lite.arguments import at_least, checked, columns
from samil_lite.experiments.scores import fold_difference, fold_scores
from samil_lite.metrics import difference
from samil_lite.models import KERNEL_OF

SAME = 0.02  # two mean AUCs whose interval of the difference lies within ± SAME count as equal
COLUMNS = ("claim", "what", "assumption", "n_bags", "gamma", "pairs", "effect", "low", "high", "verdict")
IMAGE_COLUMNS = ("claim", "what", "data", "grouped", "score", "gamma", "pairs", "effect", "low", "high", "verdict")
Runs = dict[str, Any]  # which runs: assumption, n_bags, model and, with self-attention, gamma
ImageComparison = tuple[int, str, Runs, Runs | None, Callable[[float, float, float], str], str]
Comparison = tuple[int, str, Runs, Runs, Callable[[float, float, float], str], str]  # claim, what, a, b, rule, value


@checked(few=at_least(1), middle=at_least(1), many=at_least(1))
def ledger(table: pd.DataFrame, few: int = 50, middle: int = 200, many: int = 500) -> pd.DataFrame:
    """One row for each comparison that a claim asks for; both starts of γ are tested.

    Claims 2 and 3 compare models with AbMILP at `middle` training bags; for claim 3 also the model with the lowest
    validation loss, so that no test score chooses. Claim 4 compares the dot product with Laplace and inverse quadratic
    at `few` and at `many` bags. Claim 5 compares the share of positive presence bags in which both a 9 and a 7 get more
    than even weight. Claim 10 takes the two assumptions' best kernels on validation and lets them compete on both.

    Args:
        table: runs, as `load_table` gives them, one for each assumption, number of bags, model, start of γ and seed.
        few: fewest training bags.
        middle: training bags of the claims that name no number.
        many: most training bags.

    Returns:
        Columns `COLUMNS`. `effect` is a difference of means over `pairs` seeds, with its `paired_interval`. A
        comparison with fewer than three pairs is left out.
    """
    columns("table", table, "assumption", "n_bags", "model", "seed", "gamma", "auc", "validation_loss")
    rows = []
    for gamma in (0.0, 1.0):
        for claim, what, a, b, rule, value in _comparisons(table, gamma, few, middle, many):
            if (effect := _difference(table, a, b, value)) is not None:
                pairs, *interval = effect
                rows.append((claim, what, a["assumption"], a["n_bags"], gamma, pairs, *interval, rule(*interval)))
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("claim", kind="stable", ignore_index=True)


@checked()
def image_ledger(table: pd.DataFrame) -> pd.DataFrame:
    """The same for breast and colon, fold by fold.

    Claim 6 compares, in AUC and in recall, the SA model with the lowest validation loss with AbMILP, and with the best
    model without self-attention, chosen in the same way. Claim 7 compares the attention of each SA model with that of
    AbMILP on positive colon images (the share of the top tenth should be higher, the entropy lower), and asks whether
    epithelial nuclei give each other more than the even weight.

    Args:
        table: runs, as `load_table` gives them, one for each data set, kind of folds, model, start of γ, and fold.

    Returns:
        Columns `IMAGE_COLUMNS`; `effect` and its interval as `fold_difference` gives them.
    """
    columns("table", table, "data", "grouped", "model", "gamma", "repeat", "fold", "validation_loss")
    scored = fold_scores(table)
    if "to_kind" in scored:
        scored["above_even"] = scored["to_kind"] - 1
    rows = []
    for (data, grouped), of_data in scored.groupby(["data", "grouped"], sort=False):
        for gamma in (0.0, 1.0):
            runs = of_data[of_data["gamma"].isna() | (of_data["gamma"] == gamma)]
            for claim, what, a, b, rule, score in _image_comparisons(runs, data):
                if (effect := fold_difference(runs, a, b, score)) is not None:
                    rows.append((claim, what, data, grouped, score, gamma, *effect, rule(*effect[1:])))
    found = pd.DataFrame(rows, columns=list(IMAGE_COLUMNS))
    return found.sort_values(["claim", "data", "grouped"], kind="stable", ignore_index=True)


def _image_comparisons(runs: pd.DataFrame, data: str) -> Iterator[ImageComparison]:
    losses = runs.groupby("model")["validation_loss"].mean()
    with_sa = losses.index.isin(list(KERNEL_OF))
    abmilp = {"model": "abmilp"}
    if with_sa.sum() == len(KERNEL_OF) and not with_sa.all():  # the best of some would not be the best
        best, earlier = str(losses[with_sa].idxmin()), str(losses[~with_sa].idxmin())
        for score in ("auc", "recall"):
            yield 6, f"best SA ({_short(best)}) − AbMILP", {"model": best}, abmilp, _better, score
            if earlier != "abmilp":
                what = f"best SA ({_short(best)}) − best other ({earlier})"
                yield 6, what, {"model": best}, {"model": earlier}, _better, score
    for model in losses.index[with_sa] if data == "colon" else ():
        sa, name = {"model": model}, _short(model)
        yield 7, f"{name} − AbMILP, share of the top tenth", sa, abmilp, _better, "top_tenth"
        yield 7, f"{name} − AbMILP, entropy", sa, abmilp, _worse, "entropy"
        yield 7, f"{name}, β between epithelial nuclei − even weight", sa, None, _better, "above_even"


def _comparisons(table: pd.DataFrame, gamma: float, few: int, middle: int, many: int) -> Iterator[Comparison]:
    def of(model: str, assumption: str, n_bags: int = middle) -> Runs:
        runs: Runs = {"assumption": assumption, "n_bags": n_bags, "model": model}
        return {**runs, "gamma": gamma} if model in KERNEL_OF else runs

    yield 2, "SA − AbMILP", of("sa-abmilp", "standard"), of("abmilp", "standard"), _equal, "auc"
    best = {assumption: _best(table, assumption, gamma, middle) for assumption in ("presence", "threshold")}
    for assumption, winner in best.items():
        abmilp = of("abmilp", assumption)
        for model in KERNEL_OF:
            yield 3, f"{_short(model)} − AbMILP", of(model, assumption), abmilp, _better, "auc"
        if winner:
            what = f"best on validation ({_short(winner)}) − AbMILP"
            yield 3, what, of(winner, assumption), abmilp, _better, "auc"
        for n_bags, rule in ((few, _better), (many, _worse)):
            for model in ("lsa-abmilp", "iqsa-abmilp"):
                dot = of("sa-abmilp", assumption, n_bags)
                yield 4, f"SA − {_short(model)}", dot, of(model, assumption, n_bags), rule, "auc"
    for model in KERNEL_OF:
        what = f"{_short(model)} − AbMILP, both digits stand out"
        yield 5, what, of(model, "presence"), of("abmilp", "presence"), _better, "every_key_stands_out"
    one, other = best.values()
    if one and other and one != other:
        for assumption, a, b in (("presence", one, other), ("threshold", other, one)):
            yield 10, f"{_short(a)} − {_short(b)}", of(a, assumption), of(b, assumption), _better, "auc"


def _difference(table: pd.DataFrame, a: Runs, b: Runs, value: str) -> tuple[int, float, float, float] | None:
    """How many seeds both have, mean difference a − b over them, and its interval; None below three."""
    if value not in table:
        return None
    x, y = (_select(table, runs).set_index("seed")[value].dropna() for runs in (a, b))
    return difference(x, y) if len(x.index.intersection(y.index)) >= 3 else None


def _select(table: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    chosen = table[np.logical_and.reduce([table[name] == wanted for name, wanted in runs.items()])]
    if chosen["seed"].duplicated().any():
        raise ValueError(f"table: expected one run for each seed of {runs}, got more")
    return chosen


def _best(table: pd.DataFrame, assumption: str, gamma: float, n_bags: int) -> str:
    """The SA model with the lowest mean validation loss over the seeds that all of them have; "" if there are none."""
    runs = table[(table["assumption"] == assumption) & (table["gamma"] == gamma) & (table["n_bags"] == n_bags)]
    losses = runs.pivot_table(index="seed", columns="model", values="validation_loss").dropna()
    return "" if losses.empty or len(losses.columns) < len(KERNEL_OF) else str(losses.mean().idxmin())


def _short(model: str) -> str:
    return model.removesuffix("-abmilp").upper()


def _better(effect: float, low: float, high: float) -> str:
    return "reproduced" if low > 0 else "contradicted" if high < 0 else "not seen"


def _worse(effect: float, low: float, high: float) -> str:
    return _better(-effect, -high, -low)


def _equal(effect: float, low: float, high: float) -> str:
    if low > -SAME and high < SAME:
        return "reproduced"
    return "contradicted" if low > SAME or high < -SAME else "undecided"
