"""Attention that stays packed equals attention that is padded: outputs and every gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ctr.blocks import attention
from ctr.blocks.attention import MultiHeadAttention
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import PackedKV, PaddedKV
from kernels.jagged_attention import available

if not available(8, torch.device("cpu")):
    pytest.skip("this machine has no GCC", allow_module_level=True)

D, H = 32, 4
LENGTHS = torch.tensor([5, 0, 70, 1, 33, 0])
Call = Callable[[MultiHeadAttention, Jagged, Tensor], Tensor]


def itself(block: MultiHeadAttention, events: Jagged, queries: Tensor) -> Tensor:
    return block.attend_itself(events).values


def newest(block: MultiHeadAttention, events: Jagged, queries: Tensor) -> Tensor:
    return block.attend_events(events.last_k(4), block.project_kv(events)).values


def causal(block: MultiHeadAttention, events: Jagged, queries: Tensor) -> Tensor:
    seen = events.positions() + 1
    return block.attend_events(events, block.project_kv(events), visible=seen).values


def nothing_yet(block: MultiHeadAttention, events: Jagged, queries: Tensor) -> Tensor:
    return block.attend_events(events, block.project_kv(events), visible=events.positions()).values


def candidates(block: MultiHeadAttention, events: Jagged, queries: Tensor) -> Tensor:
    return block(queries, block.project_kv(events))


def own_tokens(block: MultiHeadAttention, events: Jagged, queries: Tensor) -> Tensor:
    return block(queries, block.project_kv(events), tokens=3)


def earlier_own_tokens(block: MultiHeadAttention, events: Jagged, queries: Tensor) -> Tensor:
    kv, own = block.project_kv(events), block.key_value(queries)
    return block.finish(block.read(block.query(queries), kv, tokens=3, own=own, causal=True))


CALLS: dict[str, tuple[Call, bool]] = {
    "itself": (itself, False),
    "newest": (newest, False),
    "causal": (causal, False),
    "visible 0": (nothing_yet, False),
    "candidates": (candidates, False),
    "own tokens": (own_tokens, False),
    "earlier own tokens": (earlier_own_tokens, False),
    "sink": (candidates, True),
}


def results(call: Call, *, sink: bool, bf16: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    block = MultiHeadAttention(D, H, sink=sink)
    if block.sink is not None:
        torch.nn.init.normal_(block.sink)
    values = torch.randn(int(LENGTHS.sum()), D, requires_grad=True)
    queries = torch.randn(len(LENGTHS), 6, D, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = call(block, Jagged.from_lengths(values, LENGTHS), queries)
    (out.float() * torch.randn(out.shape)).sum().backward()
    leaves = {"values": values, "queries": queries, **dict(block.named_parameters())}
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {"out": out.detach().float(), **found}


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("call", "sink"), CALLS.values(), ids=list(CALLS))
def test_packed_equals_padded(call: Call, sink: bool, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = results(call, sink=sink, bf16=bf16)
    monkeypatch.setattr(attention, "available", lambda *_: False)
    padded = results(call, sink=sink, bf16=bf16)
    assert packed.keys() == padded.keys()
    for name, wanted in padded.items():
        near = 2e-2 * float(wanted.abs().max()) if bf16 else 1e-5
        torch.testing.assert_close(packed[name], wanted, atol=near, rtol=0 if bf16 else 1e-4)


def test_an_empty_history_contributes_nothing() -> None:
    block = MultiHeadAttention(D, H, sink=True)
    queries = torch.randn(len(LENGTHS), 6, D)
    out = candidates(block, Jagged.from_lengths(torch.randn(int(LENGTHS.sum()), D), LENGTHS), queries)
    assert torch.equal(out[LENGTHS == 0], block.output.bias.expand(2, 6, D))


def test_what_serving_keeps_is_padded_and_float64_too() -> None:
    block, events = MultiHeadAttention(D, H), Jagged.from_lengths(torch.randn(6, D), torch.tensor([4, 2]))
    assert isinstance(block.project_kv(events), PackedKV)
    with torch.no_grad():
        assert isinstance(block.project_kv(events), PaddedKV)
    assert isinstance(block.double().project_kv(events.with_values(events.values.double())), PaddedKV)
