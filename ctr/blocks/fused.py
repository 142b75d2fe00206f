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
    if torch.compiler.is_compiling():  # asked first: the number of rows would become a condition of the graph
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.numel() < ROWS * x.shape[-1]:
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    if any(weight is not None and weight.dtype != torch.float32 for weight in weights):
        return False
    return available(x.flatten(0, -2), outputs)


def hooked(module: nn.Module) -> bool:
    """Whether others want to see a call of this module, or change it: it must be called then."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
    )


def compiled_norm(norm: nn.Module | None) -> tuple[bool, Norm | None]:
    """Whether compiled code knows this norm over the last axis, and its parts; None for no norm."""
    if norm is None or type(norm) is nn.Identity:
        return True, None
    plain = type(norm) in (nn.LayerNorm, nn.RMSNorm) and not hooked(norm)
    gain = getattr(norm, "weight", None)
    if not plain or gain is None or gain.dim() != 1 or gain.dtype != torch.float32:
        return False, None
    if isinstance(norm, nn.LayerNorm):
        return True, Norm("layer", gain, norm.bias, norm.eps)
    assert isinstance(norm, nn.RMSNorm)
    eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
    return True, Norm("rms", gain, None, eps)
