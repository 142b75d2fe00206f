"""A two-stage model as one choice on each of two axes: how a sequence is read, and how tokens are crossed.

    F = ns tokens                                    (B, M, D)
    q = norm(W [candidate tokens of F] + b)          (B, D), what a candidate asks
    U_s = sequence_s(E_s, q)                         (B, n, D), each domain with a side of its own
    X = interaction([U_1 … U_S, F])                  T = S n + M tokens
    logit = MLP(norm(X))

So DIN is `sequence: {kind: din}` with `interaction: {kind: mlp}`, and a cell of HyFormer's Table 1 is
`sequence: {kind: longer}` with `interaction: {kind: wukong}`. The files in ctr.models.sequence and
ctr.models.interaction say what each choice computes, and what of it the candidates of a request share.

Source: the papers named there. HyFormer (arXiv 2601.12681v2), Table 1 and LONGER (arXiv 2505.04421) compare
such models.

Compliance with the paper (docs/models/grid.md says more):

    each sequence side, row by row, with every gradient           tests/ctr/models/test_conformance.py
    each interaction, row by row, with every gradient             tests/ctr/models/test_conformance.py
    both halves: a request encoded once for all candidates        tests/ctr/serving/test_halves.py

Documented deviations, each with its option or its reason:

    what a candidate asks is a map of its tokens                  events and candidates need not share fields
    times and places are part of the events' tokens               time_gaps, positions
    each token of X is normed, which takes away how large a
    sum of DIN or of sum pooling is, unless layers come between   head_norm: all
    further ones stand in each choice's file

B candidates, R requests, M ns tokens, n tokens of a sequence, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import SerializeAsAny
from torch import Tensor, nn

from ctr.batch import Batch, IdColumn
from ctr.blocks.layers import build_norm
from ctr.blocks.linear import Linear
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from ctr.models.head import NormOf
from ctr.models.heads.config import TasksConfig
from ctr.models.interaction.crossing import InteractionConfig, TokenSizes
from ctr.models.interaction.interactions import INTERACTIONS
from ctr.models.interaction.mlp import MlpConfig
from ctr.models.model import Model
from ctr.models.request_state import RequestState
from ctr.models.sequence.din import DinConfig
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.models.sequence.sides import SIDES
from ctr.options.knobs import Unused
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from ctr.tokens.shared import SharedRows
from features.dataset import Column, Manifest
from features.errors import ConfigError


class GridConfig(ModelConfig):
    """A choice on each axis."""

    kind: Literal["grid"] = "grid"
    sequence: Annotated[SerializeAsAny[SideConfig], SIDES] = DinConfig()
    interaction: Annotated[SerializeAsAny[InteractionConfig], INTERACTIONS] = MlpConfig()
    head_norm: NormOf = "token"  # of each token for itself, or of all side by side: sums keep their size

    UNUSED = (
        *ModelConfig.UNUSED,
        Unused(
            ("layers",),
            by="kind",
            when=lambda kind: kind == "grid",
            because="kind grid has no layers of its own (sequence.layers and interaction.layers are)",
        ),
        Unused(
            ("head_norm",),
            by="head_reads",
            when=lambda reads: reads == "mean",
            because="a mean is of tokens that are normed each for itself",
        ),
    )

    def check(self, manifest: Manifest) -> None:
        """Refuse to read sequences that there are not, or by what they and candidates do not share."""
        if not manifest.domains and self.sequence != DinConfig():
            raise ConfigError(
                f"model.sequence is of behaviour domains, and the data set {manifest.name!r} has none; leave "
                "model.sequence out"
            )
        if (field := self.sequence.field) is not None:
            for domain in manifest.domains:
                compared_columns(manifest, domain, field)
        if self.sequence.hashes:
            for domain in manifest.domains:
                SharedRows.of(manifest, domain)

    def tokens_beside_ns(self, sequences: Sequence[str]) -> int | None:
        """Those of the sequences, for an interaction that mixes."""
        return self.sequence.tokens() * len(sequences) if self.interaction.mixes else None


class Grid(Model):
    """The whole model."""

    Config = GridConfig
    BENCH: ClassVar = {
        "DIN": {"sequence.kind": "din", "interaction.kind": "mlp"},
        "target attention, DCNv2": {"sequence.kind": "target_attention", "interaction.kind": "dcn"},
    }
    config: GridConfig

    def __init__(
        self, manifest: Manifest, config: GridConfig, *, dim: int, tasks: TasksConfig | None = None
    ) -> None:
        super().__init__(manifest, config, dim=dim, tasks=tasks)
        width = config.d_model
        self.ns_tokenizer = make_tokenizer(manifest, config, dim=dim)
        self.sequence_tokenizers = SequenceTokenizers(
            manifest, config, dim=dim, merge=False, may_be_none=True
        )
        ns_tokens = self.ns_tokenizer.num_tokens
        self.asking = self.ns_tokenizer.candidate_tokens()
        self.ask = Linear(len(self.asking) * width, width)
        self.ask_norm = build_norm(config.norm, width)
        hashes = config.sequence.hashes
        self.shared = [SharedRows.of(manifest, domain) if hashes else None for domain in manifest.domains]
        self.sides = nn.ModuleList(
            config.sequence.build(
                SideSizes(
                    width,
                    config.heads,
                    config.expansion,
                    config.norm,
                    config.dropout,
                    info.max_len,
                    ns_tokens,
                    0 if shared is None else shared.width(dim),
                )
            )
            for info, shared in zip(manifest.domains.values(), self.shared, strict=True)
        )
        self.compared = [self._compared(manifest, domain) for domain in manifest.domains]
        tokens = config.sequence.tokens() * len(self.sides) + ns_tokens
        self.interaction = config.interaction.build(
            TokenSizes(tokens, width, config.heads, config.expansion, config.norm, config.dropout)
        )
        crossed = self.interaction
        self.head = self.build_head(crossed.out_tokens, crossed.out_width, norm_of=config.head_norm)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """What each sequence's side keeps of a request."""
        contents: Sequence[Tensor | None] = [None] * len(self.sides)
        if self.training and self.config.sequence.contents:
            tokens, contents = self.sequence_tokenizers.with_contents(batch, rows)
        else:
            tokens = self.sequence_tokenizers(batch, rows)
        read = [None if own is None else own.of_events(batch, rows) for own in self.shared]
        names = self.sequence_tokenizers.domains
        domains = zip(names, tokens, self.compared, contents, read, strict=True)
        events = [
            SideEvents(packed, self._gaps(batch, domain), _event_ids(batch, domain, column), content, shared)
            for domain, packed, column, content, shared in domains
        ]
        states = [side.encode(e) for side, e in zip(self._sides(), events, strict=True)]
        return RequestState(self.ns_tokenizer.encode(batch, rows), self.head.encode(batch), sides=states)

    def score(self, state: RequestState, candidates: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,) of candidates of encoded requests."""
        requests = RequestMap.build(candidates.request_index, requests=candidates.num_requests)
        ns_tokens = self.ns_tokenizer.score(state.features, candidates, rows, requests)
        asked = self.questions(ns_tokens, candidates, rows, requests)
        read = [
            side.read(kept, own) for side, kept, own in zip(self._sides(), state.sides, asked, strict=True)
        ]
        if self.training:
            self.extra_loss = self._extra_loss(state.sides, candidates, requests)
        tokens = self.interaction(torch.cat([*read, ns_tokens], dim=1))
        return self.head(tokens, state.beside(candidates), requests)

    def questions(
        self, ns_tokens: Tensor, candidates: Batch, rows: UniqueRows, requests: RequestMap
    ) -> list[Candidates]:
        """What candidates with these ns tokens (B, M, D) ask of the side of each domain."""
        query = self.ask_norm(self.ask(ns_tokens[:, self.asking].flatten(1)))
        ids = [_candidate_ids(candidates, column) for column in self.compared]
        hashed = [None if own is None else own.of_candidates(candidates, rows) for own in self.shared]
        return [
            Candidates(query, ns_tokens, own, requests, shared)
            for own, shared in zip(ids, hashed, strict=True)
        ]

    def recomputed(self) -> list[nn.Module]:
        """The interaction; what a side computes in two halves is kept."""
        return [self.interaction]

    def _extra_loss(self, states: Sequence[SideState], batch: Batch, requests: RequestMap) -> Tensor | None:
        """(B,): the sides' own losses of each candidate, the mean over domains; None where they have none."""
        parts = [requests.to_rows(state.loss) for state in states if state.loss is not None]
        offset = 0.0 if batch.offset is None else batch.offset  # as of the main loss
        parts += [
            side.own_weight
            * F.binary_cross_entropy_with_logits(logits.float() + offset, batch.label, reduction="none")
            for side in self._sides()
            if (logits := side.own_logits) is not None
        ]
        return torch.stack(parts).mean(dim=0) if parts else None

    def _gaps(self, batch: Batch, domain: str) -> Tensor:
        """(ΣL,) seconds from each event to the request; 0 without time gaps, for every side."""
        gaps = batch.sequences[domain].time_gap
        return gaps if self.config.time_gaps else torch.zeros_like(gaps)

    def _sides(self) -> list[SequenceSide]:
        return cast("list[SequenceSide]", list(self.sides))

    def _compared(self, manifest: Manifest, domain: str) -> tuple[Column, Column] | None:
        """The columns of events and candidates that a search by field compares."""
        field = self.config.sequence.field
        return None if field is None else compared_columns(manifest, domain, field)


