"""Unique pooling: unique rows of a table → tokens (`expand`); token gradients → row gradients (`reduce`).

U unique rows, V uses, n owners (requests, candidates or events), E embedding width. Derivation: README.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.unique_pooling.checks import check_inputs

__all__ = ["expand", "reduce"]


def expand(
    rows: Tensor, inverse_indices: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Rebuild the embedding of every owner from the unique rows: a gather, or the (weighted) mean of a list.

    Without offsets ``out[i] = rows[inverse_indices[i]]``; with offsets, over the entries k of owner i,
    ``out[i] = Σ_k w_k · rows[inverse_indices[k]] / Σ_k |w_k|``, and zeros where the list is empty or weighs
    nothing. For weights ≥ 0 this is the weighted mean; with w = 1 the mean. The backward is `reduce`.

    Args:
        rows: (U, E) floating point.
        inverse_indices: (V,) int64 in [0, U); checked on the CPU only (on a GPU a check would wait for it).
        offsets: (n + 1,) int64, from 0 to V, non-decreasing; None: one entry per owner, n = V.
        weights: (V,), only with offsets; data, so no gradient flows to it.

    Returns:
        (n, E) in the dtype of rows.

    Raises:
        ValueError: shapes or indices that do not fit.

    Example:
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> expand(rows, torch.tensor([1, 0, 1])).tolist()
        [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]
        >>> expand(rows, torch.tensor([0, 1]), offsets=torch.tensor([0, 2, 2])).tolist()
        [[2.0, 3.0], [0.0, 0.0]]

    Source: HyFormer §3.8.1 (unique IDs, forward expansion and backward reduction).
    """
    check_inputs(rows, inverse_indices, offsets, weights)
    out: Tensor = _Expand.apply(rows, inverse_indices, offsets, weights)
    return out


def reduce(gradients: Tensor, inverse_indices: Tensor, num_rows: int) -> Tensor:
    """Sum token gradients into their rows: ``out[u] = Σ_{v: inverse_indices[v] = u} gradients[v]``.

    Each row is summed by one thread in the order of the tokens, so the result does not depend on the number
    of threads. 16-bit gradients are summed in float32.

    Args:
        gradients: (V, E).
        inverse_indices: (V,) int64 in [0, num_rows).
        num_rows: U.

    Returns:
        (U, E) in the dtype of gradients.
    """
    exact = gradients.float() if gradients.dtype in (torch.float16, torch.bfloat16) else gradients
    total: Tensor = torch.ops.aten.embedding_dense_backward(exact, inverse_indices, num_rows, -1, False)
    return total.to(gradients.dtype)


class _Expand(torch.autograd.Function):
    """`expand` without its checks; saves indices only, never tokens."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, inverse_indices: Tensor, offsets: Tensor | None, weights: Tensor | None
    ) -> Tensor:
        ctx.num_rows = rows.shape[0]
        if offsets is None:
            ctx.save_for_backward(inverse_indices)
            return rows.index_select(0, inverse_indices)
        owner, share = _shares(offsets, weights, len(inverse_indices), rows.dtype)
        ctx.save_for_backward(inverse_indices, owner, share)
        tokens = rows.index_select(0, inverse_indices).mul_(share[:, None])
        return reduce(tokens, owner, len(offsets) - 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        inverse_indices, *pooled = ctx.saved_tensors
        if pooled:
            owner, share = pooled
            gradient = gradient.index_select(0, owner).mul_(share[:, None])
        return reduce(gradient, inverse_indices, ctx.num_rows), None, None, None


def _shares(offsets: Tensor, weights: Tensor | None, uses: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return for each of the V uses its owner, and its share w / Σ|w| in that owner's mean."""
    lengths = offsets.diff()
    owner = torch.repeat_interleave(lengths, output_size=uses)
    if weights is None:
        return owner, lengths.to(dtype).reciprocal().index_select(0, owner)
    # At least float32: the sum of many 16-bit weights is not.
    weights = weights.to(torch.promote_types(dtype, torch.float32))
    total = reduce(weights.abs()[:, None], owner, len(lengths)).squeeze(1).index_select(0, owner)
    return owner, torch.where(total > 0, weights / total, 0.0).to(dtype)
