"""What each figure takes and what a reader learns from it in one minute. The scripts are beside this file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NUCLEI = Path(__file__).with_name("nuclei.json")  # made by tools/train_nuclei.py
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


def gamma(gamma: float = 0.0) -> dict[str, Any]:
    """At γ = 0 a bag of two 9s and a mixed one are twins to the pooling; γ moves them apart until a line parts them.

    Args:
        gamma: where the slider starts, from 0 to 1.
    """
    _check_range("gamma", gamma, 0, 1)
    nine, seven, other = [1, 0], [0, 1], [0, 0]
    bags = [("X: two 9s and four others", False, [nine, nine]), ("Z: a 9, a 7 and four others", True, [nine, seven])]
    return {
        "gamma": gamma,
        "ask": [[0, 4], [4, 0]],  # a 9 asks for 7s and a 7 for 9s, as in chapter 5
        "bags": [{"name": name, "positive": positive, "h": [*pair, *4 * [other]]} for name, positive, pair in bags],
    }


def two_paths(search: float = 5.0, gamma: float = 1.0, bag: str = "Z") -> dict[str, Any]:
    """An instance enters by its own weight a and through the eyes of others, b; a alone does not say who mattered.

    Args:
        search: how hard a 9 looks for 7s at the start, from 0 to 8.
        gamma: where γ starts, from 0 to 1.
        bag: "X" (two 9s), "Y" (two 7s) or "Z" (one of each), each with four others.
    """
    _check_range("search", search, 0, 8)
    _check_range("gamma", gamma, 0, 1)
    bags = {name: [*pair, *4 * ["other"]] for name, pair in (("X", ["9", "9"]), ("Y", ["7", "7"]), ("Z", ["9", "7"]))}
    if bag not in bags:
        raise ValueError(f"bag: expected one of {', '.join(bags)}, got {bag!r}")
    weights = {"pool": 10, "verdict": [3, 1, 0], "offset": -3.5}  # chosen by hand in chapter 6
    return {"bags": bags, "bag": bag, "search": search, "gamma": gamma, **weights}


def three_rules(digits: Sequence[int] = (3, 9, 1, 4), most: int = 12) -> dict[str, Any]:
    """One bag has three labels under three rules, and which instance decides depends on the rule and the company.

    Args:
        digits: what lies in the bag at first, numbers from 0 to 9.
        most: how many instances it may hold.
    """
    if not all(digit in range(10) for digit in digits) or not len(digits) <= most:
        raise ValueError(f"digits: expected at most {most} numbers from 0 to 9, got {list(digits)}")
    return {"digits": [int(digit) for digit in digits], "most": most}


def pooling(
    points: Tensor | Sequence[Sequence[float]] = ((-2, -1), (-1, 1.5), (0.5, -2), (1.5, 0.5), (2.5, -1)),
) -> dict[str, Any]:
    """The mean moves with every instance; the maximum mixes several, stands where none is, and ignores the rest.

    Args:
        points: the instances, shape (n, 2) with n from 2 to 9, between −3.8 and 3.8.
    """
    places = torch.as_tensor(points, dtype=torch.float64)
    fits = places.ndim == 2 and places.shape[1:] == (2,) and 2 <= len(places) <= 9 and bool((places.abs() <= 3.8).all())
    if not fits:
        raise ValueError(f"points: expected 2 to 9 pairs of numbers from −3.8 to 3.8, got shape {tuple(places.shape)}")
    return {"points": places.tolist()}


def far_partner(distance: float = 3.0, others: float = 6.0, n: int = 50) -> dict[str, Any]:
    """Kernel values as scores drown a partner; of the logarithms RBF gives all to the nearest, the other one shares.

    Args:
        distance: of the partner from the query at the start, from 0 to 10.
        others: distance of all others, from 0 to 20.
        n: bag size at the start, from 3 to 1,000.
    """
    for name, value, low, high in (("distance", distance, 0, 10), ("others", others, 0, 20), ("n", n, 3, 1000)):
        _check_range(name, value, low, high)
    return {"distance": distance, "others": others, "n": n}


def threshold(
    scores: Sequence[float] = (2.9, 2.1, 1.8, 1.2, 0.4, -0.7, 1.5, 0.9, 0.1, -0.4, -0.9, -1.3, -1.6, -2.0, -2.4, -3.1),
    labels: Sequence[int] = (1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    threshold: float = 0.0,
) -> dict[str, Any]:
    """Precision and recall belong to a threshold, not to a model; with few bags both move in jumps.

    Args:
        scores: logits of bags; the default is made up.
        labels: 0 or 1 for each of them.
        threshold: where the slider starts.
    """
    values = torch.as_tensor(scores, dtype=torch.float64)
    if len(labels) != len(values) or not values.isfinite().all() or set(map(int, labels)) != {0, 1}:
        raise ValueError(f"scores, labels: expected finite scores and as many labels, 0s and 1s, got {len(values)}")
    return {"scores": values.tolist(), "labels": [int(y) for y in labels], "threshold": threshold}


def folds(groups: Sequence[str] | None = None, k: int = 5, seed: int = 1) -> dict[str, Any]:
    """Dealt one by one, nearly every test image has a sister in training; dealt by group, none has.

    Args:
        groups: the group of each image; ten preparations of three images each if None.
        k: number of folds, from 2 to the number of groups.
        seed: of the first deal.
    """
    names = [name for name in "ABCDEFGHIJ" for _ in range(3)] if groups is None else [str(group) for group in groups]
    _check_range("k", k, 2, len(set(names)))
    return {"groups": names, "k": k, "seed": seed}


def lesion(side: int = 2240, lesion: int = 24, shrink: float = 2.0, patch: int = 224) -> dict[str, Any]:
    """Shrinking makes bags small and lesions vanish; large patches make a lesion a speck: no setting has it all.

    Args:
        side: width of the photograph in pixels.
        lesion: width of the lesion in the photograph, from 8 to 120 pixels.
        shrink: how many times smaller the image is made at first, from 1 to 12.
        patch: side of a patch in pixels at first, from 32 to 448.
    """
    for name, value, low, high in (("lesion", lesion, 8, 120), ("shrink", shrink, 1, 12), ("patch", patch, 32, 448)):
        _check_range(name, value, low, high)
    return {"side": side, "lesion": lesion, "shrink": shrink, "patch": patch}


def nuclei(record: dict[str, Any] | None = None, factor: float = 0.0) -> dict[str, Any]:
    """A trained dot product looks at one nucleus whoever asks; smaller scores show the order that lies below.

    Args:
        record: of one image, as tools/train_nuclei.py writes it; the one inside the package if None.
        factor: power of ten by which all scores are multiplied at first, from −3 to 0.
    """
    _check_range("factor", factor, -3, 0)
    if record is None:
        record = json.loads(NUCLEI.read_text(encoding="utf-8"))
    wanted = ("places", "epithelial", "attention", "query", "q", "q_scale", "k", "k_scale")
    if missing := [key for key in wanted if key not in record]:
        raise ValueError(f"record: expected a record of tools/train_nuclei.py, this one has no {', '.join(missing)}")
    return {"factor": factor, **{key: record[key] for key in wanted}}


def records(
    table: Any = None,
    rule: str = "presence",
    n_bags: int = 200,
    first: str = "lsa-abmilp, γ from 1",
    second: str = "abmilp",
) -> dict[str, Any]:
    """Compare pairs, not means; and five seeds drawn again give intervals that wander.

    Args:
        table: one row for each run, a pandas table with columns assumption, model, gamma (NaN for models without),
            n_bags, seed and auc; the records of the MNIST experiments in the book's folder if None.
        rule: the assumption that is shown first.
        n_bags: number of training bags that is shown first.
        first: the variant that is shown first: a model, and where it has γ its start.
        second: the variant that is subtracted.
    """
    from scipy import stats

    if table is None:
        from samil_lite.experiments import RESULTS, load_table

        table = load_table(RESULTS / "mnist")
    table = table.dropna(subset="auc")
    starts = table["gamma"].map(", γ from {:.0f}".format).where(table["gamma"].notna(), "")
    table = table.assign(variant=table["model"] + starts)
    scores: dict[str, Any] = {}
    for row in table.sort_values(["assumption", "variant", "n_bags", "seed"]).itertuples():
        of_variant = scores.setdefault(row.assumption, {}).setdefault(row.variant, {})
        of_variant.setdefault(str(row.n_bags), {})[str(row.seed)] = round(float(row.auc), 4)
    variants, bags = sorted(set(table["variant"])), sorted({int(n) for n in table["n_bags"]})
    for name, value, known in (
        ("rule", rule, list(scores)), ("n_bags", n_bags, bags), ("first", first, variants), ("second", second, variants)
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(map(str, known))}, got {value!r}")
    quantiles = [round(float(x), 8) for x in stats.t.ppf(0.975, range(1, 60))]
    shown = {"rule": rule, "n_bags": n_bags, "first": first, "second": second}
    return {"scores": scores, "variants": variants, "bags": bags, "t": quantiles, **shown}


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}, got {value}")


def stepper(frames: Sequence[str], captions: Sequence[str], label: str, dark: Sequence[str]) -> dict[str, Any]:
    """What changes from stage to stage, in pictures drawn beforehand; see `samil_lite.viz.stepper`.

    Args:
        frames: PNGs in base64, one for each stage.
        captions: what each of them shows.
        label: what the slider changes.
        dark: the same pictures for a dark page.
    """
    if not frames or not len(frames) == len(captions) == len(dark):
        raise ValueError(f"captions: expected one for each of {len(frames)} figures, got {len(captions)}")
    return {"frames": list(frames), "dark": list(dark), "captions": list(captions), "label": label}
