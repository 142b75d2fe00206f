"""Two stages, the papers' base: LONGER compresses the sequence, then RankMixer crosses it with the features.

    C = LONGER(globals, events) read at its CLS tokens            (B, c, D)
    X = [C, F]                                                    T = c + M tokens
    for each mixer layer: X ← RankMixer(X)
    logit = MLP(X)

With `two_stage.global_tokens` the NS tokens are LONGER's global tokens, so the sequence is read in the light
of the candidate; without them the CLS tokens alone ask, once for all candidates. With `encoder.kind: library`
an encoder of the Transformer library goes over the events first, once per request.

Source: HyFormer (arXiv 2601.12681v2), Table 1 and 2 (LONGER + RankMixer; with and without global tokens).

B candidates, M ns tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.linear import Linear
from ctr.blocks.mixing import RankMixerBlock
from ctr.blocks.request_map import RequestMap
from ctr.config import ModelConfig
from ctr.models.encoder import longest_sequences, sequence_encoder
from ctr.models.head import Head
from ctr.models.longer import LongerTower
from ctr.models.request_state import RequestState
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from features.dataset import Manifest


class TwoStage(nn.Module):
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
        self.sequence_tokenizers = SequenceTokenizers(manifest, config, dim=dim, merge=True)
        (longest,) = longest_sequences(manifest, merge=True)
        self.encoder = sequence_encoder(config, longest) if config.encoder.kind == "library" else None
        self.tower = LongerTower(config)
        width, classes = self.tower.width, config.longer.cls_tokens
        widens = config.two_stage.global_tokens and config.longer.merge > 1
        self.widen = Linear(config.d_model, width) if widens else nn.Identity()
        self.narrow = Linear(width, config.d_model) if config.longer.merge > 1 else nn.Identity()
        self.cls = nn.Parameter(torch.randn(classes, width) * 0.02)
        tokens = classes + self.ns_tokenizer.num_tokens
        hidden = int(config.expansion * config.d_model)
        self.mixers = nn.ModuleList(
            RankMixerBlock(tokens, config.d_model, hidden=hidden, norm=config.norm, dropout=config.dropout)
            for _ in range(config.two_stage.mixer_layers)
        )
        self.head = Head(tokens, config.d_model, config, manifest)

    def forward(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of a batch, given the embeddings of its unique IDs."""
        requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
        ns_tokens = self.ns_tokenizer(batch, rows, requests)
        events = self._events(batch, rows)
        if self.config.two_stage.global_tokens:
            read = self.tower(self._globals(ns_tokens), events, requests)
        else:
            once = _one_row_each(batch)
            read = self.tower(self.cls.expand(batch.num_requests, -1, -1), events, once)
        return self._cross(read, ns_tokens, batch, requests)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """K and V of every layer or, without global tokens, what the CLS tokens read, once per request."""
        features, dense = self.ns_tokenizer.encode(batch, rows), self.head.encode(batch)
        kvs = self.tower.encode(self._events(batch, rows))
        if self.config.two_stage.global_tokens:
            return RequestState(features, dense, [[kv] for kv in kvs])
        read = self.tower.read(self.cls.expand(batch.num_requests, -1, -1), kvs, _one_row_each(batch))
        return RequestState(features, dense, [], read)

    def score(self, state: RequestState, candidates: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of candidates of encoded requests."""
        requests = RequestMap.build(candidates.request_index, requests=candidates.num_requests)
        ns_tokens = self.ns_tokenizer.score(state.features, candidates, rows, requests)
        read = state.summary
        if read is None:
            read = self.tower.read(self._globals(ns_tokens), [m for (m,) in state.kvs], requests)
        return self._cross(read, ns_tokens, state.beside(candidates), requests)

    def _events(self, batch: Batch, rows: UniqueRows) -> Jagged:
        """What LONGER reads: the events of all domains, encoded if the configuration says so."""
        (events,) = self.sequence_tokenizers(batch, rows)
        return events if self.encoder is None else self.encoder(events)

    def _globals(self, ns_tokens: Tensor) -> Tensor:
        """(B, c + M, W): LONGER's global tokens of each candidate."""
        return torch.cat([self.cls.expand(len(ns_tokens), -1, -1), self.widen(ns_tokens)], dim=1)

    def _cross(self, read: Tensor, ns_tokens: Tensor, batch: Batch, requests: RequestMap) -> Tensor:
        """The second stage: the sequence as the CLS tokens read it, crossed with the features, to logits."""
        compressed = self.narrow(read[:, : self.cls.shape[0]])
        if not self.config.two_stage.global_tokens:
            compressed = requests.to_rows(compressed)
        tokens = torch.cat([compressed, ns_tokens], dim=1)
        for mixer in self.mixers:
            tokens = mixer(tokens)
        return self.head(tokens, batch, requests)


def _one_row_each(batch: Batch) -> RequestMap:
    """Of questions that each request asks once, whatever its candidates."""
    each = torch.arange(batch.num_requests, device=batch.request_id.device)
    return RequestMap.build(each, requests=batch.num_requests)
