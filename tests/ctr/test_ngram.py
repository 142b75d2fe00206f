"""N-gram embedding against the formula, event by event: sizes, IDs, vectors, every gradient, training."""

from __future__ import annotations

from itertools import pairwise
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctr.ablate.permute import permute_batch
from ctr.batch import Batch
from ctr.build import build_model, build_state, ngrams_of, open_dataset, scoring_loader, training_loader
from ctr.config import EmbeddingConfig, LongerConfig, ModelConfig, NgramConfig
from ctr.embedding import make_tables
from ctr.loader import batch_stats
from ctr.ngram import NgramField, NgramTable, ngram_fields, ngram_ids, table_sizes
from ctr.ngram_embedding import NgramEmbedding
from ctr.updates import Updates
from ctr.versions import fbgemm_available
from features.dataset import Column
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.ngram_batches import add_ngrams, base_ids, ngram_rows
from tests.ctr.reference.parity import assert_parity, scrambled
from tests.ctr.tiny_run import tiny_config, tiny_dataset

MANIFEST = batches.manifest()
ITEM = Column(name="item", level="event", kind="id", table="item")


def fields_of(**options: Any) -> list[NgramField]:
    """Trigrams of views and purchases, two tables per order."""
    config = {"fields": ["view.item", "buy.item"], "rows": 90, "dim": 3, **options}
    return ngram_fields(MANIFEST, NgramConfig(**config), dim=batches.DIM)


