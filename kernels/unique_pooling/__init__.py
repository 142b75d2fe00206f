"""Unique pooling: tokens gathered from the unique rows of a table, and token gradients summed into them.

    gather_bags    unique rows → a token per bag         a bag: the IDs of one request, candidate or event
    gather_sum     unique rows of several tables → tokens that are sums over the tables
    segment_sum    token gradients → row gradients: the backward of a gather

U unique rows, V inverse indices, n bags, J columns, E width. Derivation: README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import plain
from kernels.plain import exporting
from kernels.unique_pooling import ops
from kernels.unique_pooling.bags import Bags, bag_of_entry
from kernels.unique_pooling.checks import check_gradients, check_inputs, check_together
from kernels.unique_pooling.columns import sum_columns

__all__ = ["gather_bags", "gather_sum", "gather_sum_joined", "segment_sum"]


def gather_bags(
    rows: Tensor, inverse_indices: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """The embedding of every bag from the unique rows: one row, or the (weighted) mean of a list of rows.

    Without offsets ``out[i] = rows[inverse_indices[i]]``; with offsets, over the entries k of bag i,
    ``out[i] = Σ_k w_k · rows[inverse_indices[k]] / Σ_k |w_k|``, and zeros where the bag is empty or its
    weights are all 0. For weights ≥ 0 this is the weighted mean; with w = 1 the mean. The backward is
    `segment_sum`. The entries of a bag are added as they are read; no (V, E) tensor of them is made.

    Args:
        rows: (U, E) floating point.
        inverse_indices: (V,) int64 in [0, U); values are checked on the CPU outside `torch.compile` (on a GPU
            a check would wait for it).
        offsets: (n + 1,) int64, from 0 to V, non-decreasing; None: one entry per bag, n = V.
        weights: (V,), only with offsets; they are data, so no gradient flows to them.

    Returns:
        (n, E) in the dtype of rows.

    Raises:
        ValueError: shapes or indices that do not fit.

    Example:
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> gather_bags(rows, torch.tensor([1, 0, 1])).tolist()
        [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]
        >>> gather_bags(rows, torch.tensor([0, 1]), offsets=torch.tensor([0, 2, 2])).tolist()
        [[2.0, 3.0], [0.0, 0.0]]

    Source: HyFormer §3.8.1, "forward expansion" of unique IDs.
    """
    if exporting():
        return plain.gather_bags(rows, inverse_indices, offsets, weights)
    check_inputs(rows, inverse_indices, offsets, weights)
    if offsets is None:
        return ops.bag_sum(rows, inverse_indices, None, None)
    shares = _shares(offsets, weights, len(inverse_indices), torch.promote_types(rows.dtype, torch.float32))
    return ops.bag_sum(rows, inverse_indices, offsets, shares)


def gather_sum(rows: Sequence[Tensor], inverse_indices: Sequence[Tensor]) -> Tensor:
    """Sum of J gathers, in one pass that makes no tokens of the single columns.

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
        >>> gather_sum([item, action], [torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0])]).tolist()
        [[12.0], [11.0], [12.0]]

    Source: HyFormer §3.8.1.
    """
    check_together(rows, inverse_indices)
    joined = rows[0] if len(rows) == 1 else torch.cat(list(rows))
    return gather_sum_joined(joined, [len(table) for table in rows], inverse_indices)


def gather_sum_joined(rows: Tensor, sizes: Sequence[int], inverse_indices: Sequence[Tensor]) -> Tensor:
    """`gather_sum` of tables that lie one below the other in one tensor already.

    Args:
        rows: (Σ U_j, E).
        sizes: U_j of each of the J tables.
        inverse_indices: J tensors (V,) int64, the j-th in [0, U_j).

    Returns:
        (V, E) in the dtype of rows.

    Raises:
        ValueError: as of `gather_sum`.
    """
    parts = rows.split(list(sizes))
    if exporting():
        return plain.gather_sum(parts, inverse_indices)
    check_together(parts, inverse_indices)
    for table, inverse in zip(parts, inverse_indices, strict=True):
        check_inputs(table, inverse, None, None)
    if len(sizes) == 1:
        return ops.bag_sum(rows, inverse_indices[0], None, None)
    return sum_columns(rows, sizes, inverse_indices)


def segment_sum(gradients: Tensor, inverse_indices: Tensor, num_rows: int) -> Tensor:
    """Sum tokens' gradients into the tokens' rows: ``out[u] = Σ_{v: inverse_indices[v] = u} gradients[v]``.

    With (V, J) each token goes to J rows.

    Each row is summed by one thread in the order of the tokens, so on the CPU the result does not depend on
    the number of threads; on a GPU `torch.use_deterministic_algorithms` asks for the same. 16-bit gradients
    are summed in float32.

    Args:
        gradients: (V, E).
        inverse_indices: (V,), or (V, J), int64 in [0, num_rows).
        num_rows: U.

    Returns:
        (U, E) in the dtype of gradients.

    Raises:
        ValueError: shapes, dtypes or indices that do not fit.
    """
    check_gradients(gradients, inverse_indices, num_rows)
    return ops.segment_sum(gradients, inverse_indices, None, None, num_rows)


def _shares(offsets: Tensor, weights: Tensor | None, entries: int, dtype: torch.dtype) -> Tensor:
    """The share w / Σ|w| of each entry in the mean of its bag, (V,); 0 where the bag's weights are 0."""
    lengths = offsets.diff()
    bag = bag_of_entry(Bags(offsets.new_empty(entries), offsets))
    if weights is None:
        return lengths.to(dtype).reciprocal().index_select(0, bag)
    weights = weights.to(dtype)
    entry = torch.arange(entries, device=offsets.device)
    total = ops.bag_sum(weights.abs()[:, None], entry, offsets, None).squeeze(1).index_select(0, bag)
    return torch.where(total > 0, weights / total, 0.0)
