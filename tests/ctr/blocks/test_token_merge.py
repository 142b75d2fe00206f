"""Token merge and InnerTrans against their formulas, one request at a time."""

from __future__ import annotations

import pytest
import torch

from ctr.blocks.jagged import Jagged
from ctr.blocks.token_merge import TokenMerge
from tests.ctr.reference import formulas
from tests.ctr.reference.parity import LENGTHS, assert_parity, rand, scrambled, split

D = 4


@pytest.mark.parametrize("lengths", [LENGTHS, [8, 4], [0, 0], []], ids=str)
@pytest.mark.parametrize("inner_layers", [0, 1, 2])
@pytest.mark.parametrize("group", [1, 4, 20])
def test_token_merge(group: int, inner_layers: int, lengths: list[int]) -> None:
    block = scrambled(TokenMerge(D, group, inner_layers=inner_layers, heads=2))
    events = rand(sum(lengths), D)
    got = block(Jagged.from_lengths(events, torch.tensor(lengths, dtype=torch.int64))).check()
    want = [formulas.token_merge(block, own) for own in split(events, lengths)]
    assert got.lengths.tolist() == [-(-n // group) for n in lengths]
    assert_parity([got.values], [torch.cat([events.new_zeros(0, group * D), *want])], block, [events])


def test_the_newest_events_fill_groups_and_the_oldest_group_is_padded_in_front() -> None:
    events = Jagged.from_lengths(torch.arange(1.0, 8.0)[:, None], torch.tensor([7]))
    assert TokenMerge(1, 3)(events).values.tolist() == [[0, 0, 1], [2, 3, 4], [5, 6, 7]]


def test_inner_trans_mixes_inside_a_group_only() -> None:
    block = scrambled(TokenMerge(D, 3, inner_layers=2, heads=2))
    events = rand(7, D).detach()
    layout = Jagged.from_lengths(events, torch.tensor([7]))
    plain = block(layout).values
    events[3] *= -1.5
    assert (block(layout).values != plain).any(1).tolist() == [False, True, False]


def test_a_group_without_events_is_refused() -> None:
    with pytest.raises(ValueError, match="group must be at least 1 event, got 0"):
        TokenMerge(D, 0)
