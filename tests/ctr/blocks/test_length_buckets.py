"""Length-bucketed padding: every event in its own slot, little waste, nothing from padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.blocks import length_buckets as module
from ctr.blocks.attention import MultiHeadAttention
from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets
from tests.ctr.reference.parity import LENGTHS, gradients, rand, scrambled

MANY = [40, 0, 3, 90, 41, 7, 0, 88, 12, 90]


@pytest.fixture(autouse=True)
def _small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MIN_SLOTS", 1)


def build(lengths: list[int]) -> Jagged:
    return Jagged.from_lengths(rand(sum(lengths), 3), torch.tensor(lengths, dtype=torch.int64))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 30), max_size=12))
def test_every_event_has_one_slot_and_padding_is_cut_off(lengths: list[int]) -> None:
    jagged = build(lengths)
    buckets = LengthBuckets.of(jagged)
    assert sorted(buckets.order.tolist()) == list(range(len(lengths)))
    padded, valid = buckets.pad(jagged), buckets.valid(jagged)
    for part, mask, requests in zip(
        padded, valid, np.split(buckets.order, np.cumsum(buckets.counts)[:-1]), strict=True
    ):
        for row, request in enumerate(requests):
            own = jagged.values[jagged.offsets[request] : jagged.offsets[request + 1]]
            assert torch.equal(part[row, : len(own)], own)
            if mask is not None:
                assert mask[row].tolist() == [i < len(own) for i in range(part.shape[1])]
            assert not part[row, len(own) :].any()
    back = buckets.unpad(padded, jagged)
    assert torch.equal(back.values, jagged.values)
    if sum(lengths):
        (gradient,) = gradients([back.values], [jagged.values])
        torch.testing.assert_close(gradient, gradients([jagged.values * 1], [jagged.values])[0])


def test_buckets_waste_little_and_rows_come_back() -> None:
    jagged = build(MANY)
    buckets = LengthBuckets.of(jagged)
    assert len(buckets.counts) > 2 and buckets is LengthBuckets.of(jagged.with_values(jagged.values * 2))
    slots = sum(part.shape[0] * part.shape[1] for part in buckets.pad(jagged))
    assert slots <= sum(MANY) / 0.9 + MANY.count(0) < len(MANY) * max(MANY)
    rows = rand(len(MANY), 2, 3)
    back = buckets.from_buckets(buckets.to_buckets(rows))
    assert torch.equal(back, rows)
    assert torch.equal(gradients([back], [rows])[0], gradients([rows * 1], [rows])[0])


@pytest.mark.parametrize("lengths", [LENGTHS, MANY, [0, 0], [5, 5]], ids=str)
@pytest.mark.parametrize("sink", [False, True])
def test_attention_in_buckets_equals_one_padding(
    lengths: list[int], sink: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = scrambled(MultiHeadAttention(6, 2, sink=sink))
    events, queries = rand(sum(lengths), 6), rand(len(lengths), 4, 6)
    leaves = [queries, events, *layer.parameters()]

    def results() -> tuple[list[torch.Tensor], int]:
        packed = Jagged.from_lengths(events, torch.tensor(lengths, dtype=torch.int64))
        kv = layer.project_kv(packed)
        seen = packed.positions() + 1
        outputs = [layer(queries, kv), layer.attend_events(packed, kv, visible=seen).values]
        outputs.append(layer.attend_events(packed, kv).values)
        return [*outputs, *gradients(outputs, leaves)], len(kv.buckets.counts)

    got, many = results()
    monkeypatch.setattr(module, "_MIN_SLOTS", 10**9)
    want, one = results()
    assert one == 1 and (many > 1 or len(set(lengths)) == 1)
    for mine, plain in zip(got, want, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-10, rtol=1e-10)


def test_a_sink_leaves_less_for_few_events() -> None:
    """Attention alone gives shares, which cannot tell one event from ten equal ones; with a sink it can."""
    for sink in (False, True):
        layer = scrambled(MultiHeadAttention(6, 2, sink=sink))
        one = rand(1, 6)
        few, many = (Jagged.from_lengths(one.repeat(n, 1), torch.tensor([n])) for n in (1, 10))
        query = rand(1, 1, 6)
        answers = [layer(query, layer.project_kv(events)) for events in (few, many)]
        assert torch.allclose(*answers) != sink
