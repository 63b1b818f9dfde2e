"""Ragged batches for property tests."""

import torch
from hypothesis import strategies as st
from torch import Tensor

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=6)


def offsets_of(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)


def rows(sizes: list[int], width: int = 5, seed: int = 0) -> Tensor:
    """Random embeddings, float64, shape (N, width)."""
    return torch.randn(sum(sizes), width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shuffled(sizes: list[int], seed: int = 1) -> Tensor:
    """An order of all rows that shuffles each bag within itself, shape (N,)."""
    generator = torch.Generator().manual_seed(seed)
    starts = offsets_of(sizes).tolist()
    return torch.cat([torch.randperm(n, generator=generator) + start for n, start in zip(sizes, starts, strict=False)])
