"""The grid beyond one row's formula: moments, hashes, gradients, and what is refused.

That each choice is its paper's formula is proved with all models in test_conformance.py, by
tests/ctr/reference/sides.py and interactions.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.request_map import RequestMap
from ctr.build import build_model
from ctr.models.interaction.interactions import INTERACTIONS
from ctr.models.registry import model_config
from ctr.models.sequence.din import Dice
from ctr.models.sequence.linear_attention import LinearAttentionConfig
from ctr.models.sequence.side import Candidates, SideEvents, SideSizes
from ctr.models.sequence.sides import SIDES
from ctr.models.sequence.weighted_pooling import WeightedPoolingConfig
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.models.grid_cases import GRID
from tests.ctr.models.test_conformance import make_model
from tests.ctr.reference.interactions import INTERACTIONS as INTERACTION_REFERENCES
from tests.ctr.reference.parity import LENGTHS, rand
from tests.ctr.reference.sides import SIDES as SIDE_REFERENCES


def test_each_choice_has_a_reference_and_a_case() -> None:
    sides = {options["sequence"]["kind"] for options in GRID.values()}
    assert set(SIDES.kinds) == set(SIDE_REFERENCES) == sides
    crossed = {options.get("interaction", {"kind": "mlp"})["kind"] for options in GRID.values()}
    assert set(INTERACTIONS.kinds) == set(INTERACTION_REFERENCES) == crossed


@pytest.mark.parametrize("score", ["additive", "bilinear", "self"])
def test_what_a_weighted_pooling_keeps_of_a_request(score: Literal["additive", "bilinear", "self"]) -> None:
    """Without a question the weights are the request's, so that its sum is all a candidate needs."""
    sizes = SideSizes(8, 2, 2.0, "layer", 0.0, longest=9, ns_tokens=1)
    side = WeightedPoolingConfig(score=score).build(sizes)
    events = Jagged.from_lengths(torch.randn(sum(LENGTHS), 8), torch.tensor(LENGTHS))
    state = side.encode(SideEvents(events, torch.zeros(sum(LENGTHS))))
    if score == "self":
        assert state.events is None and state.summary is not None
        assert state.summary.shape == (len(LENGTHS), 1, 8)
    else:
        assert state.events is not None and state.summary is None
        assert state.events.values.shape == (sum(LENGTHS), 8 if score == "bilinear" else 32 + 8)


def test_dice_follows_the_moments_of_a_batch_and_keeps_running_ones() -> None:
    dice = Dice(3).double().train()
    with torch.no_grad():
        dice.alpha.fill_(0.25)
    x = rand(50, 3).detach() * 2 + 1
    scaled = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-9).sqrt()
    p = scaled.sigmoid()
    torch.testing.assert_close(dice(x), p * x + (1 - p) * 0.25 * x)
    for _ in range(2000):
        dice(x)
    dice.eval()
    torch.testing.assert_close(dice(x), p * x + (1 - p) * 0.25 * x, atol=0.05, rtol=0.05)
    assert torch.isfinite(dice.train()(x[:1])).all() and dice(x[:0]).shape == (0, 3)


def test_dice_counts_no_padding() -> None:
    """FuxiCTR's statistics include padded events; ours are of the pairs of candidates and their events."""
    model = make_model({"kind": "grid", "sequence": {"kind": "din", "activation": "dice"}}).train()
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    batch = batches.make_batch({"view": [100, 0, 9, 1, 3, 5], "buy": [0, 2, 1, 3, 0, 5]})
    model(batch, batches.make_rows())
    candidates = torch.bincount(batch.request_index, minlength=batch.num_requests)
    pairs = [int((candidates * s.offsets.diff()).sum()) for s in batch.sequences.values()]
    assert seen == [count for count in pairs for _ in range(2)]  # by each of two hidden layers


# Sides that read nothing of a candidate, or its features (LONGER), or what it shares with events (SDIM): no
# logit depends on what it asks, on `ask`, which every grid has.
ASK_NOTHING = (
    "mean pooling", "sum pooling", "pooling without a question", "GRU", "LSTM", "convolution", "LONGER first",
    "LONGER first, blind", "SDIM", "SDIM counts", "user embedding",
)  # fmt: skip


@pytest.mark.parametrize("name", GRID)
def test_every_weight_gets_a_gradient(name: str) -> None:
    model = make_model(GRID[name]).train()
    loss = model(batches.make_batch(), batches.make_rows()).sum()
    if isinstance(model.extra_loss, Tensor):
        loss = loss + model.extra_loss.sum()
    loss.backward()
    idle = {key for key, weight in model.named_parameters() if weight.grad is None}
    asks = name not in ASK_NOTHING and GRID[name]["sequence"]["kind"] != "pooling"
    assert idle == (set() if asks else {"ask.weight", "ask.bias", "ask_norm.weight", "ask_norm.bias"})


