"""HSTU end to end: the events as content and action in turn, the candidate as the last content.

    X = [u_1 … u_P; Φ_1, a_1, …, Φ_L, a_L; Φ_q]        u: tokens of the request's features;  Φ: what an event
                                                       is about;  a: what was done;  Φ_q: the candidate
    for each layer:
        [U, V, Q, K] = SiLU(W₁ norm(X) + b₁)
        A_ij = SiLU(q_i · k_j / √d + p_{|i−j|} + t_{bucket(|Δ_ij|)})    j ≤ i, or j static (`mask: dynamic`)
        X ← X + W₂ (norm(A V) ⊙ U) + b₂
    logit = MLP(Φ_q)

The layer is that of ctr.models.sequence.hstu. A candidate sees the tokens of its request and itself.
With `action_tokens: added`, `group_norm` and `mask: dynamic` it is MTGR's model: an event is one token;
tokens of features, of events and of candidates have norms of their own; all tokens see what is static, that
is the features of the request and the events of more than `real_time_seconds` before it.

Shared by the candidates of a request: all layers of its tokens, K and V, since nothing sees a candidate.

Source: HSTU (arXiv 2402.17152), §2.2 (content and action), §3 (layer), §3.4 (M-FALCON); MTGR
(arXiv 2505.18654), group layer normalisation and dynamic mask, read in published reviews.

Compliance with the paper (docs/models/hstu.md says more):

    content, action and candidate in one sequence                 tests/ctr/models/test_conformance.py
    attention without softmax, biases, gate                       tests/ctr/models/test_conformance.py
    norms by group, dynamic mask                                  tests/ctr/models/test_conformance.py
    both halves: a request encoded once for all candidates        tests/ctr/serving/test_halves.py

Documented deviations, each with its option or its reason:

    only the candidate is supervised, not all positions           requests are rows of the data set
    features of the request stand in front, at its time           they have no time of their own
    a candidate is one token, a map of its tokens of features     events and candidates need not share fields
    times and places are part of the events' tokens, too          time_gaps, positions
    A is not divided by N                                         norm(A V) takes it off (the layer's file)
    a token's time is that of its event                           the authors' code: that of the next event
    dropout behind W₂                                             the authors' code: on norm(A V) ⊙ U, before
    no stochastic length                                          loader.max_len cuts histories
    MTGR: biases by place and by time, which it does not name     the layer is HSTU's
    MTGR: static events by their age, not by calendar days        real_time_seconds

B candidates, R requests, L events of one, P tokens of the request's features, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import PackedKV
from ctr.blocks.layers import build_norm
from ctr.blocks.linear import Linear
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from ctr.models.encoder import longest_sequences
from ctr.models.heads.config import TasksConfig
from ctr.models.model import Model
from ctr.models.request_state import RequestState
from ctr.models.sequence.hstu import HstuLayer
from ctr.models.sequence.side import SideSizes, SideState
from ctr.options.knobs import Positive, Unused
from ctr.tokens.config import NgramConfig
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from features.dataset import Manifest
from features.errors import ConfigError

OF_REQUEST, OF_EVENT, OF_CANDIDATE = range(3)  # the groups of MTGR's norms


class HstuModelConfig(ModelConfig):
    """How an event becomes tokens, and MTGR's norms and mask."""

    kind: Literal["hstu"] = "hstu"
    # An event as two tokens, its content and then its action, or as one.
    action_tokens: Literal["interleaved", "added"] = "interleaved"
    actions: list[str] = []  # domain.field, what tells the action beside the domain: outcome, rating, dwell
    group_norm: bool = False  # own norms for tokens of the request's features, of events and of candidates
    # What a token sees: itself and those before it, or, as in MTGR, the features and all static events, too.
    mask: Literal["causal", "dynamic"] = "causal"
    real_time_seconds: Positive = 86_400  # before the request; older events are static

    UNUSED = (
        *ModelConfig.UNUSED,
        Unused(
            ("actions",),
            by="action_tokens",
            when=lambda tokens: tokens == "added",
            because="action_tokens added makes one token of all fields of an event",
        ),
        Unused(
            ("real_time_seconds",),
            by="mask",
            when=lambda mask: mask == "causal",
            because="mask causal knows no static events",
        ),
        Unused(
            ("expansion", "head_reads"),
            by="kind",
            when=lambda kind: kind == "hstu",
            because="kind hstu has no feed-forward layer, and its head reads one token",
        ),
    )

    def check(self, manifest: Manifest) -> None:
        """Refuse actions that no event has, events without any, and a mask by times that are hidden."""
        if self.mask == "dynamic":
            self._check_times(manifest)
        known = [f"{d}.{c.name}" for d, info in manifest.domains.items() for c in info.side]
        if wrong := sorted(set(self.actions) - set(known)):
            raise ConfigError(f"model.actions must name fields of events {known}, got {wrong}")
        if self.action_tokens == "added":
            return
        if not self.actions and len(manifest.domains) == 1:
            raise ConfigError(
                f"model.actions must name what tells the action of an event, some of {known}, as there "
                "is one domain only; or set model.action_tokens to added"
            )
        if self.token_filter.mode != "off":
            raise ConfigError(
                f"model.token_filter.mode {self.token_filter.mode} hides one token of an event, which has "
                "two with model.action_tokens: interleaved; set it to added, or the mode to off"
            )

    def _check_times(self, manifest: Manifest) -> None:
        if not self.time_gaps:
            raise ConfigError(
                "model.mask dynamic tells static events by their times, which model.time_gaps: false hides; "
                "set it to true, or the mask to causal"
            )
        if untimed := sorted(d for d, info in manifest.domains.items() if not info.timed):
            raise ConfigError(
                "model.mask dynamic tells static events by their times, and the data set has none for the "
                f"events of {untimed}; set the mask to causal"
            )

    def without_sequences(self, gone: Collection[str]) -> Self:
        """Without the actions of these."""
        kept = [name for name in self.actions if name.partition(".")[0] not in gone]
        return self.model_copy(update={"actions": kept})


