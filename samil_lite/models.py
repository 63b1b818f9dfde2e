"""Models: encoder, pooling and classifier put together, and `build`, which knows them by name."""

from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import Tensor, nn

from samil_lite.attention import KernelSelfAttention
from samil_lite.bags import Bags
from samil_lite.encoders import LeNet5
from samil_lite.pooling import AttentionPool, MaxPool, MeanPool, MeanProbabilityPool

KERNEL_OF = {
    "sa-abmilp": "dot",
    "gsa-abmilp": "rbf",
    "iqsa-abmilp": "inverse_quadratic",
    "lsa-abmilp": "laplace",
    "msa-abmilp": "module",
}  # of the models with self-attention
MODELS = ("abmilp", "gated-abmilp", *KERNEL_OF, "instance-max", "instance-mean", "embedding-max", "embedding-mean")


class MILOutput(NamedTuple):
    """What a model says of a batch of bags.

    Attributes:
        logits: (B,) for a binary model, (B, C) for C classes.
        attention: (N,), the weight of each instance, of sum one in each bag; None where the pooling has no weights.
        embedding: (B, d), the pooled vectors; None for instance-level models.
        instance_logits: the classifier's verdict on each instance, (N,) or (N, C); instance-level models only.
        self_attention: β of each bag, a list of (n_b, n_b) with row j for query j; only where it was asked for.
    """

    logits: Tensor
    attention: Tensor | None = None
    embedding: Tensor | None = None
    instance_logits: Tensor | None = None
    self_attention: list[Tensor] | None = None


class MILClassifier(nn.Module):
    """Encoder → self-attention, if any → pooling → classifier; instance-level models classify first, then pool.

    Args:
        encoder: maps instances (N, …) to embeddings (N, d).
        pool: a module of `samil_lite.pooling`, called with rows and offsets.
        dim: width d of the embeddings.
        n_classes: 1 for a binary label (one logit), C ≥ 2 for C classes (C logits).
        instance_level: whether the classifier comes before the pooling.
        self_attention: mixes the instances of each bag before they are pooled.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pool: nn.Module,
        dim: int,
        n_classes: int = 1,
        instance_level: bool = False,
        self_attention: KernelSelfAttention | None = None,
    ) -> None:
        super().__init__()
        if n_classes < 1:
            raise ValueError(f"n_classes: expected 1 (binary) or the number of classes, got {n_classes}")
        self.encoder = encoder
        self.self_attention = self_attention
        self.pool = pool
        self.classifier = nn.Linear(dim, n_classes)
        self.n_classes = n_classes
        self.instance_level = instance_level

    def forward(self, bags: Bags, return_weights: bool = False) -> MILOutput:
        """Classifies each bag. See `MILOutput` for the shapes.

        Args:
            bags: what to classify.
            return_weights: whether to return the β of the self-attention too; it changes nothing else.

        Raises:
            ValueError: if the bags are on another device than the model. (`predict` and `evaluate` move them.)
        """
        device, other = next(self.parameters()).device, bags.instances.device
        if device != other:
            raise ValueError(
                f"bags: expected them on the model's device, {device}, got {other}; use bags.to({str(device)!r})"
            )
        h, beta = self.encoder(bags.instances), None  # (N, d)
        if self.self_attention is not None:
            if return_weights:
                h, beta = self.self_attention(h, bags.offsets, return_weights=True)  # (N, d), B × (n_b, n_b)
            else:
                h = self.self_attention(h, bags.offsets)  # (N, d)
        if self.instance_level:
            s = self.classifier(h)  # (N, C)
            logits, attention = self.pool(s, bags.offsets)  # (B, C), (N,)
            return MILOutput(self._squeeze(logits), attention, None, self._squeeze(s))
        z, attention = self.pool(h, bags.offsets)  # (B, d), (N,)
        return MILOutput(self._squeeze(self.classifier(z)), attention, z, self_attention=beta)

    def _squeeze(self, logits: Tensor) -> Tensor:
        return logits.squeeze(-1) if self.n_classes == 1 else logits  # (B, 1) -> (B,)


def build(
    name: str,
    encoder: nn.Module | None = None,
    n_classes: int = 1,
    dim: int | None = None,
    hidden: int = 128,
    **self_attention: Any,
) -> MILClassifier:
    """A model by its name.

    One seed starts the parts that two models share alike: AbMILP's own weights are drawn before those of its
    self-attention, so with γ = 0 every SA model starts as the AbMILP of the same seed.

    Args:
        name: "abmilp", "gated-abmilp"; with self-attention "sa-abmilp" (dot product), "gsa-abmilp" (RBF), "iqsa-abmilp"
            (inverse quadratic), "lsa-abmilp" (Laplace), "msa-abmilp" (module); or "instance-max", "instance-mean",
            "embedding-max", "embedding-mean".
        encoder: maps instances to embeddings; `LeNet5()` if None. For instances that are feature vectors already,
            give `torch.nn.Identity()` and `dim`.
        n_classes: 1 for a binary label, C ≥ 2 for C classes.
        dim: width of the embeddings; read from `encoder.out_features` if None.
        hidden: width of the attention's hidden layer.
        self_attention: options of `KernelSelfAttention`, such as `gamma=1` or `kernel=sl.kernels.RBF(log_scores=True)`.

    Raises:
        ValueError: if the name is not known, the width of the embeddings cannot be told, or options of a
            self-attention are given to a model that has none.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=2) or MODELS
        raise ValueError(f"name: unknown model {name!r}; did you mean {' or '.join(near)}?")
    if self_attention and name not in KERNEL_OF:
        raise ValueError(f"{', '.join(self_attention)}: {name} has no self-attention; {', '.join(KERNEL_OF)} have")
    encoder = LeNet5() if encoder is None else encoder
    dim = getattr(encoder, "out_features", None) if dim is None else dim
    if not isinstance(dim, int):
        raise ValueError(f"dim: expected the width of the embeddings, since {type(encoder).__name__} does not say it")
    pool: nn.Module
    if name.endswith("abmilp"):
        pool = AttentionPool(dim, hidden, gated=name == "gated-abmilp")
    elif name == "instance-mean":
        pool = MeanProbabilityPool()
    else:
        pool = MeanPool() if name == "embedding-mean" else MaxPool()
    model = MILClassifier(encoder, pool, dim, n_classes, instance_level=name.startswith("instance"))
    if name in KERNEL_OF:  # last, so that it does not shift the random numbers of the other parts
        model.self_attention = KernelSelfAttention(dim, **{"kernel": KERNEL_OF[name], **self_attention})
    return model
