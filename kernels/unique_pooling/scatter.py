"""Token gradients summed into the rows of the tokens by compiled code: scatter.cpp.

n tokens, J rows of each, U rows, E width.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from kernels.native import load

SOURCE = Path(__file__).parent / "scatter.cpp"
MOST = 2**31 - 1  # its counters are int32


def compiled_segment_sum(gradients: Tensor, indices: Tensor, num_rows: int) -> Tensor | None:
    """Add each token's gradient to each of its rows; None where there is no compiled code for these inputs.

    Args:
        gradients: (n, E).
        indices: (n,) or (n, J) int64 in [0, U).
        num_rows: U.

    Returns:
        (U, E) float32, from float32 on a CPU.
    """
    if gradients.device.type != "cpu" or gradients.dtype != torch.float32 or indices.numel() > MOST:
        return None
    if indices.dtype != torch.int64 or len(indices) != len(gradients):
        return None  # torch's operators say what is wrong
    if not indices.numel() or (kernel := load(SOURCE)) is None:
        return None
    gradients, indices = gradients.contiguous(), indices.contiguous()
    out = gradients.new_empty(num_rows, gradients.shape[1])
    sizes = len(indices), indices.numel() // len(indices), num_rows, gradients.shape[1]
    kernel.scatter_sum(
        *(ctypes.c_void_p(t.data_ptr()) for t in (gradients, indices)),
        *map(ctypes.c_int64, sizes),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_int(torch.get_num_threads()),
    )
    return out
