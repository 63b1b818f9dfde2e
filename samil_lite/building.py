"""What a model is built of, as JSON, and the model built from it again: a fixed list of parts, no code."""

from collections.abc import Callable
from typing import Any

from torch import nn

from samil_lite.attention import KernelSelfAttention
from samil_lite.augment import Dihedral, StainJitter
from samil_lite.encoders import LeNet5, PatchCNN, Standardise
from samil_lite.kernels import KERNELS, Kernel
from samil_lite.models import MILClassifier
from samil_lite.pooling import AttentionPool, MaxPool, MeanPool, MeanProbabilityPool

Described = dict[str, Any]

# Parts whose arguments are attributes of the same names.
PLAIN: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Identity: (), nn.ReLU: (), nn.Tanh: (), nn.Sigmoid: (), nn.SiLU: (), nn.GELU: (),
    nn.LeakyReLU: ("negative_slope",), nn.ELU: ("alpha",),
    nn.Dropout: ("p",), nn.Flatten: ("start_dim", "end_dim"),
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine"),
    nn.BatchNorm1d: ("num_features", "eps", "momentum", "affine"),
    nn.BatchNorm2d: ("num_features", "eps", "momentum", "affine"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding"), nn.AdaptiveAvgPool2d: ("output_size",),
    Standardise: ("width",), Dihedral: (), StainJitter: ("std",),
    MaxPool: (), MeanPool: (), MeanProbabilityPool: (),
}  # fmt: skip
# Other parts: how their arguments are read off.
OTHER: dict[type[nn.Module], Callable[[Any], Described]] = {
    nn.Linear: lambda m: {
        "in_features": m.in_features, "out_features": m.out_features, "bias": m.bias is not None,
    },
    nn.Conv2d: lambda m: {
        "in_channels": m.in_channels, "out_channels": m.out_channels, "kernel_size": m.kernel_size,
        "stride": m.stride, "padding": m.padding, "dilation": m.dilation, "groups": m.groups,
        "bias": m.bias is not None,
    },
    LeNet5: lambda m: {"width": m.out_features, "chunk_size": m.chunk_size},
    PatchCNN: lambda m: {
        "size": m.size, "width": m.out_features, "dropout": m.layers[9].p, "augment": describe(m.augment),
        "chunk_size": m.chunk_size,
    },
    AttentionPool: lambda m: {
        "dim": m.V.in_features, "hidden": m.V.out_features, "gated": m.U is not None,
    },
    KernelSelfAttention: lambda m: {
        "dim": m.W_v.in_features, "kernel": _describe_kernel(m.kernel), "dim_qk": m.W_q.out_features,
        "learn_alpha": m.raw_alpha is not None and m.raw_alpha.requires_grad, "bias": m.W_q.bias is not None,
        "backend": m.backend,
    },
    MILClassifier: lambda m: {
        "encoder": describe(m.encoder), "pool": describe(m.pool), "dim": m.classifier.in_features,
        "n_classes": m.n_classes, "instance_level": m.instance_level,
        "self_attention": None if m.self_attention is None else describe(m.self_attention),
    },
}  # fmt: skip
PARTS = {part.__name__: part for part in (*PLAIN, *OTHER, nn.Sequential)}
KERNEL_NAMES = {kernel: name for name, kernel in KERNELS.items()}


def describe(module: nn.Module) -> Described:
    """What the module is and its arguments. One of a class that is not in `PARTS` gets its class' full name."""
    kind = type(module)
    if kind is nn.Sequential:
        return {"part": "Sequential", "layers": [describe(layer) for layer in module.children()]}
    if kind in PLAIN:
        return {"part": kind.__name__, **{name: _plain(getattr(module, name)) for name in PLAIN[kind]}}
    if kind in OTHER:
        return {"part": kind.__name__, **{name: _plain(x) for name, x in OTHER[kind](module).items()}}
    return {"part": f"{kind.__module__}.{kind.__qualname__}"}


def construct(told: Described, where: str = "") -> nn.Module:
    """The module that `describe` told of.

    Raises:
        ValueError: if it has a part that is not in `PARTS`; the message begins with `where`.
    """
    arguments = dict(told)
    name = arguments.pop("part")
    if name not in PARTS:
        raise ValueError(
            f"{where}this model has a part of the class {name}, which cannot be built from a file; build the model "
            "yourself and give it as model=…"
        )
    if name == "Sequential":
        return nn.Sequential(*(construct(layer, where) for layer in arguments["layers"]))
    if name == "KernelSelfAttention":
        arguments["kernel"] = _kernel(arguments["kernel"], where)
    inner = {key: construct(x, where) for key, x in arguments.items() if isinstance(x, dict)}
    module: nn.Module = PARTS[name](**arguments | inner)
    return module


def differences(a: Any, b: Any, place: str = "model") -> list[str]:
    """Where two descriptions differ, as texts with both sides."""
    if isinstance(a, dict) and isinstance(b, dict) and a.get("part") == b.get("part"):
        keys = dict.fromkeys([*a, *b])
        return [text for key in keys for text in differences(a.get(key), b.get(key), f"{place}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [text for i, (x, y) in pairs for text in differences(x, y, f"{place}[{i}]")]
    return [] if a == b else [f"{place.removeprefix('model.')} {_short(a)} and {_short(b)}"]


def _short(x: Any) -> str:
    return str(x["part"]) if isinstance(x, dict) and "part" in x else repr(x)


def _plain(x: Any) -> Any:
    return list(x) if isinstance(x, tuple) else x  # as JSON gives it back


def _describe_kernel(kernel: Kernel) -> Described:
    kind = type(kernel)
    name = KERNEL_NAMES.get(kind, f"{kind.__module__}.{kind.__qualname__}")
    return {"name": name, **{k: v for k, v in vars(kernel).items() if k != "statistic"}}


def _kernel(told: Described, where: str) -> Kernel:
    options = dict(told)
    name = options.pop("name")
    if name not in KERNELS:
        raise ValueError(f"{where}this model has a kernel of the class {name}; build the model yourself, as model=…")
    return KERNELS[name](**options)