def test_signs_are_drawn_once_and_saved() -> None:
    for name in ("ETA", "SDIM"):
        model, twin = make_model(GRID[name]), make_model(GRID[name])
        for side, other in zip(model.sides, twin.sides, strict=True):
            assert torch.equal(side.directions, other.directions)
        assert any(key.endswith("directions") for key in model.state_dict())


def test_sdim_is_attention_with_the_collision_kernel() -> None:
    """Over many hashes the weight of an event tends to (1 − θ / π)^τ."""
    torch.manual_seed(0)
    width, groups, tau = 8, 20_000, 3
    q, e = torch.randn(2, width)
    directions = torch.randn(width, groups * tau)
    same = ((q @ directions > 0) == (e @ directions > 0)).view(groups, tau).all(1).double().mean()
    angle = torch.arccos(F.cosine_similarity(q, e, dim=0))
    assert abs(same - (1 - angle / torch.pi) ** tau) < 0.02


def test_events_fade_by_their_time_in_float32_under_autocast() -> None:
    """A gap of twelve days half way between two numbers of bfloat16 would be 5 % of the weight."""
    torch.manual_seed(0)
    side: Any = LinearAttentionConfig().build(SideSizes(8, 2, 2.0, "layer", 0.0, longest=2, ns_tokens=1))
    with torch.no_grad():
        side.key_value.bias.zero_()
    tokens = torch.cat([torch.randn(1, 8), torch.zeros(1, 8)])  # the value of the newest event is 0
    events = SideEvents(Jagged.from_lengths(tokens, torch.tensor([2])), torch.tensor([2.0**20 + 2**12, 0.0]))
    want = side.encode(events).summary[..., :-1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = side.encode(events).summary[..., :-1]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, atol=0, rtol=0.02)


@pytest.mark.parametrize("days", [0, 30, 10_000])
def test_linear_attention_reads_a_history_however_old(days: int) -> None:
    """With keys that are all alike it is the mean of the values, and no epsilon hides it."""
    torch.manual_seed(0)
    side: Any = LinearAttentionConfig().build(SideSizes(8, 2, 2.0, "layer", 0.0, longest=5, ns_tokens=1))
    with torch.no_grad():
        side.key_value.weight[:8] = 0
    tokens, asked = torch.randn(5, 8), torch.randn(1, 8)
    events = SideEvents(Jagged.from_lengths(tokens, torch.tensor([5])), torch.full((5,), 86_400.0 * days))
    requests = RequestMap.build(torch.zeros(1, dtype=torch.int64), requests=1)
    read = side.read(side.encode(events), Candidates(asked, asked[:, None], None, requests))
    values = side.key_value(tokens)[:, 8:]
    torch.testing.assert_close(read[0, 0], side.output(values.mean(dim=0)))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such field": ({"sequence": {"kind": "search", "by": "field", "compare": "colour"}}, "name a f"),
    "not of candidates": ({"sequence": {"kind": "search", "by": "field", "compare": "brand"}}, "no feature"),
    "no field": ({"sequence": {"kind": "search", "by": "field"}}, "needs compare"),
    "a field that nothing compares": ({"sequence": {"kind": "search", "compare": "item"}}, "search by field"),
    "groups": ({"sequence": {"kind": "sdim", "signs": 7, "group": 2}}, "multiple of group"),
    "layers": ({"layers": 3}, "no layers of its own"),
    "mixing": ({"d_model": 12, "interaction": {"kind": "rank_mixer"}}, "multiple of the number of tokens"),
    "another side's option": ({"sequence": {"kind": "din", "keep": 3}}, "is an option of kind search"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused(name: str) -> None:
    options, said = WRONG[name]
    with pytest.raises(ConfigError, match=said):
        config = model_config(**{"kind": "grid", "heads": 2, "d_model": 12, **options})
        build_model(batches.manifest(), config, dim=batches.DIM, seed=1)


@pytest.mark.parametrize("name", ["SIM hard", "ETA", "SDIM"])
def test_ids_are_compared_and_hashed_not_their_place_in_a_batch(name: str) -> None:
    """The halves of a request come with unique IDs of their own, in another order."""
    model, rows = make_model(GRID[name]).eval(), batches.make_rows()
    batch = batches.make_batch()
    want = model(batch, rows)
    order = torch.randperm(batches.UNIQUE, generator=torch.Generator().manual_seed(2))
    place = order.argsort()
    uses = {
        name: replace(use, inverse_indices=place[use.inverse_indices])
        for name, use in batch.candidate_ids.items()
        if name == "item"
    }
    other = replace(
        batch,
        unique_ids=batch.unique_ids | {"item": batch.unique_ids["item"][order]},
        candidate_ids=batch.candidate_ids | uses,
    )
    shuffled: dict[str, Tensor] = rows | {"item": rows["item"][order]}
    state = model.encode(batch, rows)
    torch.testing.assert_close(model.score(state, other, shuffled), want)
