"""HyFormer: query tokens read the sequences and mix with the non-sequence tokens, in every layer.

    F  = tokens of the non-sequence features                      (B, M, D)
    S_s = tokens of the events of sequence s                      packed, once per request
    Q  = generate(F, pools of all S_s)                            (B, N, D)
    for each layer:
        S_s ← encode_s(S_s)                                       once per request
        Q   ← decode(Q, K(S_s), V(S_s))                           each sequence answers its own queries
        [Q, F] ← boost([Q, F])                                    token mixing + per-token FFN + residual
    logit = MLP(top tokens)

Source: HyFormer (arXiv 2601.12681v2), §3.3–3.7. Where the paper leaves room, `ModelConfig` names the choice:
`norm` (pre-norm everywhere by default), `update_ns_tokens` (the boosted NS tokens go on to the next layer),
`head_reads` (all top tokens), and the deviations of its ablations (`pools`, `query_inputs`,
`merge_sequences`).

B candidates, R requests, S sequences, M ns tokens, N query tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues
from ctr.blocks.query import QueryBoosting, QueryDecoding, QueryGeneration
from ctr.blocks.request_map import RequestMap
from ctr.config import ModelConfig
from ctr.models.encoder import longest_sequences, sequence_encoder
from ctr.models.head import Head
from ctr.models.request_state import RequestState
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from features.dataset import Manifest


class HyFormerLayer(nn.Module):
    """Encode the sequences, decode the queries from them, boost queries and NS tokens together (§3.4–3.5)."""

    def __init__(
        self, config: ModelConfig, *, queries: list[int], longest: list[int], ns_tokens: int
    ) -> None:
        super().__init__()
        width, heads = config.d_model, config.heads
        self.encoders = nn.ModuleList(sequence_encoder(config, events) for events in longest)
        self.decoding = QueryDecoding(
            width, heads, queries, norm=config.norm, dropout=config.dropout, sink=config.attention_sink
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


class HyFormer(nn.Module):
    """The whole model.

    Args:
        manifest: features, token groups and domains of the data set.
        config: width, depth and named choices.
        dim: E, width of the embeddings.
    """

    def __init__(self, manifest: Manifest, config: ModelConfig, *, dim: int) -> None:
        super().__init__()
        self.config = config
        self.ns_tokenizer = make_tokenizer(manifest, config, dim=dim)
        self.sequence_tokenizers = SequenceTokenizers(manifest, config, dim=dim, merge=config.merge_sequences)
        names = self.sequence_tokenizers.names
        queries = [config.queries.get(name, config.default_queries) for name in names]
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
        self.head = Head(read, config.d_model, config, manifest)

    def forward(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of a batch, given the embeddings of its unique IDs."""
        requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
        start = ns_tokens = self.ns_tokenizer(batch, rows, requests)
        sequences = self.sequence_tokenizers(batch, rows)
        queries = self.generation(ns_tokens, mean_pools(sequences), requests)
        for layer in self.layers:
            queries, boosted, sequences = layer(queries, ns_tokens, sequences, requests)
            ns_tokens = boosted if self.config.update_ns_tokens else start
        return self.head(self._top(queries, boosted), batch, requests)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """Pools, and K and V of every layer, once per request; see ctr.models.request_state."""
        features = self.ns_tokenizer.encode(batch, rows)
        sequences = self.sequence_tokenizers(batch, rows)
        pools, kvs = mean_pools(sequences), []
        for layer in cast("list[HyFormerLayer]", self.layers):
            sequences, read = layer.encode(sequences)
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

    def _top(self, queries: Tensor, boosted: Tensor) -> Tensor:
        """What the head reads."""
        return queries if self.config.head_reads == "queries" else torch.cat([queries, boosted], dim=1)


def mean_pools(sequences: Sequence[Jagged]) -> Tensor:
    """(R, S, D): the mean event of each sequence."""
    return torch.stack([sequence.mean_pool() for sequence in sequences], dim=1)
