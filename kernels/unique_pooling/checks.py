"""What must hold of the inputs of unique pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_inputs(
    rows: Tensor, inverse_indices: Tensor, offsets: Tensor | None, weights: Tensor | None
) -> None:
    """Check shapes and dtypes, and on the CPU also the values of indices and offsets.

    Raises:
        ValueError: says what must hold, what came and what to do.
    """
    if rows.dim() != 2 or not rows.is_floating_point():
        raise ValueError(
            f"rows must be floating point (U, E), got {rows.dtype} {tuple(rows.shape)}; "
            "pass what the table's lookup returned"
        )
    _check_indices(inverse_indices, rows)
    if weights is not None and (offsets is None or weights.shape != inverse_indices.shape):
        raise ValueError(
            f"weights must be (V,) = {tuple(inverse_indices.shape)} and come with offsets, "
            f"got {tuple(weights.shape)} {'without' if offsets is None else 'with'} offsets"
        )
    # Reading values stops a graph, and makes the host wait for a GPU.
    if rows.device.type == "cpu" and not torch.compiler.is_compiling():
        check_range(inverse_indices, rows.shape[0])
        if offsets is not None:
            _check_offsets(offsets, len(inverse_indices))


def check_gradients(gradients: Tensor, inverse_indices: Tensor, num_rows: int) -> None:
    """Check that tokens' gradients (V, E) fit the rows (V,), or (V, J), they go to.

    Raises:
        ValueError: says what must hold and what came.
    """
    _check_indices(inverse_indices, gradients, several=True)
    if gradients.dim() != 2 or not gradients.is_floating_point() or len(gradients) != len(inverse_indices):
        raise ValueError(
            f"gradients must be floating point (V, E) with one of the {len(inverse_indices)} inverse_indices "
            f"each, got {gradients.dtype} {tuple(gradients.shape)}"
        )
    check_range(inverse_indices, num_rows)


def check_together(rows: Sequence[Tensor], inverse_indices: Sequence[Tensor]) -> None:
    """Check that the columns of a sum fit each other.

    Raises:
        ValueError: says what must hold and what came.
    """
    lengths = {len(inverse) for inverse in inverse_indices}
    widths = {table.shape[-1] for table in rows}
    if not rows or len(rows) != len(inverse_indices) or len(lengths) > 1 or len(widths) > 1:
        raise ValueError(
            "a sum over columns needs one inverse_indices (V,) for each of its rows (U_j, E), all of one V "
            f"and E, got {len(rows)} rows of widths {sorted(widths)} and {len(inverse_indices)} "
            f"inverse_indices of lengths {sorted(lengths)}; take the columns of one level"
        )


def check_range(inverse_indices: Tensor, num_rows: int) -> None:
    """Check that indices on the CPU lie in [0, num_rows); not while a graph is compiled.

    Raises:
        ValueError: says what must hold and what came.
    """
    if not len(inverse_indices) or inverse_indices.device.type != "cpu" or torch.compiler.is_compiling():
        return
    low, high = (int(value) for value in inverse_indices.aminmax())
    if low < 0 or high >= num_rows:
        raise ValueError(
            f"inverse_indices must lie in [0, {num_rows}) (the number of unique rows), got {low} to {high}; "
            "take them from torch.unique(..., return_inverse=True)"
        )


def _check_indices(inverse_indices: Tensor, beside: Tensor, *, several: bool = False) -> None:
    shapes = "(V,) or (V, J)" if several else "(V,)"
    if inverse_indices.dim() not in ((1, 2) if several else (1,)) or inverse_indices.dtype != torch.int64:
        raise ValueError(
            f"inverse_indices must be int64 {shapes}, got {inverse_indices.dtype} "
            f"{tuple(inverse_indices.shape)}; take them from kernels.unique.unique_ids"
        )
    if inverse_indices.device != beside.device:
        raise ValueError(
            f"inverse_indices must be where their rows are, on {beside.device}, got "
            f"{inverse_indices.device}; move the whole batch"
        )


def _check_offsets(offsets: Tensor, entries: int) -> None:
    ends = (int(offsets[0]), int(offsets[-1])) if len(offsets) else None
    if ends != (0, entries) or bool((offsets.diff() < 0).any()):
        raise ValueError(
            f"offsets must go up from 0 to {entries} (the number of inverse_indices), got "
            f"{offsets[:6].tolist()} … {offsets[-1:].tolist()}; bag i holds the entries offsets[i] to "
            "offsets[i + 1] - 1"
        )
