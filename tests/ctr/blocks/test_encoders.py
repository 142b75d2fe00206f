"""Attention, layers and the three sequence encoders against their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctr.blocks.attention import MultiHeadAttention, attend
from ctr.blocks.encoders import AttentionEncoder, SwiGLUEncoder
from ctr.blocks.jagged import Jagged
from ctr.blocks.layers import FeedForward, Residual, SwiGLU, build_norm
from tests.ctr.reference import formulas
from tests.ctr.reference.parity import LENGTHS, assert_parity, gradients, rand, scrambled, split

D = 6


def jagged(values: Tensor, lengths: list[int] = LENGTHS) -> Jagged:
    return Jagged.from_lengths(values, torch.tensor(lengths, dtype=torch.int64))


@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5], [0, 0, 0]], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_cross_attention(lengths: list[int], bias: bool) -> None:
    layer = scrambled(MultiHeadAttention(D, 2, bias=bias))
    queries, events = rand(len(lengths), 3, D), rand(sum(lengths), D)
    got = layer(queries, layer.project_kv(jagged(events, lengths)))
    want = torch.stack(
        [
            formulas.attention(layer, own, seen) if len(seen) else formulas.linear(layer.output, own * 0)
            for own, seen in zip(queries, split(events, lengths), strict=True)
        ]
    )
    if not bias:
        assert not bool(got[[n == 0 for n in lengths]].any()), "an empty history gives exactly 0"
    assert_parity([got], [want], layer, [queries, events] if sum(lengths) else [events])


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_padding_carries_nothing_between_requests(garbage: float) -> None:
    """Whatever the first request's events hold, the second, shorter one reads its own alone."""
    layer = scrambled(MultiHeadAttention(D, 2))
    queries, own = rand(2, 3, D), rand(2, D)
    events = Jagged.from_lengths(torch.cat([own.new_full((3, D), garbage), own]), torch.tensor([3, 2]))
    alone = Jagged.from_lengths(own, torch.tensor([2]))
    got = layer(queries, layer.project_kv(events))[1]
    torch.testing.assert_close(got, layer(queries[1:], layer.project_kv(alone))[0])
    assert bool(gradients([got], [own])[0].isfinite().all())


def test_attend_reads_the_mask() -> None:
    query, key, value = rand(1, 2, D, seed=1), rand(1, 3, D, seed=2), rand(1, 3, D, seed=3)
    mask = torch.tensor([[True, False, False], [False, True, True]])
    out = attend(query, key, value, heads=1, mask=mask)
    torch.testing.assert_close(out[0, 0], value[0, 0])


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("placement", ["pre", "post", "none"])
@pytest.mark.parametrize("recent", [None, 1, 4, 9])
def test_attention_encoder(recent: int | None, placement: Any, norm: Any) -> None:
    block = scrambled(AttentionEncoder(D, 2, recent=recent, placement=placement, norm=norm))
    events = rand(sum(LENGTHS), D)
    got = block(jagged(events))
    want = [formulas.encoder(block, own) for own in split(events, LENGTHS) if len(own)]
    assert_parity([got.values], [torch.cat(want)], block, [events])
    assert got.lengths.tolist() == [min(n, recent or n) for n in LENGTHS]


@pytest.mark.parametrize(("residual", "placement"), [(True, "pre"), (True, "post"), (False, "pre")])
def test_swiglu_encoder(residual: bool, placement: Any) -> None:
    block = scrambled(SwiGLUEncoder(D, residual=residual, placement=placement))
    events = rand(sum(LENGTHS), D)
    want = torch.cat([formulas.swiglu_encoder(block, own) for own in split(events, LENGTHS)])
    assert_parity([block(jagged(events)).values], [want], block, [events])


@pytest.mark.parametrize(
    "block",
    [AttentionEncoder(D, 2), AttentionEncoder(D, 2, recent=3), SwiGLUEncoder(D)],
    ids=["transformer", "longer", "swiglu"],
)
def test_requests_do_not_mix_and_empty_batches_pass(block: torch.nn.Module) -> None:
    scrambled(block)
    events = rand(sum(LENGTHS), D).detach()
    whole = block(jagged(events))
    for own, out in zip(split(events, LENGTHS), split(whole.values, whole.lengths.tolist()), strict=True):
        torch.testing.assert_close(block(jagged(own, [len(own)])).values, out)
    for lengths in ([], [0, 0]):
        empty = rand(0, D)
        out = block(jagged(empty, lengths))
        assert out.values.shape == (0, D) and out.requests == len(lengths)
        assert torch.autograd.grad(out.values.sum(), empty)[0].shape == (0, D)


def test_the_oldest_event_is_dropped_not_the_newest() -> None:
    block = scrambled(AttentionEncoder(D, 2, recent=2, placement="none"))
    with torch.no_grad():
        for layer in (block.attention.output, block.ffn.down):
            layer.weight.zero_(), layer.bias.zero_()
    events = rand(3, D).detach()
    assert torch.equal(block(jagged(events, [3])).values, events[1:])


@pytest.mark.parametrize("layer", [FeedForward(D), FeedForward(D, hidden=5), SwiGLU(D), SwiGLU(D, hidden=4)])
def test_feed_forward(layer: torch.nn.Module) -> None:
    x = rand(3, D)
    plain = formulas.swiglu if isinstance(layer, SwiGLU) else formulas.ffn
    scrambled(layer)
    assert_parity([layer(x)], [plain(layer, x)], layer, [x])


def test_dropout_acts_on_outputs_only_in_training() -> None:
    block = AttentionEncoder(D, 2, dropout=0.5).double()
    events = jagged(rand(sum(LENGTHS), D).detach())
    assert not torch.equal(block(events).values, block(events).values)
    block.eval()
    assert torch.equal(block(events).values, block(events).values)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of heads, got width=6, heads=4"):
        MultiHeadAttention(6, 4)
    with pytest.raises(ValueError, match="norm must be 'layer' or 'rms', got 'batch'"):
        build_norm("batch", 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="placement must be 'pre', 'post' or 'none'"):
        Residual(4, placement="mid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="recent must be at least 1 event"):
        AttentionEncoder(4, 2, recent=0)
