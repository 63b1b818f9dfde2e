"""Models: encoder, pooling and classifier put together, and `build`, which knows them by name."""

from difflib import get_close_matches
from typing import NamedTuple

from torch import Tensor, nn

from samil_lite.bags import Bags
from samil_lite.encoders import LeNet5
from samil_lite.pooling import AttentionPool, MaxPool, MeanPool, MeanProbabilityPool

MODELS = ("abmilp", "gated-abmilp", "instance-max", "instance-mean", "embedding-max", "embedding-mean")


class MILOutput(NamedTuple):
    """What a model says of a batch of bags.

    Attributes:
        logits: (B,) for a binary model, (B, C) for C classes.
        attention: (N,), the weight of each instance, of sum one in each bag; None where the pooling has no weights.
        embedding: (B, d), the pooled vectors; None for instance-level models.
        instance_logits: the classifier's verdict on each instance, (N,) or (N, C); instance-level models only.
    """

    logits: Tensor
    attention: Tensor | None = None
    embedding: Tensor | None = None
    instance_logits: Tensor | None = None


class MILClassifier(nn.Module):
    """Encoder → pooling → classifier; instance-level models classify first and pool the verdicts.

    Args:
        encoder: maps instances (N, …) to embeddings (N, d).
        pool: a module of `samil_lite.pooling`, called with rows and offsets.
        dim: width d of the embeddings.
        n_classes: 1 for a binary label (one logit), C ≥ 2 for C classes (C logits).
        instance_level: whether the classifier comes before the pooling.
    """

    def __init__(
        self, encoder: nn.Module, pool: nn.Module, dim: int, n_classes: int = 1, instance_level: bool = False
    ) -> None:
        super().__init__()
        if n_classes < 1:
            raise ValueError(f"n_classes: expected 1 (binary) or the number of classes, got {n_classes}")
        self.encoder = encoder
        self.pool = pool
        self.classifier = nn.Linear(dim, n_classes)
        self.n_classes = n_classes
        self.instance_level = instance_level

    def forward(self, bags: Bags) -> MILOutput:
        """Classifies each bag. See `MILOutput` for the shapes."""
        h = self.encoder(bags.instances)  # (N, d)
        if self.instance_level:
            s = self.classifier(h)  # (N, C)
            logits, attention = self.pool(s, bags.offsets)  # (B, C), (N,)
            return MILOutput(self._squeeze(logits), attention, None, self._squeeze(s))
        z, attention = self.pool(h, bags.offsets)  # (B, d), (N,)
        return MILOutput(self._squeeze(self.classifier(z)), attention, z)

    def _squeeze(self, logits: Tensor) -> Tensor:
        return logits.squeeze(-1) if self.n_classes == 1 else logits  # (B, 1) -> (B,)


def build(
    name: str, encoder: nn.Module | None = None, n_classes: int = 1, dim: int | None = None, hidden: int = 128
) -> MILClassifier:
    """A model by its name.

    Args:
        name: "abmilp", "gated-abmilp", "instance-max", "instance-mean", "embedding-max" or "embedding-mean".
        encoder: maps instances to embeddings; `LeNet5()` if None. For instances that are feature vectors already,
            give `torch.nn.Identity()` and `dim`.
        n_classes: 1 for a binary label, C ≥ 2 for C classes.
        dim: width of the embeddings; read from `encoder.out_features` if None.
        hidden: width of the attention's hidden layer.

    Raises:
        ValueError: if the name is not known or the width of the embeddings cannot be told.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=2) or MODELS
        raise ValueError(f"name: unknown model {name!r}; did you mean {' or '.join(near)}?")
    encoder = LeNet5() if encoder is None else encoder
    dim = getattr(encoder, "out_features", None) if dim is None else dim
    if not isinstance(dim, int):
        raise ValueError(f"dim: expected the width of the embeddings, since {type(encoder).__name__} does not say it")
    pool: nn.Module
    match name.split("-"):
        case [*gated, "abmilp"]:
            pool = AttentionPool(dim, hidden, gated=bool(gated))
        case ["instance", "mean"]:
            pool = MeanProbabilityPool()
        case [_, "mean"]:
            pool = MeanPool()
        case _:
            pool = MaxPool()
    return MILClassifier(encoder, pool, dim, n_classes, instance_level=name.startswith("instance"))
