"""The two operators of unique pooling, registered with torch: each is the other's gradient.

U rows of a table, K entries, n bags, E embedding width. A (n, U) is the matrix of the `Bags`.

    bag_sum        out = A R     out[i] = Σ_{k in bag i} w_k R[indices[k]]
    segment_sum    out = Aᵀ G    out[u] = Σ_{k: indices[k] = u} w_k G[bag of k]

As registered operators (`bag_sum_op`, `segment_sum_op`) they are opaque to `torch.compile` and keep their
dtype under autocast. Neither makes a tensor of the K entries; the backward keeps the bags alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import define, impl, register_autograd, register_fake

from kernels.direct import direct
from kernels.unique_pooling.bags import Bags, transpose
from kernels.unique_pooling.scatter import compiled_segment_sum

# Up to so many tokens of one row each, adding them one by one is faster than sorting them.
_FEW = 1024

_BAG_SUM, _SEGMENT_SUM = "unique_pooling::bag_sum", "unique_pooling::segment_sum"
_BAGS = "Tensor indices, Tensor? starts, Tensor? weights"

# Not `custom_op`: its first call imports torch's compiler, which takes seconds.
_TAGS = torch.Tag.pt2_compliant_tag
define(_BAG_SUM, f"(Tensor rows, {_BAGS}) -> Tensor", tags=_TAGS)
define(_SEGMENT_SUM, f"(Tensor gradients, {_BAGS}, SymInt num_rows) -> Tensor", tags=_TAGS)
bag_sum_op = torch.ops.unique_pooling.bag_sum.default
segment_sum_op = torch.ops.unique_pooling.segment_sum.default


def _bag_sum(rows: Tensor, indices: Tensor, starts: Tensor | None, weights: Tensor | None) -> Tensor:
    """Return A R, (n, E) in the dtype of rows; 16-bit rows are summed in float32."""
    bags = Bags(indices, starts, weights)
    if not indices.numel() or not rows.shape[1]:
        return rows.new_zeros(bags.num_bags, rows.shape[1])
    if _triton_runs(rows):
        from kernels.unique_pooling import triton

        return triton.bag_sum(rows, bags)
    return _by_torch(rows, bags)


def _segment_sum(
    gradients: Tensor, indices: Tensor, starts: Tensor | None, weights: Tensor | None, num_rows: int
) -> Tensor:
    """Return Aᵀ G, (U, E) in the dtype of gradients.

    Deterministic on the CPU. On a GPU with `torch.use_deterministic_algorithms` too, by sorted sums, and
    always for bags of several rows; otherwise the backward of a plain gather adds atomically in float32.
    """
    if starts is None and (done := compiled_segment_sum(gradients, indices, num_rows)) is not None:
        return done
    if starts is None and indices.dim() == 1 and _add_singly(gradients, len(indices)):
        exact = gradients.to(torch.promote_types(gradients.dtype, torch.float32))
        total = exact.new_zeros(num_rows, exact.shape[1]).index_add_(0, indices, exact)
        return total.to(gradients.dtype)
    by_row = transpose(Bags(indices, starts, weights), num_rows)
    out: Tensor = bag_sum_op(gradients, *by_row)
    return out


def _add_singly(gradients: Tensor, tokens: int) -> bool:
    """Whether tokens are added as they come: where there are few, or on a GPU that may add in any order."""
    return not torch.are_deterministic_algorithms_enabled() if gradients.is_cuda else tokens <= _FEW


def _triton_runs(rows: Tensor) -> bool:
    if not rows.is_cuda or rows.dtype == torch.float64:  # Triton's sums are float32
        return False
    from torch.utils._triton import has_triton

    return has_triton()


def _by_torch(rows: Tensor, bags: Bags) -> Tensor:
    """By torch alone: `embedding_bag` sums each bag in one thread, in the order of its entries."""
    indices, starts, weights = bags
    if starts is None and indices.dim() == 1:
        return rows.index_select(0, indices)
    return F.embedding_bag(
        indices,
        rows.contiguous(),
        starts,
        mode="sum",
        per_sample_weights=None if weights is None else weights.to(rows.dtype),
        include_last_offset=starts is not None,
    )


@register_fake(_BAG_SUM)
def _(rows: Tensor, indices: Tensor, starts: Tensor | None, weights: Tensor | None) -> Tensor:
    return rows.new_empty(Bags(indices, starts).num_bags, rows.shape[1])


@register_fake(_SEGMENT_SUM)
def _(
    gradients: Tensor, indices: Tensor, starts: Tensor | None, weights: Tensor | None, num_rows: int
) -> Tensor:
    return gradients.new_empty(num_rows, gradients.shape[1])


def _save_bags(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rows, *bags = inputs
    ctx.num_rows = rows.shape[0]
    ctx.save_for_backward(*bags)


def _bag_sum_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return segment_sum_op(gradient, *ctx.saved_tensors, ctx.num_rows), None, None, None


def _save_segments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:4])


def _segment_sum_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return bag_sum_op(gradient, *ctx.saved_tensors), None, None, None, None


impl(_BAG_SUM, ("cpu", "cuda"), _bag_sum)
impl(_SEGMENT_SUM, ("cpu", "cuda"), _segment_sum)
register_autograd(_BAG_SUM, _bag_sum_backward, setup_context=_save_bags)
register_autograd(_SEGMENT_SUM, _segment_sum_backward, setup_context=_save_segments)
bag_sum = direct(bag_sum_op, _save_bags, _bag_sum_backward)
segment_sum = direct(segment_sum_op, _save_segments, _segment_sum_backward)
