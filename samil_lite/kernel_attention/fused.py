"""PyTorch's own fused attention, for kernels that are dot products, on CPUs where values are no wider than queries.

−α‖q − k‖² is 2α⟨q, k⟩ − α‖k‖² and a term of the query alone, which the softmax cancels: a dot product of queries and
keys with one more column. So the logarithm of RBF is as fast there as the dot product itself.

It makes the forward pass of long bags on a CPU where values are no wider than queries; benchmarks/before.py measures it
("values of 64"). Elsewhere it is not taken:

- Values wider than queries, as in the paper (8 times). PyTorch fuses only equal widths, so the values are cut into
  heads, and each makes all scores again: of 64 and 512, (8 + 8) · 64 multiply-adds a pair instead of 64 + 512.
  benchmarks/attention.py measures this for the dot product: it takes twice the time of tiles.
- The backward pass. On a CPU it uses one core for each head, and here is one head; tiles use all.
- CUDA. PyTorch's flash attention takes half precision only, also for the scores, which here are float32 at least. Its
  other fused form takes float32 without tensor cores, on which the Triton programs have three TF32 products: at the
  rates that NVIDIA states for an H100, 67 TFLOP/s against 495 / 3 = 165. `torch.nn.attention.varlen`, for ragged
  batches, takes half precision only and widths up to 256.
"""

import torch
from torch import Tensor

from samil_lite.kernel_attention.autograd import Engine
from samil_lite.kernel_attention.blockwise import BLOCKWISE
from samil_lite.kernel_attention.distances import centred
from samil_lite.kernels import RBF, Dot, Kernel


def can_take(q: Tensor, v: Tensor, kernel: Kernel) -> bool:
    """Whether these kernel, shapes and types are those for which it is faster."""
    is_log_rbf = type(kernel) is RBF and kernel.log_scores
    fits = (type(kernel) is Dot or is_log_rbf) and v.shape[1] <= q.shape[1] + is_log_rbf
    return fits and q.device.type == "cpu" and q.dtype == v.dtype and q.dtype in (torch.float32, torch.float64)


def forward(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, offsets: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """q, k (n, d) and v (n, d_v) of one bag give o (n, d_v) and log Σ exp of the scores of each query, (n,)."""
    of_query = alpha.new_zeros(len(q))  # (n,): what the softmax cancels
    if isinstance(kernel, RBF):
        q, k, q2, k2 = centred(q, k, k.mean(0, keepdim=True), kernel, alpha)
        of_query = -alpha * q2
        q, k = torch.cat([2 * alpha * q, -alpha.expand(len(q), 1)], 1), torch.cat([k, k2[:, None]], 1)  # (n, d + 1)
    padded = torch.nn.functional.pad(v.to(q.dtype), (0, q.shape[1] - v.shape[1]))
    o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(x[None, None].to(q.dtype) for x in (q, k, padded)), scale=1.0
    )
    return o[0, 0, :, : v.shape[1]].to(v.dtype), (lse[0, 0] + of_query).to(alpha.dtype)


FUSED = Engine(forward, BLOCKWISE.backward)
