"""DIEN's auxiliary loss: the next event against a drawn one, told by what happened and not by when."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.blocks.jagged import Jagged
from ctr.models.sequence.dien import Dien, DienConfig, _negatives
from ctr.models.sequence.side import SequenceSide, SideEvents, SideSizes, SideState
from tests.ctr import batches
from tests.ctr.models.grid_cases import GRID
from tests.ctr.models.test_conformance import make_model
from tests.ctr.reference.parity import assert_parity
from tests.ctr.reference.sides import gru
from tests.ctr.reference.tokens import contents, sequences


def test_dien_predicts_the_next_event_against_a_drawn_one() -> None:
    model, batch, rows = make_model(GRID["DIEN"]).train(), batches.make_batch(), batches.make_rows()
    torch.manual_seed(0)
    model(batch, rows)
    extra = model.extra_loss
    assert isinstance(extra, Tensor)
    torch.manual_seed(0)
    total = torch.zeros(batch.num_requests, dtype=torch.float64)
    again = 0
    for number, side in enumerate(model.sides):
        kept, told = (
            [
                found(model.sequence_tokenizers, batches.manifest(), batch, rows, r)[number][-4:]
                for r in range(batch.num_requests)
            ]
            for found in (sequences, contents)
        )
        packed = torch.cat(told)
        steps = sum(max(0, len(events) - 1) for events in kept)
        draws = zip(*(torch.randint(len(packed), (steps,)).tolist() for _ in range(2)), strict=True)
        for request, (events, own) in enumerate(zip(kept, told, strict=True)):
            losses, interests = [], gru(side.extractor, events) if len(events) else []
            for t in range(len(events) - 1):
                others = [packed[d] for d in next(draws) if not torch.equal(packed[d], own[t + 1])]
                again += len(others) == 1
                if others:
                    positive, negative = interests[t] @ own[t + 1], interests[t] @ others[0]
                    losses.append(-F.logsigmoid(positive) - F.logsigmoid(-negative))
            if losses:
                total[request] = total[request] + 0.5 * torch.stack(losses).mean()
    assert again  # the first or the second was the next event
    want = total[batch.request_index] / len(batch.sequences)
    assert_parity([extra], [want], model, [rows[t] for t in ("item", "brand", "tag")])


def dien(width: int) -> SequenceSide:
    return DienConfig().build(SideSizes(width, 1, 1.0, "layer", 0.0, longest=10, ns_tokens=1)).train()


@pytest.mark.parametrize("kinds", [1, 2])
def test_dien_takes_no_negative_that_is_the_next_event(kinds: int) -> None:
    """Where contents are all alike there is nothing to tell: no loss, no gradient."""
    torch.manual_seed(0)
    side, kind = dien(6), torch.arange(40) % kinds
    tokens = Jagged.from_lengths(torch.randn(40, 6), torch.tensor([10, 0, 1, 29]))
    contents = torch.randn(2, 6)[kind].requires_grad_()
    drawn, differs = _negatives(contents, torch.arange(1, 40))
    assert torch.equal((drawn != contents[1:]).any(1), differs)
    assert int(differs.sum()) > 20 if kinds == 2 else not differs.any()
    loss = side.encode(SideEvents(tokens, torch.rand(40), contents=contents)).loss
    (gradient,) = torch.autograd.grad(loss.sum(), [contents])
    assert (loss > 0).tolist() == [kinds == 2, False, False, kinds == 2]
    assert bool(gradient.any()) == (kinds == 2)


def test_dien_cannot_tell_the_next_event_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it compares h_t with has the same bits at any other time and place, so items must tell."""
    seen: list[SideEvents] = []
    encode = Dien.encode

    def watched(side: Dien, events: SideEvents) -> SideState:
        seen.append(events)
        return encode(side, events)

    monkeypatch.setattr(Dien, "encode", watched)
    model = make_model(GRID["DIEN"] | {"positions": 4}).train()
    batch, rows = batches.make_batch(), batches.make_rows()
    later = {
        name: replace(events, time_gap=3 * events.time_gap.flip(0) + 5)
        for name, events in batch.sequences.items()
    }
    for each in (batch, replace(batch, sequences=later)):
        model(each, rows)
    for now, then in zip(seen[:2], seen[2:], strict=True):
        assert now.contents is not None and then.contents is not None
        assert torch.equal(now.contents, then.contents)
        assert not torch.equal(now.tokens.values, then.tokens.values)
    model.eval()(batch, rows)
    assert seen[-1].contents is None
    other = make_model(GRID["DIEN"] | {"sequence": {"kind": "dien", "auxiliary": 0}}).train()
    other(batch, rows)
    assert seen[-1].contents is None and other.extra_loss is None
