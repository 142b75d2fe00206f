"""OneTrans: one causal Transformer over the events and, behind them, the tokens of the features.

    X = [S; N]      S: events of all domains in time order, once per request;  N: ns tokens of a candidate
    for each layer l of n:
        A = X' + W_O Attn(norm(X'), norm(X))        X': the newest L_l tokens of S and all of N; only they ask
        X ← A + FFN(norm(A))                        and go on: L_1 = L … L_n = 0 (pyramid)
    logit = MLP(N)

A token sees itself and those before it. Events share W_Q, W_K, W_V and the FFN, each ns token has its own.

Shared by the candidates of a request: the events' side of every layer, K and V: no event sees a candidate.

Source: OneTrans (arXiv 2510.26104). Sections are not numbered here: the paper was read in published reviews.

Compliance with the paper (docs/models/one-trans.md says more):

    [S; N] under one causal mask, row by row, with every gradient tests/ctr/models/test_conformance.py
    events share their weights, ns tokens have their own          tests/ctr/models/test_one_trans.py
    pyramid: who asks in which layer                              tests/ctr/models/test_one_trans.py
    both halves: a request encoded once for all candidates        tests/ctr/serving/test_halves.py

Documented deviations, each with its option or its reason:

    sequences in the order of time, not of intent with [SEP]      one clock orders all domains
    the last layer asks with no event                             nothing reads what it would give
    linear maps make the tokens                                   tokenizer, as in all models
    causal ns tokens or ones that see each other                  ns_attention
    weights of the ns tokens shared, as the paper's ablation      ns_parameters
    initial weights                                               aligned_start

B candidates, R requests, L events of one, M ns tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues
from ctr.blocks.longer import EventLayer, EventQueries, causal, queries_at
from ctr.blocks.mixing import PerTokenFFN, PerTokenLinear
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from ctr.models.encoder import longest_sequences
from ctr.models.heads.config import TasksConfig
from ctr.models.model import Model
from ctr.models.request_state import RequestState, grow, may_grow
from ctr.options.knobs import Count, Positive, Unused
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from features.dataset import Manifest


class OneTransConfig(ModelConfig):
    """Its choices, and the deviations that its ablations measure."""

    kind: Literal["one_trans"] = "one_trans"
    norm: Literal["layer", "rms"] = "rms"
    ns_parameters: Literal["own", "shared"] = "own"  # W_Q, W_K, W_V and FFN of each ns token, or the events'
    ns_attention: Literal["causal", "full"] = "causal"  # whether a candidate's ns tokens see later ones
    pyramid: bool = True  # fewer events ask from layer to layer
    pyramid_step: Positive = 32  # their number is a multiple of it
    pyramid_events: Count = 0  # L, where the pyramid begins; 0 = the longest history of the data set

    UNUSED = (
        *ModelConfig.UNUSED,
        Unused(
            ("pyramid", "pyramid_step", "pyramid_events"),
            by="layers",
            when=lambda layers: layers <= 2,
            because="with layers up to 2 all events ask first and none in the last layer",
        ),
        Unused(
            ("pyramid_step", "pyramid_events"),
            by="pyramid",
            when=lambda pyramid: not pyramid,
            because="pyramid false lets all events ask",
        ),
    )

    def asking(self, longest: int) -> list[int | None]:
        """L_l of each layer, None for all: linear from all in the first layer to none in the last one."""
        step, last = self.pyramid_step, self.layers - 1
        events = self.pyramid_events or longest
        later = [
            step * -(-events * (last - layer) // (last * step)) if self.pyramid else None
            for layer in range(1, last)
        ]
        return [None, *later, 0] if last else [0]


class OneTransLayer(EventLayer):
    """A layer whose events share their weights (`EventLayer`) and whose ns tokens have weights of their own.

    Args:
        config: of the model.
        ns_tokens: M.
        events_ask: whether events are among the queries, or only keys and values.
    """

    def __init__(self, config: OneTransConfig, ns_tokens: int, *, events_ask: bool) -> None:
        width, hidden = config.d_model, int(config.expansion * config.d_model)
        super().__init__(
            width, config.heads, hidden=hidden, norm=config.norm, dropout=config.dropout, placement="pre"
        )
        self.causal = config.ns_attention == "causal"
        own = config.ns_parameters == "own"
        self.ns_qkv = PerTokenLinear(ns_tokens, width, 3 * width) if own else None
        self.ns_ffn = PerTokenFFN(ns_tokens, width, hidden=hidden, dropout=config.dropout) if own else None
        if own and not events_ask:  # weights that nothing would use
            del self.attention.query, self.ffn

    def forward(
        self, ns_tokens: Tensor, queries: EventQueries | None, events: Jagged, requests: RequestMap
    ) -> tuple[Tensor, Jagged]:
        """Ns tokens (B, M, D) and the events that ask, a layer further; without queries the given events."""
        kv = self.project_kv(events)
        read = self.read(ns_tokens, kv, requests)
        return read, events if queries is None else self.encode(queries, kv)

    def read(self, ns_tokens: Tensor, kv: KeyValues, requests: RequestMap) -> Tensor:
        """The half of the candidates: ns tokens (B, M, D) see the events behind `kv` and each other."""
        seen, attention = self.around_attention.pre(ns_tokens), self.attention
        if self.ns_qkv is None:
            query, own = attention.query(seen), attention.key_value(seen)
        else:
            width = seen.shape[-1]
            query, own = self.ns_qkv(seen).split([width, 2 * width], dim=-1)
        packed, tokens = requests.pack(query), seen.shape[1]
        mixed = attention.read(packed, kv, tokens=tokens, own=requests.pack(own), causal=self.causal)
        joined = self.around_attention.join(ns_tokens, attention.finish(requests.unpack(mixed)))
        return self.around_ffn(joined, self.ffn if self.ns_ffn is None else self.ns_ffn)


class OneTrans(Model):
    """The whole model."""

    Config = OneTransConfig
    BENCH: ClassVar = {"OneTrans": {"kind": "one_trans", "norm": "rms"}}
    config: OneTransConfig

    def __init__(
        self, manifest: Manifest, config: OneTransConfig, *, dim: int, tasks: TasksConfig | None = None
    ) -> None:
        super().__init__(manifest, config, dim=dim, tasks=tasks)
        self.ns_tokenizer = make_tokenizer(manifest, config, dim=dim)
        self.sequence_tokenizers = SequenceTokenizers(manifest, config, dim=dim, merge=True)
        (longest,) = longest_sequences(manifest, merge=True)
        self.asking = config.asking(longest)
        tokens = self.ns_tokenizer.num_tokens
        self.layers = nn.ModuleList(
            OneTransLayer(config, tokens, events_ask=count != 0) for count in self.asking
        )
        self.head = self.build_head(tokens, config.d_model)

    def forward(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of a batch, given the embeddings of its unique IDs."""
        requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
        ns_tokens = self.ns_tokenizer(batch, rows, requests)
        (events,) = self.sequence_tokenizers(batch, rows)
        for layer, count in self._stack():
            ns_tokens, events = layer(ns_tokens, _asking(events, count), events, requests)
        return self.head(ns_tokens, batch, requests)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """K and V of every layer, once per request; see ctr.models.request_state."""
        features = self.ns_tokenizer.encode(batch, rows)
        (events,) = self.sequence_tokenizers(batch, rows)
        kvs = []
        for layer, count in self._stack():
            kv = layer.project_kv(events)
            kvs.append([kv])
            if (queries := _asking(events, count)) is not None:
                events = layer.encode(queries, kv)
        return RequestState(features, self.head.encode(batch), kvs)

    def score(self, state: RequestState, candidates: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of candidates of encoded requests."""
        requests = RequestMap.build(candidates.request_index, requests=candidates.num_requests)
        ns_tokens = self.ns_tokenizer.score(state.features, candidates, rows, requests)
        for (layer, _), (kv,) in zip(self._stack(), state.kvs, strict=True):
            ns_tokens = layer.read(ns_tokens, kv, requests)
        return self.head(ns_tokens, state.beside(candidates), requests)

    def recomputed(self) -> list[nn.Module]:
        """Its layers."""
        return list(self.layers)

    def why_not_append(self) -> str | None:
        """An event sees itself and earlier ones, so that what was computed for it stays."""
        return None

    def may_grow(self, *, before: int, after: int) -> bool:
        """No event may leave a layer's window that later events of the next layers are computed in."""
        return may_grow(self._windows(), max(before, after))

    def append(self, state: RequestState, batch: Batch, rows: UniqueRows) -> RequestState:
        """K and V of each layer with those of the new events behind."""
        (events,) = self.sequence_tokenizers(batch, rows)
        layers = cast("list[OneTransLayer]", self.layers)
        return replace(state, kvs=grow(layers, state.kvs, events, self._windows()))

    def _windows(self) -> list[int | None]:
        """How many of the newest events each layer reads: those that asked in the layer before."""
        return [None, *self.asking[:-1]]

    def _stack(self) -> Iterator[tuple[OneTransLayer, int | None]]:
        return zip(cast("list[OneTransLayer]", self.layers), self.asking, strict=True)


def _asking(events: Jagged, count: int | None) -> EventQueries | None:
    """The newest `count` events as queries: all if None, no queries if 0."""
    if count is None:
        return causal(events)
    return queries_at(events, events.last_k_index(count)) if count else None
