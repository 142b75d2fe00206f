"""HyFormer: query tokens read the sequences and mix with the non-sequence tokens, in every layer.

    F  = tokens of the non-sequence features                      (B, M, D)
    S_s = tokens of the events of sequence s                      packed, once per request
    Q  = generate(F, pools of all S_s)                            (B, N, D)
    for each layer:
        S_s ← encode_s(S_s)                                       once per request
        Q   ← decode(Q, K(S_s), V(S_s))                           each sequence answers its own queries
        [Q, F] ← boost([Q, F])                                    token mixing + per-token FFN + residual
    logit = MLP(top tokens)

Source: HyFormer (arXiv 2601.12681v2), §3.3–3.7.

Compliance with the paper (docs/models/hyformer.md says more):

    §3.3.1  tokens by semantic groups or by an automatic split    tests/ctr/tokens/test_features.py
    §3.3.2  Q_i = FFN_i(F, pools of all sequences), layer 1 only  tests/ctr/blocks/test_query.py
    §3.4.1  three encoders of a sequence                          tests/ctr/blocks/test_encoders.py
    §3.4.2  each sequence answers its own queries                 tests/ctr/blocks/test_query.py
    §3.5    token mixing, per-token FFN, residual                 tests/ctr/blocks/test_query.py
    §3.6–7  the stack, several sequences, the MLP                 tests/ctr/models/test_conformance.py

Documented deviations, each with its option:

    norms, which the paper does not print                         norm; pre-norm throughout
    the residual around decoding, which it does not print         decoding_residual
    what a layer l > 1 encodes: read in two ways                  encoder_input
    boosted NS tokens go on to the next layer: not printed        update_ns_tokens
    which tokens the MLP reads                                    head_reads
    queries that may read nothing; initial weights                attention_sink, aligned_start

B candidates, R requests, S sequences, M ns tokens, N query tokens, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues
from ctr.blocks.query import QueryBoosting, QueryDecoding, QueryGeneration
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from ctr.models.encoder import AnyEncoderConfig, LongerEncoderConfig, longest_sequences
from ctr.models.heads.config import TasksConfig
from ctr.models.model import Model
from ctr.models.request_state import RequestState, count_events, joined
from ctr.options.knobs import Few, Unused
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from features.dataset import Manifest
from features.errors import ConfigError

MERGED = "merged"  # the name of the one sequence that merge_sequences makes


class HyFormerConfig(ModelConfig):
    """Its choices, and the deviations that its ablations measure."""

    kind: Literal["hyformer"] = "hyformer"
    encoder: AnyEncoderConfig = LongerEncoderConfig()  # of each sequence at every layer
    # What a layer encodes: what the layer before made of a sequence, or its events anew.
    encoder_input: Literal["previous", "events"] = "previous"
    queries: dict[str, Few] = {}  # query tokens per sequence; others get default_queries
    default_queries: Few = 1
    pools: Literal["all", "own", "none"] = "all"  # what a query sees of the sequences' pools
    query_inputs: Literal["all", "candidate"] = "all"  # … and of the non-sequence tokens
    merge_sequences: bool = False  # the paper's ablation: one merged sequence
    update_ns_tokens: bool = True  # NS tokens carry on boosted to the next layer, or start from F again
    decoding_residual: bool = True  # Q + CrossAttn(Q, K, V); false: what is printed, CrossAttn alone
    attention_sink: bool = False  # queries may also read nothing, so that amounts can be told
    # Which tokens of the top layer the MLP reads; the base has two of the choices.
    head_reads: Literal["all", "queries", "mean"] = "all"  # type: ignore[assignment]

    UNUSED = (
        *ModelConfig.UNUSED,
        Unused(
            ("update_ns_tokens", "encoder_input"),
            by="layers",
            when=lambda layers: layers == 1,
            because="layers 1 has no next layer",
        ),
        Unused(
            ("pools",),
            by="merge_sequences",
            when=bool,
            because="merge_sequences makes one sequence, whose own pool is all there is",
            values=("own",),
        ),
    )

    def check(self, manifest: Manifest) -> None:
        """Refuse queries of a sequence that is not there."""
        known = {MERGED} if self.merge_sequences else set(manifest.domains)
        if unknown := sorted(set(self.queries) - known):
            raise ConfigError(
                f"model.queries must name sequences of the model {sorted(known)}, got {unknown}"
            )

    def without_sequences(self, gone: Collection[str]) -> Self:
        """Without the queries of these."""
        return self.model_copy(update={"queries": {q: n for q, n in self.queries.items() if q not in gone}})

    def tokens_beside_ns(self, sequences: Sequence[str]) -> int:
        """N, the query tokens."""
        return sum(self.queries_of([MERGED] if self.merge_sequences else sequences))

    def queries_of(self, sequences: Sequence[str]) -> list[int]:
        """How many query tokens each sequence has."""
        return [self.queries.get(name, self.default_queries) for name in sequences]


class HyFormerLayer(nn.Module):
    """Encode the sequences, decode the queries from them, boost queries and NS tokens together (§3.4–3.5)."""

    def __init__(
        self, config: HyFormerConfig, *, queries: list[int], longest: list[int], ns_tokens: int
    ) -> None:
        super().__init__()
        width, heads = config.d_model, config.heads
        self.encoders = nn.ModuleList(config.encoder.build(config, events) for events in longest)
        self.decoding = QueryDecoding(
            width,
            heads,
            queries,
            norm=config.norm,
            residual=config.decoding_residual,
            dropout=config.dropout,
            sink=config.attention_sink,
        )
        self.boosting = QueryBoosting(
            sum(queries) + ns_tokens,
            width,
            hidden=int(config.expansion * width),
            norm=config.norm,
            dropout=config.dropout,
        )

    def forward(
        self, queries: Tensor, ns_tokens: Tensor, sequences: list[Jagged], requests: RequestMap
    ) -> tuple[Tensor, Tensor, list[Jagged]]:
        """Queries (B, N, D), NS tokens (B, M, D) and sequences, each one layer further."""
        sequences, kvs = self.encode(sequences)
        return *self.read(queries, ns_tokens, kvs, requests), sequences

    def encode(self, sequences: list[Jagged]) -> tuple[list[Jagged], list[KeyValues]]:
        """The half that knows no candidate: sequences one layer further, and their keys and values."""
        sequences = [encode(s) for encode, s in zip(self.encoders, sequences, strict=True)]
        return sequences, self.decoding.project_kv(sequences)

    def read(
        self, queries: Tensor, ns_tokens: Tensor, kvs: Sequence[KeyValues], requests: RequestMap
    ) -> tuple[Tensor, Tensor]:
        """The half of the candidates: queries (B, N, D) and NS tokens (B, M, D) one layer further."""
        decoded = self.decoding(queries, kvs, requests)
        boosted = self.boosting(torch.cat([decoded, ns_tokens], dim=1))
        queries, ns_tokens = boosted.split([queries.shape[1], ns_tokens.shape[1]], dim=1)
        return queries, ns_tokens


class HyFormer(Model):
    """The whole model."""

    Config = HyFormerConfig
    BENCH: ClassVar = {
        "HyFormer, Transformer": {"encoder.kind": "transformer"},
        "HyFormer, LONGER-style": {"encoder.kind": "longer", "encoder.recent": 50},
        "HyFormer, SwiGLU": {"encoder.kind": "swiglu"},
    }
    config: HyFormerConfig

    def __init__(
        self, manifest: Manifest, config: HyFormerConfig, *, dim: int, tasks: TasksConfig | None = None
    ) -> None:
        super().__init__(manifest, config, dim=dim, tasks=tasks)
        self.ns_tokenizer = make_tokenizer(manifest, config, dim=dim)
        self.sequence_tokenizers = SequenceTokenizers(manifest, config, dim=dim, merge=config.merge_sequences)
        queries = config.queries_of(self.sequence_tokenizers.names)
        tokens = self.ns_tokenizer.num_tokens
        target = self.ns_tokenizer.candidate_tokens()[0] if config.query_inputs == "candidate" else None
        self.generation = QueryGeneration(
            config.d_model,
            tokens,
            queries,
            hidden=int(config.expansion * config.d_model),
            pools=config.pools,
            target=target,
        )
        longest = longest_sequences(manifest, merge=config.merge_sequences)
        self.layers = nn.ModuleList(
            HyFormerLayer(config, queries=queries, longest=longest, ns_tokens=tokens)
            for _ in range(config.layers)
        )
        read = sum(queries) + (0 if config.head_reads == "queries" else tokens)
        self.head = self.build_head(read, config.d_model)

    def forward(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of a batch, given the embeddings of its unique IDs."""
        requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
        start = ns_tokens = self.ns_tokenizer(batch, rows, requests)
        sequences = self.sequence_tokenizers(batch, rows)
        queries = self.generation(ns_tokens, mean_pools(sequences), requests)
        for layer in self.layers:
            queries, boosted, encoded = layer(queries, ns_tokens, sequences, requests)
            sequences = self._next(sequences, encoded)
            ns_tokens = boosted if self.config.update_ns_tokens else start
        return self.head(self._top(queries, boosted), batch, requests)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """Pools, and K and V of every layer, once per request; see ctr.models.request_state."""
        features = self.ns_tokenizer.encode(batch, rows)
        sequences = self.sequence_tokenizers(batch, rows)
        pools, kvs = mean_pools(sequences), []
        for layer in cast("list[HyFormerLayer]", self.layers):
            encoded, read = layer.encode(sequences)
            sequences = self._next(sequences, encoded)
            kvs.append(read)
        return RequestState(features, self.head.encode(batch), kvs, pools)

    def score(self, state: RequestState, candidates: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of candidates of encoded requests."""
        requests = RequestMap.build(candidates.request_index, requests=candidates.num_requests)
        start = ns_tokens = self.ns_tokenizer.score(state.features, candidates, rows, requests)
        queries = self.generation(ns_tokens, state.summary, requests)
        for layer, kvs in zip(cast("list[HyFormerLayer]", self.layers), state.kvs, strict=True):
            queries, boosted = layer.read(queries, ns_tokens, kvs, requests)
            ns_tokens = boosted if self.config.update_ns_tokens else start
        return self.head(self._top(queries, boosted), state.beside(candidates), requests)

    def recomputed(self) -> list[nn.Module]:
        """Its layers."""
        return list(self.layers)

    def why_not_append(self) -> str | None:
        """Each event must stand by itself in every layer; the pools are means, which can grow."""
        kind = self.config.encoder.kind
        if kind == "swiglu":
            return None
        return f"model.encoder.kind is {kind}: its events see later ones or each other; swiglu's do not"

    def append(self, state: RequestState, batch: Batch, rows: UniqueRows) -> RequestState:
        """Pools with the new events, K and V of each layer with theirs behind."""
        sequences = self.sequence_tokenizers(batch, rows)
        assert state.summary is not None
        old = [count_events(kv) for kv in state.kvs[0]]
        pools = [
            (pool * count + tokens.values.sum(dim=0)) / max(1, count + len(tokens.values))
            for pool, count, tokens in zip(state.summary[0], old, sequences, strict=True)
        ]
        kvs = []
        for layer, kept in zip(cast("list[HyFormerLayer]", self.layers), state.kvs, strict=True):
            encoded, new = layer.encode(sequences)
            sequences = self._next(sequences, encoded)
            kvs.append([joined(a, b) for a, b in zip(kept, new, strict=True)])
        return replace(state, kvs=kvs, summary=torch.stack(pools)[None])

    def _next(self, sequences: list[Jagged], encoded: list[Jagged]) -> list[Jagged]:
        """What the next layer encodes."""
        return encoded if self.config.encoder_input == "previous" else sequences

    def _top(self, queries: Tensor, boosted: Tensor) -> Tensor:
        """What the head reads."""
        return queries if self.config.head_reads == "queries" else torch.cat([queries, boosted], dim=1)


def mean_pools(sequences: Sequence[Jagged]) -> Tensor:
    """(R, S, D): the mean event of each sequence."""
    return torch.stack([sequence.mean_pool() for sequence in sequences], dim=1)
