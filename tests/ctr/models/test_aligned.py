"""The aligned start: initial values alone, and the ones it promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctr.blocks.query import QueryGeneration
from ctr.blocks.request_map import RequestMap
from ctr.build import build_model
from ctr.models import aligned
from ctr.models.registry import model_config
from features.errors import ConfigError
from tests.ctr import batches

HYFORMER: dict[str, Any] = {"d_model": 12, "heads": 2, "queries": {"view": 2}, "attention_sink": True}
LONGER: dict[str, Any] = {"kind": "longer", "d_model": 12, "heads": 2, "longer": {"num_queries": 3}}
ONE_TRANS: dict[str, Any] = {"kind": "one_trans", "d_model": 12, "heads": 2}
HSTU: dict[str, Any] = {"kind": "hstu", "d_model": 12, "heads": 2, "action_tokens": "added"}
GRID: dict[str, Any] = {"kind": "grid", "d_model": 12, "heads": 2}
SOFT: dict[str, Any] = GRID | {"sequence": {"kind": "search", "by": "inner_product"}}


def build(options: dict[str, Any]) -> Any:
    return build_model(batches.manifest(), model_config(**options), dim=batches.DIM, seed=1)


@pytest.mark.parametrize("options", [HYFORMER, LONGER, ONE_TRANS, HSTU, SOFT], ids=lambda o: o.get("kind"))
def test_only_values_change(options: dict[str, Any]) -> None:
    plain, start = build(options), build(options | {"aligned_start": True})
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in start.state_dict().items()
    }
    assert build(options | {"aligned_start": True}).state_dict().keys() == start.state_dict().keys()
    again = build(options | {"aligned_start": True}).state_dict()
    assert all(torch.equal(again[name], value) for name, value in start.state_dict().items())


def test_maps_of_a_shared_table_start_equal_and_queries_are_the_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aligned, "_REST", 0.0)
    model = build(HYFORMER | {"aligned_start": True})
    tables = {
        str(c.table): linear.weight
        for t in model.sequence_tokenizers.tokenizers
        for c, linear in zip(t.side, t.maps, strict=True)
    }
    shared = [aligned._shared_maps(group, set(tables)) for group in model.ns_tokenizer.groups]
    assert any(shared)
    for parts in shared:
        for table, part in parts.items():
            assert torch.equal(part, tables[table])
    token = max(range(len(shared)), key=lambda i: len(shared[i]))
    batch, rows = batches.make_batch(), batches.make_rows()
    requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
    model.double()
    tokens = model.ns_tokenizer(batch, rows, requests)
    pools = torch.stack([s.mean_pool() for s in model.sequence_tokenizers(batch, rows)], dim=1)
    generation: QueryGeneration = model.generation
    with torch.no_grad():
        generation.down.bias.zero_()  # type: ignore[union-attr]
    queries = generation(tokens, pools, requests)
    torch.testing.assert_close(queries, tokens[:, token : token + 1].expand_as(queries), atol=1e-6, rtol=1e-5)


def test_queries_and_keys_start_on_the_same_side() -> None:
    for options in (HYFORMER, LONGER):
        model = build(options | {"aligned_start": True})
        asked = model.layers[0].decoding.layers if options is HYFORMER else model.tower.layers
        for layer in asked:
            attention = layer.attention
            width = attention.query.weight.shape[0]
            torch.testing.assert_close(attention.query.weight, 2 * attention.key_value.weight[:width])


def test_ns_tokens_of_one_trans_ask_as_events_answer() -> None:
    for layer in build(ONE_TRANS | {"aligned_start": True}).layers:
        key = layer.attention.key_value
        for weight, bias in zip(layer.ns_qkv.weight, layer.ns_qkv.bias, strict=True):
            torch.testing.assert_close(weight[:, :12], 2 * key.weight[:12].t())
            assert not bias[:, :12].any() and not key.bias[:12].any()


def test_the_candidate_token_of_hstu_starts_as_that_of_the_shared_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aligned, "_REST", 0.0)
    model = build(HSTU | {"aligned_start": True})
    place = 0  # of `item` among the tokens that hold a candidate's feature
    tokens = torch.randn(5, len(model.asking), 12)
    mapped = model.ask(tokens.flatten(1)) - model.ask.bias
    torch.testing.assert_close(mapped, tokens[:, place])
    for layer in model.layers:
        _, _, query, key = layer.mapped.weight.chunk(4)
        torch.testing.assert_close(query, 2 * key)


def test_what_a_grid_asks_starts_as_the_token_of_the_shared_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligned, "_REST", 0.0)
    for options in (SOFT, GRID | {"sequence": {"kind": "target_attention"}}):
        model = build(options | {"aligned_start": True})
        tokens = torch.randn(5, len(model.asking), 12)
        mapped = model.ask(tokens.flatten(1)) - model.ask.bias
        torch.testing.assert_close(mapped, tokens[:, 0])
        for side in model.sides:
            reader = side if options is SOFT else side.attention
            torch.testing.assert_close(reader.query.weight, 2 * reader.key_value.weight[:12])
            if options is SOFT:
                assert torch.equal(side.search_query.weight, side.search_key.weight)


@pytest.mark.parametrize(
    "changes",
    [{"tokenizer": {"kind": "auto", "tokens": 3}}, {"tokenizer": {"hidden": 4}}, {"expansion": 1.0}],
    ids=["auto", "hidden", "narrow"],
)
def test_what_cannot_be_aligned_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="aligned_start needs"):
        build(HYFORMER | changes | {"aligned_start": True})
