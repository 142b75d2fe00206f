"""Events to sequence tokens: one sequence per behaviour domain, or all merged in the order of time.

R requests, S domains, L events of one request, U unique IDs of a table, E embedding width, D width.

A linear map of a concatenation is a sum of linear maps, and a linear map commutes with a gather: side
information is mapped once per unique ID (HyFormer §3.8.1), then gathered and summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ctr.batch import Batch, SequenceBatch
from ctr.blocks.jagged import Jagged
from ctr.blocks.layers import build_norm
from ctr.blocks.linear import Linear, join_mapped
from ctr.blocks.padded import MergedSlots, Padded, PaddedEvents, layout_of
from ctr.tokens.config import TokensConfig
from ctr.tokens.features import UniqueRows, look_up
from ctr.tokens.filter import TokenFilters, input_domains
from ctr.tokens.gates import ColumnGates
from ctr.tokens.ngram import NgramField, ngram_fields
from ctr.tokens.ngram_embedding import NgramEmbedding
from features.dataset import DomainInfo, Manifest
from features.errors import ConfigError
from kernels.plain import exporting
from kernels.unique_pooling import gather_sum_joined


class SequenceTokenizer(nn.Module):
    """Events of one domain → sequence tokens: norm(Σ_j W_j e_j + W_t log(1 + gap) + T[bucket(gap)] + P[age]).

    e_j: embedding of side information j (item, category, outcome, …); gap: seconds from the event to the
    request, so the absolute time difference of LONGER §2 as a log2 bucket and as a number; P: a learnable
    position counted from the newest event (age 0), the oldest ones sharing the last row. In a merged
    sequence the newest event of all domains has age 0, and each domain has its own P.

    Differs from the paper: it concatenates the time difference; a linear map of a concatenation is this sum.
    """

    def __init__(
        self,
        info: DomainInfo,
        config: TokensConfig,
        *,
        dim: int,
        ngrams: Sequence[NgramField] = (),
        domain: str = "",
    ) -> None:
        super().__init__()
        width = config.d_model
        self.side = [c for c in info.side if c.kind != "dense"]
        self.numbers = [c for c in info.side if c.kind == "dense"]
        self.maps = nn.ModuleList(Linear(dim, width, bias=False) for _ in self.side)
        self.of_numbers = Linear(1 + sum(c.dim for c in self.numbers), width)
        self.time_gaps = config.time_gaps
        self.gap_bucket = nn.Embedding(config.time_buckets, width)
        self.position = nn.Embedding(config.positions, width) if config.positions else None
        self.norm = build_norm(config.norm, width)
        self.dropout = nn.Dropout(config.dropout)
        for table in (self.gap_bucket, self.position):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        names = [c.name for c in (*self.side, *self.numbers)]
        gated = config.column_gates is not None and bool(names)
        self.gates = ColumnGates([f"{domain}.{name}" for name in names]) if gated else None
        self.gate_of = {name: place for place, name in enumerate(names)}
        self.ngrams = nn.ModuleList(NgramEmbedding(field, dim=dim) for field in ngrams)
        self.ngram_fields = list(ngrams)
        self.ngram_index = {field.column.name: i for i, field in enumerate(ngrams)}

    def forward(self, events: SequenceBatch, rows: UniqueRows, ages: Tensor | None = None) -> Jagged:
        """Tokens (ΣL, D), the oldest event first; `ages` (ΣL,) int64 where these are part of a sequence."""
        seconds = events.time_gap if self.time_gaps else torch.zeros_like(events.time_gap)
        numbers = [0.1 * torch.log1p(seconds)[:, None], *self._dense(events)]
        layout = layout_of(events, events.time_gap)
        places = [(self.gap_bucket.weight, self._bucket(seconds))]
        if self.position is not None:
            own = layout.ages() if ages is None else ages
            places.append((self.position.weight, own.clamp(max=len(self.position.weight) - 1)))
        token = self._add_fields(self.of_numbers(torch.cat(numbers, dim=-1)), events, rows, places)
        return layout.with_values(self.dropout(self.norm(token)))

    def contents(self, events: SequenceBatch, rows: UniqueRows) -> Tensor:
        """(ΣL, D): norm(Σ_j W_j e_j + b), what happened, and nothing of when or at which place.

        For a loss that predicts an event: these are targets, so that no dropout reaches them, and an n-gram
        field counts with the event's own ID alone, since the others are those of the events before it.
        """
        numbers = [torch.zeros_like(events.time_gap)[:, None], *self._dense(events)]
        content: Tensor = self.norm(
            self._add_fields(self.of_numbers(torch.cat(numbers, dim=-1)), events, rows, own_ids=True)
        )
        return content

    def _add_fields(
        self,
        token: Tensor,
        events: SequenceBatch,
        rows: UniqueRows,
        places: Sequence[tuple[Tensor, Tensor]] = (),
        *,
        own_ids: bool = False,
    ) -> Tensor:
        """(ΣL, D): `token`, plus a row of each table of `places`, plus the mapped fields of the events."""
        mapped: list[tuple[Tensor, nn.Module, Tensor]] = []
        for column, linear in zip(self.side, self.maps, strict=True):
            vectors, ids = rows[str(column.table)], events.ids[column.name]
            if column.name in self.ngram_index:
                token = token + linear(
                    self._gated(column.name, self._ngram(column.name, events, rows, own_ids))
                )
            elif isinstance(events, PaddedEvents) or len(vectors) > len(events.time_gap):  # rows than events
                token = token + linear(self._gated(column.name, look_up(vectors, ids)))
            elif ids.offsets is not None:
                token = token + look_up(linear(self._gated(column.name, vectors)), ids)
            else:
                mapped.append((self._gated(column.name, vectors), linear, ids.inverse_indices))
        if not (places or mapped):
            return token
        tables, indices = zip(*places, strict=True) if places else ((), ())
        vectors_, maps, more = zip(*mapped, strict=True) if mapped else ((), (), ())
        joined, sizes = join_mapped(tables, vectors_, maps)
        return token + gather_sum_joined(joined, sizes, [*indices, *more])

    def _ngram(self, field: str, events: SequenceBatch, rows: UniqueRows, own_ids: bool) -> Tensor:
        """(ΣL, E): the vector of a field with n-grams, or the share of the event's own ID in it."""
        embedding = cast("NgramEmbedding", self.ngrams[self.ngram_index[field]])
        if not own_ids:
            return embedding(events, rows)
        return look_up(rows[str(embedding.field.column.table)], events.ids[field]) / self.parts_averaged(
            field
        )

    def _gated(self, field: str, values: Tensor) -> Tensor:
        """The values of a field times its gate, if it has one."""
        return values if self.gates is None else self.gates.values()[self.gate_of[field]] * values

    def _dense(self, events: SequenceBatch) -> list[Tensor]:
        return [self._gated(c.name, events.dense[c.name]) for c in self.numbers]

    def parts_averaged(self, name: str) -> int:
        """The number of embeddings whose mean is a field's vector: 1, except for fields with n-grams."""
        return 1 + sum(len(field.tables) for field in self.ngram_fields if field.column.name == name)

    def _bucket(self, gap: Tensor) -> Tensor:
        """⌊log2(1 + gap)⌋, the last bucket for all longer gaps; exact on every device, unlike a log."""
        if exporting():  # the powers of two that 1 + gap reaches: ONNX has no frexp
            powers = 2.0 ** torch.arange(1, self.gap_bucket.num_embeddings, device=gap.device)
            return (1 + gap[:, None] >= powers).sum(dim=1)
        power = torch.frexp(1 + gap).exponent - 1
        return power.long().clamp(max=self.gap_bucket.num_embeddings - 1)


