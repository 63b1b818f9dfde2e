"""Weights that the public code of the papers saved, as models of this package.

- `AttentionDeepMIL <https://github.com/AMLab-Amsterdam/AttentionDeepMIL>`__ (Ilse et al. 2018): Attention and
  GatedAttention are abmilp and gated-abmilp on LeNet5.
- `Kernel_SA-AbMILP <https://github.com/gmum/Kernel_SA-AbMILP>`__ (Rymarczyk et al. 2021): model.Attention is abmilp and
  sa-abmilp on LeNet5; models.CNN is abmilp, sa-, gsa-, iqsa- and msa-abmilp on PatchCNN.
- `CLAM <https://github.com/mahmoodlab/CLAM>`__ (Lu et al. 2021): CLAM_SB is abmilp and gated-abmilp on features.
  CLAM_MB is refused: it pools once for each class, so a patch has as many attention weights as there are classes, and a
  classifier sees its own class' embedding alone; models here have one weight for each instance.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samil_lite.cards import Card, attach
from samil_lite.encoders import LeNet5, PatchCNN
from samil_lite.files import load_torch
from samil_lite.kernels import Module
from samil_lite.models import KERNEL_OF, MILClassifier, build

State = dict[str, Tensor]
# From names there to names here, by their beginnings.
NAMES = {
    "feature_extractor_part1.": "encoder.layers.", "feature_extractor_part2.0.": "encoder.layers.7.",  # of LeNet5
    "feature_extractor.": "encoder.layers.", "fc.0.": "encoder.layers.7.", "fc.3.": "encoder.layers.10.",  # PatchCNN
    "self_att.query_conv.": "self_attention.W_q.", "self_att.key_conv.": "self_attention.W_k.",
    "self_att.value_conv.": "self_attention.W_v.", "self_att.gamma": "self_attention.gamma",
    "attention.0.": "pool.V.", "attention.2.": "pool.w.",
    "attention_V.0.": "pool.V.", "attention_U.0.": "pool.U.", "attention_weights.": "pool.w.",
    "classifier.0.": "classifier.",
    "attention_net.0.": "encoder.0.", "classifiers.": "classifier.",  # of CLAM, as are the next
    "attention_net.3.attention_a.0.": "pool.V.", "attention_net.3.attention_b.0.": "pool.U.",
    "attention_net.3.attention_c.": "pool.w.",
    "attention_net.3.module.0.": "pool.V.", "attention_net.3.module.2.": "pool.w.",
    "attention_net.3.module.3.": "pool.w.",
}  # fmt: skip
# Never used there without places of the instances, or in training only.
UNUSED = ("self_att.gamma_in", "self_att.alfa", "instance_classifiers.")


def load_public(
    source: str | Path | Mapping[str, Tensor], kernel: str | None = None, classes: Sequence[str] | None = None
) -> MILClassifier:
    """A model with the weights that a public code saved (`torch.save(model.state_dict(), …)`), and the same logits.

    Images are expected as the encoders here take them: MNIST digits as given to the public code, patches from 0 to 1
    (the public code shifts them to −1 … 1 before the network, `PatchCNN` in it).

    Args:
        source: path of the file, opened without running code from it, or the state itself.
        kernel: of the self-attention, which a state of Kernel_SA-AbMILP does not tell: "dot", "rbf",
            "inverse_quadratic" or "module" (the L1 norm of that code, with α = 1). Its option for Laplace computes the
            dot product.
        classes: names of the classes, for the model's card.

    Returns:
        The model in evaluation mode.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of the classes above, or the kernel must be said, or there is nothing to say it of.
    """
    state = _opened(source)
    model = _clam(state) if "attention_net.0.weight" in state else _of_papers(state, kernel)
    if (model.self_attention is None) != (kernel is None):
        what = "has no self-attention" if kernel else 'has self-attention; say its kernel, such as kernel="rbf"'
        raise ValueError(f"kernel: this state {what}")
    renamed = _renamed(state, model)
    branches = len(renamed.get("pool.w.weight", [0]))
    if branches > 1:
        raise ValueError(f"source: this state has {branches} attention branches (K = {branches}); models here have one")
    expected = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    if expected != {name: tuple(x.shape) for name, x in renamed.items()}:
        odd = sorted(n for n in expected | renamed if expected.get(n) != tuple(renamed.get(n, torch.empty(0)).shape))
        raise ValueError(f"source: this state does not fit a known model: {', '.join(odd[:6])}; known are in the help")
    model.load_state_dict(renamed)
    first = next((m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)), None)
    attach(model, Card(classes=classes, width=first.in_features if isinstance(first, nn.Linear) else None))  # type: ignore[arg-type]
    return model.eval()


def _opened(source: str | Path | Mapping[str, Tensor]) -> State:
    state: Any = source
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise FileNotFoundError(f"source: {source} is not there; expected a file with a state dict")
        try:
            state = load_torch(Path(source), mapped=False)
        except ValueError as error:
            raise ValueError(
                f"source: {source} is no state dict that can be read without running code from it ({error}). Where the "
                "public code is at hand: torch.save(model.state_dict(), path)"
            ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(x, Tensor) for x in state.values()) or not state:
        raise ValueError(f"source: expected names and tensors, got {type(state).__name__}")
    return {str(name).removeprefix("module."): x for name, x in state.items()}  # of DataParallel


def _of_papers(state: State, kernel: str | None) -> MILClassifier:
    """A model for AttentionDeepMIL or Kernel_SA-AbMILP."""
    hidden, dim = _shape(state, "attention.0.weight", "attention_V.0.weight")
    encoder: nn.Module
    if "feature_extractor_part2.0.weight" in state:
        encoder = LeNet5(dim)
    else:
        _, flat = _shape(state, "fc.0.weight")
        encoder = PatchCNN({1200: 27, 1728: 32}.get(flat, 27), width=dim)
    if "self_att.gamma" not in state:
        return build("gated-abmilp" if "attention_U.0.weight" in state else "abmilp", encoder, hidden=hidden)
    names = {k: name for name, k in KERNEL_OF.items() if k != "laplace"}
    if kernel not in names:
        raise ValueError(f"kernel: expected one of {', '.join(names)}, which this state does not tell, got {kernel!r}")
    options: dict[str, Any] = {"kernel": Module(norm="l1")} if kernel == "module" else {}
    return build(names[kernel], encoder, hidden=hidden, bias=True, **options)


def _clam(state: State) -> MILClassifier:
    if any(name.startswith("classifiers.0.") for name in state):
        raise ValueError(
            "source: this is CLAM_MB, which has one attention for each class, as no model here; expected CLAM_SB, "
            "which has one in all. Train that one, or use CLAM's own code"
        )
    (dim, width), gated = _shape(state, "attention_net.0.weight"), "attention_net.3.attention_a.0.weight" in state
    hidden, _ = _shape(state, "attention_net.3.attention_a.0.weight", "attention_net.3.module.0.weight")
    encoder = nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Dropout(0.25))
    n_classes, _ = _shape(state, "classifiers.weight")
    return build("gated-abmilp" if gated else "abmilp", encoder, n_classes, dim, hidden)


def _shape(state: State, *names: str) -> tuple[int, ...]:
    for name in names:
        if name in state and state[name].ndim == 2:
            return tuple(state[name].shape)
    raise ValueError(f"source: expected {' or '.join(names)} in a state of a known model, got {', '.join(state)[:300]}")


def _renamed(state: State, model: MILClassifier) -> State:
    """The state with the names and shapes of this package."""
    found = {}
    for name, x in state.items():
        if name.startswith(UNUSED):
            continue
        if name == "self_att.gamma_att":  # α, which that code clips at 0
            if model.self_attention is not None and model.self_attention.raw_alpha is not None:
                alpha = 1.0 if isinstance(model.self_attention.kernel, Module) else max(float(x), 1e-9)
                found["self_attention.raw_alpha"] = torch.tensor(alpha + math.log(-math.expm1(-alpha)))
            continue
        begin = max((b for b in NAMES if name.startswith(b)), key=len, default=None)
        here = name if begin is None else NAMES[begin] + name.removeprefix(begin)
        if here == "pool.w.bias":  # a constant, which the softmax cancels
            continue
        x = x.squeeze(-1) if "conv." in name else x  # convolutions of width 1
        found[here] = x.reshape(()) if here == "self_attention.gamma" else x
    return found
