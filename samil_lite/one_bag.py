"""A trained model on one bag at a time, in plain tensor operations: what torch.export and ONNX can take."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samil_lite.attention import KernelSelfAttention
from samil_lite.bags import Bags
from samil_lite.encoders import LeNet5, PatchCNN, Standardise
from samil_lite.extras import from_extra
from samil_lite.kernels import squared_distances
from samil_lite.models import MILClassifier
from samil_lite.pooling import AttentionPool, MaxPool, MeanPool, MeanProbabilityPool, NoisyOrPool
from samil_lite.writing import write_atomically

TOLERANCE = 1e-4  # of the checked outputs, relative to the largest
SIZES = (1, 3, 40)  # instances of the bags that are checked


class OneBag(nn.Module):
    """The same weights and equations as a model, for the instances x (n, …) of one bag, without offsets.

    It returns the logits, a number or (C,), and the attention weights (n,) of pooling that has them. All scores of the
    self-attention are in memory, n × n numbers. `torch.export.export(OneBag(model), (x,), dynamic_shapes=({0: n},))`
    takes it with any number of instances.

    Args:
        model: of `samil_lite.build`; its weights are shared, and it is put into evaluation mode.

    Raises:
        ValueError: if the model's pooling is of another class than those of this package.
    """

    def __init__(self, model: MILClassifier) -> None:
        super().__init__()
        if type(model.pool) not in POOLS:
            raise ValueError(f"model: pooling of {type(model.pool).__name__} has no form for one bag")
        self.model = model.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        h = _embed(model.encoder, x)  # (n, d)
        if model.self_attention is not None:
            h = h + model.self_attention.gamma * _mixed(model.self_attention, h)  # (n, d)
        z = model.classifier(h) if model.instance_level else h  # (n, C) or (n, d)
        pooled, *attention = POOLS[type(model.pool)](model.pool, z)  # (C,) or (d,), (n,)
        logits = pooled if model.instance_level else model.classifier(pooled)  # (C,)
        return (logits.squeeze(-1) if model.n_classes == 1 else logits, *attention)


def _embed(encoder: Any, x: Tensor) -> Tensor:
    if isinstance(encoder, LeNet5):  # all at once: how many chunks there are depends on the bag
        embeddings = encoder.layers(x)
    else:
        embeddings = encoder._encode(x) if isinstance(encoder, PatchCNN) else encoder(x)
    return embeddings  # type: ignore[no-any-return]


def _mixed(layer: KernelSelfAttention, h: Tensor) -> Tensor:
    """What self-attention adds to the embeddings h (n, d), before its γ: (n, d)."""
    q, k, v = layer.W_q(h), layer.W_k(h), layer.W_v(h)  # (n, d_qk), (n, d_qk), (n, d)
    alpha = torch.ones_like(layer.gamma) if layer.alpha is None else layer.alpha
    if layer.kernel.statistic == "l1_distance":  # coordinate by coordinate: ONNX has no L1 distance
        t = sum((q[:, c, None] - k[:, c]).abs() for c in range(q.shape[1]))  # (n, n)
    elif layer.kernel.statistic == "squared_distance":  # in float64, or far groups would lose digits
        mean = k.mean(0).double()  # (d_qk,)
        t = squared_distances(q.double() - mean, k.double() - mean).to(q.dtype)  # (n, n)
    else:
        t = q @ k.T  # (n, n)
    scores, b = layer.kernel.phi(t, alpha), layer.kernel.key_term(k, alpha)  # (n, n), (n,)
    return (scores if b is None else scores + b).softmax(-1) @ v  # type: ignore[no-any-return]  # (n, d)


def _attention(pool: Any, h: Tensor) -> tuple[Tensor, Tensor]:
    e = torch.tanh(pool.V(h))  # (n, hidden)
    if pool.U is not None:
        e = e * torch.sigmoid(pool.U(h))
    a = pool.w(e).squeeze(-1).softmax(0)  # (n,)
    return a @ h, a  # (d,), (n,)


def _mean_probability(pool: Any, s: Tensor) -> tuple[Tensor, ...]:
    if s.shape[1] == 1:
        yes, no = (nn.functional.logsigmoid(x).logsumexp(0) for x in (s, -s))  # (1,), (1,)
        return (yes - no,)
    return (s.log_softmax(1).logsumexp(0) - torch.ones_like(s[:, 0]).sum().log(),)  # (C,)


def _noisy_or(pool: Any, s: Tensor) -> tuple[Tensor, ...]:
    total = nn.functional.softplus(s).sum(0).clamp_min(torch.finfo(s.dtype).tiny)  # (1,), see NoisyOrPool
    return (total + torch.log(-torch.expm1(-total)),)


POOLS: dict[type[nn.Module], Callable[[Any, Tensor], tuple[Tensor, ...]]] = {
    AttentionPool: _attention,
    MaxPool: lambda pool, h: (h.amax(0),),
    MeanPool: lambda pool, h: (h.mean(0),),
    MeanProbabilityPool: _mean_probability,
    NoisyOrPool: _noisy_or,
}


def onnx(model: MILClassifier, path: str | Path, *, example: Tensor | None = None) -> Path:
    """Writes a trained model as an ONNX file, which runs without Python and PyTorch, on bags of any size.

    The file takes the `instances` of one bag, (n, …) in the type of the weights, and gives its `logits`, a number or
    (C,), and the `attention` weights (n,) where the model has them. Self-attention keeps all n × n scores there. Before
    the file appears, its outputs are compared with the model's on bags of 1, 3 and 40 instances.

    Args:
        model: of `samil_lite.build`; it is put into evaluation mode.
        path: of the file; it appears whole or not at all.
        example: instances (n, …), for an encoder that does not say what it takes; only their shape counts.

    Returns:
        The path.

    Raises:
        ValueError: if the shape of an instance cannot be told, or the pooling is not of this package.
        RuntimeError: if the outputs are not the model's.
        ImportError: without the extra `onnx`.
    """
    with from_extra("onnx", f"{path} needs onnx and onnxscript"):
        import onnx as onnx_package
        import onnxscript  # noqa: F401  # PyTorch's exporter needs it
    one, weight = OneBag(model), model.classifier.weight
    shape = _shape_of_instances(model) if example is None else tuple(example.shape[1:])
    x = torch.rand(5, *shape, dtype=weight.dtype, device=weight.device)  # (5, …)
    names = ["logits", "attention"][: len(one(x))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's exporter about itself
        program = torch.onnx.export(
            one, (x,), input_names=["instances"], output_names=names, dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        )  # fmt: skip
    content = program.model_proto.SerializeToString()  # type: ignore[union-attr]
    _compare(content, model, shape, onnx_package)
    write_atomically(Path(path), lambda file: file.write(content))
    return Path(path)


def _shape_of_instances(model: MILClassifier) -> tuple[int, ...]:
    """The shape of one instance, as far as an encoder says it."""
    encoder: Any = model.encoder
    if isinstance(encoder, LeNet5):
        return (1, 28, 28)
    if isinstance(encoder, PatchCNN):
        return (3, encoder.size, encoder.size)
    layers = [m for m in encoder.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    if not layers:
        return (model.dim,)
    if isinstance(layers[0], nn.Linear | Standardise):
        return (layers[0].in_features if isinstance(layers[0], nn.Linear) else layers[0].width,)
    raise ValueError(f"example: {type(encoder).__name__} does not say what it takes; give instances of shape (n, …)")


@torch.no_grad()
def _compare(content: bytes, model: MILClassifier, shape: tuple[int, ...], onnx_package: Any) -> None:
    """Raises RuntimeError unless the ONNX program gives the model's outputs."""
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except ImportError:  # slower, but it comes with onnx
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(onnx_package.load_model_from_string(content))
    for n in SIZES:
        x = torch.rand(n, *shape, dtype=model.classifier.weight.dtype)  # (n, …)
        x_there = x.to(model.classifier.weight.device)
        expected = model(Bags(x_there, torch.tensor([0, n], device=x_there.device)))
        wanted = [expected.logits.squeeze(0), *([] if expected.attention is None else [expected.attention])]
        outputs = session.run(None, {"instances": x.numpy()})
        for name, ours, theirs in zip(("logits", "attention"), outputs, wanted, strict=False):
            error = (torch.as_tensor(ours).reshape(theirs.shape) - theirs.cpu()).abs().max()
            if not error <= TOLERANCE * max(1.0, float(theirs.abs().max())):
                raise RuntimeError(f"onnx: {name} of {n} instances are off by {float(error):.1e}; no file is written")