class MergedOrder:
    """All sequences of a request as one, in the order of the data set's clock; ties in the domains' order.

    The clock is in whole ticks of the data set. Seconds in float32 are not enough: from 194 days on they are
    two seconds apart, and a clock may be finer than a second.

    Args:
        sequences: S sequences whose values (ΣL_s,) int64 are their clock gaps; the largest is the oldest.
    """

    def __init__(self, sequences: Sequence[Jagged]) -> None:
        segment = torch.cat([s.segment_ids() for s in sequences])
        rows = torch.cat([s.values for s in sequences]).argsort(descending=True, stable=True)
        rows = rows[segment[rows].argsort(stable=True)]
        lengths = torch.stack([s.lengths for s in sequences]).sum(dim=0)
        self.sizes = [len(s.values) for s in sequences]
        # Rows of the sequences put one behind the other.
        self.rows = Jagged.from_lengths(rows, lengths, max_length=sum(s.max_length for s in sequences))

    def merge(self, sequences: Sequence[Jagged]) -> Jagged:
        """Sequences with values (ΣL_s, D) as one."""
        every = torch.cat([s.values for s in sequences])
        return self.rows.with_values(every.index_select(0, self.rows.values))

    def ages(self) -> list[Tensor]:
        """(ΣL_s,) int64 of each sequence: the age of its events among those of all, 0 is the newest."""
        every = torch.empty_like(self.rows.values).index_copy(0, self.rows.values, self.rows.ages())
        return list(every.split(self.sizes))


