"""The grid beyond one row's formula: searches, losses of a side's own, moments, and what is refused.

That each choice is its paper's formula is proved with all models in test_conformance.py, by
tests/ctr/reference/sides.py and interactions.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ctr.batch import Batch
from ctr.blocks import length_buckets
from ctr.blocks.jagged import Jagged
from ctr.blocks.request_map import RequestMap
from ctr.build import build_model
from ctr.models.interaction.interactions import INTERACTIONS
from ctr.models.registry import model_config
from ctr.models.sequence.dien import Dien, DienConfig, _negatives
from ctr.models.sequence.din import Dice
from ctr.models.sequence.linear_attention import LinearAttentionConfig
from ctr.models.sequence.pair_scores import PairScores
from ctr.models.sequence.pairs import Pairs
from ctr.models.sequence.search import SearchConfig
from ctr.models.sequence.side import Candidates, SequenceSide, SideEvents, SideSizes, SideState
from ctr.models.sequence.sides import SIDES
from ctr.models.sequence.weighted_pooling import WeightedPoolingConfig
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.models.grid_cases import GRID
from tests.ctr.models.test_conformance import make_model
from tests.ctr.reference.formulas import linear, norm
from tests.ctr.reference.interactions import INTERACTIONS as INTERACTION_REFERENCES
from tests.ctr.reference.parity import CANDIDATES, LENGTHS, assert_parity, rand, request_index
from tests.ctr.reference.sides import SIDES as SIDE_REFERENCES
from tests.ctr.reference.sides import Row, gru, search_click
from tests.ctr.reference.tokens import contents, ns_tokens, sequences


def test_each_choice_has_a_reference_and_a_case() -> None:
    sides = {options["sequence"]["kind"] for options in GRID.values()}
    assert set(SIDES.kinds) == set(SIDE_REFERENCES) == sides
    crossed = {options.get("interaction", {"kind": "mlp"})["kind"] for options in GRID.values()}
    assert set(INTERACTIONS.kinds) == set(INTERACTION_REFERENCES) == crossed


def pairs_of(lengths: list[int], candidates: list[int]) -> Pairs:
    layout = Jagged.from_lengths(torch.zeros(sum(lengths)), torch.tensor(lengths))
    return Pairs.of(layout, RequestMap.build(request_index(candidates), requests=len(candidates)))


@pytest.mark.parametrize("candidates", [CANDIDATES, [1] * 6, [0, 2, 0, 1, 1, 0]])
def test_pairs_are_every_candidate_with_every_event_of_its_request(candidates: list[int]) -> None:
    pairs = pairs_of(LENGTHS, candidates)
    want, begin, row = [], 0, 0
    for length, count in zip(LENGTHS, candidates, strict=True):
        for _ in range(count):
            want += [(row, begin + place) for place in range(length)]
            row += 1
        begin += length
    events = pairs.of_events(torch.arange(sum(LENGTHS)))
    assert list(zip(pairs.owner.tolist(), events.tolist(), strict=True)) == want


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=6),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_top_are_the_best_of_each_candidate_the_newer_of_equals(
    shape: list[tuple[int, int]], count: int, random: Any
) -> None:
    lengths, candidates = (list(part) for part in zip(*shape, strict=True))
    pairs = pairs_of(lengths, candidates)
    scores = torch.tensor([float(random.randrange(3)) for _ in pairs.owner])
    kept = pairs.top(scores, count).tolist()
    want: list[int] = []
    for owner in range(sum(candidates)):
        own = (pairs.owner == owner).nonzero().flatten().tolist()
        want += sorted(sorted(own, key=lambda p: (-scores[p].item(), -p))[:count])
    assert kept == want


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


def scores_of(lengths: list[int], candidates: list[int]) -> PairScores:
    layout = Jagged.from_lengths(torch.zeros(sum(lengths)), torch.tensor(lengths))
    return PairScores.of(layout, RequestMap.build(request_index(candidates), requests=len(candidates)))


@pytest.mark.parametrize("candidates", [CANDIDATES, [1] * 6, [0, 2, 0, 1, 1, 0]])
@pytest.mark.parametrize("slots", [2048, 1], ids=["one bucket", "buckets"])
def test_scores_are_those_of_every_pair(
    candidates: list[int], slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(length_buckets, "_MIN_SLOTS", slots)
    pairs, layout = pairs_of(LENGTHS, candidates), scores_of(LENGTHS, candidates)
    query, key, bias = (rand(n, 3).detach() for n in (sum(candidates), sum(LENGTHS), sum(LENGTHS)))
    found = layout.of_pairs(layout.products(query, key, bias[:, 0]), pairs)
    want = (query[pairs.owner] * pairs.of_events(key)).sum(-1) + pairs.of_events(bias[:, 0])
    torch.testing.assert_close(found, want)
    asked, events = torch.arange(sum(candidates)), torch.arange(sum(LENGTHS))
    same, events = layout.of_pairs(layout.equal(asked % 2, events % 2), pairs), pairs.of_events(events)
    assert torch.equal(same == 0, pairs.owner % 2 == events % 2)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=6),
    st.integers(1, 5),
    st.sampled_from([1, 2048]),
    st.randoms(use_true_random=False),
)
def test_best_are_those_of_all_pairs(
    shape: list[tuple[int, int]], count: int, slots: int, random: Any
) -> None:
    lengths, candidates = (list(part) for part in zip(*shape, strict=True))
    pairs = pairs_of(lengths, candidates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(length_buckets, "_MIN_SLOTS", slots)
        layout = scores_of(lengths, candidates)
        widths = layout.buckets.padding_index(layout.events).widths
        shapes = [(*rows.shape, width) for rows, width in zip(layout.rows, widths, strict=True)]
        drawn = [[float(random.randrange(3)) for _ in range(math.prod(shape))] for shape in shapes]
        scores = [torch.tensor(d).view(size) for d, size in zip(drawn, shapes, strict=True)]
        found, values = layout.best(scores, count)
        flat = layout.of_pairs(scores, pairs)
    want = pairs.top(flat, count)
    assert torch.equal(found.owner, pairs.owner[want]) and torch.equal(values, flat[want])
    assert found.event is not None
    assert torch.equal(found.event, pairs.of_events(torch.arange(sum(lengths)))[want])


def test_what_is_no_number_is_found() -> None:
    """So that it is seen in the loss, and no search hides it."""
    layout = scores_of([5], [1])
    found, _ = layout.best([torch.tensor([[[1.0, torch.nan, 2.0, torch.nan, 3.0]]])], 2)
    assert found.event is not None and found.event.tolist() == [1, 3]


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
