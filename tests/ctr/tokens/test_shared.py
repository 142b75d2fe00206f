"""What events and candidates share is hashed: equal IDs meet from the first step on, by whatever maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.batch import Batch, IdColumn
from ctr.blocks.request_map import RequestMap
from ctr.build import build_model
from ctr.models.grid import Grid
from ctr.models.registry import model_config
from ctr.models.sequence.pair_scores import PairScores
from ctr.models.sequence.sdim import Sdim
from ctr.models.sequence.search import Search
from ctr.models.sequence.side import Candidates
from ctr.tokens.shared import shared_fields
from features.dataset import Column, Manifest
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.dataset_fixture import FEATURES

DOMAIN = 1  # buy, whose events have an item alone


def fresh(**options: Any) -> Grid:
    """A grid with the weights that a run starts with, and no aligned start."""
    config = model_config(kind="grid", d_model=12, heads=2, sequence=options)
    model = build_model(batches.manifest(), config, dim=batches.DIM, seed=1).double().eval()
    assert isinstance(model, Grid)
    return model


def bought_before(lengths: list[int]) -> tuple[Batch, Tensor]:
    """A batch in which the first candidate of each request is the item of one of its events, (R,): which."""
    batch = batches.make_batch(batches.ALL_LENGTHS | {"buy": lengths})
    events = batch.sequences["buy"]
    distinct = torch.cat([torch.arange(n) for n in lengths])  # the items of one request
    event = events.offsets[:-1] + torch.tensor(lengths) // 2
    item = torch.full((batch.num_rows,), batches.UNIQUE - 1)
    item[first_rows(batch)] = distinct[event]
    bought = replace(events, ids={"item": IdColumn(distinct)})
    return replace(
        batch,
        sequences=batch.sequences | {"buy": bought},
        candidate_ids=batch.candidate_ids | {"item": IdColumn(item)},
    ), event


def first_rows(batch: Batch) -> Tensor:
    """(R,): the first candidate of each request."""
    return torch.searchsorted(batch.request_index, torch.arange(batch.num_requests))


def asked(model: Grid, batch: Batch, rows: dict[str, Tensor]) -> Candidates:
    requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
    return model.questions(model.ns_tokenizer(batch, rows, requests), batch, rows, requests)[DOMAIN]


@torch.no_grad()
def test_an_event_of_the_candidate_s_item_falls_into_all_its_buckets() -> None:
    model, rows = fresh(kind="sdim"), batches.make_rows()
    batch, event = bought_before([1] * 6)
    side, kept = model.sides[DOMAIN], model.encode(batch, rows).sides[DOMAIN]
    assert isinstance(side, Sdim)
    read = side.read(kept, asked(model, batch, rows))[:, 0]
    token = F.normalize(model.sequence_tokenizers(batch, rows)[DOMAIN].values, dim=1)
    torch.testing.assert_close(read[first_rows(batch)], token[event])  # the mean of one direction over groups
    other = torch.ones(batch.num_rows, dtype=torch.bool)
    other[first_rows(batch)] = False
    assert (read[other].norm(dim=1) < 0.9).all()


@torch.no_grad()
def test_an_event_of_the_candidate_s_item_is_found_first() -> None:
    model, rows = fresh(kind="search", by="signs", keep=1), batches.make_rows()
    batch, event = bought_before([5, 2, 6, 1, 3, 4])
    side, kept = model.sides[DOMAIN], model.encode(batch, rows).sides[DOMAIN]
    assert isinstance(side, Search) and kept.events is not None
    own = asked(model, batch, rows)
    found = side.search(kept, own, PairScores.of(kept.events, own.requests))
    place = found.of_events(torch.arange(len(kept.events.values)))[first_rows(batch)]
    assert torch.equal(place, event)


@torch.no_grad()
def test_what_is_not_shared_does_not_move_the_hash() -> None:
    """The user, the time and the price are in the tokens; the hash is of IDs."""
    model, rows = fresh(kind="sdim"), batches.make_rows()
    batch, _ = bought_before([1] * 6)
    later = replace(batch.sequences["buy"], time_gap=batch.sequences["buy"].time_gap + 1e6)
    other = replace(
        batch,
        sequences=batch.sequences | {"buy": later},
        candidate_dense={name: values + 3 for name, values in batch.candidate_dense.items()},
    )
    counts = [model.encode(b, rows).sides[DOMAIN].summary[..., -1] for b in (batch, other)]  # type: ignore[index]
    assert torch.equal(*counts)
    hashed = [asked(model, b, rows).shared for b in (batch, other)]
    assert torch.equal(*hashed)  # type: ignore[arg-type]


def test_pairs_are_of_one_table_by_name_then_by_kind() -> None:
    found = {d: shared_fields(batches.manifest(), d) for d in ("view", "buy")}
    names = {d: [(field.name, own.name) for field, own in pairs] for d, pairs in found.items()}
    assert names == {"view": [("item", "item"), ("tags", "tags")], "buy": [("item", "item")]}
    first = Column(name="similar", level="candidate", kind="ids", table="item")
    second = Column(name="seller", level="candidate", kind="id", table="item")
    manifest = batches.manifest(features=[first, second, *[c for c in FEATURES if c.name != "item"]])
    ((_, own),) = shared_fields(manifest, "buy")
    assert own is second


@pytest.mark.parametrize("options", [{"kind": "sdim"}, {"kind": "search", "by": "signs"}])
def test_a_domain_that_shares_no_table_is_refused(options: dict[str, Any]) -> None:
    unrelated = [
        c.model_copy(update={"table": "user"}) if c.name == "item" else c for c in FEATURES
    ]  # so that `buy` has nothing of candidates, and `view` their tags
    manifest: Manifest = batches.manifest(features=unrelated)
    config = model_config(kind="grid", d_model=12, heads=2, sequence=options)
    said = (
        r"the events of 'buy' share none: theirs are \['item'\], the candidates' \['tag', 'user'\]; "
        r"leave the domain out \(drop: \[buy\]\)"
    )
    with pytest.raises(ConfigError, match=said):
        build_model(manifest, config, dim=batches.DIM, seed=1)
