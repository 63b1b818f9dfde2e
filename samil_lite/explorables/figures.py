"""What each figure takes and what a reader learns from it in one minute. The scripts are beside this file."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Figure(NamedTuple):
    """A figure: the function that checks and completes its data, its title, and its picture in words."""

    data: Callable[..., dict[str, Any]]
    title: str
    alt: str


POINTS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (3.0, 0.0), (3.0, 1.0), (0.0, 4.0))


def kernels(points: Tensor | Sequence[Sequence[float]] = POINTS, query: int = 0) -> dict[str, Any]:
    """Which kernels feel a shift, a rotation or a larger bag, and why values in (0, 1] cannot make a large weight.

    Args:
        points: the instances, shape (n, 2) with n from 2 to 9; queries, keys and instances are one.
        query: number of the instance whose row of β is shown first.
    """
    places = torch.as_tensor(points, dtype=torch.float64)
    if places.ndim != 2 or places.shape[1] != 2 or not 2 <= len(places) <= 9 or not places.isfinite().all():
        raise ValueError(f"points: expected 2 to 9 finite pairs of numbers, got shape {tuple(places.shape)}")
    if not 0 <= query < len(places):
        raise ValueError(f"query: expected a number from 0 to {len(places) - 1}, got {query}")
    low, high = places.aminmax(dim=0)
    return {"points": places.tolist(), "middle": ((low + high) / 2).round().tolist(), "query": query}


def digits(bag: Sequence[int] = (0, 2, 5, 8, 10)) -> dict[str, Any]:
    """A verdict is a sum of weight times verdict over instances; two 9s, two 7s and a mixed pair defeat AbMILP.

    Args:
        bag: numbers of the digits of the tray that lie in the bag at first: 0 and 1 are 9s, 2 and 3 are 7s, then
            come 0, 1, 2, 3, 4, 5, 6 and 8.
    """
    from samil_lite.explorables.digits import packed, tray

    known = tray()
    if not 1 <= len(bag) <= 12 or not all(0 <= i < len(known) for i in bag):
        raise ValueError(f"bag: expected 1 to 12 numbers from 0 to {len(known) - 1}, got {list(bag)}")
    rest = [4, 6, 10]
    pairs = {"X: 9, 9′": [0, 1], "Y: 7, 7′": [2, 3], "Z: 9, 7": [0, 2], "Z′: 9′, 7′": [1, 3]}
    examples = [{"name": name, "members": pair + rest} for name, pair in pairs.items()]
    return {"weights": packed(), "tray": known, "bag": list(bag), "examples": examples}


def quadruple(
    scores: Sequence[float] = (0, 0, 0, 0), verdicts: Sequence[float] = (2, 2, 2, 2), look: bool = False
) -> dict[str, Any]:
    """No weights and verdicts make AbMILP right on all four bags of (4.6); one look at a neighbour does.

    Args:
        scores: attention scores e of 9, 9′, 7 and 7′ at the start, from −4 to 4; the weights are u = exp(e).
        verdicts: their instance logits at the start, from −8 to 8.
        look: whether self-attention is switched on at the start.
    """
    for name, values, limit in (("scores", scores, 4), ("verdicts", verdicts, 8)):
        if len(values) != 4 or not all(-limit <= x <= limit for x in values):
            raise ValueError(f"{name}: expected four numbers from {-limit} to {limit}, got {list(values)}")
    return {"scores": list(scores), "verdicts": list(verdicts), "look": bool(look)}


def running_softmax(
    scores: Sequence[float] = (1, 3, 2, 0, 2.5, 1.5, 4, 0.5, 3.5, 2, 6, 1, 0, 5.5, 2, 3),
    values: Sequence[float] = (10, 20, 30, 40, 15, 25, 35, 45, 50, 5, 60, 55, 20, 30, 70, 65),
    d: int = 64,
    d_v: int = 512,
) -> dict[str, Any]:
    """A softmax over a row needs three running numbers and no row, so exact attention fits in memory linear in n.

    Args:
        scores: of one query, finite, 16 numbers or a few.
        values: what each key hands over, one number for each score.
        d: width of queries and keys, for the memory.
        d_v: width of the values, for the memory.
    """
    from samil_lite.kernel_attention.blockwise import KEYS, ROWS

    if (
        not 2 <= len(scores) <= 24
        or len(values) != len(scores)
        or not torch.tensor([*scores, *values]).isfinite().all()
    ):
        raise ValueError(f"scores, values: expected 2 to 24 finite pairs, got {len(scores)} and {len(values)} numbers")
    return {"scores": list(scores), "values": list(values), "rows": ROWS, "keys": KEYS, "d": d, "d_v": d_v}


def stepper(frames: Sequence[str], captions: Sequence[str], label: str) -> dict[str, Any]:
    """What changes from stage to stage, in pictures drawn beforehand; see `samil_lite.viz.stepper`.

    Args:
        frames: PNGs in base64, one for each stage.
        captions: what each of them shows.
        label: what the slider changes.
    """
    if not frames or len(frames) != len(captions):
        raise ValueError(f"captions: expected one for each of {len(frames)} figures, got {len(captions)}")
    return {"frames": list(frames), "captions": list(captions), "label": label}


FIGURES = {
    "kernels": Figure(
        kernels,
        "Who does the chosen instance look at?",
        "Six numbered points in a plane, one of them the query, and five rows of bars: how the dot product, RBF, "
        "inverse quadratic, Laplace and module kernels divide its attention. A dashed line bounds the bars of RBF and "
        "inverse quadratic.",
    ),
    "digits": Figure(
        digits,
        "Fill a bag with digits and let two models judge it",
        "A bag of five handwritten digits. Under each stand its attention weight, the verdict on it and their product, "
        "for an AbMILP and for an SA-AbMILP; above, the logit and the probability that each model gives the bag.",
    ),
    "quadruple": Figure(
        quadruple,
        "The impossible game: four bags, all right",
        "Four bags made of two 9s and two 7s, each with its logit on a line whose right half is shaded if the bag "
        "should be positive and whose left half if not; beside them sliders for the weight and the verdict of each "
        "instance. Two of four are right.",
    ),
    "running_softmax": Figure(
        running_softmax,
        "A softmax that never sees its whole row",
        "Sixteen scores in four blocks; bars show exp(s − m) for the blocks seen. A table keeps m, the factor, the sum "
        "and the mix after each block. Below, a square of tiles and the memory that a loop, all differences, the "
        "whole β and tiles need.",
    ),
    "stepper": Figure(stepper, "Stages", "The first of several stages."),
}