class HstuModel(Model):
    """The whole model."""

    Config = HstuModelConfig
    BENCH: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "HSTU": {},
        "MTGR": {"action_tokens": "added", "group_norm": True, "mask": "dynamic"},
    }
    config: HstuModelConfig

    def __init__(
        self, manifest: Manifest, config: HstuModelConfig, *, dim: int, tasks: TasksConfig | None = None
    ) -> None:
        super().__init__(manifest, config, dim=dim, tasks=tasks)
        width = config.d_model
        self.ns_tokenizer = make_tokenizer(manifest, config, dim=dim)
        self.asking = self.ns_tokenizer.candidate_tokens()
        self.ask = Linear(len(self.asking) * width, width)
        self.ask_norm = build_norm(config.norm, width)
        two = config.action_tokens == "interleaved"
        contents = events_with(manifest, config.actions, keep=False) if two else manifest
        self.sequence_tokenizers = SequenceTokenizers(contents, config, dim=dim, merge=True)
        plain = config.model_copy(update={"ngram": NgramConfig()})
        actions = events_with(manifest, config.actions, keep=True)
        self.action_tokenizers = SequenceTokenizers(actions, plain, dim=dim, merge=True) if two else None
        (longest,) = longest_sequences(manifest, merge=True)
        tokens = self.ns_tokenizer.num_tokens
        self.in_front = tokens - len(self.asking)  # P
        places = self.in_front + longest * (2 if two else 1)
        sizes = SideSizes(width, config.heads, config.expansion, config.norm, config.dropout, places, tokens)
        groups = 3 if config.group_norm else 0
        self.layers = nn.ModuleList(HstuLayer(sizes, groups=groups) for _ in range(config.layers))
        self.head = self.build_head(1, width)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """K and V of every layer, once per request."""
        features = self.ns_tokenizer.encode(batch, rows)
        tokens, gaps = self._sequence(features, batch, rows)
        group, shown = self._group(tokens), self._shown(tokens, gaps)
        kvs = []
        for layer in cast("list[HstuLayer]", self.layers):
            tokens, kv = layer.encode(tokens, gaps, *group, shown=shown)
            kvs.append(kv)
        side = SideState(kvs=tuple(kvs), gaps=gaps)
        return RequestState(features, self.head.encode(batch), sides=[side])

    def score(self, state: RequestState, candidates: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of candidates of encoded requests."""
        requests = RequestMap.build(candidates.request_index, requests=candidates.num_requests)
        ns_tokens = self.ns_tokenizer.score(state.features, candidates, rows, requests)
        token = self.ask_norm(self.ask(ns_tokens[:, self.asking].flatten(1)))
        (side,) = state.sides
        kvs, gaps = cast("tuple[PackedKV, ...]", side.kvs), cast(Tensor, side.gaps)
        group = [torch.full_like(candidates.request_index, OF_CANDIDATE)] if self.config.group_norm else []
        for layer, kv in zip(cast("list[HstuLayer]", self.layers), kvs, strict=True):
            token = layer.read(token, kv, gaps, requests, *group)
        return self.head(token[:, None], state.beside(candidates), requests)

    def _sequence(
        self, features: list[Tensor | None], batch: Batch, rows: UniqueRows
    ) -> tuple[Jagged, Tensor]:
        """The tokens of requests (ΣT, D), T = P + L or P + 2 L, and the seconds from each to its request."""
        (tokens,) = self.sequence_tokenizers(batch, rows)
        gaps = self.sequence_tokenizers.seconds(batch)
        if self.action_tokenizers is not None:
            (actions,) = self.action_tokenizers(batch, rows)
            tokens, gaps = interleave(tokens, actions), interleave(gaps, gaps)
        of_request = [part for place, part in enumerate(features) if place not in self.asking]
        if not of_request:
            return tokens, gaps.values
        front = torch.stack([part for part in of_request if part is not None], dim=1)
        return tokens.prepend(front), gaps.prepend(gaps.values.new_zeros(front.shape[:2])).values

    def _group(self, tokens: Jagged) -> list[Tensor]:
        """The group of each token of the requests, (ΣT,), for `HstuLayer`; none without `group_norm`."""
        return [(tokens.positions() >= self.in_front).long()] if self.config.group_norm else []

    def _shown(self, tokens: Jagged, gaps: Tensor) -> Tensor | None:
        """Which tokens of the requests, (ΣT,), all others see; None with a causal mask."""
        if self.config.mask == "causal":
            return None
        return (tokens.positions() < self.in_front) | (gaps > self.config.real_time_seconds)


def interleave(first: Jagged, second: Jagged) -> Jagged:
    """Each token of one sequence and, behind it, that of the other: (ΣL, …) twice to (2 ΣL, …).

    Example:
        >>> content = Jagged.from_lengths(torch.tensor([1, 2, 3]), torch.tensor([2, 1]))
        >>> both = interleave(content, content.with_values(content.values * 10))
        >>> both.values.tolist(), both.lengths.tolist()
        ([1, 10, 2, 20, 3, 30], [4, 2])
    """
    values = torch.stack([first.values, second.values], dim=1).flatten(0, 1)
    return Jagged(values, 2 * first.offsets, 2 * first.max_length)


def events_with(manifest: Manifest, fields: Collection[str], *, keep: bool) -> Manifest:
    """The manifest with only those fields of events that are among `fields`, or, without `keep`, are not."""
    domains = {
        domain: info.model_copy(
            update={"side": [c for c in info.side if (f"{domain}.{c.name}" in fields) == keep]}
        )
        for domain, info in manifest.domains.items()
    }
    return manifest.model_copy(update={"domains": domains})
