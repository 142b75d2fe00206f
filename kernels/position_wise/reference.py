"""Position-wise networks as their formulas say, by torch's operators."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def position_wise(
    x: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor | None,
    b2: Tensor | None,
    norm: str,
    eps: float,
    activation: str,
    residual: bool,
) -> Tensor:
    """[x +] W_2 act(W_1 norm(x) + b_1) + b_2, or [x +] W_1 norm(x) + b_1; as `ops.forward`."""
    normed = x
    if norm == "layer":
        normed = F.layer_norm(x, x.shape[1:], gain, shift, eps)
    elif norm == "rms":
        normed = F.rms_norm(x, x.shape[1:], gain, eps)
    inner = F.linear(normed, w1, b1)
    if activation == "gelu":
        inner = F.gelu(inner)
    elif activation == "swiglu":
        gate, up = inner.chunk(2, dim=-1)
        inner = F.silu(gate) * up
    result = inner if w2 is None else F.linear(inner, w2, b2)
    return x + result if residual else result
