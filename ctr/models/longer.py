"""LONGER: global tokens in front of one long sequence, cross-causal then self-causal attention.

    G = [NS tokens (candidate, user, cross …); learnable CLS]     (B, m, W)
    H = merge_K(events of all domains in time order)              L / K tokens of width W = K·D, per request
    layer 1:       G, H_S ← cross-causal([G; H_S] asks [G; H])    H_S: recent | uniform | learnable, k tokens
    layer 2 …:     G, H_S ← self-causal([G; H_S])
    logit = MLP(G)

Nothing on the event side sees a candidate, so it is computed once per request (see ctr.blocks.longer).

Source: LONGER (arXiv 2505.04421). Sections are not numbered here: the paper was read in published reviews.

Compliance with the paper (docs/models/longer.md says more):

    global tokens see everything, events only earlier ones        tests/ctr/blocks/test_longer.py
    token merge, InnerTrans                                       tests/ctr/blocks/test_token_merge.py
    cross-causal, then self-causal attention                      tests/ctr/blocks/test_longer.py
    the newest k events ask; uniform and learnable as options     tests/ctr/blocks/test_longer.py
    time differences and positions in the events' tokens          tests/ctr/tokens/test_features.py
    the whole model                                               tests/ctr/models/test_conformance.py
    keys and values kept, candidates scored against them          tests/ctr/serving/test_halves.py

Documented deviations, each with its option or its reason:

    several domains become one sequence, by time                  the paper has one sequence
    a group may be padded: K need not divide L                    longer.merge
    a linear map widens global tokens to W = K·D                  longer.merge
    pre-norm layers; the paper prints no norms                    norm
    CLS tokens that events see                                    longer.events_see_request_globals
    initial weights                                               aligned_start

B candidates, R requests, L events, m global tokens, D width of a token, K merged events, W = K·D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues
from ctr.blocks.linear import Linear
from ctr.blocks.longer import (
    CausalLayer,
    CrossCausalAttention,
    EventQueries,
    SelectQueries,
    SelfCausalAttention,
    causal,
    show_to_events,
)
from ctr.blocks.request_map import RequestMap
from ctr.blocks.token_merge import TokenMerge
from ctr.models.config import ModelConfig
from ctr.models.heads.config import TasksConfig
from ctr.models.model import Model
from ctr.models.request_state import RequestState, grow, may_grow
from ctr.options.knobs import Knobs, Positive, Unused
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from features.dataset import Manifest


class TowerConfig(Knobs):
    """LONGER's attention layers: token merge, the query events, global tokens."""

    merge: Positive = 1  # adjacent events concatenated into one token
    # Layers of the small Transformer inside a group (InnerTrans).
    inner_layers: int = Field(default=0, ge=0, le=10_000)
    queries: Literal["recent", "uniform", "learnable"] = "recent"
    num_queries: Positive = 32
    cls_tokens: Positive = 1


class SeenGlobalsConfig(TowerConfig):
    """… of the model that is LONGER alone."""

    events_see_request_globals: bool = False  # beyond the paper; the CLS tokens then stand before the events


# H_S leaves a layer for the next one.
UNUSED_QUERIES = Unused(
    ("longer.queries",),
    by="layers",
    when=lambda layers: layers == 1,
    because="layers 1 has no next layer for the query events",
)


class LongerConfig(ModelConfig):
    """LONGER."""

    kind: Literal["longer"] = "longer"
    longer: SeenGlobalsConfig = SeenGlobalsConfig()

    UNUSED = (*ModelConfig.UNUSED, UNUSED_QUERIES)


class LongerTower(nn.Module):
    """The attention layers: global tokens (B, m, W) and events (ΣL, D) in, global tokens out."""

    def __init__(self, config: ModelConfig, longer: TowerConfig) -> None:
        super().__init__()
        self.config = longer
        self.width = longer.merge * config.d_model
        self.merge = TokenMerge(
            config.d_model, longer.merge, inner_layers=longer.inner_layers, norm=config.norm
        )
        self.select = SelectQueries(self.width, longer.num_queries, select=longer.queries)
        kinds = [CrossCausalAttention, *[SelfCausalAttention] * (config.layers - 1)]
        hidden = int(config.expansion * self.width)
        self.layers = nn.ModuleList(
            kind(self.width, config.heads, hidden=hidden, norm=config.norm, dropout=config.dropout)
            for kind in kinds
        )

    def forward(
        self,
        globals_: Tensor,
        events: Jagged,
        requests: RequestMap,
        prefix: Tensor | None = None,
        *,
        asked: int | None = None,
    ) -> Tensor:
        """The first `asked` global tokens (B, n, W), all if None; the last layer computes nothing else.

        Args:
            globals_: (B, m, W).
            events: (ΣL, D).
            requests: maps B to R.
            prefix: (R, P, W), request-level global tokens that events may see.
            asked: n.
        """
        events, queries = self._begin(events, prefix)
        first, *others = self.layers
        if not others:
            return cast(Tensor, first(globals_, None, events, requests, asked=asked)[0])
        globals_, tokens = first(globals_, queries, events, requests)
        shown = 0 if prefix is None else prefix.shape[1]
        for layer in others[:-1]:
            globals_, tokens = layer(globals_, tokens, requests, prefix=shown)
        globals_, _ = others[-1](globals_, tokens, requests, prefix=shown, last=True, asked=asked)
        return globals_

    def encode(self, events: Jagged, prefix: Tensor | None = None) -> list[KeyValues]:
        """K and V of every layer, once per request: the tower without global tokens of candidates."""
        events, queries = self._begin(events, prefix)
        first, *others = cast("list[CausalLayer]", self.layers)
        kvs = [first.project_kv(events)]
        for before, layer in pairwise([first, *others]):
            tokens = before.encode(queries, kvs[-1])
            queries = causal(tokens, prefix=0 if prefix is None else prefix.shape[1])
            kvs.append(layer.project_kv(tokens))
        return kvs

    def read(
        self,
        globals_: Tensor,
        kvs: Sequence[KeyValues],
        requests: RequestMap,
        *,
        asked: int | None = None,
    ) -> Tensor:
        """The first `asked` global tokens (B, n, W) of candidates, through all layers."""
        *layers, last = zip(cast("list[CausalLayer]", self.layers), kvs, strict=True)
        for layer, kv in layers:
            globals_ = layer.read(globals_, kv, requests)
        return last[0].read(globals_, last[1], requests, asked=asked)

    def append(self, kept: list[list[KeyValues]], tokens: Jagged) -> list[list[KeyValues]]:
        """K and V of each layer of R = 1 request with those of new events behind; H_S keeps the newest k."""
        return grow(cast("list[CausalLayer]", self.layers), kept, tokens, self._windows())

    def why_not_append(self) -> str | None:
        """Why `append` would change what is kept; None if it would not."""
        merge, queries = self.config.merge, self.config.queries
        if merge > 1:
            return f"model.longer.merge is {merge}: groups are counted from the newest event; 1 has none"
        if queries != "recent":
            return f"model.longer.queries is {queries}: new events change the query events"
        return None

    def may_grow(self, events: int) -> bool:
        """Whether K and V of all layers stay when a history grows to so many events.

        From layer 3 on, those of H_S were computed among the query events of that time.
        """
        return may_grow(self._windows(), events)

    def _windows(self) -> list[int | None]:
        """How many of the newest events each layer reads."""
        return [None, *[self.select.count] * (len(self.layers) - 1)]

    def _begin(self, events: Jagged, prefix: Tensor | None) -> tuple[Jagged, EventQueries]:
        """H and H_S: the merged events, and the query events among them."""
        events = self.merge(events)
        queries = self.select(events)
        return (events, queries) if prefix is None else show_to_events(prefix, events, queries)


