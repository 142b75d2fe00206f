"""Jagged sequences and the request map, against slices of each request."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctr.blocks.jagged import Jagged
from ctr.blocks.request_map import RequestMap
from tests.ctr.reference.parity import CANDIDATES, LENGTHS, gradients, rand, request_index, split

ALL_LENGTHS = [LENGTHS, [3, 3], [0, 0], [0], [], [1]]


def build(lengths: list[int]) -> tuple[Jagged, list[Tensor]]:
    values = rand(sum(lengths), 2)
    return Jagged.from_lengths(values, torch.tensor(lengths, dtype=torch.int64)), split(values, lengths)


def join(parts: list[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0, 2, dtype=torch.float64), *parts])


@pytest.mark.parametrize("lengths", ALL_LENGTHS, ids=str)
def test_places_ages_and_segments(lengths: list[int]) -> None:
    jagged, _ = build(lengths)
    assert jagged.positions().tolist() == [p for n in lengths for p in range(n)]
    assert jagged.ages().tolist() == [p for n in lengths for p in reversed(range(n))]
    assert jagged.segment_ids().tolist() == [row for row, n in enumerate(lengths) for _ in range(n)]


@pytest.mark.fault(18)
@pytest.mark.parametrize("lengths", ALL_LENGTHS, ids=str)
def test_mean_pool_of_an_empty_history_is_zero(lengths: list[int]) -> None:
    jagged, events = build(lengths)
    want = [own.mean(0) if len(own) else torch.zeros(2, dtype=torch.float64) for own in events]
    got = jagged.mean_pool()
    torch.testing.assert_close(got, torch.stack(want) if want else torch.zeros(0, 2, dtype=torch.float64))
    if want:
        torch.testing.assert_close(
            gradients([got], [jagged.values]), gradients([torch.stack(want)], [jagged.values])
        )


def test_mean_pool_sums_in_float32() -> None:
    ones = Jagged.from_lengths(torch.ones(257, 1, dtype=torch.bfloat16), torch.tensor([257]))
    assert ones.mean_pool().item() == 1.0


@pytest.mark.parametrize("k", [1, 4, 9, 50])
@pytest.mark.parametrize("lengths", ALL_LENGTHS, ids=str)
def test_the_newest_events_are_kept_and_short_histories_whole(lengths: list[int], k: int) -> None:
    jagged, events = build(lengths)
    kept = jagged.last_k(k)
    assert torch.equal(kept.values, join([own[max(len(own) - k, 0) :] for own in events]))
    assert kept.lengths.tolist() == [min(n, k) for n in lengths]
    assert max([0, *kept.lengths.tolist()]) <= kept.max_length <= k
    spread = jagged.take(jagged.uniform_k_index(k))
    places = [[(j + 1) * n // min(n, k) - 1 for j in range(min(n, k))] for n in lengths]
    assert torch.equal(spread.values, join([own[p] for own, p in zip(events, places, strict=True)]))
    assert all(p[-1] == n - 1 for p, n in zip(places, lengths, strict=True) if n)


@pytest.mark.parametrize("lengths", ALL_LENGTHS, ids=str)
def test_prepend_puts_tokens_before_the_oldest_event(lengths: list[int]) -> None:
    jagged, events = build(lengths)
    prefix = rand(len(lengths), 3, 2)
    longer = jagged.prepend(prefix).check()
    want = join([part for own, front in zip(events, prefix, strict=True) for part in (front, own)])
    assert torch.equal(longer.values, want)
    leaves = [prefix, jagged.values]
    torch.testing.assert_close(gradients([longer.values], leaves), gradients([want], leaves))


@pytest.mark.parametrize(
    ("offsets", "longest", "text"),
    [
        (torch.tensor([0, 2, 3]), 3, "offsets must rise from 0 to the number of events, 4"),
        (torch.tensor([0, 5, 4]), 5, "offsets must rise"),
        (torch.tensor([0, 3, 4]), 2, "max_length must bound every length, got 2 < 3"),
        (torch.tensor([0, 3, 4], dtype=torch.int32), 3, "offsets must be int64"),
    ],
)
def test_check_names_the_contradiction(offsets: Tensor, longest: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Jagged(torch.zeros(4, 1), offsets, longest).check()


@pytest.mark.parametrize("candidates", [CANDIDATES, [1, 1, 1], [2, 2], [0, 3, 0], [0], []], ids=str)
def test_candidates_of_a_request_side_by_side(candidates: list[int]) -> None:
    index = request_index(candidates)
    requests = RequestMap.build(index, requests=len(candidates))
    rows = rand(sum(candidates), 2, 3)
    packed = requests.pack(rows)
    for number, own in enumerate(split(rows, candidates)):
        zeros = rows.new_zeros(requests.max_candidates - len(own), 2, 3)
        assert torch.equal(packed[number], torch.cat([own, zeros]).flatten(0, 1))
    assert torch.equal(requests.unpack(packed), rows)
    per_request = rand(len(candidates), 5)
    assert torch.equal(requests.to_rows(per_request), per_request[index])
    assert bool((gradients([requests.unpack(packed)], [rows])[0] != 0).all())


def test_one_candidate_per_request_costs_nothing() -> None:
    requests = RequestMap.build(torch.arange(3), requests=3)
    rows = rand(3, 2, 4)
    assert requests.pack(rows).data_ptr() == requests.unpack(rows).data_ptr() == rows.data_ptr()
    assert requests.to_rows(rows) is rows


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (torch.tensor([0, 1, 0]), "request_index must not decrease"),
        (torch.tensor([0, 1, 2]), r"request_index must lie in \[0, 2\) \(the requests\), got 0 to 2"),
        (torch.tensor([-1, 0, 1]), "got -1 to 1"),
        (torch.tensor([[0]]), "request_index must be int64 of shape"),
    ],
)
def test_a_wrong_request_index_is_refused(index: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RequestMap.build(index, requests=2)
