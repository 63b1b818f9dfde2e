"""Models: encoder, pooling and classifier put together, and `build`, which knows them by name."""

from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from samil_lite.arguments import at_least, checked, shown
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

    @property
    def probabilities(self) -> Tensor:
        """Of all classes, (B, C) with C ≥ 2; of one logit, those of the negative and of the positive class."""
        if self.logits.ndim == 1:
            return torch.stack([(-self.logits).sigmoid(), self.logits.sigmoid()], 1)
        return self.logits.softmax(1)


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

    @checked(dim=at_least(1), n_classes=at_least(1))
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
        self.encoder = encoder
        self.self_attention = self_attention
        self.pool = pool
        self.classifier = nn.Linear(dim, n_classes)
        self.n_classes = n_classes
        self.dim = dim
        self.instance_level = instance_level

    def forward(self, bags: Bags, return_weights: bool = False) -> MILOutput:
        """Classifies each bag. See `MILOutput` for the shapes.

        Args:
            bags: what to classify.
            return_weights: whether to return the β of the self-attention too; it changes nothing else.

        Raises:
            ValueError: if the bags are on another device than the model (`predict` and `evaluate` move them), or of a
                shape or type that its encoder cannot take.
        """
        h, beta = self._embed(bags), None  # (N, d)
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

    def _embed(self, bags: Bags) -> Tensor:
        """Embeddings (N, d); floating-point instances are taken in the type of the model's weights."""
        if not hasattr(bags, "instances"):
            hint = "; Bags.from_list([x]) makes a bag of instances x" if isinstance(bags, Tensor) else ""
            raise ValueError(f"bags: expected Bags, got {shown(bags)}{hint}")
        x, weight, dim = bags.instances, next(self.parameters()), self.dim
        if x.device != weight.device:
            device = str(weight.device)
            raise ValueError(
                f"bags: expected them on the model's device, {device}, got {x.device}; use bags.to({device!r})"
            )
        if x.dtype != weight.dtype and x.is_floating_point():
            x = x.to(weight.dtype)
        try:
            h = self.encoder(x)
        except (RuntimeError, TypeError) as error:
            if (reason := _misfit(self.encoder, x)) is None:
                raise
            raise ValueError(f"bags: {reason}") from error
        if not h.is_floating_point():  # of an encoder that changes nothing
            raise ValueError(f"bags: expected floating-point instances, got {x.dtype}; convert them, as .float() does")
        if h.ndim != 2 or h.shape[1] != dim:
            raise ValueError(f"dim: the encoder gives {shown(h)}, expected (N, {dim}), as the model was built for")
        return h  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"n_classes={self.n_classes}, instance_level={self.instance_level}"

    def _squeeze(self, logits: Tensor) -> Tensor:
        return logits.squeeze(-1) if self.n_classes == 1 else logits  # (B, 1) -> (B,)


def _misfit(encoder: nn.Module, x: Tensor) -> str | None:
    """Why an encoder cannot take these instances, if that is to be seen from outside."""
    if not x.is_floating_point():
        return f"the encoder cannot take instances of {x.dtype}; convert them, as .float() does, images also / 255"
    first = next((module for module in encoder.modules() if hasattr(module, "in_features")), None)
    if first is not None and x.shape[-1] != first.in_features:
        return f"instances have {x.shape[-1]} features, the encoder expects {first.in_features}"
    channels = next((module for module in encoder.modules() if hasattr(module, "in_channels")), None)
    if channels is not None and (x.ndim != 4 or x.shape[1] != channels.in_channels):
        hint = ""
        if x.ndim == 2:
            hint = (
                "; for features give build an encoder, such as "
                f"torch.nn.Sequential(torch.nn.Linear({x.shape[1]}, 128), torch.nn.ReLU()), and dim=128"
            )
        return f"instances have shape {tuple(x.shape[1:])}, the encoder expects {channels.in_channels} channels{hint}"
    return None


@checked(n_classes=at_least(1), dim=at_least(1), hidden=at_least(1))
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
    given, encoder = encoder is not None, LeNet5() if encoder is None else encoder
    out = getattr(encoder, "out_features", None)
    dim = out if dim is None else dim
    if not isinstance(dim, int):
        raise ValueError(f"dim: expected the width of the embeddings, since {type(encoder).__name__} does not say it")
    if isinstance(out, int) and out != dim:
        hint = (
            ""
            if given
            else (
                "; without an encoder it is LeNet5, for digits. For features give one, such as encoder="
                f"torch.nn.Sequential(torch.nn.Linear({dim}, 128), torch.nn.ReLU()), dim=128"
            )
        )
        raise ValueError(f"dim: expected {out}, the width of {type(encoder).__name__}'s embeddings, got {dim}{hint}")
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
