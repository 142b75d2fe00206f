"""Pairs of candidates and events, their scores as matrices, and the best of each candidate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctr.blocks import length_buckets
from ctr.blocks.jagged import Jagged
from ctr.blocks.request_map import RequestMap
from ctr.models.sequence.pair_scores import PairScores
from ctr.models.sequence.pairs import Pairs
from tests.ctr.reference.parity import CANDIDATES, LENGTHS, rand, request_index


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
