"""LONGER's attention layers: global tokens per candidate, events once per request.

Keys and values are R = [G; H] (m + L tokens), queries O = [G; H_S] (m + k). Who sees whom:

                       G of the same candidate    earlier events and itself    later events
    global token                 yes                          yes                  yes
    event                        no                           yes                  no

No event sees a global token, so the events' part of every layer (`encode`) depends on the request alone and
is computed once for all its candidates; `read` is the attention of the candidates' global tokens to it. To
serve a request, keep its keys and values of each layer and call `read` for the candidates.

Option beyond the paper: global tokens of the request (CLS, user) that events see as well. `show_to_events`
puts them in front of the events. They do not see the candidate, or the events' part could not be shared.
They do see all events, so that from the second layer on an event may depend on later ones through them.

Source: LONGER (arXiv 2505.04421), global tokens, cross-causal and self-causal attention.

B candidates, R requests, L events of one, k kept events, m global tokens, P request-level global tokens in
front of the events, C candidates of one request, D width, H heads.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ctr.blocks.attention import TransformerLayer
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues
from ctr.blocks.padded import Padded
from ctr.blocks.request_map import RequestMap

Select = Literal["recent", "uniform", "learnable"]


class EventQueries(NamedTuple):
    """H_S: the tokens of the sequence that are queries.

    tokens: values (Σn, D).  visible: (Σn,) int64: each sees the first `visible` events of its request.
    """

    tokens: Jagged
    visible: Tensor


class SelectQueries(nn.Module):
    """Choose H_S: the newest k events, k evenly spread events, or k learnable vectors that see all events.

    Args:
        width: D.
        count: k; a shorter history keeps all its events (learnable: always k).
        select: `recent` (the paper's best), `uniform` or `learnable`.
    """

    def __init__(self, width: int, count: int, *, select: Select = "recent") -> None:
        super().__init__()
        if select not in ("recent", "uniform", "learnable"):
            raise ValueError(f"select must be 'recent', 'uniform' or 'learnable', got {select!r}")
        if count < 1:
            raise ValueError(f"count must be at least 1 query, got {count}")
        self.count, self.select = count, select
        self.learned: nn.Parameter | None = None
        if select == "learnable":
            self.learned = nn.Parameter(torch.randn(count, width) * width**-0.5)

    def forward(self, events: Jagged) -> EventQueries:
        """Queries of the events (ΣL, D)."""
        if self.learned is not None:
            ends = torch.arange(events.requests + 1, device=events.offsets.device) * self.count
            tokens = Jagged(self.learned.repeat(events.requests, 1), ends, self.count)
            if isinstance(events, Padded):
                tokens = Padded.full(tokens.values, events.requests)
            return EventQueries(tokens, events.lengths.repeat_interleave(self.count))
        pick = events.last_k_index if self.select == "recent" else events.uniform_k_index
        return queries_at(events, pick(self.count))


def queries_at(events: Jagged, index: Jagged) -> EventQueries:
    """The events (ΣL, D) at the rows `index` of their layout; each sees itself and those before it."""
    return EventQueries(events.take(index), events.positions()[index.values] + 1)


def show_to_events(prefix: Tensor, events: Jagged, queries: EventQueries) -> tuple[Jagged, EventQueries]:
    """Put request-level global tokens (R, P, D) in front of events and queries, where all of these see them.

    Returns:
        The events and the queries, each with P tokens more per request.
    """
    count = prefix.shape[1]
    longer = events.prepend(prefix)
    visible = queries.tokens.with_values(queries.visible + count)
    visible = visible.prepend(longer.lengths[:, None].expand(-1, count))
    return longer, EventQueries(queries.tokens.prepend(prefix), visible.values)


class EventLayer(TransformerLayer):
    """The half of a Transformer layer that a request computes for its events, once for all candidates."""

    def project_kv(self, events: Jagged) -> KeyValues:
        """K and V of the sequence's tokens (ΣL, D), once per request."""
        return self.attention.project_kv(events, self.around_attention.pre_norm)

    def encode(self, queries: EventQueries, kv: KeyValues) -> Jagged:
        """The sequence side: H_S (Σn, D) to H_S' (Σn, D)."""
        tokens = queries.tokens
        norm = self.around_attention.pre_norm
        update = self.attention.attend_events(tokens, kv, visible=queries.visible, norm=norm)
        return tokens.with_values(self.after_attention(tokens.values, update.values))


class CausalLayer(EventLayer):
    """A Transformer layer in two halves: `encode` for the request, `read` for its candidates.

    Both halves have the same weights: A = O + Attn(norm(O), norm(R), norm(R)), O' = A + FFN(norm(A)).
    """

    def read(
        self, globals_: Tensor, kv: KeyValues, requests: RequestMap, *, asked: int | None = None
    ) -> Tensor:
        """The candidate side: global tokens (B, m, D) see each other and the tokens behind `kv`.

        One attention call per request: the keys are [its events; the global tokens of all its candidates],
        and a mask hides the other candidates' tokens. The events' K and V are not repeated per candidate.

        Args:
            globals_: (B, m, D).
            kv: of the request's tokens.
            requests: maps B to R.
            asked: n, how many of the global tokens, the first ones, are read afterwards; None: all.

        Returns:
            (B, n, D).
        """
        seen = self.around_attention.pre(globals_)
        kept = globals_[:, :asked]
        queries, own = requests.pack(seen[:, :asked]), None if asked is None else requests.pack(seen)
        mixed = self.attention(queries, kv, tokens=kept.shape[1], own=own)
        return self.after_attention(kept, requests.unpack(mixed))


class CrossCausalAttention(CausalLayer):
    """The first layer: queries O = [G; H_S], keys R = [G; H]; only the m + k queries are computed."""

    def forward(
        self,
        globals_: Tensor,
        queries: EventQueries | None,
        events: Jagged,
        requests: RequestMap,
        *,
        asked: int | None = None,
    ) -> tuple[Tensor, Jagged | None]:
        """One layer.

        Args:
            globals_: (B, m, D), the global tokens of each candidate.
            queries: H_S, chosen from `events` by `SelectQueries`; None in the last layer of a stack, whose
                sequence tokens nobody reads.
            events: H, values (ΣL, D).
            requests: maps B to R.
            asked: see `read`.

        Returns:
            The global tokens (B, m, D) and the sequence tokens (Σn, D), None without queries.
        """
        kv = self.project_kv(events)
        read = self.read(globals_, kv, requests, asked=asked)
        return read, None if queries is None else self.encode(queries, kv)


class SelfCausalAttention(CausalLayer):
    """A following layer: the m + k tokens [G; H_S] are queries and keys, under the same mask."""

    def forward(
        self,
        globals_: Tensor,
        tokens: Jagged,
        requests: RequestMap,
        *,
        prefix: int = 0,
        last: bool = False,
        asked: int | None = None,
    ) -> tuple[Tensor, Jagged | None]:
        """One layer.

        Args:
            globals_: (B, m, D).
            tokens: H_S, values (Σn, D), in the order of the events.
            requests: maps B to R.
            prefix: P, the number of request-level global tokens in front of each request's events.
            last: whether nobody reads the sequence tokens, so that they are not computed.
            asked: see `read`.

        Returns:
            The global tokens (B, m, D) and the sequence tokens (Σn, D), None in the last layer.
        """
        kv = self.project_kv(tokens)
        read = self.read(globals_, kv, requests, asked=asked)
        return read, None if last else self.encode(causal(tokens, prefix=prefix), kv)


def causal(tokens: Jagged, *, prefix: int = 0) -> EventQueries:
    """Each token sees itself and those before it; the first `prefix` tokens of a request see all of them."""
    position = tokens.positions()
    if prefix:
        everything = tokens.lengths[tokens.segment_ids()]
        return EventQueries(tokens, torch.where(position < prefix, everything, position + 1))
    return EventQueries(tokens, position + 1)
