"""Where compiled position-wise networks (kernels.position_wise) stand in for torch's operators.

Many rows of float32 on a CPU: there the norm, the products, the activation and the residual are one pass over
the rows. Everywhere else, and without a compiler, the caller takes torch's operators.

n rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kernels.position_wise import Norm, available

ROWS = 1024  # below that, a call of its own costs more than it saves


def fits(x: Tensor, outputs: int, *weights: Tensor | None) -> bool:
    """Whether rows x (..., I) go to `outputs` by compiled code here."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.numel() < ROWS * x.shape[-1]:
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if any(weight is not None and weight.dtype != torch.float32 for weight in weights):
        return False
    return available(x.flatten(0, -2), outputs)


def compiled_norm(norm: nn.Module | None) -> tuple[bool, Norm | None]:
    """Whether compiled code knows this norm over the last axis, and its parts; None for no norm."""
    if norm is None or type(norm) is nn.Identity:
        return True, None
    if type(norm) is nn.LayerNorm and len(norm.normalized_shape) == 1 and norm.elementwise_affine:
        return True, Norm("layer", norm.weight, norm.bias, norm.eps)
    if type(norm) is nn.RMSNorm and len(norm.normalized_shape) == 1 and norm.elementwise_affine:
        eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
        return True, Norm("rms", norm.weight, None, eps)
    return False, None
