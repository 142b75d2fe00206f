"""Attention of packed queries to the packed keys of their request, without padding, on a CPU.

torch's kernel needs padded tensors (R, H, L, d): packed rows are copied there and back, and padding is
computed too. This kernel reads the packed rows in place. Derivation: attention.cpp.

R requests, N queries and L keys of one, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.jagged_attention.ops import attention, library

__all__ = ["attend", "available"]


def available(width: int, device: torch.device) -> bool:
    """Whether `attend` works for heads of this width here: on a CPU, where GCC could compile it."""
    return device.type == "cpu" and library(width) is not None


def attend(
    queries: Tensor,
    key_value: Tensor | None,
    query_offsets: Tensor,
    key_offsets: Tensor,
    *,
    heads: int,
    visible: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(Q Kᵀ / √(D / H)) V in each head and request, and log Σ exp of its scores.

    Both are differentiable; 16-bit inputs are computed in float32. A query that sees no key gives 0 and −∞.
    Each result is summed by one thread, so nothing depends on their number.

    Args:
        queries: (ΣN, D); or (ΣL, 3 D), queries, keys and values of the same rows, with `key_value` None.
        key_value: (ΣL, 2 D), keys and behind them values.
        query_offsets: (R + 1,) int64, from 0 to ΣN.
        key_offsets: (R + 1,) int64, from 0 to ΣL.
        heads: H; D / H must be 8, 16, 32 or 64.
        visible: (ΣN,) int64: each query sees the first `visible` keys of its request; all when None.

    Returns:
        (ΣN, D) in the dtype of the queries, and (ΣN, H) float32.

    Raises:
        ValueError: shapes or offsets that do not fit.

    Source: FlashAttention (arXiv 2205.14135) for the tiles.
    """
    _check(queries, key_value, query_offsets, key_offsets, heads, visible)
    wide = queries.float(), None if key_value is None else key_value.float()
    out, lse = attention(
        *(x if x is None else _rows(x) for x in wide), query_offsets, key_offsets, visible, heads
    )
    return out.to(queries.dtype), lse


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 or x.shape[1] <= 1 else x.contiguous()


def _check(
    queries: Tensor,
    key_value: Tensor | None,
    query_offsets: Tensor,
    key_offsets: Tensor,
    heads: int,
    visible: Tensor | None,
) -> None:
    parts, keys = (3, queries) if key_value is None else (1, key_value)
    width, rest = divmod(queries.shape[-1], parts)
    fits = queries.dim() == keys.dim() == 2 and not rest and not width % heads
    if not fits or (key_value is not None and key_value.shape[1] != 2 * width):
        came = f"{tuple(queries.shape)} and {None if key_value is None else tuple(key_value.shape)}"
        raise ValueError(
            f"queries and key_value must be (ΣN, D) and (ΣL, 2 D), or (ΣL, 3 D) and None, with D a "
            f"multiple of {heads} heads, got {came}"
        )
    indices = {"query_offsets": query_offsets, "key_offsets": key_offsets, "visible": visible}
    wrong = [f"{name} {x.dtype}" for name, x in indices.items() if x is not None and x.dtype != torch.int64]
    if wrong:
        raise ValueError(f"offsets and visible must be int64, got {', '.join(wrong)}")
    if torch.compiler.is_compiling():
        return
    for name, offsets, rows in (("query", query_offsets, queries), ("key", key_offsets, keys)):
        known = offsets.numpy()
        if known[0] != 0 or known[-1] != len(rows) or (known[1:] < known[:-1]).any():
            raise ValueError(
                f"{name}_offsets must rise from 0 to the number of rows, {len(rows)}, got "
                f"{offsets.tolist()[:10]}…; build them with offsets_of(lengths)"
            )
    if len(query_offsets) != len(key_offsets) or (visible is not None and visible.shape != queries.shape[:1]):
        shape = None if visible is None else tuple(visible.shape)
        raise ValueError(
            f"queries and keys must be of as many requests, and visible (ΣN,), got {len(query_offsets) - 1} "
            f"and {len(key_offsets) - 1} requests and {shape}"
        )
