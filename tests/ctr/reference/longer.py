"""LONGER's layers for one candidate at a time: R = [G; P; H] written out, the mask as the paper words it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.ctr.reference.formulas import after, attention, before, ffn


@dataclass(frozen=True)
class Token:
    """What a token is: `candidate` or `request` global, `event` or `learned` query; its place in time."""

    kind: str
    place: int = 0


def sees(asks: Token, key: Token) -> bool:
    """Whether one token sees another."""
    if asks.kind == "candidate":
        return True
    if key.kind == "candidate":
        return False
    if asks.kind == "request" or key.kind == "request":
        return True
    if asks.kind == "learned" and key.kind == "event":
        return True
    return key.place <= asks.place


def chosen(select: str, length: int, count: int) -> list[int]:
    """Places of the kept events, the oldest first."""
    kept = min(count, length)
    if select == "recent":
        return list(range(length - kept, length))
    return [(j + 1) * length // kept - 1 for j in range(kept)]


def layer(block: nn.Module, asked: Tensor, who: list[Token], keys: Tensor, whose: list[Token]) -> Tensor:
    """One layer: asked (n, D) over keys (L, D)."""
    mask = torch.tensor([[sees(a, b) for b in whose] for a in who], dtype=torch.bool)
    around = block.around_attention
    update = asked.new_zeros(0, asked.shape[1])
    if len(asked):
        update = attention(block.attention, before(around, asked), before(around, keys), mask)
    hidden = after(around, asked, update)
    return after(block.around_ffn, hidden, ffn(block.ffn, before(block.around_ffn, hidden)))


def two_layers(
    cross: nn.Module,
    self_: nn.Module,
    globals_: Tensor,
    prefix: Tensor,
    events: Tensor,
    *,
    select: str,
    count: int,
    learned: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Cross-causal, then self-causal, for one candidate: globals_ (m, D), prefix (P, D), events (L, D)."""
    front = [Token("candidate")] * len(globals_) + [Token("request")] * len(prefix)
    happened = [Token("event", place) for place in range(len(events))]
    if learned is None:
        kept = chosen(select, len(events), count)
        short, who = events[kept], [happened[place] for place in kept]
    else:
        short, who = learned, [Token("learned", place) for place in range(count)]
    asked = torch.cat([globals_, prefix, short])
    tokens = layer(cross, asked, front + who, torch.cat([globals_, prefix, events]), front + happened)
    tokens = layer(self_, tokens, front + who, tokens, front + who)
    return tokens[: len(globals_)], tokens[len(globals_) :]
