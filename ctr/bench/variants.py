"""Single optimisations switched off: the batch is rewritten, or a function is replaced while it is measured.

The model's code has no switches for this. Each implementation computes the same loss; the suites check that
before they time anything.

V IDs, U unique IDs, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import getattr_static
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.batch import Batch, SequenceBatch
from ctr.bench.rewrite import pad_events, unpool, unshare
from ctr.blocks import attention, fused
from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets
from ctr.sparse_optim.rowwise_adagrad import RowwiseAdagrad
from ctr.tokens import events as event_tokens
from ctr.tokens.events import SequenceTokenizer
from ctr.tokens.features import UniqueRows, look_up
from features.dataset import Manifest
from kernels import table_rows
from kernels.unique_pooling import columns, gather_bags, ops

Rewrite = Callable[[Batch, Manifest], Batch]
Patch = tuple[Any, str, Any]  # object, attribute, its replacement


@dataclass(frozen=True)
class Implementation:
    """The same computation with an optimisation replaced by what it stands for.

    Args:
        name: of the optimisation that is off.
        instead: what is done instead.
        rewrites: applied to the batch, in order.
        patches: functions replaced while it runs.
        float32: whether the optimisation exists in float32 alone.
    """

    name: str
    instead: str
    rewrites: tuple[Rewrite, ...] = ()
    patches: tuple[Patch, ...] = field(default=())
    float32: bool = False

    def batch(self, batch: Batch, manifest: Manifest) -> Batch:
        """The batch as this implementation reads it."""
        for rewrite in self.rewrites:
            batch = rewrite(batch, manifest)
        return batch

    @contextmanager
    def active(self) -> Iterator[None]:
        """A block in which the functions are replaced."""
        with ExitStack() as stack:
            for owner, name, function in self.patches:
                stack.callback(setattr, owner, name, getattr_static(owner, name))
                setattr(owner, name, function)
            yield


def gather_first(
    self: SequenceTokenizer, events: SequenceBatch, rows: UniqueRows, ages: Tensor | None = None
) -> Jagged:
    """`SequenceTokenizer.forward` that gathers each column's embeddings (V, E), then maps every one."""
    seconds = events.time_gap if self.time_gaps else torch.zeros_like(events.time_gap)
    numbers = [0.1 * torch.log1p(seconds)[:, None], *(events.dense[c.name] for c in self.numbers)]
    token = self.of_numbers(torch.cat(numbers, dim=-1)) + self.gap_bucket(self._bucket(seconds))
    for column, linear in zip(self.side, self.maps, strict=True):
        token = token + linear(look_up(rows[str(column.table)], events.ids[column.name]))
    layout = Jagged(token, events.offsets, events.max_length)
    if self.position is not None:
        own = layout.ages() if ages is None else ages
        token = token + self.position(own.clamp(max=self.position.num_embeddings - 1))
    return layout.with_values(self.dropout(self.norm(token)))


_update_touched = RowwiseAdagrad.update


def update_repeated(
    self: RowwiseAdagrad, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
) -> None:
    """Row-wise Adagrad from a gradient per ID (V, E): sorted and summed here instead of in the backward."""
    gradient = torch.cat(list(gradients))
    total = torch.sparse_coo_tensor(ids[None], gradient, weight.shape, check_invariants=False).coalesce()
    _update_touched(self, weight, total.indices()[0], [total.values()], lr=lr, step=step)


def update_whole_table(
    self: RowwiseAdagrad, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
) -> None:
    """Row-wise Adagrad with a gradient of the whole table, as nn.Embedding and torch.optim give it."""
    dense = torch.zeros_like(weight).index_add_(0, ids, torch.cat(list(gradients)))
    self.sum.add_(dense.square().mean(1))
    weight.sub_(dense.mul_((lr / self.sum.sqrt().add_(self.options.eps))[:, None]))


def gather_each(rows: Tensor, sizes: Sequence[int], inverse_indices: Sequence[Tensor]) -> Tensor:
    """`gather_sum_joined` with the tokens (V, D) of every column made one after another."""
    first, *tables = rows.split(list(sizes))
    tokens = gather_bags(first, inverse_indices[0])
    for table, inverse in zip(tables, inverse_indices[1:], strict=True):
        tokens = tokens + gather_bags(table, inverse)
    return tokens


def one_bucket(lengths: np.ndarray) -> LengthBuckets:
    """`LengthBuckets.plan` that pads all requests to the longest."""
    return LengthBuckets(np.arange(len(lengths)), [len(lengths)])


def attention_with_dropout(*arguments: Any, **named: Any) -> Tensor:
    """Attention that drops no weight, but might: the same result, without the fused kernel."""
    named["dropout_p"] = 1e-17  # 1 less that is 1
    return _attention(*arguments, **named)


_attention = F.scaled_dot_product_attention


def nowhere(*_: Any) -> bool:
    """Says that no compiled kernel can be used."""
    return False


def no_compiled_sum(*_: Any) -> None:
    """Instead of `compiled_segment_sum`: torch's operators stand in."""


_PADDED: Patch = (attention, "available", nowhere)
_BY_TORCH: tuple[Patch, ...] = (
    (table_rows, "available", nowhere),
    (ops, "compiled_segment_sum", no_compiled_sum),
    (columns, "compiled", nowhere),
)
_APART: Patch = (fused, "available", nowhere)
_DROPOUT: Patch = (F, "scaled_dot_product_attention", attention_with_dropout)
_GATHER_FIRST: Patch = (SequenceTokenizer, "forward", gather_first)
_EACH: Patch = (event_tokens, "gather_sum_joined", gather_each)
_ONE: Patch = (LengthBuckets, "plan", staticmethod(one_bucket))
_REPEATED: Patch = (RowwiseAdagrad, "update", update_repeated)
_WHOLE: Patch = (RowwiseAdagrad, "update", update_whole_table)


def _unshare(batch: Batch, manifest: Manifest) -> Batch:
    return unshare(batch)


def _pad(batch: Batch, manifest: Manifest) -> Batch:
    return pad_events(batch)


BASELINE = Implementation("as it is", "every optimisation on")
# Uses the compiled kernels for few rows too, so that tests of small models compute with them.
FOR_FEW_ROWS = Implementation("", "", (), ((fused, "ROWS", 1),))
VARIANTS: tuple[Implementation, ...] = (
    Implementation("request sharing", "every candidate a request of its own", (_unshare,)),
    Implementation("packing", "every history padded to the longest", (_pad,)),
    Implementation(
        "packed attention", "attention padded in buckets of similar length", (), (_PADDED,), float32=True
    ),
    Implementation(
        "position-wise in one pass", "torch's operators one after another", (), (_APART,), float32=True
    ),
    Implementation("length buckets", "attention padded to the longest of all", (), (_PADDED, _ONE)),
    Implementation("unique pooling", "an ID and a row for every use", (unpool,), (_REPEATED,)),
    Implementation("project before gather", "rows gathered first, then each mapped", (), (_GATHER_FIRST,)),
    Implementation("one gather for all fields", "a gather and an addition for each field", (), (_EACH,)),
    Implementation("touched rows only", "gradient and update of whole tables", (), (_WHOLE,)),
    Implementation("fused attention", "dropout on attention weights, of no effect", (), (_PADDED, _DROPOUT)),
    Implementation("compiled sums and updates of rows", "torch's operators", (), _BY_TORCH, float32=True),
)
ALL_OFF = Implementation(
    "all of them",
    "none of the above",
    (_unshare, _pad, unpool),
    (_GATHER_FIRST, _WHOLE, _PADDED, _APART, _ONE, _DROPOUT, *_BY_TORCH),
)
