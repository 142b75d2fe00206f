"""The two operators under `expand` and `reduce`, registered with torch: each is the other's gradient.

U rows of a table, K entries, n owners, E embedding width. A (n, U) is the matrix of a `Layout`.

    gather_sum    out = A R     out[i] = Σ_{k of owner i} w_k R[indices[k]]
    scatter_sum   out = Aᵀ G    out[u] = Σ_{k: indices[k] = u} w_k G[owner of k]

As registered operators they are opaque to `torch.compile` and keep their dtype under autocast. Neither makes
the K tokens; what is kept for the backward is the layout alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import define, impl, register_autograd, register_fake

from kernels.direct import direct
from kernels.unique_pooling.counted import counted_sum
from kernels.unique_pooling.layout import Layout, transpose

# So few plain tokens are added one by one before a sort would be over.
_FEW = 1024

_GATHER, _SCATTER = "unique_pooling::gather_sum", "unique_pooling::scatter_sum"
_LAYOUT = "Tensor indices, Tensor? starts, Tensor? weights"

# Not `custom_op`: its first call imports torch's compiler, which takes seconds.
_TAGS = torch.Tag.pt2_compliant_tag
define(_GATHER, f"(Tensor rows, {_LAYOUT}) -> Tensor", tags=_TAGS)
define(_SCATTER, f"(Tensor gradients, {_LAYOUT}, SymInt num_rows) -> Tensor", tags=_TAGS)
gather_sum = torch.ops.unique_pooling.gather_sum.default
scatter_sum = torch.ops.unique_pooling.scatter_sum.default


def _gather_sum(rows: Tensor, indices: Tensor, starts: Tensor | None, weights: Tensor | None) -> Tensor:
    """Return A R, (n, E) in the dtype of rows; 16-bit rows are summed in float32."""
    layout = Layout(indices, starts, weights)
    if not indices.numel() or not rows.shape[1]:
        return rows.new_zeros(layout.owners, rows.shape[1])
    if _triton_runs(rows):
        from kernels.unique_pooling import triton

        return triton.gather_sum(rows, layout)
    return _bags(rows, layout)


def _scatter_sum(
    gradients: Tensor, indices: Tensor, starts: Tensor | None, weights: Tensor | None, num_rows: int
) -> Tensor:
    """Return Aᵀ G, (U, E) in the dtype of gradients.

    Deterministic on the CPU. On a GPU with `torch.use_deterministic_algorithms` too, by sorted sums, and
    always for lists; otherwise a plain gather's backward adds atomically in float32.
    """
    if starts is None and (done := counted_sum(gradients, indices, num_rows)) is not None:
        return done
    if starts is None and indices.dim() == 1 and _add_singly(gradients, len(indices)):
        exact = gradients.to(torch.promote_types(gradients.dtype, torch.float32))
        total = exact.new_zeros(num_rows, exact.shape[1]).index_add_(0, indices, exact)
        return total.to(gradients.dtype)
    by_row = transpose(Layout(indices, starts, weights), num_rows)
    out: Tensor = gather_sum(gradients, *by_row)
    return out


def _add_singly(gradients: Tensor, uses: int) -> bool:
    """Whether tokens are added as they come: where there are few, or on a GPU that may add in any order."""
    return not torch.are_deterministic_algorithms_enabled() if gradients.is_cuda else uses <= _FEW


def _triton_runs(rows: Tensor) -> bool:
    if not rows.is_cuda or rows.dtype == torch.float64:  # Triton's sums are float32
        return False
    from torch.utils._triton import has_triton

    return has_triton()


def _bags(rows: Tensor, layout: Layout) -> Tensor:
    """By torch alone: `embedding_bag` sums each owner in one thread, in the order of its entries."""
    indices, starts, weights = layout
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


@register_fake(_GATHER)
def _(rows: Tensor, indices: Tensor, starts: Tensor | None, weights: Tensor | None) -> Tensor:
    return rows.new_empty(Layout(indices, starts).owners, rows.shape[1])


@register_fake(_SCATTER)
def _(
    gradients: Tensor, indices: Tensor, starts: Tensor | None, weights: Tensor | None, num_rows: int
) -> Tensor:
    return gradients.new_empty(num_rows, gradients.shape[1])


def _save_gather(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rows, *layout = inputs
    ctx.num_rows = rows.shape[0]
    ctx.save_for_backward(*layout)


def _gather_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return scatter_sum(gradient, *ctx.saved_tensors, ctx.num_rows), None, None, None


def _save_scatter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:4])


def _scatter_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return gather_sum(gradient, *ctx.saved_tensors), None, None, None, None


impl(_GATHER, ("cpu", "cuda"), _gather_sum)
impl(_SCATTER, ("cpu", "cuda"), _scatter_sum)
register_autograd(_GATHER, _gather_backward, setup_context=_save_gather)
register_autograd(_SCATTER, _scatter_backward, setup_context=_save_scatter)
gather = direct(gather_sum, _save_gather, _gather_backward)
scatter = direct(scatter_sum, _save_scatter, _scatter_backward)