def merged_order(sequences: Sequence[Jagged]) -> MergedOrder | MergedSlots:
    """The order of sequences whose values are clock gaps, for their layout."""
    padded = [s for s in sequences if isinstance(s, Padded)]
    return MergedSlots(padded) if padded else MergedOrder(sequences)


class SequenceTokenizers(nn.Module):
    """The tokenizers of all domains; with `merge`, one sequence in time order, each event tagged by domain.

    Args:
        manifest: the domains.
        config: see `SequenceTokenizer`.
        dim: E.
        merge: whether `forward` gives one sequence instead of one per domain.
        may_be_none: whether the model also works without any sequence.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: TokensConfig,
        *,
        dim: int,
        merge: bool,
        may_be_none: bool = False,
    ) -> None:
        super().__init__()
        if not (manifest.domains or may_be_none):
            raise ConfigError(
                f"the model needs at least one behaviour domain, the data set {manifest.name!r} has none; "
                "add one to its spec, or choose kind grid, which crosses the features alone"
            )
        self.domains = list(manifest.domains)
        untimed = [name for name, info in manifest.domains.items() if not info.timed]
        if merge and untimed and len(self.domains) > 1:
            raise ConfigError(
                f"merged sequences are ordered by time, but events of domains {untimed} have none; choose a "
                "model with a sequence of its own per domain, or drop other domains by drop"
            )
        self.merge, self.positions = merge, config.positions
        self.names = ["merged"] if merge else self.domains
        ngrams = ngram_fields(manifest, config.ngram, dim=dim)
        self.tokenizers = nn.ModuleList(
            SequenceTokenizer(
                info, config, dim=dim, ngrams=[n for n in ngrams if n.domain == domain], domain=domain
            )
            for domain, info in input_domains(manifest, config.token_filter).items()
        )
        self.filters = TokenFilters(manifest, config)
        tagged = merge and len(self.domains) > 1
        self.tag = nn.Parameter(torch.randn(len(self.domains), config.d_model) * 0.02) if tagged else None

    def forward(self, batch: Batch, rows: UniqueRows) -> list[Jagged]:
        """One sequence of tokens (ΣL, D) per name in `names`, the oldest event first."""
        events = [batch.sequences[name] for name in self.domains]
        if self.tag is None:
            return self._tokens(events, rows, [None] * len(events))
        order = merged_order([layout_of(e, e.clock_gap) for e in events])
        tokens = self._tokens(events, rows, order.ages() if self.positions else [None] * len(events))
        return [order.merge([t.with_values(t.values + tag) for t, tag in zip(tokens, self.tag, strict=True)])]

    def with_contents(self, batch: Batch, rows: UniqueRows) -> tuple[list[Jagged], list[Tensor]]:
        """`forward` of sequences that are not merged, and their `SequenceTokenizer.contents`, (ΣL, D) each.

        Where a token is hidden by a filter, so is its content.
        """
        assert not self.merge
        events = [batch.sequences[name] for name in self.domains]
        tokenizers = cast("list[SequenceTokenizer]", list(self.tokenizers))
        tokens = [tokenize(own, rows) for tokenize, own in zip(tokenizers, events, strict=True)]
        contents = [
            layout.with_values(tokenize.contents(own, rows))
            for tokenize, own, layout in zip(tokenizers, events, tokens, strict=True)
        ]
        hidden = self.filters(tokens, events, contents)
        return self.filters(tokens, events), [each.values for each in hidden]

    def seconds(self, batch: Batch) -> Jagged:
        """(ΣL,) seconds from each event of the merged sequence to the request; 0 without time gaps."""
        events = [batch.sequences[name] for name in self.domains]
        gaps = [
            layout_of(e, e.time_gap if t.time_gaps else torch.zeros_like(e.time_gap))
            for e, t in zip(events, cast("list[SequenceTokenizer]", list(self.tokenizers)), strict=True)
        ]
        if self.tag is None:
            (only,) = gaps
            return only
        return merged_order([layout_of(e, e.clock_gap) for e in events]).merge(gaps)

    def _tokens(
        self, events: Sequence[SequenceBatch], rows: UniqueRows, ages: Sequence[Tensor | None]
    ) -> list[Jagged]:
        """The tokens of each domain; see `SequenceTokenizer.forward`."""
        parts = zip(self.tokenizers, events, ages, strict=True)
        return self.filters([tokenize(own, rows, age) for tokenize, own, age in parts], events)