def compared_columns(manifest: Manifest, domain: str, field: str) -> tuple[Column, Column]:
    """The field of a domain's events, and the candidates' feature of the same table.

    Raises:
        ConfigError: there is no such field of one ID, or no such feature.
    """
    single = {c.name: c for c in manifest.domains[domain].side if c.kind == "id"}
    if field not in single:
        raise ConfigError(
            f"model.sequence.compare must name a field of one ID of the events of {domain!r} "
            f"{sorted(single)}, got {field!r}"
        )
    own = single[field]
    found = [
        c for c in manifest.features if c.kind == "id" and c.level == "candidate" and c.table == own.table
    ]
    if not found:
        raise ConfigError(
            f"model.sequence.compare: no feature of candidates has one ID of table {own.table!r}, as the "
            f"field {field!r} of the events of {domain!r} has; search by another field or by another score"
        )
    return own, found[0]


def _event_ids(batch: Batch, domain: str, columns: tuple[Column, Column] | None) -> Tensor | None:
    """(ΣL,) rows of the field's table."""
    return None if columns is None else _table_rows(batch, columns[0], batch.sequences[domain].ids)


def _candidate_ids(batch: Batch, columns: tuple[Column, Column] | None) -> Tensor | None:
    """(B,) rows of the same table."""
    return None if columns is None else _table_rows(batch, columns[1], batch.candidate_ids)


def _table_rows(batch: Batch, column: Column, ids: dict[str, IdColumn]) -> Tensor:
    return batch.unique_ids[str(column.table)][ids[column.name].inverse_indices]
