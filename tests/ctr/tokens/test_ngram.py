"""N-grams of events: table sizes, the rolling hash event by event, and what the loader's batches hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.batch import Batch
from ctr.build import ngrams_of, open_dataset, scoring_loader, training_loader
from ctr.loader import batch_stats
from ctr.tokens.config import NgramConfig
from ctr.tokens.ngram import NgramField, ngram_fields, ngram_ids, table_sizes
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.ngram_batches import add_ngrams, base_ids, field_of, fields_of, slow_ids
from tests.ctr.tiny_run import tiny_config, tiny_dataset

MANIFEST = batches.manifest()


# ---- sizes ----


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 5000), number=st.integers(1, 8), base=st.integers(2, 6000))
def test_sizes_avoid_the_base_and_each_other(rows: int, number: int, base: int) -> None:
    sizes = table_sizes(rows, number, base=base)
    assert len(set(sizes)) == number and min(sizes) >= rows
    for i, size in enumerate(sizes):
        away = min(abs(size - base * m) for m in range(1, size // base + 2))
        assert away >= base / 8
        assert all(math.gcd(size, other) == 1 for other in [base, *sizes[:i]])


def test_a_multiple_of_the_base_would_forget_what_came_before() -> None:
    """Of 100 items in front of the same one, a table of 1000 = 10 · 100 rows tells 10 apart, ours all."""
    (size,) = table_sizes(1000, 1, base=100)
    field = field_of(100, [(2, 1000), (2, size)])
    pairs = np.array([(before, 7) for before in range(100)])
    found = ngram_ids(pairs.flatten(), np.arange(0, 201, 2), field)
    assert [len(np.unique(ids[1::2])) for ids in found.values()] == [10, 100]


# ---- IDs ----


@settings(deadline=None, max_examples=60)
@given(data=st.data(), base=st.sampled_from([2, 7, 1000, 2**31 - 1]), rows=st.integers(2, 2**30))
def test_ids_are_the_rolling_hash(data: st.DataObject, base: int, rows: int) -> None:
    """Also where V_0^j is far beyond int64, and with empty histories anywhere."""
    lengths = data.draw(st.lists(st.integers(0, 7), max_size=6))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = data.draw(st.lists(st.integers(0, base - 1), min_size=sum(lengths), max_size=sum(lengths)))
    # The plan refuses what would not fit: N V_0 V below 2^63.
    orders = [(n, min(rows, 2**63 // (n * base) - 1)) for n in (2, 3, 5)]
    found = ngram_ids(np.array(values, dtype=np.int32), offsets, field_of(base, orders))
    for (name, ids), (order, size) in zip(found.items(), orders, strict=True):
        assert ids.dtype == np.int32
        assert ids.tolist() == slow_ids(values, offsets.tolist(), base, order, size), name


def test_an_event_depends_on_those_before_it_and_on_no_other() -> None:
    """Only orders up to N, only the same history, and never the candidates."""
    field = fields_of(max_order=3)[0]
    batch = add_ngrams(batches.make_batch(), [field])
    offsets = batch.sequences["view"].offsets.tolist()
    found = ngram_ids(base_ids(batch, field).numpy(), np.array(offsets), field)
    changed = base_ids(batch, field).clone()
    changed[offsets[2] + 3] += 1  # the fourth event of the third request
    other = ngram_ids(changed.numpy(), np.array(offsets), field)
    differs = np.any([found[t.name] != other[t.name] for t in field.tables], axis=0)
    assert np.flatnonzero(differs).tolist() == [offsets[2] + i for i in (3, 4, 5)]


def test_a_loader_hashes_the_histories_it_gives(tmp_path: Path) -> None:
    """Of the events that a batch holds, with `max_len` too; unique; the rest of the batch unchanged."""
    data, run = tiny_dataset(tmp_path), tmp_path / "run"
    options = ["model.ngram.fields=[view.item, buy.item]", "model.ngram.rows=50", "loader.max_len.view=4"]
    config, plain = tiny_config(data, run, *options), tiny_config(data, run, options[-1])
    dataset = open_dataset(config)
    fields = ngrams_of(config, dataset.manifest)
    pairs = zip(
        training_loader(config, dataset).iterate(1), training_loader(plain, dataset).iterate(1), strict=True
    )
    for batch, without in pairs:
        check_uses(batch, fields)
        assert all(torch.equal(ids, batch.unique_ids[table]) for table, ids in without.unique_ids.items())
        assert torch.equal(
            without.candidate_ids["item"].inverse_indices, batch.candidate_ids["item"].inverse_indices
        )
    stats = batch_stats(batch, dataset.manifest, dim=4, ngrams=fields)
    assert 0 < stats["unique_ratio.ngram:view.item:2.0"] <= 1
    check_uses(next(scoring_loader(config, dataset, "test").iterate(0)), fields)


def check_uses(batch: Batch, fields: list[NgramField]) -> None:
    for field in fields:
        events = batch.sequences[field.domain]
        for table in field.tables:
            unique = batch.unique_ids[table.name]
            assert len(unique) == len(unique.unique())
            wanted = slow_ids(
                base_ids(batch, field).tolist(),
                events.offsets.tolist(),
                field.base_rows,
                table.order,
                table.rows,
            )
            assert unique[events.ids[table.name].inverse_indices].tolist() == wanted


# ---- what does not fit ----


@pytest.mark.parametrize(
    ("options", "dim", "message"),
    [
        ({"fields": ["view.tags"]}, 5, r"fields of events with one ID each, \['buy.item', .*'view.tags'"),
        ({"fields": ["item"]}, 5, "got 'item'"),
        ({"dim": 0}, 6, r"multiple of .* = 4 of model.ngram, got 6"),
        ({"rows": 2**31 - 1}, 5, r"model.ngram.rows must stay below 2\^31"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], dim: int, message: str) -> None:
    config = NgramConfig(**{"fields": ["view.item"], "rows": 90, "dim": 3, **options})
    with pytest.raises(ConfigError, match=message):
        ngram_fields(MANIFEST, config, dim=dim)
    with pytest.raises(ConfigError, match="at least 2 rows"):
        table_sizes(10, 1, base=1)
