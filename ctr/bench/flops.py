"""Floating-point operations of a training step, counted while it runs, compiled kernels included.

torch's counter knows matrix products and the attention kernels of a GPU; attention on a CPU and the compiled
position-wise networks are added here. Norms, activations and gathers are not counted, as in the papers.

R requests, H heads, N queries, L keys, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kernels.jagged_attention.ops import backward, forward
from kernels.position_wise import ops as position_wise

Dimensions = tuple[int, ...]


def count_flops(step: Callable[[], object]) -> int:
    """Operations of everything that `step` computes, forward and backward; a multiply-add counts as two."""
    with FlopCounterMode(display=False, custom_mapping=dict(_CPU_ATTENTION)) as counter:
        step()
    return int(counter.get_total_flops())


def _attention(query: Dimensions, key: Dimensions, value: Dimensions, *rest: Any, **named: Any) -> int:
    """Q Kᵀ and its product with V: 2 R H N L (d + d)."""
    requests, heads, queries, width = query
    return 2 * requests * heads * queries * key[2] * (width + value[3])


def _attention_backward(gradient: Dimensions, *inputs: Any, **named: Any) -> int:
    """Gradients of V, weights, Q and K: twice the forward; scores computed again do not count."""
    return 2 * _attention(*inputs)


def _packed(
    queries: Tensor,
    key_value: Tensor | None,
    query_offsets: Tensor,
    key_offsets: Tensor,
    *rest: Any,
    **named: Any,
) -> int:
    """The same of packed rows: 4 D Σ N L; what `visible` hides does not count as saved."""
    pairs = int((query_offsets.diff() * key_offsets.diff()).sum())
    return 4 * pairs * (queries.shape[1] // (3 if key_value is None else 1))


def _packed_backward(*inputs: Any, **named: Any) -> int:
    return 2 * _packed(*inputs)


def _position_wise(x: Tensor, *rest: Any, **named: Any) -> int:
    """Products with W_1 and W_2."""
    w1, w2 = rest[2], rest[4]
    return 2 * len(x) * (w1.numel() + (0 if w2 is None else w2.numel()))


def _position_wise_backward(*inputs: Any, **named: Any) -> int:
    """Gradients of rows and weights; the hidden values computed again do not count."""
    return 2 * _position_wise(*inputs)


for _formula in (_packed, _packed_backward, _position_wise, _position_wise_backward):
    _formula._get_raw = True  # type: ignore[union-attr]  # torch's mark: called with tensors, not shapes

_OPS = torch.ops.aten
_CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    _OPS._scaled_dot_product_flash_attention_for_cpu: _attention,
    _OPS._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    forward.overloadpacket: _packed,
    backward.overloadpacket: _packed_backward,
    position_wise.forward.overloadpacket: _position_wise,
    position_wise.backward.overloadpacket: _position_wise_backward,
}
