"""N-gram embedding against the formula: vectors, every gradient, all models, both engines, training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ctr.ablate.permute import permute_batch
from ctr.batch import Batch, IdColumn, SequenceBatch
from ctr.build import build_model, build_state, ngrams_of, open_dataset, training_loader
from ctr.config import EmbeddingConfig
from ctr.embedding import make_tables
from ctr.models.registry import model_config
from ctr.runs.versions import fbgemm_available
from ctr.tokens.config import NgramConfig
from ctr.tokens.events import SequenceTokenizer
from ctr.tokens.ngram import NgramField, ngram_ids
from ctr.tokens.ngram_embedding import NgramEmbedding
from ctr.training.step import Updates
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.ngram_batches import add_ngrams, base_ids, field_of, fields_of, ngram_rows, slow_ids
from tests.ctr.reference.parity import assert_parity, scrambled
from tests.ctr.tiny_run import tiny_config, tiny_dataset

MANIFEST = batches.manifest()


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


@pytest.mark.parametrize("kind", ["hyformer", "longer", "two_stage"])
def test_every_model_learns_them(kind: str) -> None:
    """Every sub-table and every projection of both domains gets a gradient."""
    fields = fields_of()
    config = model_config(
        kind=kind,
        d_model=20,
        heads=2,
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


def test_contents_hold_the_own_id_alone() -> None:
    """An n-gram holds the IDs of the events before: the last event would tell the next one's content."""
    fields, view = fields_of(fields=["view.item"]), MANIFEST.domains["view"]
    batch = add_ngrams(batches.make_batch(), fields)
    rows = batches.make_rows() | ngram_rows(batch, fields)
    options = {"ngrams": fields, "domain": "view"}
    config = model_config(d_model=4, column_gates={})
    module: Any = scrambled(SequenceTokenizer(view, config, dim=batches.DIM, **options))
    got = module.contents(batch.sequences["view"], rows)
    alike: Any = scrambled(SequenceTokenizer(view, model_config(d_model=4), dim=batches.DIM))
    alike.load_state_dict(module.state_dict(), strict=False)
    with torch.no_grad():
        gates = dict(zip(module.gate_of, module.gates.values(), strict=True))
        for column, linear in zip(alike.side, alike.maps, strict=True):
            linear.weight *= gates[column.name] / (5 if column.name == "item" else 1)
        (numbers,) = alike.numbers
        alike.of_numbers.weight[:, 1:] *= gates[numbers.name]
    torch.testing.assert_close(got, alike.contents(batch.sequences["view"], rows))
    leaves = [rows[t.name] for t in fields[0].tables]
    assert all(g is None for g in torch.autograd.grad(got.sum(), leaves, allow_unused=True))


def test_an_aligned_start_sees_the_item_as_without_ngrams() -> None:
    """With sub-tables at zero the mean is a fifth of E_0, so the map is five times the candidate's."""
    fields = fields_of(fields=["view.item"])
    config = model_config(
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


def test_a_mean_of_events_learns_their_order() -> None:
    """Whether a came before b: invisible in a mean of embeddings, told by the bigram."""
    pairs = torch.tensor([(a, b) for a in range(6) for b in range(6) if a != b])
    label = (pairs[:, 0] < pairs[:, 1]).float()
    offsets = torch.arange(0, 61, 2)
    losses = []
    for tables in ([], [(2, 37), (2, 41)]):
        torch.manual_seed(0)
        field = field_of(6, tables)
        ids = ngram_ids(pairs.flatten().numpy(), offsets.numpy(), field) if tables else {}
        uses = {name: IdColumn(torch.from_numpy(rows).long()) for name, rows in ids.items()}
        gaps = torch.zeros(60)
        events = SequenceBatch(offsets, 2, gaps, gaps.long(), {"item": IdColumn(pairs.flatten()), **uses})
        rows = {t.name: torch.randn(t.rows, 1, requires_grad=True) for t in field.tables}
        rows["item"] = torch.randn(6, 8, requires_grad=True)
        module, head = NgramEmbedding(field, dim=8), torch.nn.Linear(8, 1)
        optimizer = torch.optim.Adam([*rows.values(), *module.parameters(), *head.parameters()], lr=0.05)
        for _ in range(100):
            pooled = module(events, rows).view(30, 2, 8).mean(1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(head(pooled)[:, 0], label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3) and losses[1] < 0.1


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
