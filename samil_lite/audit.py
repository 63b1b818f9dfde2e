"""Audits: has a model with a good AUC learned what its assumption forbids, and is its attention an explanation?

Every function takes any `torch.nn.Module` that maps `Bags` to logits (B,), or to an object with them in `.logits`.
"""

import warnings
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from samil_lite.arguments import at_least, checked, shown
from samil_lite.bags import Bags
from samil_lite.data.synthetic import assumptions
from samil_lite.metrics import attention_auc, bag_metrics, mean_interval
from samil_lite.models import MILClassifier, MILOutput
from samil_lite.pooling import NoisyOrPool
from samil_lite.segments import check_offsets, segment_rank
from samil_lite.training import fit

UNIT_TESTS: dict[str, Callable[..., tuple[Bags, Bags]]] = {
    "single concept": assumptions.single_concept,
    "multi concept": assumptions.multi_concept,
    "false frequency": assumptions.false_frequency,
    "bag size": assumptions.bag_size,
}
METHODS = ("attention", "gradient", "leave-one-out")  # of `attribution`


@checked(hidden=at_least(1))
def mlp(hidden: int = 128) -> nn.Sequential:
    """The encoder of the unit tests: two layers of `hidden` units with ReLU on the 16 numbers of an instance."""
    return nn.Sequential(
        nn.Linear(assumptions.FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
    )  # fmt: skip


@checked(dim=at_least(1))
def noisy_or(encoder: nn.Module, dim: int) -> MILClassifier:
    """A model that keeps the standard assumption by construction: no instance can make a bag less positive."""
    return MILClassifier(encoder, NoisyOrPool(), dim, instance_level=True)


@checked(seed=at_least(0), n_train=at_least(1), n_test=at_least(1), epochs=at_least(1), bags_per_step=at_least(1))
def unit_test(
    build: Callable[[], nn.Module],
    name: str,
    seed: int = 0,
    *,
    n_train: int = 10_000,
    n_test: int = 1_000,
    epochs: int = 20,
    bags_per_step: int = 32,
    options: dict[str, Any] | None = None,
    **training: Any,
) -> dict[str, Any]:
    """Trains a new model on one of `UNIT_TESTS` and scores it on both of its sides.

    Instances are standardised with the mean and the deviation of the training instances.

    Args:
        build: makes an untrained model for instances (N, 16).
        name: of the test: "single concept", "multi concept", "false frequency" or "bag size".
        seed: of the bags, the model's start and the training.
        n_train: number of training bags; Raff and Holt have 10,000.
        n_test: number of test bags; Raff and Holt have 1,000.
        epochs: how often each bag is seen.
        bags_per_step: bags per gradient step.
        options: of the test's generator, such as `{"committed": True}`.
        training: other arguments of `fit`.

    Returns:
        `test`, `seed`, and AUC, accuracy and loss on both sides: `train_auc`, `test_auc`, `train_accuracy`, ….

    Raises:
        ValueError: if the test is not known, or as `fit` does.
    """
    if name not in UNIT_TESTS:
        raise ValueError(f"name: expected one of {', '.join(UNIT_TESTS)}, got {name!r}")
    train, test = UNIT_TESTS[name](n_train, n_test, seed, **(options or {}))
    mean, deviation = train.instances.mean(0), train.instances.std(0)  # (16,), (16,)
    train, test = (_with_instances(bags, (bags.instances - mean) / deviation) for bags in (train, test))
    torch.manual_seed(seed)
    model = _WithLogits(build())
    fit(model, train, epochs=epochs, bags_per_step=bags_per_step, seed=seed, **training)
    row: dict[str, Any] = {"test": name, "seed": seed}
    for side, bags in (("train", train), ("test", test)):
        assert bags.labels is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # precision of a model that calls no bag positive: not asked for
            metrics = bag_metrics(logits(model, bags), bags.labels)
        row |= {f"{side}_{score}": getattr(metrics, score) for score in ("auc", "accuracy", "loss")}
    return row


@checked()
def verdict(name: str, train_auc: Sequence[float], test_auc: Sequence[float]) -> str:
    r"""What the AUCs of several seeds say of a model, by rule.

    With the 95 % interval of the mean test AUC (Student): *breaks the assumption* if the interval lies below 0.5: the
    model ranks the test bags in the wrong order, as only the forbidden signal makes it; *not learned* if the mean
    training AUC is below 0.75, so the test says nothing of the model; *respects it* if the interval lies above
    :math:`(0.5 + \text{AUC}_\text{train})/2`: more than half of what was learned holds without the signal; else
    *undecided*. In the test "bag size" there is nothing to learn but the size, and single bags by heart: it is
    respected if the interval lies above 0.4 and not below 0.5.

    Args:
        name: of the test.
        train_auc: one for each seed, at least two.
        test_auc: one for each seed.

    Returns:
        "breaks the assumption", "respects it", "not learned" or "undecided".
    """
    train, (_, low, high) = float(np.mean(train_auc)), mean_interval(test_auc)
    if high < 0.5:
        return "breaks the assumption"
    if name == "bag size":
        return "respects it" if low > 0.4 else "undecided"
    if train < 0.75:
        return "not learned"
    return "respects it" if low > (0.5 + train) / 2 else "undecided"


@checked(bags_per_step=at_least(1))
def logits(model: nn.Module, bags: Bags, bags_per_step: int = 32) -> Tensor:
    """Logits (B,) of any module that maps `Bags` to them, without gradients, in evaluation mode, on the CPU."""
    return _outputs(model, bags, bags_per_step)[0]


@checked(seed=at_least(0))
def invariances(model: nn.Module, bags: Bags, seed: int = 0) -> pd.DataFrame:
    """Changes that should not change a verdict: how far probabilities move, and how many verdicts turn.

    Args:
        model: maps `Bags` to logits (B,).
        bags: bags of the kind that the model knows.
        seed: of the shuffling.

    Returns:
        One row each for *alone* (each bag by itself instead of in a batch: padding or statistics of the batch leak),
        *shuffled* (instances in another order), *doubled* (each instance twice: says whether the model counts; under
        the standard and the presence assumption it should not) and *longer* (an instance of zeros beside each, as
        padding would), with `largest` and `mean` change of the probability and the share `turned`.
    """
    n = bags.n_instances
    rng = torch.Generator().manual_seed(seed)
    order = torch.rand(n, generator=rng).argsort()
    order = order[bags.bag_index[order].argsort(stable=True)]  # shuffled within each bag
    twice = torch.arange(n).repeat_interleave(2)
    shuffled = _with_instances(bags, bags.instances[order])
    doubled = Bags(bags.instances[twice], bags.offsets * 2)
    every_second = torch.tensor([1.0, 0.0]).repeat(n).view(-1, *[1] * (bags.instances.ndim - 1))  # (2N, 1, …)
    longer = _with_instances(doubled, doubled.instances * every_second)
    before = logits(model, bags).sigmoid()  # (B,)
    rows = []
    for change, after in (
        ("alone", logits(model, bags, 1)),
        ("shuffled", logits(model, shuffled)),
        ("doubled", logits(model, doubled)),
        ("longer", logits(model, longer)),
    ):
        moved = (after.sigmoid() - before).abs()
        turned = (after > 0) != (before > 0.5)
        rows.append({"change": change, "largest": float(moved.max()), "mean": float(moved.mean()),
                     "turned": float(turned.float().mean())})  # fmt: skip
    return pd.DataFrame(rows)


@checked()
def without(bags: Bags, removed: Tensor) -> tuple[Bags, Tensor]:
    """The bags without some of their instances, and which bags are left: a bag that loses all is dropped.

    Args:
        bags: B bags with N instances.
        removed: booleans, shape (N,), True at instances that go.

    Returns:
        The bags that are left, and booleans of shape (B,), True for those.

    Raises:
        ValueError: if `removed` has another shape or type, or nothing would be left.
    """
    if removed.dtype != torch.bool or removed.shape != (bags.n_instances,):
        raise ValueError(
            f"removed: expected booleans of shape ({bags.n_instances},), got {removed.dtype} {tuple(removed.shape)}"
        )
    sizes = torch.zeros(len(bags), dtype=torch.long).index_add(0, bags.bag_index, (~removed).long())  # (B,)
    left = sizes > 0
    if not left.any():
        raise ValueError("removed: every instance of every bag would go")
    offsets = torch.cat([sizes.new_zeros(1), sizes[left].cumsum(0)])
    labels, kinds = bags.labels, bags.instance_labels
    return Bags(
        bags.instances[~removed], offsets,
        None if labels is None else labels[left], None if kinds is None else kinds[~removed],
    ), left  # fmt: skip


@checked()
def removal(model: nn.Module, bags: Bags, key: Tensor) -> dict[str, float]:
    """The counterfactual: what does a model say of positive bags once their key instances are gone?

    Args:
        model: maps `Bags` to logits (B,).
        bags: labelled bags.
        key: booleans, shape (N,), True at the instances that make a bag positive.

    Returns:
        Of the positive bags that keep an instance `bags`, how many; mean probability `before` and `after`; and
        `still_positive`, the share of those called positive before that still are: 0 if the model reads the keys.

    Raises:
        ValueError: if the bags have no labels, or no positive bag keeps an instance.
    """
    if bags.labels is None:
        raise ValueError("bags: expected labelled bags")
    rest, left = without(bags, key)
    positive = bags.labels[left] == 1  # (bags left,)
    if not positive.any():
        raise ValueError("key: no positive bag keeps an instance")
    before, after = logits(model, bags)[left][positive], logits(model, rest)[positive]
    called = before > 0
    return {
        "bags": int(positive.sum()),
        "before": float(before.sigmoid().mean()),
        "after": float(after.sigmoid().mean()),
        "still_positive": float((after[called] > 0).float().mean()),
    }


@checked()
def removal_curve(
    model: nn.Module,
    bags: Bags,
    scores: Tensor,
    shares: Sequence[float] = (0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    insert: bool = False,
) -> pd.DataFrame:
    """Mean probability as the instances with the largest scores go (deletion), or as they alone are there (insertion).

    If scores say which instances matter, deletion falls early and insertion rises early. At least one instance of
    each bag stays.

    Args:
        model: maps `Bags` to logits (B,).
        bags: for example the positive bags of a test.
        scores: one number for each instance, such as attention, shape (N,).
        shares: of each bag's instances, rounded to whole instances.
        insert: whether the instances with the largest scores are kept instead of removed.

    Returns:
        A row for each share, with `probability`, the mean over bags.
    """
    place, sizes = segment_rank(scores, bags.offsets), bags.sizes[bags.bag_index]  # (N,), (N,)
    rows = []
    for share in shares:
        top = place < (share * sizes).round().clamp(int(insert), None)  # (N,)
        removed = ~top if insert else top & (place < sizes - 1)  # one instance stays
        rows.append({"share": share, "probability": float(logits(model, without(bags, removed)[0]).sigmoid().mean())})
    return pd.DataFrame(rows)


@checked()
def attribution(model: nn.Module, bags: Bags, method: str) -> Tensor:
    r"""A number for each instance that says how much it raises the logit of its bag, by one of three methods.

    Args:
        model: maps `Bags` to logits (B,).
        bags: floating-point bags.
        method: "attention" (the model's own weights a_i), "gradient" (gradient × input,
            :math:`\langle \partial \text{logit} / \partial x_i, x_i \rangle`) or "leave-one-out" (the logit minus
            the logit of the bag without the instance; n bags of n − 1 for each bag; 0 for a bag of one).

    Returns:
        Shape (N,), on the CPU.

    Raises:
        ValueError: if the method is not known, the model has no attention, or whole numbers are given for a gradient.
    """
    if method == "attention":
        attention = _outputs(model, bags, 32)[1]
        if attention is None:
            raise ValueError(f"method: {type(model).__name__} returns no attention; take 'gradient' or 'leave-one-out'")
        return attention
    if method == "gradient":
        return _gradient_times_input(model, bags)
    if method == "leave-one-out":
        return torch.cat([_leave_one_out(model, bag) for bag in bags])
    raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")


@checked()
def agreement(scores: Sequence[Tensor], offsets: Tensor, key: Tensor | None = None) -> pd.DataFrame:
    """Do trainings that differ in their seed look at the same instances, and does one look the other way?

    Args:
        scores: of two or more trainings, attention for example, each of shape (N,).
        offsets: where each bag begins, shape (B + 1,).
        key: booleans, shape (N,), True at key instances, if they are known.

    Returns:
        A row for each pair `first`, `second`: `correlation`, Spearman's, the mean over bags of three instances or more,
        and, with `key`, `first_auc` and `second_auc`, the mean over bags of the attention's AUC. A correlation below
        0, or one AUC on each side of 0.5, means that attention turned round.

    Raises:
        ValueError: if there are fewer than two trainings.
    """
    if len(scores) < 2:
        raise ValueError(f"scores: expected those of two trainings or more, got {len(scores)}")
    for i, s in enumerate(scores):
        check_offsets(offsets, len(s))
        if s.ndim != 1 or not s.isfinite().all():
            raise ValueError(f"scores[{i}]: expected finite numbers of shape (N,), got {shown(s)}")
    places = [segment_rank(s, offsets).double() for s in scores]
    sizes = offsets.diff()
    auc = None if key is None else [float(np.nanmean(attention_auc(s, key, offsets))) for s in scores]
    rows = []
    for i, j in combinations(range(len(scores)), 2):
        squares = (
            torch.zeros(len(sizes))
            .double()
            .index_add(0, torch.repeat_interleave(torch.arange(len(sizes)), sizes), (places[i] - places[j]).square())
        )  # (B,)
        rho = 1 - 6 * squares / (sizes**3 - sizes).clamp_min(1)  # (B,), Spearman's without ties
        row: dict[str, Any] = {"first": i, "second": j, "correlation": float(rho[sizes > 2].mean())}
        rows.append(row if auc is None else {**row, "first_auc": auc[i], "second_auc": auc[j]})
    return pd.DataFrame(rows)


class _WithLogits(nn.Module):
    """A model that gives logits alone, as `fit` wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, bags: Bags) -> Any:
        output = self.model(bags)
        return MILOutput(output) if isinstance(output, Tensor) else output


@torch.no_grad()
def _outputs(model: nn.Module, bags: Bags, bags_per_step: int) -> tuple[Tensor, Tensor | None]:
    """Logits (B,) and, if the model gives them, attention weights (N,)."""
    device = next((p.device for p in model.parameters()), bags.device)
    was_training = model.training
    model.eval()
    try:
        steps = [model(bags[i : i + bags_per_step].to(device)) for i in range(0, len(bags), bags_per_step)]
    finally:
        model.train(was_training)
    parts = [step if isinstance(step, Tensor) else step.logits for step in steps]
    if parts[0].ndim != 1:
        raise ValueError(f"model: expected one logit for each bag, shape (B,), got shape {tuple(parts[0].shape)}")
    weights = [getattr(step, "attention", None) for step in steps]
    attention = None if weights[0] is None else torch.cat(weights).cpu()  # type: ignore[arg-type]
    return torch.cat(parts).cpu(), attention


def _gradient_times_input(model: nn.Module, bags: Bags) -> Tensor:
    if not bags.instances.is_floating_point():
        raise ValueError(
            f"bags: the gradient needs floating-point instances, got {bags.instances.dtype}; convert them, as .float() "
            "does, images also / 255"
        )
    device = next((p.device for p in model.parameters()), bags.device)
    was_training = model.training
    model.eval()
    x = bags.instances.to(device).requires_grad_()
    try:
        output = model(Bags(x, bags.offsets.to(device)))
    finally:
        model.train(was_training)
    total = (output if isinstance(output, Tensor) else output.logits).sum()  # bags do not see each other
    return (torch.autograd.grad(total, x)[0] * x).detach().flatten(1).sum(1).cpu()  # (N,)


def _leave_one_out(model: nn.Module, bag: Bags) -> Tensor:
    n = bag.n_instances
    if n == 1:
        return torch.zeros(1)
    whole = logits(model, bag)  # (1,)
    if type(model) is MILClassifier:
        model, bag = _embedded(model, bag)
    found = []
    for some in torch.arange(n).split(32):  # (m,), so that no more than m copies of the bag are made at once
        rows = torch.arange(n).repeat(len(some), 1)  # (m, n)
        others = rows[rows != some[:, None]]  # (m (n - 1),): all but one, for each of them
        found.append(whole - logits(model, Bags(bag.instances[others], torch.arange(len(some) + 1) * (n - 1))))
    return torch.cat(found)  # (n,)


def _embedded(model: MILClassifier, bags: Bags) -> tuple[MILClassifier, Bags]:
    """The model without its encoder, and bags of what the encoder makes, so that each instance is encoded once."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            h = model._embed(bags.to(next(model.parameters()).device)).cpu()  # (N, d)
    finally:
        model.train(was_training)
    rest = MILClassifier(
        nn.Identity(), model.pool, model.dim, model.n_classes, model.instance_level, model.self_attention
    )
    rest.classifier = model.classifier
    return rest.train(was_training), Bags(h, bags.offsets)


def _with_instances(bags: Bags, instances: Tensor) -> Bags:
    return Bags(instances, bags.offsets, bags.labels, bags.instance_labels)
