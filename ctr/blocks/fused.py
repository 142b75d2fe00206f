"""When to use the compiled position-wise networks (`kernels.position_wise`) instead of torch's operators.

For many float32 rows on a CPU they compute norm, products, activation and residual in one pass over the rows.
Everywhere else, and without a compiler, the caller uses torch's operators.

n rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kernels.position_wise import Norm, available

ROWS = 1024  # with fewer rows the call costs more than it saves


def fits(x: Tensor, outputs: int, *weights: Tensor | None) -> bool:
    """Whether compiled code maps the rows x (..., I) to `outputs` values each, with these weights."""
    if torch.compiler.is_compiling():  # first, or the number of rows would become a condition of the graph
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.numel() < ROWS * x.shape[-1]:
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    if any(weight is not None and weight.dtype != torch.float32 for weight in weights):
        return False
    return available(x.flatten(0, -2), outputs)


def hooked(module: nn.Module) -> bool:
    """Whether the module has hooks, so that it must be called as a module."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
    )


def compiled_norm(norm: nn.Module | None) -> tuple[bool, Norm | None]:
    """Whether compiled code has this norm over the last axis, and the norm as it takes it (None: no norm)."""
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
