"""Self-attention with a kernel: every instance looks at the instances of its bag before they are pooled."""

import math
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from samil_lite.arguments import above, at_least, checked, one_of, shown
from samil_lite.kernel_attention import attention_received, attention_rows, kernel_attention
from samil_lite.kernel_attention.groups import BACKENDS
from samil_lite.kernels import Kernel, as_kernel


class KernelSelfAttention(nn.Module):
    r"""Self-attention with a kernel, a residual and a learned scale γ.

    .. math::
        q = W_q h, \quad k = W_k h, \quad v = W_v h, \qquad
        \hat h_j = h_j + \gamma \sum_i \operatorname{softmax}_i \kappa_\alpha(k_i, q_j) \, v_i

    with i over the instances of j's bag. Source: `Rymarczyk et al. (2021) <https://arxiv.org/abs/2005.12991>`__. The
    kernel's α is the softplus of the parameter `raw_alpha`, so it stays positive and its gradient never dies.

    Args:
        dim: width d of the embeddings.
        kernel: "dot", "rbf", "inverse_quadratic", "laplace", "module", or an object of `samil_lite.kernels`.
        dim_qk: width of queries and keys; d // 8, at least 1, if None.
        gamma: where γ starts. 0, the paper's, makes an untrained layer the identity; 1 is in the public code's kernels.
        alpha: where α starts.
        learn_alpha: whether α is learned.
        bias: whether the three maps have biases, as in the public code.
        backend: passed to `kernel_attention`.
    """

    @checked(dim=at_least(1), dim_qk=at_least(1), alpha=above(0), backend=one_of(BACKENDS))
    def __init__(
        self,
        dim: int,
        kernel: str | Kernel = "dot",
        dim_qk: int | None = None,
        *,
        gamma: float = 0.0,
        alpha: float = 1.0,
        learn_alpha: bool = True,
        bias: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.kernel = as_kernel(kernel)
        self.backend = backend
        dim_qk = max(dim // 8, 1) if dim_qk is None else dim_qk
        self.W_q = nn.Linear(dim, dim_qk, bias)
        self.W_k = nn.Linear(dim, dim_qk, bias)
        self.W_v = nn.Linear(dim, dim, bias)
        self.gamma = nn.Parameter(torch.tensor(float(gamma)))
        self.raw_alpha: nn.Parameter | None = None
        if self.kernel.has_alpha:
            raw = torch.tensor(alpha + math.log(-math.expm1(-alpha)))  # softplus of this is alpha
            self.raw_alpha = nn.Parameter(raw, requires_grad=learn_alpha)

    @property
    def alpha(self) -> Tensor | None:
        """The kernel's α, one positive number; None for a kernel without."""
        return None if self.raw_alpha is None else nn.functional.softplus(self.raw_alpha)

    @overload
    def forward(self, h: Tensor, offsets: Tensor, return_weights: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(self, h: Tensor, offsets: Tensor, return_weights: Literal[True]) -> tuple[Tensor, list[Tensor]]: ...
    def forward(self, h: Tensor, offsets: Tensor, return_weights: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Mixes the instances of each bag.

        Args:
            h: embeddings, shape (N, d).
            offsets: where each bag begins, shape (B + 1,).
            return_weights: whether to return β too; it changes nothing else.

        Returns:
            ĥ, shape (N, d); with `return_weights` also the list of β, one (n_b, n_b) for each bag, row j for query j.

        Raises:
            ValueError: if the offsets do not cut h into bags, or h has another width.
        """
        self._check(h)
        q, k, v = *self._queries_and_keys(h), self.W_v(h)  # (N, d_qk), (N, d_qk), (N, d)
        if not return_weights:
            return h + self.gamma * kernel_attention(q, k, v, self.kernel, self.alpha, offsets, self.backend)  # (N, d)
        o, beta = kernel_attention(q, k, v, self.kernel, self.alpha, offsets, self.backend, return_weights=True)
        return h + self.gamma * o, beta

    def attention_rows(self, h: Tensor, indices: Tensor, offsets: Tensor | None = None) -> list[Tensor]:
        """β of some queries only, without the n × n numbers of all; see `samil_lite.attention_rows`."""
        self._check(h)
        return attention_rows(*self._queries_and_keys(h), indices, self.kernel, self.alpha, offsets)

    def attention_received(self, h: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Mean of each column of β, for pictures of large bags; see `samil_lite.attention_received`."""
        self._check(h)
        return attention_received(*self._queries_and_keys(h), self.kernel, self.alpha, offsets)

    def extra_repr(self) -> str:
        learned = "" if self.raw_alpha is None else f", learn_alpha={self.raw_alpha.requires_grad}"
        return f"kernel={self.kernel}{learned}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Notes the kernel beside the numbers: those of one kernel fit the shapes of another."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]]["kernel"] = repr(self.kernel)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: Any, unexpected_keys: Any,
        error_msgs: list[str],
    ) -> None:  # fmt: skip
        there = local_metadata.get("kernel")
        if there is not None and there != repr(self.kernel):
            error_msgs.append(f"{prefix}kernel: these weights were learned with {there}, this model has {self.kernel}")
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _check(self, h: Tensor) -> None:
        if not isinstance(h, Tensor) or h.ndim != 2 or h.shape[1] != self.W_v.in_features:
            raise ValueError(f"h: expected embeddings of shape (N, {self.W_v.in_features}), got {shown(h)}")

    def _queries_and_keys(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """q and k (N, d_qk), in the type of the weights under autocast too: rounding would swamp small distances."""
        with torch.autocast(h.device.type, enabled=False):
            h = h.to(self.W_q.weight.dtype)
            return self.W_q(h), self.W_k(h)
