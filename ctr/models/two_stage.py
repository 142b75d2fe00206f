"""Two stages, the papers' base: LONGER compresses the sequence, then RankMixer crosses it with the features.

    C = LONGER(globals, events) read at its CLS tokens            (B, c, D)
    X = [C, F]                                                    T = c + M tokens
    for each mixer layer: X ← RankMixer(X)
    logit = MLP(X)

With `two_stage.global_tokens` the NS tokens are LONGER's global tokens, so the sequence is read in the light
of the candidate; without them the CLS tokens alone are queries, once for all candidates. With `encoder.kind:
library` an encoder of the Transformer library goes over the events first, once per request.

Source: HyFormer (arXiv 2601.12681v2), Table 1 and 2 (LONGER + RankMixer; with and without global tokens).

Compliance with the paper (docs/models/two-stage.md says more):

    LONGER compresses the sequence                                tests/ctr/blocks/test_longer.py
    RankMixer crosses it with the features                        tests/ctr/blocks/test_query.py
    Table 2, with and without global tokens                       tests/ctr/models/test_conformance.py

Documented deviations, each with its option:

    those of LONGER, but no event sees a global token
    how the stages meet, which is not printed: CLS tokens         longer.cls_tokens
    an encoder of the Transformer library in front                encoder

B candidates, M ns tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.linear import Linear
from ctr.blocks.mixing import RankMixerBlock
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from ctr.models.encoder import ENCODERS, LibraryEncoderConfig, LongerEncoderConfig, longest_sequences
from ctr.models.heads.config import TasksConfig
from ctr.models.longer import UNUSED_QUERIES, LongerTower, TowerConfig
from ctr.models.model import Model
from ctr.models.request_state import RequestState
from ctr.options.knobs import DROP_UNUSED, Few, Knobs
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from features.dataset import Manifest


class StagesConfig(Knobs):
    """The second stage, and what the first one knows of the candidate."""

    mixer_layers: Few = 2
    global_tokens: bool = True  # the NS tokens take part in reading the sequence


class TwoStageConfig(ModelConfig):
    """Sequence first (LONGER), then feature interaction (RankMixer)."""

    kind: Literal["two_stage"] = "two_stage"
    longer: TowerConfig = TowerConfig()
    two_stage: StagesConfig = StagesConfig()
    encoder: LibraryEncoderConfig | None = None  # goes over the events before LONGER

    UNUSED = (*ModelConfig.UNUSED, UNUSED_QUERIES)

    @field_validator("encoder", mode="before")
    @classmethod
    def _of_the_library(cls, section: Any, info: ValidationInfo) -> Any:
        """Run directories of before hold the default of HyFormer's encoder, which was not used."""
        if not isinstance(section, dict):
            return section
        encoder = ENCODERS.read(section, context=info.context)
        if isinstance(encoder, LibraryEncoderConfig):
            return encoder
        if encoder == LongerEncoderConfig() or info.context is DROP_UNUSED:
            return None
        raise ValueError(
            f"the only encoder before LONGER is of kind library, got kind {encoder.kind}; delete it"
        )

    def tokens_beside_ns(self, sequences: Sequence[str]) -> int:
        """The compressed sequence."""
        return self.longer.cls_tokens


class TwoStage(Model):
    """The whole model."""

    Config = TwoStageConfig
    BENCH: ClassVar = {
        "two-stage": {"longer.num_queries": 50, "longer.cls_tokens": 8},
    }
    config: TwoStageConfig

    def __init__(
        self, manifest: Manifest, config: TwoStageConfig, *, dim: int, tasks: TasksConfig | None = None
    ) -> None:
        super().__init__(manifest, config, dim=dim, tasks=tasks)
        self.ns_tokenizer = make_tokenizer(manifest, config, dim=dim)
        self.sequence_tokenizers = SequenceTokenizers(manifest, config, dim=dim, merge=True)
        (longest,) = longest_sequences(manifest, merge=True)
        self.encoder = config.encoder.build(config, longest) if config.encoder else None
        self.tower = LongerTower(config, config.longer)
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
        self.head = self.build_head(tokens, config.d_model)

    def forward(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of a batch, given the embeddings of its unique IDs."""
        requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
        ns_tokens = self.ns_tokenizer(batch, rows, requests)
        events = self._events(batch, rows)
        if self.config.two_stage.global_tokens:
            read = self.tower(self._globals(ns_tokens), events, requests, asked=len(self.cls))
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
            kvs = [kv for (kv,) in state.kvs]
            read = self.tower.read(self._globals(ns_tokens), kvs, requests, asked=len(self.cls))
        return self._cross(read, ns_tokens, state.beside(candidates), requests)

    def recomputed(self) -> list[nn.Module]:
        """The layers of both stages."""
        return [*self.tower.layers, *self.mixers]

    def why_not_append(self) -> str | None:
        """As LONGER, where the state holds events."""
        if not self.config.two_stage.global_tokens:
            return "model.two_stage.global_tokens is false: what is kept is the CLS tokens, no event"
        if self.encoder is not None:
            return "model.encoder.kind is library: a body of the library goes over the events first"
        return self.tower.why_not_append()

    def may_grow(self, *, before: int, after: int) -> bool:
        """As LONGER."""
        return self.tower.may_grow(max(before, after))

    def append(self, state: RequestState, batch: Batch, rows: UniqueRows) -> RequestState:
        """As LONGER."""
        return replace(state, kvs=self.tower.append(state.kvs, self._events(batch, rows)))

    def _events(self, batch: Batch, rows: UniqueRows) -> Jagged:
        """What LONGER reads: the events of all domains, encoded if the configuration says so."""
        (events,) = self.sequence_tokenizers(batch, rows)
        return events if self.encoder is None else self.encoder(events)

    def _globals(self, ns_tokens: Tensor) -> Tensor:
        """(B, c + M, W): LONGER's global tokens of each candidate."""
        return torch.cat([self.cls.expand(ns_tokens.shape[0], -1, -1), self.widen(ns_tokens)], dim=1)

    def _cross(self, read: Tensor, ns_tokens: Tensor, batch: Batch, requests: RequestMap) -> Tensor:
        """The second stage: the sequence as the CLS tokens read it, crossed with the features, to logits."""
        compressed = self.narrow(read)
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
