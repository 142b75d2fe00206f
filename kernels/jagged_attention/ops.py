"""The operators under `attend`, registered with torch: attention of packed rows on a CPU, and its gradient.

ΣN queries, ΣL keys, D width, H heads. Queries are (ΣN, D), keys and values one tensor (ΣL, 2 D); or all three
are one tensor (ΣL, 3 D), as the projection of self-attention makes them. The kernel reads these tensors, and
writes their gradients, without copying, splitting or padding them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.library import define, impl, register_autograd, register_fake

from kernels.direct import direct, once
from kernels.native import load

WIDTHS = (8, 16, 32, 64)  # of a head
_SOURCE = Path(__file__).parent / "attention.cpp"

_FORWARD, _BACKWARD = "jagged_attention::forward", "jagged_attention::backward"
_INPUTS = (
    "Tensor queries, Tensor? key_value, Tensor query_offsets, Tensor key_offsets, Tensor? visible, int heads"
)

_TAGS = torch.Tag.pt2_compliant_tag
define(_FORWARD, f"({_INPUTS}) -> (Tensor, Tensor)", tags=_TAGS)
define(
    _BACKWARD,
    f"({_INPUTS}, Tensor out, Tensor lse, Tensor d_out, Tensor? d_lse) -> (Tensor, Tensor?)",
    tags=_TAGS,
)
forward = torch.ops.jagged_attention.forward.default
backward = torch.ops.jagged_attention.backward.default


class _StridedRows(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("stride", ctypes.c_int64))


class _AttentionProblem(ctypes.Structure):
    """The `Problem` of attention.cpp."""

    _fields_ = (
        *((name, _StridedRows) for name in ("q", "k", "v", "out", "d_out", "dq", "dk", "dv")),
        *((name, ctypes.c_void_p) for name in ("q_ends", "k_ends", "visible", "lse", "d_lse")),
        ("requests", ctypes.c_int64),
        ("heads", ctypes.c_int),
        ("scale", ctypes.c_float),
    )


def library(width: int) -> ctypes.CDLL | None:
    """The compiled kernel for heads of this width; None where there is none."""
    return load(_SOURCE, WIDTH=width) if width in WIDTHS else None


def split_qkv(queries: Tensor, key_value: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (·, D) each, as views."""
    if key_value is None:
        query, key, value = queries.chunk(3, dim=1)
        return query, key, value
    key, value = key_value.chunk(2, dim=1)
    return queries, key, value


def _call(
    rows: dict[str, Tensor],
    indices: Sequence[Tensor | None],
    lse: Tensor,
    d_lse: Tensor | None,
    *,
    backward: bool,
) -> None:
    """Run the kernel.

    Args:
        rows: by the names of `_AttentionProblem`.
        indices: query offsets, key offsets and the visible counts.
        lse: log Σ exp of each query and head; written by the forward, read by the backward.
        d_lse: its gradient.
        backward: which of the two runs.
    """
    heads = lse.shape[1]
    width = rows["q"].shape[1] // heads
    kernel = library(width)
    if kernel is None:
        raise NotImplementedError(
            f"there is no compiled attention for heads of width {width} on this machine"
        )
    assert indices[0] is not None
    problem = _AttentionProblem(requests=len(indices[0]) - 1, heads=heads, scale=width**-0.5)
    for name, tensor in rows.items():
        setattr(problem, name, _StridedRows(tensor.data_ptr(), tensor.stride(0)))
    # The struct has no strides of these; the list keeps contiguous copies alive until the kernel is done.
    plain = [None if x is None else x.contiguous() for x in (*indices, lse, d_lse)]
    for name, held in zip(("q_ends", "k_ends", "visible", "lse", "d_lse"), plain, strict=True):
        setattr(problem, name, None if held is None else held.data_ptr())
    kernel.jagged_attention(ctypes.byref(problem), int(backward), torch.get_num_threads())


def _like(queries: Tensor, key_value: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Memory of the gradients, its rows in one piece whatever the strides of the inputs."""
    whole = torch.contiguous_format
    of_queries = torch.empty_like(queries, memory_format=whole)
    return of_queries, None if key_value is None else torch.empty_like(key_value, memory_format=whole)


def _forward(queries: Tensor, key_value: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    indices, heads = rest[:3], rest[3]
    q, k, v = split_qkv(queries, key_value)
    out, lse = q.new_empty(q.shape), q.new_empty(len(q), heads)
    _call({"q": q, "k": k, "v": v, "out": out}, indices, lse, None, backward=False)
    return out, lse


def _backward(queries: Tensor, key_value: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor | None]:
    indices, (out, lse, d_out, d_lse) = rest[:3], rest[4:]
    q, k, v = split_qkv(queries, key_value)
    of_queries, of_key_value = _like(queries, key_value)
    dq, dk, dv = split_qkv(of_queries, of_key_value)
    rows = {"q": q, "k": k, "v": v, "out": out, "d_out": d_out.contiguous(), "dq": dq, "dk": dk, "dv": dv}
    _call(rows, indices, lse, d_lse, backward=True)
    return of_queries, of_key_value


@register_fake(_FORWARD)
def _(queries: Tensor, key_value: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    width = queries.shape[1] // (3 if key_value is None else 1)
    return queries.new_empty(len(queries), width), queries.new_empty(len(queries), rest[-1])


@register_fake(_BACKWARD)
def _(queries: Tensor, key_value: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor | None]:
    return _like(queries, key_value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.heads = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, out, lse = ctx.saved_tensors
    d_out = torch.zeros_like(out) if d_out is None else d_out
    of_queries, of_key_value = _once(*tensors, ctx.heads, out, lse, d_out, d_lse)
    return of_queries, of_key_value, None, None, None, None


_once = once(backward)
impl(_FORWARD, "cpu", _forward)
impl(_BACKWARD, "cpu", _backward)
register_autograd(_FORWARD, _gradient, setup_context=_save)
attention = direct(forward, _save, _gradient)