class Longer(Model):
    """The whole model."""

    Config = LongerConfig
    BENCH: ClassVar = {"LONGER": {"longer.num_queries": 50}}
    config: LongerConfig

    def __init__(
        self, manifest: Manifest, config: LongerConfig, *, dim: int, tasks: TasksConfig | None = None
    ) -> None:
        super().__init__(manifest, config, dim=dim, tasks=tasks)
        self.ns_tokenizer = make_tokenizer(manifest, config, dim=dim)
        self.sequence_tokenizers = SequenceTokenizers(manifest, config, dim=dim, merge=True)
        self.tower = LongerTower(config, config.longer)
        self.widen = Linear(config.d_model, self.tower.width) if config.longer.merge > 1 else nn.Identity()
        self.cls = nn.Parameter(torch.randn(config.longer.cls_tokens, self.tower.width) * 0.02)
        in_globals = 0 if config.longer.events_see_request_globals else config.longer.cls_tokens
        self.head = self.build_head(self.ns_tokenizer.num_tokens + in_globals, self.tower.width)

    def forward(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of a batch, given the embeddings of its unique IDs."""
        requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
        globals_ = self.widen(self.ns_tokenizer(batch, rows, requests))
        (events,) = self.sequence_tokenizers(batch, rows)
        top = self.tower(self._with_cls(globals_), events, requests, self._prefix(batch))
        return self.head(top, batch, requests)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """K and V of every layer, once per request; see ctr.models.request_state."""
        features = self.ns_tokenizer.encode(batch, rows)
        (events,) = self.sequence_tokenizers(batch, rows)
        kvs = [[kv] for kv in self.tower.encode(events, self._prefix(batch))]
        return RequestState(features, self.head.encode(batch), kvs)

    def score(self, state: RequestState, candidates: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of candidates of encoded requests."""
        requests = RequestMap.build(candidates.request_index, requests=candidates.num_requests)
        globals_ = self.widen(self.ns_tokenizer.score(state.features, candidates, rows, requests))
        top = self.tower.read(self._with_cls(globals_), [kv for (kv,) in state.kvs], requests)
        return self.head(top, state.beside(candidates), requests)

    def recomputed(self) -> list[nn.Module]:
        """The attention layers."""
        return list(self.tower.layers)

    def why_not_append(self) -> str | None:
        """An event sees itself and earlier ones, so that what was computed for it stays."""
        if (reason := self.tower.why_not_append()) is not None:
            return reason
        if self.config.layers > 1 and self.config.longer.events_see_request_globals:
            return (
                "model.longer.events_see_request_globals is true: from layer 2 on events learn of later ones "
                "through the global tokens"
            )
        return None

    def may_grow(self, *, before: int, after: int) -> bool:
        """No event may leave H_S before its neighbours in the next layer have been computed."""
        return self.tower.may_grow(max(before, after))

    def append(self, state: RequestState, batch: Batch, rows: UniqueRows) -> RequestState:
        """K and V of each layer with those of the new events behind."""
        (events,) = self.sequence_tokenizers(batch, rows)
        return replace(state, kvs=self.tower.append(state.kvs, events))

    def _prefix(self, batch: Batch) -> Tensor | None:
        """(R, P, W): the CLS tokens where events see them."""
        seen = self.config.longer.events_see_request_globals
        return self.cls.expand(batch.num_requests, -1, -1) if seen else None

    def _with_cls(self, globals_: Tensor) -> Tensor:
        """(B, m, W): the candidates' tokens and, where events do not see them, the CLS tokens."""
        if self.config.longer.events_see_request_globals:
            return globals_
        return torch.cat([globals_, self.cls.expand(globals_.shape[0], -1, -1)], dim=1)
