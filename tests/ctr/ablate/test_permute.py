"""Permuting exchanges what it names among owners, moves it together, and leaves everything else alone."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import torch

from ctr.ablate.permute import PermutedBatches, permute_batch
from ctr.batch import Batch, IdColumn
from tests.ctr import batches


def permuted(*names: str, seed: int = 0) -> tuple[Batch, Batch]:
    batch = batches.make_batch()
    return batch, permute_batch(batch, frozenset(names), torch.Generator().manual_seed(seed))


def values(column: IdColumn) -> list[Any]:
    """What each owner has."""
    if column.offsets is None:
        return column.inverse_indices.tolist()
    weights = torch.ones_like(column.inverse_indices) if column.weights is None else column.weights
    pairs = list(zip(column.inverse_indices.tolist(), weights.tolist(), strict=True))
    ends = column.offsets.tolist()
    return [tuple(pairs[a:b]) for a, b in pairwise(ends)]


def test_ids_lists_and_dense_values_move_together_by_level() -> None:
    def requests(batch: Batch) -> list[str]:
        ids = (values(batch.request_ids[name]) for name in ("user", "interests"))
        return [str(row) for row in zip(*ids, batch.request_dense["age"].tolist(), strict=True)]

    before, after = permuted("user", "interests", "age", "tags")
    assert Counter(requests(before)) == Counter(requests(after)) and requests(before) != requests(after)
    tags = [values(b.candidate_ids["tags"]) for b in (before, after)]
    assert Counter(tags[0]) == Counter(tags[1]) and tags[0] != tags[1]


def test_what_is_not_named_stays() -> None:
    before, after = permuted("user", "view.brand")
    for name in ("item", "tags"):
        assert values(before.candidate_ids[name]) == values(after.candidate_ids[name])
    assert torch.equal(before.request_dense["age"], after.request_dense["age"])
    assert torch.equal(before.label, after.label) and before.unique_ids is after.unique_ids
    view = before.sequences["view"], after.sequences["view"]
    assert values(view[0].ids["item"]) == values(view[1].ids["item"])
    assert Counter(values(view[0].ids["brand"])) == Counter(values(view[1].ids["brand"]))
    assert values(view[0].ids["brand"]) != values(view[1].ids["brand"])
    assert torch.equal(view[0].offsets, view[1].offsets)


def test_a_domain_moves_as_whole_histories() -> None:
    before, after = permuted("view")

    def histories(batch: Batch) -> list[str]:
        view = batch.sequences["view"]
        events = list(zip(values(view.ids["item"]), values(view.ids["tags"]), view.time_gap.tolist(),
                          view.dense["dwell"].tolist(), strict=True))  # fmt: skip
        ends = view.offsets.tolist()
        return [str(events[a:b]) for a, b in pairwise(ends)]

    assert Counter(histories(before)) == Counter(histories(after))
    assert histories(before) != histories(after)


def test_the_same_seed_gives_the_same_batches_and_each_batch_its_own_order() -> None:
    class Source:
        def iterate(self, epoch: int, start_step: int = 0) -> Any:
            yield from [batches.make_batch()] * 2

    one, two = (list(PermutedBatches(Source(), ["item"]).iterate(0)) for _ in range(2))
    items = [[values(b.candidate_ids["item"]) for b in made] for made in (one, two)]
    assert items[0] == items[1]
    assert items[0][0] != items[0][1]
    orders = [
        tuple(
            map(
                tuple,
                (
                    values(b.candidate_ids["item"])
                    for b in PermutedBatches(Source(), ["item"], seed=s).iterate(0)
                ),
            )
        )
        for s in range(6)
    ]
    assert len(set(orders)) > 3  # another seed, another order
