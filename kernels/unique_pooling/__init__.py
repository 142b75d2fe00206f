"""Unique pooling: unique rows of a table → tokens (`expand`); token gradients → row gradients (`reduce`).

U unique rows, V uses, n owners (requests, candidates or events), J columns, E width. Derivation: README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.unique_pooling.checks import check_gradients, check_inputs, check_together
from kernels.unique_pooling.columns import sum_columns
from kernels.unique_pooling.layout import Layout, owner_of_entry
from kernels.unique_pooling.ops import gather, scatter

__all__ = ["expand", "expand_joined", "expand_sum", "reduce"]


def expand(
    rows: Tensor, inverse_indices: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Rebuild the embedding of every owner from the unique rows: a gather, or the (weighted) mean of a list.

    Without offsets ``out[i] = rows[inverse_indices[i]]``; with offsets, over the entries k of owner i,
    ``out[i] = Σ_k w_k · rows[inverse_indices[k]] / Σ_k |w_k|``, and zeros where the list is empty or weighs
    nothing. For weights ≥ 0 this is the weighted mean; with w = 1 the mean. The backward is `reduce`. The
    entries of a list are added as they are read; there is no (V, E) tensor of them.

    Args:
        rows: (U, E) floating point.
        inverse_indices: (V,) int64 in [0, U); values are checked on the CPU outside `torch.compile` (on a GPU
            a check would wait for it).
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
    if offsets is None:
        return gather(rows, inverse_indices, None, None)
    shares = _shares(offsets, weights, len(inverse_indices), torch.promote_types(rows.dtype, torch.float32))
    return gather(rows, inverse_indices, offsets, shares)


def expand_sum(rows: Sequence[Tensor], inverse_indices: Sequence[Tensor]) -> Tensor:
    """Sum of J gathers, in one pass and without the tokens of the single columns.

    ``out[v] = Σ_j rows[j][inverse_indices[j][v]]``: an event's token from the unique rows of its side
    information, each mapped by its own weights beforehand, since a linear map commutes with a gather.

    Args:
        rows: J tensors (U_j, E); 16-bit rows are summed in float32.
        inverse_indices: J tensors (V,) int64, the j-th in [0, U_j).

    Returns:
        (V, E) in the dtype of rows (the widest one).

    Raises:
        ValueError: no column, or shapes or indices that do not fit.

    Example:
        >>> item, action = torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0]])
        >>> expand_sum([item, action], [torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0])]).tolist()
        [[12.0], [11.0], [12.0]]

    Source: HyFormer §3.8.1.
    """
    check_together(rows, inverse_indices)
    joined = rows[0] if len(rows) == 1 else torch.cat(list(rows))
    return expand_joined(joined, [len(table) for table in rows], inverse_indices)


def expand_joined(rows: Tensor, sizes: Sequence[int], inverse_indices: Sequence[Tensor]) -> Tensor:
    """`expand_sum` of tables that stand one below the other already.

    Args:
        rows: (Σ U_j, E).
        sizes: U_j of each of the J tables.
        inverse_indices: J tensors (V,) int64, the j-th in [0, U_j).

    Returns:
        (V, E) in the dtype of rows.

    Raises:
        ValueError: as of `expand_sum`.
    """
    parts = rows.split(list(sizes))
    check_together(parts, inverse_indices)
    for table, inverse in zip(parts, inverse_indices, strict=True):
        check_inputs(table, inverse, None, None)
    if len(sizes) == 1:
        return gather(rows, inverse_indices[0], None, None)
    return sum_columns(rows, sizes, inverse_indices)


def reduce(gradients: Tensor, inverse_indices: Tensor, num_rows: int) -> Tensor:
    """Sum token gradients into their rows: ``out[u] = Σ_{v: inverse_indices[v] = u} gradients[v]``.

    Each row is summed by one thread in the order of the tokens, so on the CPU the result does not depend on
    the number of threads; on a GPU `torch.use_deterministic_algorithms` asks for the same. 16-bit gradients
    are summed in float32.

    Args:
        gradients: (V, E).
        inverse_indices: (V,) int64 in [0, num_rows).
        num_rows: U.

    Returns:
        (U, E) in the dtype of gradients.

    Raises:
        ValueError: shapes, dtypes or indices that do not fit.
    """
    check_gradients(gradients, inverse_indices, num_rows)
    return scatter(gradients, inverse_indices, None, None, num_rows)


def _shares(offsets: Tensor, weights: Tensor | None, uses: int, dtype: torch.dtype) -> Tensor:
    """The share w / Σ|w| of each use in its owner's mean, (V,); 0 where the owner's weights are 0."""
    lengths = offsets.diff()
    owner = owner_of_entry(Layout(offsets.new_empty(uses), offsets))
    if weights is None:
        return lengths.to(dtype).reciprocal().index_select(0, owner)
    weights = weights.to(dtype)
    places = torch.arange(uses, device=offsets.device)
    total = gather(weights.abs()[:, None], places, offsets, None).squeeze(1).index_select(0, owner)
    return torch.where(total > 0, weights / total, 0.0)
