"""The state of a training run, and the file that lets it go on after it was interrupted."""

import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samil_lite.files import load_torch, naming
from samil_lite.writing import write_atomically


@dataclass
class History:
    """What happened in training, one number for each epoch.

    Attributes:
        train_loss: mean over the training bags of the loss, as it was before each step.
        validation_loss: mean over the validation bags after the epoch; empty without validation bags.
        scalars: the model's parameters of a single number, such as γ, by name: their values after the epoch.
        best_epoch: the epoch (from 0) whose weights the model has now.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    scalars: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = -1

    def stale_epochs(self) -> int:
        """How many epochs have passed since the best one."""
        return len(self.train_loss) - 1 - self.best_epoch


@dataclass(frozen=True)
class Checkpoint:
    """A file and what it is known by: the settings, the model and the data of its run."""

    path: Path
    identity: dict[str, Any]

    def write(self, **state: Any) -> None:
        write_atomically(self.path, lambda file: torch.save({"settings": self.identity, **state}, file))

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """The stored state; None if there is no file.

        Raises:
            ValueError: if the file cannot be read, or is of another run; the message says what differs.
        """
        if not self.path.exists():
            return None
        try:
            state = _undamaged(self.path, device)
        except (OSError, MemoryError, ImportError):
            raise
        except Exception as error:
            raise self.unreadable(error) from error
        self._check_identity(state["settings"])
        return state

    def unreadable(self, error: Exception) -> ValueError:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        return ValueError(f"checkpoint: {self.path} cannot be read ({reason}); delete it to start from the beginning")

    def _check_identity(self, saved: dict[str, Any]) -> None:
        here, there = ({**identity, "model": None} for identity in (self.identity, saved))
        if here != there:
            other = {k: (there.get(k), here.get(k)) for k in {**there, **here} if there.get(k) != here.get(k)}
            raise ValueError(
                f"checkpoint: {self.path} is of a run with other settings or bags (there, here): {other}; "
                "give another file, or delete it to start from the beginning"
            )
        if saved["model"] != self.identity["model"]:
            pairs = zip([*saved["model"], "nothing"], [*self.identity["model"], "nothing"], strict=False)
            first = next(f"{a} ≠ {b}" for a, b in pairs if a != b)
            raise ValueError(f"checkpoint: {self.path} is of another model (there ≠ here): {first}")


def _undamaged(path: Path, device: torch.device) -> dict[str, Any]:
    """What a checkpoint holds, if no byte of it has changed and nothing is missing."""
    if path.is_file():
        with naming(path, " is damaged"), zipfile.ZipFile(path) as archive:  # zipfile raises OSError of some damage
            if (entry := archive.testzip()) is not None:
                raise ValueError(f"its entry {entry} is damaged")
    state: dict[str, Any] = load_torch(path, device, mapped=False)
    history, best, identity = History(**state["history"]), state["best"], state["settings"]
    n = len(history.train_loss)
    if (
        not isinstance(identity, dict)
        or not isinstance(identity["model"], list)
        or not isinstance(best, dict)
        or len(history.validation_loss) not in (0, n)
        or any(len(values) != n for values in history.scalars.values())
        or not 0 <= history.best_epoch < n
    ):
        raise ValueError("its parts do not go together")
    return {"model": state["model"], "optimiser": state["optimiser"], "history": history, "best": best} | {
        "settings": identity
    }


@dataclass
class TrainingRun:
    """A model on its way: what has happened, the best weights so far, and where they are stored, if anywhere."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    checkpoint: Checkpoint | None
    history: History = field(default_factory=History)
    best: dict[str, Tensor] = field(default_factory=dict)

    def finish_epoch(self) -> None:
        """Notes the single numbers, remembers the weights if they are the best so far, writes the checkpoint."""
        for name, x in self.model.named_parameters():
            if x.ndim == 0:
                self.history.scalars.setdefault(name, []).append(x.item())
        losses = self.history.validation_loss
        if not losses or losses[-1] <= min(losses):
            self.history.best_epoch = len(self.history.train_loss) - 1
            if losses:
                self.best = self.model.state_dict()  # not a plain dict: it says the kernel, beside the numbers
                self.best |= {name: x.detach().clone() for name, x in self.best.items()}
        if self.checkpoint is not None:
            self.checkpoint.write(
                model=self.model.state_dict(),
                optimiser=self.optimiser.state_dict(),
                history=asdict(self.history),
                best=self.best,
            )

    def resume(self) -> None:
        """Goes back to the state of the checkpoint, if there is one."""
        if self.checkpoint is None:
            return
        state = self.checkpoint.read(next(self.model.parameters()).device)
        if state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
            if state["best"].keys() - self.model.state_dict().keys():
                raise ValueError("its best weights are of another model")
            self.optimiser.load_state_dict(state["optimiser"])
        except Exception as error:
            raise self.checkpoint.unreadable(error) from error
        self.history, self.best = state["history"], state["best"]

    def restore_best(self) -> None:
        if self.best:
            self.model.load_state_dict(self.best)
        self.model.eval()
