"""Search, then attend: a cheap score finds K of a long history's events, attention reads these.

    SIM, hard   the newest K events whose `field` is the candidate's
    SIM, soft   top K of r_j = (W_b e_j) · (W_a q); the search learns by a click loss of its own, of
                MLP([U; q]) with U = 1/L Σ_j r_j e_j / √D
    ETA         top K by the number of equal signs of R s_j and R s_c; R random and fixed; s_j and s_c are the
                rows of the embedding tables that events and candidate share (`ctr.tokens.shared`)
    TWIN        top K by the attention's own scores, head after head: the two stages agree
    then        u = W_o [softmax(q_h K_hᵀ / √d + β) V_h]_h over the K events; β by time, TWIN only

Shared by the candidates of a request: W_b e_j, signs, and K and V where events are fewer than pairs kept.

Source: SIM (arXiv 2006.05639), ETA (arXiv 2108.04468), TWIN (arXiv 2302.02352). Differs: TWIN's cross
features are the time since the event here, one scalar per bucket and head; its item features are the events'
tokens. SIM attends to what it found without maps of values and output and without 1 / √d; here all searches
end in the same attention, which has these. K is 50 by default, 200 in SIM and 100 in TWIN. U of soft SIM is a
mean of scaled scores, not a sum: tokens are normed, so a sum would grow with L and √D, and its loss with it.
Equal scores go to the newer event.

B candidates, R requests, L events, P pairs of both, K kept events, H heads, d = D / H, m signs, S width of
shared rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.linear import Linear
from ctr.models.sequence.pair_scores import PairScores
from ctr.models.sequence.pairs import Pairs
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Positive, Unused

_TIME_BUCKETS = 48  # ⌊log2(1 + seconds)⌋


class SearchConfig(SideConfig):
    """What finds the events, and how many."""

    kind: Literal["search"] = "search"
    by: Literal["field", "inner_product", "signs", "attention"] = "attention"
    compare: str | None = None  # by field: the field of the events whose ID must be the candidate's
    keep: Positive = 50  # K
    signs: Annotated[int, Field(ge=8, le=1024)] = 64  # by signs: m
    loss: float = Field(default=1.0, ge=0)  # by inner_product: weight of the search's own click loss

    UNUSED = (
        Unused(("compare",), "by", lambda by: by != "field", "only a search by field compares IDs"),
        Unused(("signs",), "by", lambda by: by != "signs", "only a search by signs draws them"),
        Unused(("loss",), "by", lambda by: by != "inner_product", "only by inner_product a loss is its own"),
    )  # fmt: skip

    @model_validator(mode="after")
    def _names_a_field(self) -> Self:
        if self.by == "field" and self.compare is None:
            raise ValueError("by: field needs compare, the field of the events to search by, category say")
        return self

    @property
    def field(self) -> str | None:
        """The field that is compared."""
        return self.compare

    @property
    def hashes(self) -> bool:
        """A search by signs does."""
        return self.by == "signs"

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return Search(self, sizes)


class Search(SequenceSide):
    """See the module."""

    def __init__(self, config: SearchConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.config, self.heads, self.own_weight = config, sizes.heads, config.loss
        width = sizes.width
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.output = Linear(width, width)
        soft = config.by == "inner_product"
        self.search_query = Linear(width, width, bias=False) if soft else None  # W_a
        self.search_key = Linear(width, width, bias=False) if soft else None  # W_b
        self.click = nn.Sequential(Linear(2 * width, width), nn.GELU(), Linear(width, 1)) if soft else None
        self.by_time = (
            nn.Parameter(torch.zeros(_TIME_BUCKETS, sizes.heads)) if config.by == "attention" else None
        )
        directions = torch.randn(sizes.shared, config.signs) if config.hashes else None
        self.register_buffer("directions", directions)
        self.directions: Tensor | None

    def encode(self, events: SideEvents) -> SideState:
        """The events, with what the search compares."""
        tokens = events.tokens
        compared = self._compared(events)
        wide = tokens.with_values(torch.cat([tokens.values, compared], dim=-1))
        learns = self.training and self.click is not None and self.config.loss
        summary = _outer_means(tokens, tokens.with_values(compared)) if learns else None
        return SideState(events=wide, gaps=events.gaps, ids=events.ids, summary=summary)

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D); without any event found the bias of the output map."""
        assert state.events is not None
        values = state.events.values[:, : candidates.query.shape[1]]
        self.own_logits = None if state.summary is None else self._clicks(state.summary, candidates)
        with torch.no_grad():
            found = self.search(state, candidates, PairScores.of(state.events, candidates.requests))
        query = self.query(candidates.query).unflatten(-1, (self.heads, -1))
        key, value = (x.unflatten(-1, (self.heads, -1)) for x in self._mapped(values, found).chunk(2, dim=-1))
        scores = (found.of_candidates(query) * key).sum(-1) * query.shape[-1] ** -0.5
        if self.by_time is not None:
            scores = scores + self.by_time[found.of_events(_buckets(state))]
        return self.output(found.sum(found.softmax(scores)[..., None] * value).flatten(1))[:, None]

    def _compared(self, events: SideEvents) -> Tensor:
        """(ΣL, ·): what the search compares of each event."""
        values = events.tokens.values
        if self.search_key is not None:
            return self.search_key(values)
        with torch.no_grad():
            if self.directions is not None:
                assert events.shared is not None
                return (events.shared @ self.directions).sign()
            if self.config.by == "attention":
                return self.key_value(values).chunk(2, dim=-1)[0]
        return values[:, :0]

    def search(self, state: SideState, candidates: Candidates, layout: PairScores) -> Pairs:
        """The events that each candidate keeps, at most K; without gradient."""
        assert state.events is not None
        keep, query = self.config.keep, candidates.query
        if self.config.by == "field":
            assert state.ids is not None and candidates.ids is not None
            return layout.best(layout.equal(candidates.ids, state.ids), keep)[0]
        compared = state.events.values[:, query.shape[1] :]
        if self.config.by == "attention":
            return self._by_heads(self._head_scores(compared, state, query, layout), layout)
        if self.directions is not None:
            assert candidates.shared is not None
            asked = (candidates.shared @ self.directions).sign()
        else:
            assert self.search_query is not None
            asked = self.search_query(query)
        return layout.best(layout.products(asked, compared), keep)[0]

    def exact_weights(
        self, state: SideState, candidates: Candidates, layout: PairScores, pairs: Pairs
    ) -> Tensor:
        """(P,): what each event would weigh if attention read them all, the mean over heads."""
        assert state.events is not None
        key = self.key_value(state.events.values[:, : candidates.query.shape[1]]).chunk(2, dim=-1)[0]
        scores = self._head_scores(key, state, candidates.query, layout)
        return torch.stack([pairs.softmax(layout.of_pairs(x, pairs)) for x in scores]).mean(dim=0)

    def _head_scores(
        self, key: Tensor, state: SideState, query: Tensor, layout: PairScores
    ) -> Iterator[list[Tensor]]:
        """The scores of attention of each head in turn, by keys (ΣL, D)."""
        heads = self.query(query).chunk(self.heads, dim=-1), key.chunk(self.heads, dim=-1)
        bias = None if self.by_time is None else self.by_time[_buckets(state)]  # (ΣL, H)
        for head, (asked, own) in enumerate(zip(*heads, strict=True)):
            added = None if bias is None else bias[:, head]
            yield layout.products(asked * asked.shape[1] ** -0.5, own, added)

    def _by_heads(self, scores: Iterable[list[Tensor]], layout: PairScores) -> Pairs:
        """The first K different events of a walk along the heads' rankings, one place after another."""
        keep, heads, count = self.config.keep, self.heads, max(1, len(layout.events.values))
        found = [layout.best(of_head, keep) for of_head in scores]
        each = torch.arange(count, device=found[0][0].owner.device)
        turn = torch.cat([own.ranks(values) * heads + head for head, (own, values) in enumerate(found)])
        pair = torch.cat([own.owner * count + own.of_events(each) for own, _ in found])
        different, inverse = pair.unique(return_inverse=True)
        first = torch.full_like(different, keep * heads).scatter_reduce(0, inverse, turn, "amin")
        met = Pairs(different // count, different % count, found[0][0].candidates)
        return met.take(met.top(-first, keep))

    def _clicks(self, means: Tensor, candidates: Candidates) -> Tensor:
        """(B,): logits of U = (1/L Σ_j e_j (W_b e_j)ᵀ) W_a q / √D and q, for which no pair is needed."""
        assert self.search_query is not None and self.click is not None
        requests, query = candidates.requests, candidates.query
        asked = requests.pack(self.search_query(query)[:, None] * query.shape[1] ** -0.5)
        read = requests.unpack(asked @ means.transpose(1, 2))[:, 0]
        logits: Tensor = self.click(torch.cat([read, query], dim=1))
        return logits.flatten()

    def _mapped(self, values: Tensor, found: Pairs) -> Tensor:
        """K and V of the kept pairs; each event is mapped once if that is less work."""
        if found.event is not None and len(found.owner) < len(values):
            return self.key_value(found.of_events(values))
        return found.of_events(self.key_value(values))


def _buckets(state: SideState) -> Tensor:
    """(ΣL,) int64: the bucket of the time since each event."""
    assert state.gaps is not None
    return (torch.frexp(1 + state.gaps.float()).exponent.long() - 1).clamp(0, _TIME_BUCKETS - 1)


def _outer_means(left: Jagged, right: Jagged) -> Tensor:
    """(R, D, D): 1/L Σ_j l_j r_jᵀ over the events of each request, zeros without any."""
    buckets = LengthBuckets.of(left)
    parts = zip(buckets.pad(left), buckets.pad(right), strict=True)
    sums = buckets.from_buckets([a.transpose(1, 2) @ b for a, b in parts])
    return sums / left.lengths.clamp(min=1)[:, None, None]
