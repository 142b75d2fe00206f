"""Search, then attend: a cheap score finds K of a long history's events, attention reads these.

    SIM, hard   the newest K events whose `field` is the candidate's
    SIM, soft   top K of r_j = (W_b e_j) · (W_a q); the search learns by a click loss of its own, on Σ r_j e_j
    ETA         top K by the number of equal signs of R e_j and R q; R random and fixed
    TWIN        top K by the attention's own scores, head after head: the two stages agree
    then        u = W_o [softmax(q_h K_hᵀ / √d + β) V_h]_h over the K events; β by time, TWIN only

Shared by the candidates of a request: W_b e_j, signs, and K and V where events are fewer than pairs kept.

Source: SIM (arXiv 2006.05639), ETA (arXiv 2108.04468), TWIN (arXiv 2302.02352). Differs: TWIN's cross
features are the time since the event here, one scalar per bucket and head; its item features are the events'
tokens. ETA hashes what attention reads before its projections, as in its paper. Equal scores go to the newer
event.

B candidates, R requests, L events, P pairs of both, K kept events, H heads, d = D / H, m signs.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ctr.blocks.linear import Linear
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
        self.click = Linear(width, 1) if soft else None
        self.by_time = (
            nn.Parameter(torch.zeros(_TIME_BUCKETS, sizes.heads)) if config.by == "attention" else None
        )
        self.register_buffer("directions", torch.randn(width, config.signs) if config.by == "signs" else None)
        self.directions: Tensor | None

    def encode(self, events: SideEvents) -> SideState:
        """The events, with what the search compares."""
        values = events.tokens.values
        if self.search_key is not None:
            values = torch.cat([values, self.search_key(values)], dim=-1)
        elif self.directions is not None:
            values = torch.cat([values, (values.detach() @ self.directions).sign()], dim=-1)
        return SideState(events=events.tokens.with_values(values), gaps=events.gaps, ids=events.ids)

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D); without any event found the bias of the output map."""
        assert state.events is not None
        width = candidates.query.shape[1]
        pairs = Pairs.of(state.events, candidates.requests)
        values, compared = state.events.values[:, :width], state.events.values[:, width:]
        found = pairs.take(self._search(values, compared, state, candidates, pairs))
        query = self.query(candidates.query).unflatten(-1, (self.heads, -1))
        key, value = (x.unflatten(-1, (self.heads, -1)) for x in self._mapped(values, found).chunk(2, dim=-1))
        scores = (found.of_candidates(query) * key).sum(-1) * query.shape[-1] ** -0.5
        scores = scores + self._bias(state, found)
        return self.output(found.sum(found.softmax(scores)[..., None] * value).flatten(1))[:, None]

    def _search(
        self, values: Tensor, compared: Tensor, state: SideState, candidates: Candidates, pairs: Pairs
    ) -> Tensor:
        """Indices of the pairs that are kept, at most K of a candidate."""
        self.own_logits = None
        if self.config.by == "field":
            assert state.ids is not None and candidates.ids is not None
            equal = (pairs.of_events(state.ids) == pairs.of_candidates(candidates.ids)).nonzero().flatten()
            newest = pairs.take(equal)
            return equal[newest.top(torch.zeros(len(equal), device=equal.device), self.config.keep)]
        if self.config.by == "attention":
            return self._by_heads(values, state, candidates.query, pairs)
        if self.directions is not None:
            asked = (candidates.query.detach() @ self.directions).sign()
        else:
            assert self.search_query is not None
            asked = self.search_query(candidates.query)
        scores = (pairs.of_candidates(asked) * pairs.of_events(compared)).sum(-1)
        if self.training and self.click is not None and self.config.loss:
            self.own_logits = self.click(pairs.sum(scores[:, None] * pairs.of_events(values))).squeeze(-1)
        return pairs.top(scores, self.config.keep)

    def _by_heads(self, values: Tensor, state: SideState, query: Tensor, pairs: Pairs) -> Tensor:
        """The first K different events of a walk along the heads' rankings, one place after another."""
        with torch.no_grad():
            asked = self.query(query).unflatten(-1, (self.heads, -1))
            weight, bias = self.key_value.weight.chunk(2)[0], self.key_value.bias.chunk(2)[0]
            key = (values @ weight.T + bias).unflatten(-1, (self.heads, -1))
            scores = (pairs.of_candidates(asked) * pairs.of_events(key)).sum(-1) * asked.shape[-1] ** -0.5
            scores = scores + self._bias(state, pairs)
            places = torch.stack([pairs.ranks(scores[:, head]) for head in range(self.heads)], dim=1)
            turns = places * self.heads + torch.arange(self.heads, device=places.device)
            return pairs.first(turns.min(dim=1).values, self.config.keep)

    def _bias(self, state: SideState, pairs: Pairs) -> Tensor | float:
        """β of each pair and head, by the time since its event."""
        if self.by_time is None:
            return 0.0
        assert state.gaps is not None
        bucket = torch.frexp(1 + pairs.of_events(state.gaps).float()).exponent.long() - 1
        return self.by_time[bucket.clamp(0, _TIME_BUCKETS - 1)]

    def _mapped(self, values: Tensor, found: Pairs) -> Tensor:
        """K and V of the kept pairs; each event is mapped once if that is less work."""
        if found.event is not None and len(found.owner) < len(values):
            return self.key_value(found.of_events(values))
        return found.of_events(self.key_value(values))
