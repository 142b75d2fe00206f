"""Attention computed apart and joined is attention under the mask."""

from __future__ import annotations

import pytest
import torch

from ctr.blocks.attention import attend
from ctr.blocks.split_attention import attend_split, can_split


@pytest.mark.parametrize(("scale", "events"), [(1.0, 7), (30.0, 1), (0.01, 300)])
@torch.no_grad()
def test_split_equals_masked(scale: float, events: int) -> None:
    requests, candidates, tokens, width = 2, 3, 4, 8
    generator = torch.Generator().manual_seed(0)
    query, own_key, own_value = torch.randn(
        3, requests, candidates * tokens, width, generator=generator, dtype=torch.float64
    )
    key, value = torch.randn(2, requests, events, width, generator=generator, dtype=torch.float64)
    query = scale * query
    group = torch.arange(candidates).repeat_interleave(tokens)
    mask = torch.cat([torch.ones(len(group), events, dtype=torch.bool), group[:, None] == group], dim=1)
    want = attend(query, torch.cat([key, own_key], 1), torch.cat([value, own_value], 1), heads=2, mask=mask)
    own = torch.cat([own_key, own_value], dim=-1)
    got = attend_split(query, key, value, own, heads=2, tokens=tokens)
    torch.testing.assert_close(got, want)


def test_only_for_inference_without_padding() -> None:
    query = torch.zeros(1, 1, 2)
    assert not can_split(query, None)
    with torch.no_grad():
        assert can_split(query, None)
        assert not can_split(query, torch.ones(1, 1, dtype=torch.bool))
