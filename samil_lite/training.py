"""Training: `fit`, `predict`, and checkpoints that resume exactly."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from samil_lite import fingerprint
from samil_lite.arguments import above, at_least, between, checked
from samil_lite.bags import Bags
from samil_lite.cards import know_classes
from samil_lite.checkpoints import Checkpoint, History, TrainingRun
from samil_lite.limits import Limited, steps_within
from samil_lite.losses import Loss, check_sampling, criterion, drawn_order
from samil_lite.models import MILOutput
from samil_lite.ranks import Ranks, joined
from samil_lite.reading import batches


class BagSource(Protocol):
    """What training and prediction ask of bags: `Bags`, or an object that makes the chosen ones when needed."""

    @property
    def labels(self) -> Tensor | None: ...
    @property
    def n_instances(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any) -> Bags: ...


def default_device() -> torch.device:
    """The accelerator if there is one that works, such as a CUDA card or Apple's, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if accelerator is None else accelerator


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes: where its first parameter is."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@checked(
    epochs=at_least(1), bags_per_step=at_least(1), lr=above(0), weight_decay=at_least(0), gamma_lr=at_least(0),
    gamma_weight_decay=at_least(0), patience=at_least(1), max_instances=at_least(1), seed=between(-(10**12), 10**12),
)  # fmt: skip
def fit(
    model: nn.Module,
    train: BagSource,
    validation: BagSource | None = None,
    *,
    epochs: int = 40,
    bags_per_step: int = 8,
    lr: float = 5e-4,
    weight_decay: float = 1e-4,
    gamma_lr: float | None = None,
    gamma_weight_decay: float | None = None,
    patience: int | None = None,
    max_instances: int | None = None,
    loss: Loss | None = None,
    class_weight: str | Sequence[float] | None = None,
    sampling: str | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Trains a model with Adam (β = 0.9, 0.999) on the mean loss of the bags of each step.

    With validation bags the model ends with the weights of the epoch of lowest validation loss, otherwise with the
    last ones. It ends in evaluation mode, on `device`. Everything random follows from (`seed`, epoch), so a run
    resumed from its checkpoint ends as the uninterrupted run does. Interrupting a run (Ctrl-C, *stop* in a notebook)
    leaves the best weights so far in the model.

    Several cards: `torchrun --nproc-per-node=4 train.py` runs a script that calls `fit` once for each card. The bags of
    each step and those of validation are shared out, and the steps are those of one process (`samil_lite.ranks`). Give
    `bags_per_step` at least as many bags as there are cards. Several machines: on each of two,
    `torchrun --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d --rdzv-endpoint=FIRST_MACHINE:29400 train.py`.

    Bags on disk: a source that says `read_ahead = True`, as `feature_bags` does, is read in a thread, a step ahead.

    Args:
        model: maps `Bags` to `MILOutput` and has `n_classes`, as those of `build`.
        train: labelled bags: `Bags`, or an object that reads or draws the bags of a step when they are asked for.
        validation: labelled bags that choose the epoch.
        epochs: how many times each bag is seen.
        bags_per_step: bags per gradient step. The papers take 1; more bags make fewer, faster steps.
        lr: learning rate.
        weight_decay: L2 penalty of Adam, on all parameters.
        gamma_lr: learning rate of the self-attention's γ; `lr` if None. Adam moves a parameter by about its learning
            rate a step however small the gradient, so this decides how far γ can get from where it starts.
        gamma_weight_decay: L2 penalty on γ; `weight_decay` if None.
        patience: stop after so many epochs without a lower validation loss; None: never.
        max_instances: the most instances of a training bag in a step, drawn anew in each epoch (see `Limited`); of bags
            on disk, no others are read where the files allow it. Validation sees whole bags. None: all.
        loss: a function of logits and labels that gives one number, the mean over the bags, such as
            `torch.nn.MSELoss()` for bags whose labels are numbers; None: the negative log-likelihood of classes, or of
            several yes-or-no labels a bag, shape (B, n_classes).
            Survival has none here: the one in use, Cox's partial likelihood, is a few lines, and torchsurv, which keeps
            it well, asks for a newer PyTorch than this package and for three packages more. With times and events as
            labels (B, 2), `loss=lambda logits, y: torchsurv.loss.cox.neg_partial_log_likelihood(logits, y[:, 1].bool(),
            y[:, 0])` trains on it; steps of many bags, since it compares them with each other.
        class_weight: "balanced", so that every class counts alike however rare it is, or a weight for each class.
        sampling: "balanced", so that each epoch has as many bags of every class: those of a rare one come several
            times, of a frequent one some are left for later epochs. None: each bag once.
        seed: of the order of bags and of dropout. Seed the model's own start before it is built.
        device: where to train; `default_device()` if None.
        checkpoint: file that is replaced after every epoch; if it exists, training goes on from there. A finished
            run's checkpoint returns its result at once; a larger `epochs` trains on. It is known by the settings, the
            model's parts and options, and the contents, labels and order of the bags.
        progress: whether to show a progress bar; the environment variable TQDM_DISABLE=1 hides it as well.

    Returns:
        The losses of all epochs and which epoch was best.

    Raises:
        ValueError: if an argument cannot be used, labels are missing or out of range, or the checkpoint is unreadable
            or belongs to another run: other settings, bags, labels or model; or the bags of validation, or the model,
            have other classes than the training bags, or in another order. The message says which.
        FloatingPointError: if a loss or a weight becomes NaN or infinite.
    """
    if patience is not None and validation is None:
        raise ValueError("patience: early stopping needs validation bags, got validation=None")
    for bags in [train] if validation is None else [train, validation]:
        if not len(bags):
            raise ValueError("train, validation: expected at least one bag, got none")
    labels = [train.labels] if validation is None else [train.labels, validation.labels]
    balanced = check_sampling(sampling, train.labels)
    know_classes(model, train, validation)
    mean_loss, known = criterion(loss, class_weight, getattr(model, "n_classes", 1), labels)
    settings = {
        "bags_per_step": bags_per_step, "lr": lr, "weight_decay": weight_decay, "seed": seed,
        "gamma_lr": gamma_lr, "gamma_weight_decay": gamma_weight_decay, "max_instances": max_instances,
        "loss": known, "sampling": sampling,
    }  # fmt: skip
    ranks = joined()
    named = None if checkpoint is None else Checkpoint(Path(checkpoint), _identity(settings, model, train, validation))
    model.to(default_device() if device is None else device)
    optimiser = _adam(model, lr, weight_decay, gamma_lr, gamma_weight_decay)
    run = TrainingRun(model, optimiser, None if ranks.rank else named)
    run.resume()
    ranks.start_alike(run)
    history, show = run.history, progress and ranks.rank == 0
    bar = progress_bar(show, total=epochs, initial=len(history.train_loss), desc="fit", unit="epoch", leave=False)
    try:
        with bar:
            while len(history.train_loss) < epochs and not (patience and history.stale_epochs() >= patience):
                epoch = len(history.train_loss)
                epoch_seed = seed * 1_000_003 + epoch  # a resumed run needs no stored random state
                seen = train if max_instances is None else Limited(train, max_instances, epoch_seed)
                assert train.labels is not None  # checked by criterion
                steps = drawn_order(train.labels, balanced, epoch_seed).split(bags_per_step)
                history.train_loss.append(_train_epoch(run, ranks, seen, mean_loss, steps, epoch_seed, epoch))
                if validation is not None:
                    history.validation_loss.append(_mean_loss(model, ranks, validation, mean_loss))
                    _check_finite("the validation loss", history.validation_loss[-1], epoch)
                run.finish_epoch()
                bar.set_postfix(loss=history.train_loss[-1])
                bar.update()
    finally:
        run.restore_best()
    return history


def _identity(
    settings: dict[str, Any], model: nn.Module, train: BagSource, validation: BagSource | None
) -> dict[str, Any]:
    """What a checkpoint is known by, beside its epochs: the settings, the model and the data."""
    sources = {"train": train, "validation": validation}
    data = {
        f"{part}.{name}": value
        for part, bags in sources.items()
        for name, value in ({"bags": 0} if bags is None else fingerprint.of_bags(bags)).items()
    }
    return {**settings, **data, "model": fingerprint.of_model(model)}


@checked(bags_per_step=at_least(1))
@torch.no_grad()
def predict(model: nn.Module, bags: BagSource, bags_per_step: int | None = None) -> MILOutput:
    """Output of a model on many bags, without gradients, in evaluation mode, on the CPU; its mode stays as it was.

    Args:
        model: maps `Bags` to `MILOutput`.
        bags: with labels or without.
        bags_per_step: how many go through the model at a time; None: up to 32, as long as they have no more than 16,384
            instances in all, since these are what memory goes to.
    """
    return _predict(model, bags, steps_within(bags, bags_per_step))


def _predict(model: nn.Module, bags: BagSource, steps: Sequence[Tensor]) -> MILOutput:
    was_training = model.training
    model.eval()
    try:
        found, coming = [], batches(bags, steps, device_of(model))
        while (batch := next(coming, None)) is not None:
            found.append(model(batch))
            del batch  # or it would still be there while the next one is read
    finally:
        model.train(was_training)
    fields = zip(*(output[:4] for output in found), strict=True)  # all logits, all attention, …; β is not asked for
    logits, attention, embedding, instance_logits = (
        None if parts[0] is None else torch.cat(parts).cpu() for parts in fields
    )
    assert logits is not None
    return MILOutput(logits, attention, embedding, instance_logits)


def _train_epoch(
    run: TrainingRun, ranks: Ranks, train: BagSource, mean_loss: Loss, steps: Sequence[Tensor], seed: int, epoch: int
) -> float:
    """One pass over the training bags; returns the mean loss of a bag."""
    model, optimiser, device = run.model, run.optimiser, device_of(run.model)
    model.train()
    total = torch.zeros((), device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed + (ranks.rank << 32))  # dropout, another one in each rank
        coming = batches(train, [ranks.share(step) for step in steps], device)
        for step in steps:
            bags = next(coming)
            optimiser.zero_grad()
            if bags is not None:
                assert bags.labels is not None  # checked in fit
                loss = mean_loss(model(bags).logits, bags.labels) * (len(bags) / len(step))
                loss.backward()
                total += loss.detach() * len(step)
                del bags, loss  # or they would still be there while the next ones are read
            ranks.sum_gradients(model)
            optimiser.step()
    ranks.sum(total)
    ranks.spread_buffers(model)
    mean = total.item() / len(train)
    _check_finite("the training loss", mean, epoch)
    weights = torch.stack([p.detach().isfinite().all() for p in model.parameters()])  # the last step is in no loss
    if not weights.all():
        name = [name for name, _ in model.named_parameters()][int((~weights).nonzero()[0])]
        _check_finite(name, math.nan, epoch)
    return mean


def _check_finite(what: str, value: float, epoch: int) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} became {value} in epoch {epoch}; try a lower lr, or bags of smaller numbers")


@torch.no_grad()
def _mean_loss(model: nn.Module, ranks: Ranks, bags: BagSource, mean_loss: Loss) -> float:
    """The mean loss of a bag; each rank predicts its share, and all get the whole."""
    assert bags.labels is not None  # checked in fit
    mine = [share for step in steps_within(bags) if len(share := ranks.share(step))]
    logits = _predict(
        model, bags, mine or [torch.zeros(1, dtype=torch.long)]
    ).logits  # nothing to do: one for its shape
    numbers = torch.cat(mine) if mine else torch.zeros(0, dtype=torch.long)
    logits = ranks.gather(logits[: len(numbers)].to(device_of(model)), numbers, len(bags)).cpu()
    return mean_loss(logits, bags.labels.cpu()).item()


def _adam(
    model: nn.Module, lr: float, weight_decay: float, gamma_lr: float | None, gamma_weight_decay: float | None
) -> torch.optim.Optimizer:
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("model: expected parameters to train, but none of them requires a gradient")
    is_gamma = {name: name.rpartition(".")[2] == "gamma" for name, _ in model.named_parameters()}
    if not any(is_gamma.values()) and (gamma_lr, gamma_weight_decay) != (None, None):
        raise ValueError("gamma_lr, gamma_weight_decay: this model has no parameter named gamma")
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in model.named_parameters() if not is_gamma[name]]},
        {
            "params": [p for name, p in model.named_parameters() if is_gamma[name]],
            "lr": lr if gamma_lr is None else gamma_lr,
            "weight_decay": weight_decay if gamma_weight_decay is None else gamma_weight_decay,
        },
    ]
    try:
        return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay, fused=True)
    except RuntimeError:  # a device without the fused step
        return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay)


def progress_bar(show: bool, **options: Any) -> Any:
    """A bar of text, in notebooks too: a widget would leave its state in them. TQDM_DISABLE=1 hides it."""
    return tqdm(**options) if show else tqdm(disable=True, **options)
