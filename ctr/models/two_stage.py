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
from ctr.blocks.linear import Linear
from ctr.blocks.mixing import RankMixerBlock
from ctr.blocks.requests import RequestMap
from ctr.config import ModelConfig
from ctr.heads import Head
from ctr.models.encoder import longest_sequences, sequence_encoder
from ctr.models.longer import LongerTower
from ctr.sequence_tokens import SequenceTokenizers
from ctr.tokens import Rows, make_tokenizer
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

    def forward(self, batch: Batch, rows: Rows) -> Tensor:
        """Logits (B,) of a batch, given the embeddings of its unique IDs."""
        requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
        ns_tokens = self.ns_tokenizer(batch, rows, requests)
        tokens = torch.cat([self._compress(batch, rows, ns_tokens, requests), ns_tokens], dim=1)
        for mixer in self.mixers:
            tokens = mixer(tokens)
        return self.head(tokens, batch, requests)

    def _compress(self, batch: Batch, rows: Rows, ns_tokens: Tensor, requests: RequestMap) -> Tensor:
        """(B, c, D): the sequence as the CLS tokens saw it."""
        (events,) = self.sequence_tokenizers(batch, rows)
        events = self.encoder(events) if self.encoder is not None else events
        if self.config.two_stage.global_tokens:
            classes = self.cls.expand(batch.num_rows, -1, -1)
            read = self.tower(torch.cat([classes, self.widen(ns_tokens)], dim=1), events, requests)
            return self.narrow(read[:, : self.cls.shape[0]])
        once = RequestMap.build(
            torch.arange(batch.num_requests, device=self.cls.device), requests=batch.num_requests
        )
        read = self.tower(self.cls.expand(batch.num_requests, -1, -1), events, once)
        return requests.to_rows(self.narrow(read))
