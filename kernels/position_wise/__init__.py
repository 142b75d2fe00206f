"""Linear maps and feed-forward networks on rows, with the norm before and the residual around, in one pass.

torch's operators write the normed rows, the products before and after the activation and all their gradients
to memory: many times the rows themselves. Here a tile of rows goes through all steps while it is in the
cache. Derivation: README.md and position_wise.cpp.

N rows, I inputs, H hidden values, O outputs.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kernels.position_wise.ops import ACTIVATIONS, LANES, library, position_wise

__all__ = ["Activation", "Norm", "available", "feed_forward", "linear"]

Activation = Literal["gelu", "swiglu"]


class Norm(NamedTuple):
    """LayerNorm or RMSNorm over the inputs: gain and shift (I,); no shift for `rms`."""

    kind: Literal["layer", "rms"]
    gain: Tensor
    shift: Tensor | None
    eps: float


def available(x: Tensor, outputs: int) -> bool:
    """Whether `linear` and `feed_forward` work here on these rows: float32 (N, I) on a CPU, compiled by GCC.

    I and `outputs` must be multiples of 16.
    """
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 2
    return (
        fits and not x.shape[1] % LANES and not outputs % LANES and x.shape[1] > 0 and library() is not None
    )


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, norm: Norm | None = None, residual: bool = False
) -> Tensor:
    """[x +] W norm(x) + b.

    A row's result does not depend on the other rows, and no result on the number of threads.

    Args:
        x: (N, I) float32.
        weight: (O, I).
        bias: (O,).
        norm: before the map; none unless given.
        residual: whether x is added; I must be O.

    Returns:
        (N, O).

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    return _apply(x, weight, bias, None, None, norm, "none", residual)


def feed_forward(
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor | None,
    weight_out: Tensor,
    bias_out: Tensor | None,
    *,
    activation: Activation,
    norm: Norm | None = None,
    residual: bool = False,
) -> Tensor:
    """[x +] W_out act(W_in norm(x) + b_in) + b_out; act is GELU, or silu(g) ⊙ u of the halves [g, u].

    Args:
        x: (N, I) float32.
        weight_in: (H, I); (2 H, I) before `swiglu`.
        bias_in: as many as the rows of `weight_in`.
        weight_out: (O, H).
        bias_out: (O,).
        activation: `gelu` or `swiglu`.
        norm: before the first map; none unless given.
        residual: whether x is added; I must be O.

    Returns:
        (N, O).

    Raises:
        ValueError: shapes or dtypes that do not fit.

    Source: SwiGLU, arXiv 2002.05202.
    """
    if activation not in ACTIVATIONS[1:]:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS[1:])}, got {activation}")
    return _apply(x, weight_in, bias_in, weight_out, bias_out, norm, activation, residual)


def _apply(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor | None,
    b2: Tensor | None,
    norm: Norm | None,
    activation: str,
    residual: bool,
) -> Tensor:
    gain, shift = (None, None) if norm is None else (norm.gain, norm.shift)
    halves = 2 if activation == "swiglu" else 1
    outputs = len(w1) if w2 is None else len(w2)
    hidden = 0 if w2 is None else w2.shape[-1]
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("gain", gain, x.shape[1:]),
        ("shift", shift, x.shape[1:]),
        ("the first weight", w1, (outputs if w2 is None else halves * hidden, x.shape[-1])),
        ("the first bias", b1, w1.shape[:1]),
        ("the second weight", w2, (outputs, hidden)),
        ("the second bias", b2, (outputs,)),
    ]
    for name, tensor, shape in expected:
        if tensor is None:
            continue
        if tensor.shape != shape or tensor.dtype != torch.float32 or tensor.device != x.device:
            raise ValueError(
                f"{name} must be float32 {tuple(shape)} on {x.device} for x {tuple(x.shape)}, got "
                f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            )
    if norm is not None and norm.kind == "rms" and shift is not None:
        raise ValueError("an RMSNorm must have no shift, got one; use `layer`, or add it to the bias")
    if x.dtype != torch.float32 or x.dim() != 2 or x.shape[1] % LANES or outputs % LANES:
        raise ValueError(
            f"x must be float32 (N, I), with inputs and outputs in multiples of {LANES}, got {x.dtype} "
            f"{tuple(x.shape)} and {outputs} outputs; ask `available` first"
        )
    if residual and outputs != x.shape[1]:
        raise ValueError(f"a residual needs as many outputs as inputs, got {x.shape[1]} and {outputs}")
    kind, eps = ("none", 0.0) if norm is None else (norm.kind, norm.eps)
    made: Tensor = position_wise(x, gain, shift, w1, b1, w2, b2, kind, eps, activation, residual)
    return made
