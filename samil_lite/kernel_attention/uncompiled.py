"""What torch.compile is not to look into. Importing this file imports the compiler, so it is imported when needed."""

# mypy: disable-error-code="untyped-decorator"
import torch
from torch import Tensor

from samil_lite.kernel_attention.arguments import as_alpha, check
from samil_lite.kernel_attention.groups import attend
from samil_lite.kernels import Kernel


@torch.compiler.disable
def attend_uncompiled(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel, backend: str
) -> Tensor:
    """As `attend`: one break of the compiled graph."""
    check(q, k, v, offsets)
    return attend(q, k, v, as_alpha(alpha, q), offsets, kernel, backend)
