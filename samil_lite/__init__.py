"""Attention-based multiple-instance learning: bags, pooling, models and their training, in plain PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from samil_lite import kernels
from samil_lite.attention import KernelSelfAttention
from samil_lite.backbones import frozen_features
from samil_lite.bags import Bags
from samil_lite.cards import Ensemble
from samil_lite.checkpoints import History
from samil_lite.encoders import LeNet5, PatchCNN
from samil_lite.evaluation import evaluate
from samil_lite.kernel_attention import attention_received, attention_rows, kernel_attention
from samil_lite.metrics import Metrics
from samil_lite.models import MILClassifier, MILOutput, build
from samil_lite.pooling import AttentionPool, MaxPool, MeanPool
from samil_lite.public_checkpoints import load_public
from samil_lite.saving import load, save
from samil_lite.training import fit, predict

if TYPE_CHECKING:
    from samil_lite import checks, data, experiments, export, sklearn, viz
    from samil_lite.cross_validation import CrossValidation, cross_validate
    from samil_lite.predicting import predictions
    from samil_lite.scoring import score_table

__version__ = "0.1.0"
__all__ = [
    "AttentionPool",
    "Bags",
    "CrossValidation",
    "Ensemble",
    "History",
    "KernelSelfAttention",
    "LeNet5",
    "MILClassifier",
    "MILOutput",
    "MaxPool",
    "MeanPool",
    "Metrics",
    "PatchCNN",
    "about",
    "attention_received",
    "attention_rows",
    "build",
    "checks",
    "cross_validate",
    "data",
    "evaluate",
    "experiments",
    "export",
    "fit",
    "frozen_features",
    "kernel_attention",
    "kernels",
    "load",
    "load_public",
    "predict",
    "predictions",
    "save",
    "score_table",
    "sklearn",
    "viz",
]


_NEED_PANDAS = {
    "CrossValidation": "cross_validation", "cross_validate": "cross_validation", "predictions": "predicting",
    "score_table": "scoring",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # Imported at first use: matplotlib, seaborn and pandas together take longer to import than all the rest.
    if name in ("checks", "data", "experiments", "export", "sklearn", "viz"):
        return import_module(f"samil_lite.{name}")
    if name in _NEED_PANDAS:
        return getattr(import_module(f"samil_lite.{_NEED_PANDAS[name]}"), name)
    raise AttributeError(f"module 'samil_lite' has no attribute {name!r}")


def about() -> str:
    """One line for the top of a notebook: versions and the device that `fit` would choose."""
    import platform

    import torch

    from samil_lite.training import default_device

    device = default_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"samil_lite {__version__} · torch {torch.__version__} · Python {platform.python_version()} · {name}"