# ---- sizes ----


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 5000), number=st.integers(1, 8), base=st.integers(2, 6000))
def test_sizes_avoid_the_base_and_each_other(rows: int, number: int, base: int) -> None:
    sizes = table_sizes(rows, number, base=base)
    assert len(set(sizes)) == number and min(sizes) >= rows
    for i, size in enumerate(sizes):
        away = min(abs(size - base * m) for m in range(1, size // base + 2))
        assert away >= base / 8
        assert all(gcd(size, other) == 1 for other in [base, *sizes[:i]])


def test_a_multiple_of_the_base_would_forget_what_came_before() -> None:
    """Of 100 items in front of the same one, a table of 1000 = 10 · 100 rows tells 10 apart, ours all."""
    (size,) = table_sizes(1000, 1, base=100)
    field = field_of(100, [(2, 1000), (2, size)])
    pairs = np.array([(before, 7) for before in range(100)])
    found = ngram_ids(pairs.flatten(), np.arange(0, 201, 2), field)
    assert [len(np.unique(ids[1::2])) for ids in found.values()] == [10, 100]


# ---- IDs ----


def field_of(base: int, tables: list[tuple[int, int]]) -> NgramField:
    made = tuple(NgramTable(f"{n}.{i}", n, rows) for i, (n, rows) in enumerate(tables))
    return NgramField("view", ITEM, base, made, 1)


def slow_ids(values: list[int], offsets: list[int], base: int, order: int, rows: int) -> list[int]:
    """Python's unbounded integers, one event after the other; 0 before the history."""
    found = []
    for start, stop in pairwise(offsets):
        for event in range(start, stop):
            window = [values[event - j] if event - j >= start else 0 for j in range(order)]
            found.append(sum(t * base**j for j, t in enumerate(window)) % rows)
    return found


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


# ---- vectors ----


def slow_vectors(module: NgramEmbedding, batch: Batch, rows: dict[str, Tensor], field: NgramField) -> Tensor:
    """(ΣL, E): the formula for one event at a time, every sub-table and map on its own."""
    events = batch.sequences[field.domain]
    ids, offsets = base_ids(batch, field).tolist(), events.offsets.tolist()
    base_places = {row: i for i, row in enumerate(batch.unique_ids["item"].tolist())}
    total = torch.stack([rows["item"][base_places[row]] for row in ids])
    for table, linear in zip(field.tables, module.maps, strict=True):
        places = {row: i for i, row in enumerate(batch.unique_ids[table.name].tolist())}
        hashed = slow_ids(ids, offsets, field.base_rows, table.order, table.rows)
        total = total + torch.stack([linear.weight @ rows[table.name][places[h]] for h in hashed])
    return total / (1 + len(field.tables))


@pytest.mark.parametrize("options", [{}, {"max_order": 2, "tables_per_order": 1}, {"max_order": 4}])
def test_vectors_and_gradients(options: dict[str, Any]) -> None:
    """The output, and the gradients of base rows, sub-tables and projections."""
    field = fields_of(**options)[0]
    batch = add_ngrams(batches.make_batch(), [field])
    rows = batches.make_rows() | ngram_rows(batch, [field])
    module = scrambled(NgramEmbedding(field, dim=batches.DIM))
    want = slow_vectors(module, batch, rows, field)
    leaves = [rows["item"], *(rows[t.name] for t in field.tables)]
    assert_parity([module(batch.sequences["view"], rows)], [want], module, leaves)


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


@pytest.mark.parametrize("kind", ["hyformer", "longer", "two_stage"])
def test_every_model_learns_them(kind: str) -> None:
    """Every sub-table and every projection of both domains gets a gradient."""
    fields = fields_of()
    config = ModelConfig(
        kind=kind,
        d_model=20,
        heads=2,
        longer=LongerConfig(cls_tokens=1),
        ngram=NgramConfig(fields=["view.item", "buy.item"], rows=90, dim=3),
    )
    model = scrambled(build_model(MANIFEST, config, dim=batches.DIM, seed=1))
    batch = add_ngrams(batches.make_batch(), fields)
    rows = batches.make_rows() | ngram_rows(batch, fields)
    model(batch, rows).square().sum().backward()
    tables = [rows[t.name] for f in fields for t in f.tables]
    assert all(bool(t.grad is not None and t.grad.any()) for t in tables)
    maps = [p for name, p in model.named_parameters() if ".ngrams." in name]
    assert len(maps) == len(tables) and all(bool(p.grad is not None and p.grad.any()) for p in maps)


def test_an_aligned_start_sees_the_item_as_without_ngrams() -> None:
    """With sub-tables at zero the mean is a fifth of E_0, so the map is five times the candidate's."""
    fields = fields_of(fields=["view.item"])
    config = ModelConfig(
        d_model=20,
        heads=2,
        aligned_start=True,
        ngram=NgramConfig(fields=["view.item"], rows=90, dim=3),
    )
    model = build_model(MANIFEST, config, dim=batches.DIM, seed=1).double()
    batch = add_ngrams(batches.make_batch(), fields)
    rows = batches.make_rows() | {n: torch.zeros_like(r) for n, r in ngram_rows(batch, fields).items()}
    tokenizer = model.sequence_tokenizers.tokenizers[0]
    assert [tokenizer.parts_averaged(c.name) for c in tokenizer.side] == [5, 1, 1]
    got = tokenizer.maps[0](tokenizer.ngrams[0](batch.sequences["view"], rows))
    of_candidate = model.ns_tokenizer.groups[1].of_candidate.weight[:, : batches.DIM]
    want = rows["item"][batch.sequences["view"].ids["item"].inverse_indices] @ of_candidate.T
    torch.testing.assert_close(got, want)


def test_a_permuted_field_takes_its_ngrams_along() -> None:
    """The n-grams of an event go where its item goes; those of another domain stay."""
    batch = add_ngrams(batches.make_batch(), fields_of())
    moved = permute_batch(batch, frozenset(["view.item"]), torch.Generator().manual_seed(1))
    before, after = (with_ngrams(b, "view") for b in (batch, moved))
    assert before != after and sorted(before) == sorted(after)
    assert with_ngrams(moved, "buy") == with_ngrams(batch, "buy")


def with_ngrams(batch: Batch, domain: str) -> list[tuple[int, ...]]:
    """The item of every event and its rows in the sub-tables."""
    uses = [use for name, use in batch.sequences[domain].ids.items() if name not in ("brand", "tags")]
    assert len(uses) == 5
    return list(zip(*(use.inverse_indices.tolist() for use in uses), strict=True))


# ---- tables and training ----


@pytest.mark.parametrize("engine", ["torch", "fbgemm"])
def test_training_with_either_engine(tmp_path: Path, engine: str) -> None:
    """Sub-tables are tables: looked up, updated where used and only there, saved and read back."""
    if engine == "fbgemm" and not fbgemm_available():
        pytest.skip("fbgemm is not installed")
    data = tiny_dataset(tmp_path)
    config = tiny_config(
        data,
        tmp_path / "run",
        "model.ngram.fields=[view.item]",
        "model.ngram.rows=300",
        "embedding.dim=16",
        f"embedding.engine={engine}",
    )
    dataset = open_dataset(config)
    state = build_state(config, dataset.manifest, torch.device("cpu"))
    before = {name: value.clone() for name, value in state.tables.state().items()}
    assert before["ngram:view.item:3.1.weight"].shape[1] == 4  # 16 / ((3 - 1) 2)
    assert state.tables.num_parameters == sum(w.numel() for n, w in before.items() if n.endswith("weight"))
    updates = Updates(
        state.model, state.tables, state.optimizer, averaged=None, config=config, total_steps=10
    )
    batch = next(training_loader(config, dataset).iterate(0))
    for step in range(2):
        assert updates.step(batch, step).loss is not None
    after = state.tables.state()
    for table in (t for f in ngrams_of(config, dataset.manifest) for t in f.tables):
        moved = (after[f"{table.name}.weight"] != before[f"{table.name}.weight"]).any(1)
        assert moved.nonzero().flatten().tolist() == sorted(batch.unique_ids[table.name].tolist())
    fresh = build_state(config, dataset.manifest, torch.device("cpu")).tables
    fresh.load_state(after)
    assert all(torch.equal(value, after[name]) for name, value in fresh.state().items())


@pytest.mark.skipif(not fbgemm_available(), reason="fbgemm is not installed")
def test_engines_agree_on_tables_of_two_widths() -> None:
    made = {
        engine: make_tables(
            {"a": 30, "b": 20}, EmbeddingConfig(dim=8, engine=engine), seed=1, widths={"b": 4}
        )
        for engine in ("torch", "fbgemm")
    }
    for tables in made.values():
        tables.set_lr(0.1)
        for step in range(3):
            rows = tables.lookup({"b": torch.tensor([3, 7 + step]), "a": torch.tensor([1])})
            (rows["a"].square().sum() + rows["b"].pow(3).sum()).backward()
            tables.apply_gradients()
    one, other = made["torch"].state(), made["fbgemm"].state()
    assert one.keys() == other.keys() and "step.4" in one
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=name)
    made["torch"].load_state(other)
    with pytest.raises(ConfigError, match="multiple of 4"):
        make_tables({"a": 3}, EmbeddingConfig(dim=8, engine="fbgemm"), seed=1, widths={"a": 2})


# ---- what does not fit ----


@pytest.mark.parametrize(
    ("options", "dim", "message"),
    [
        ({"fields": ["view.tags"]}, 5, r"fields of events with one ID each, \['buy.item', .*'view.tags'"),
        ({"fields": ["item"]}, 5, "got 'item'"),
        ({"dim": 0}, 6, r"multiple of .* = 4 of model.ngram, got 6"),
        ({"rows": 2**31}, 5, r"model.ngram.rows must stay below 2\^31"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], dim: int, message: str) -> None:
    config = NgramConfig(**{"fields": ["view.item"], "rows": 90, "dim": 3, **options})
    with pytest.raises(ConfigError, match=message):
        ngram_fields(MANIFEST, config, dim=dim)
    with pytest.raises(ConfigError, match="at least 2 rows"):
        table_sizes(10, 1, base=1)
