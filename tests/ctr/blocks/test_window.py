"""Window attention block by block, which histories of the other tests are too short for."""

from __future__ import annotations

import pytest
import torch

from ctr.blocks import window
from ctr.blocks.jagged import Jagged
from ctr.blocks.window import WindowLayer
from tests.ctr.reference.parity import LENGTHS, assert_parity, rand, scrambled


@pytest.mark.parametrize("width", [2, 4, 8])
def test_blocks_are_the_mask_over_all_events(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scrambled(WindowLayer(6, 2, window=width))
    globals_, values = rand(len(LENGTHS), 2, 6), rand(sum(LENGTHS), 6)
    results = []
    for short in (window.SHORT, -width):
        monkeypatch.setattr(window, "SHORT", short)
        front, events = layer(globals_, Jagged.from_lengths(values, torch.tensor(LENGTHS)))
        results.append([front, events.values])
    at_once, by_blocks = results
    assert_parity(by_blocks, at_once, layer, [globals_, values])
