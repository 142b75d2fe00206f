"""Searches: what they find, what they copy, and what soft SIM learns by."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.request_map import RequestMap
from ctr.models.sequence.search import SearchConfig
from ctr.models.sequence.side import Candidates, SideEvents, SideSizes
from tests.ctr import batches
from tests.ctr.models.grid_cases import GRID
from tests.ctr.models.test_conformance import make_model
from tests.ctr.reference.formulas import linear, norm
from tests.ctr.reference.parity import assert_parity
from tests.ctr.reference.sides import Row, search_click
from tests.ctr.reference.tokens import ns_tokens, sequences


@pytest.mark.parametrize("name", ["SIM soft", "ETA", "TWIN"])
def test_a_search_that_keeps_all_is_attention_to_all(name: str) -> None:
    """So that what a search loses can be told: its recall against exact attention."""
    options = GRID[name]
    few, all_ = (
        make_model(options | {"sequence": options["sequence"] | {"keep": keep}}) for keep in (1, 1000)
    )
    few.load_state_dict(all_.state_dict())
    batch, rows = batches.make_batch(), batches.make_rows()
    assert not torch.allclose(few(batch, rows), all_(batch, rows))
    for side in all_.sides:
        side.config = side.config.model_copy(update={"keep": 10})  # the longest history
    want = all_(batch, rows)
    for side in all_.sides:
        side.config = side.config.model_copy(update={"keep": 10**6})
    torch.testing.assert_close(all_(batch, rows), want)


class Largest(TorchDispatchMode):
    """The most numbers that one tensor held, of those that were made inside."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


@pytest.mark.parametrize("by", ["field", "inner_product", "signs", "attention"])
def test_a_search_makes_no_vector_for_each_pair(by: Literal["field", "inner_product"]) -> None:
    """A number for each pair of candidate and event is inherent; a vector for each would be D times that."""
    length, candidates, width = 400, 40, 16
    compare = "item" if by == "field" else None
    sizes = SideSizes(width, 2, 2.0, "layer", 0.0, longest=length, ns_tokens=1, shared=3)
    side = SearchConfig(by=by, keep=5, compare=compare).build(sizes).train()
    events = Jagged.from_lengths(torch.randn(length, width), torch.tensor([length]))
    ids, asked = torch.arange(length) % 50, torch.randn(candidates, width)
    requests = RequestMap.build(torch.zeros(candidates, dtype=torch.int64), requests=1)
    with Largest() as largest:
        state = side.encode(SideEvents(events, torch.rand(length), ids, shared=events.values[:, :3]))
        own = Candidates(asked, asked[:, None], ids[:candidates], requests, asked[:, :3])
        read = side.read(state, own).sum()
        (read if side.own_logits is None else read + side.own_logits.sum()).backward()
    assert largest.numbers <= 2 * candidates * length


def own_losses(model: Any, batch: Batch, rows: dict[str, Tensor], offset: float = 0.0) -> Tensor:
    """(B,): of soft SIM, row by row; the mean over domains."""
    total = []
    for row, request in enumerate(batch.request_index.tolist()):
        features = ns_tokens(model.ns_tokenizer, batches.manifest(), batch, rows, row)
        query = norm(model.ask_norm, linear(model.ask, features[model.asking].flatten()))
        found = sequences(model.sequence_tokenizers, batches.manifest(), batch, rows, request)
        for events, side in zip(found, model.sides, strict=True):
            given = Row(events, events[:, 0], query, features, events[:, 0] > 0)
            logit = search_click(side, given) + offset
            total.append(F.softplus(logit) - batch.label[row] * logit)
    return torch.stack(total).view(batch.num_rows, -1).mean(dim=1)


@pytest.mark.parametrize("length", [0, 20, 1000])
def test_the_search_s_own_loss_starts_near_ln_2_whatever_the_length(length: int) -> None:
    torch.manual_seed(0)
    width, rows = 48, 32
    sizes = SideSizes(width, 2, 2.0, "layer", 0.0, longest=1000, ns_tokens=1)
    side = SearchConfig(by="inner_product").build(sizes).train()
    normed = partial(F.layer_norm, normalized_shape=(width,))
    events = Jagged.from_lengths(normed(torch.randn(length, width)), torch.tensor([length]))
    asked = normed(torch.randn(rows, width))
    requests = RequestMap.build(torch.zeros(rows, dtype=torch.int64), requests=1)
    state = side.encode(SideEvents(events, torch.zeros(length)))
    side.read(state, Candidates(asked, asked[:, None], None, requests))
    assert side.own_logits is not None
    label = torch.arange(rows) % 2.0
    assert F.binary_cross_entropy_with_logits(side.own_logits, label).item() == pytest.approx(0.69, abs=0.1)


def test_soft_search_learns_by_a_click_loss_of_its_own() -> None:
    model, batch, rows = make_model(GRID["SIM soft"]).train(), batches.make_batch(), batches.make_rows()
    model(batch, rows)
    loss = model.extra_loss
    assert isinstance(loss, Tensor) and loss.shape == (batch.num_rows,)
    leaves = [rows[table] for table in ("item", "tag")]  # those that events and candidates have
    assert_parity([loss], [own_losses(model, batch, rows)], model, leaves, tolerance=1e-6)  # it is in float32
    model(batch, rows)
    gradients = torch.autograd.grad(model.extra_loss.sum(), [s.search_key.weight for s in model.sides])
    assert all(g.abs().sum() > 0 for g in gradients)
    model(replace(batch, offset=torch.full((batch.num_rows,), 0.7)), rows)
    torch.testing.assert_close(
        model.extra_loss, own_losses(model, batch, rows, offset=0.7), check_dtype=False
    )
    clicks = model(batch, rows)
    unused = torch.autograd.grad(clicks.sum(), [s.search_key.weight for s in model.sides], allow_unused=True)
    assert all(g is None or not g.any() for g in unused)  # the attention does not train the search
    other = make_model(GRID["SIM soft"] | {"sequence": GRID["SIM soft"]["sequence"] | {"loss": 0.0}}).train()
    other(batch, rows)
    assert other.extra_loss is None
