"""Columns exchanged among the rows of a batch: what a trained model loses when a column says nothing.

All named columns of one level move together, by one order of the rows:
    request   among the requests of the batch; a whole domain moves as histories
    candidate among all candidates of the batch
    event     side info, among all events of its domain in the batch
The marginal distribution stays as it is, every connection with the rest of the row goes. The batches of a
test are in the order of time, so rows are exchanged with others of the same hours or days.

R requests, B candidates, L events of one request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn, SequenceBatch, take_bags, take_histories
from ctr.tokens.ngram import field_of
from ctr.training.scoring import BatchSource

_STRIDE = 1_000_003  # batches after which the orders of one seed would be those of the next


class PermutedBatches:
    """The batches of a source with some columns permuted; the same seed, the same permutation.

    Args:
        source: batches in a fixed order.
        names: features, domains and domain.side fields of the data set.
        seed: of the orders; batch number `i` draws from (seed, i).
    """

    def __init__(self, source: BatchSource, names: Sequence[str], *, seed: int = 0) -> None:
        self.source = source
        self.names = frozenset(names)
        self.seed = seed

    def iterate(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of the source, permuted."""
        for i, batch in enumerate(self.source.iterate(epoch, start_step), start_step):
            # A generator on a CPU reads the lower 32 bits alone.
            random = torch.Generator().manual_seed((self.seed * _STRIDE + i) % 2**32)
            yield permute_batch(batch, self.names, random)


def permute_batch(batch: Batch, names: frozenset[str], random: torch.Generator) -> Batch:
    """A batch with the named columns exchanged among the rows of their level."""
    requests = torch.randperm(batch.num_requests, generator=random)
    candidates = torch.randperm(batch.num_rows, generator=random)
    return replace(
        batch,
        request_ids=_ids(batch.request_ids, names, requests),
        request_dense=_dense(batch.request_dense, names, requests),
        candidate_ids=_ids(batch.candidate_ids, names, candidates),
        candidate_dense=_dense(batch.candidate_dense, names, candidates),
        sequences={
            domain: take_histories(events, requests)
            if domain in names
            else _side(events, domain, names, random)
            for domain, events in batch.sequences.items()
        },
    )


def _ids(columns: dict[str, IdColumn], names: frozenset[str], order: Tensor) -> dict[str, IdColumn]:
    return {n: take_bags(column, order) if n in names else column for n, column in columns.items()}


def _dense(columns: dict[str, Tensor], names: frozenset[str], order: Tensor) -> dict[str, Tensor]:
    return {n: values[order] if n in names else values for n, values in columns.items()}


def _side(
    events: SequenceBatch, domain: str, names: frozenset[str], random: torch.Generator
) -> SequenceBatch:
    """Side info among all events of the batch."""
    own = frozenset(n.removeprefix(f"{domain}.") for n in names if n.startswith(f"{domain}."))
    own |= {n for n in events.ids if field_of(n) in names}  # an event's n-grams go with it
    order = torch.randperm(len(events.time_gap), generator=random)
    return replace(events, ids=_ids(events.ids, own, order), dense=_dense(events.dense, own, order))
