"""Options of tokens: how features and events become vectors of width D. Every model has them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from ctr.options.kinds import OneOf
from ctr.options.knobs import Count, Few, KindSection, Knobs, Positive, Share, Unused

CLASSIFIER = "classifier"


class TokenizerConfig(KindSection):
    """Non-sequence features → M tokens (HyFormer §3.3.1)."""


class SemanticConfig(TokenizerConfig):
    """A token for each group of the data set's spec."""

    kind: Literal["semantic"] = "semantic"
    hidden: Count = 0  # width of a hidden layer per token; 0 = one linear map


class AutoConfig(TokenizerConfig):
    """All features concatenated and cut into tokens."""

    kind: Literal["auto"] = "auto"
    tokens: Few = 4


TOKENIZERS = OneOf({"semantic": SemanticConfig, "auto": AutoConfig}, default="semantic")


class NgramConfig(Knobs):
    """N-gram embedding of the IDs of behaviour events (arXiv 2601.21204; docs/ngram-and-filtering.md)."""

    fields: list[str] = []  # domain.field of one ID per event; empty = no n-grams
    max_order: int = Field(default=3, ge=2, le=8)  # N: n-grams of 2 … N events
    tables_per_order: Few = 2  # K hashes of each order
    rows: Positive = 50_000  # of each sub-table, at least: the next sizes that fit
    dim: Count = 0  # width of a sub-embedding; 0 = the paper's E / ((N − 1) K)

    UNUSED = (
        Unused(
            ("max_order", "tables_per_order", "rows", "dim"),
            by="fields",
            when=lambda fields: not fields,
            because="fields names no field to make n-grams of",
        ),
    )


class TokenFilterConfig(Knobs):
    """Which events a model is not to learn from (arXiv 2601.21571; docs/ngram-and-filtering.md)."""

    mode: Literal["off", "remove", "mask_loss"] = "off"  # mask_loss: in next-event training only
    domains: list[str] = []  # whose events are scored; empty = of all domains
    by: str = CLASSIFIER  # or a dense field of the events, which is then no input of the model
    hidden: Count = 0  # classifier: width of a hidden layer; 0 = linear in the event's token
    threshold: float = 0.5  # events that score more are filtered

    UNUSED = (
        Unused(
            ("domains", "by", "hidden", "threshold"),
            by="mode",
            when=lambda mode: mode == "off",
            because="mode off filters no event",
        ),
        Unused(
            ("hidden",),
            by="by",
            when=lambda by: by != CLASSIFIER,
            because="hidden is a layer of the classifier, but a field scores the events",
        ),
    )


class GatesConfig(Knobs):
    """A learned number in front of each column, which becomes exactly 0 where the column tells too little."""

    l1: float = Field(default=1e-3, gt=0)  # nats a row by which a column must lower the loss, to stay open


class TokensConfig(Knobs):
    """What tokens are made with."""

    d_model: Positive = 64  # D
    norm: Literal["layer", "rms"] = "layer"
    dropout: Share = 0.0  # on tokens and hidden layers, never on attention weights
    feature_dropout: Share = 0.0  # whole embedding vectors of IDs replaced by zeros while training
    tokenizer: Annotated[SerializeAsAny[TokenizerConfig], TOKENIZERS] = SemanticConfig()
    ngram: NgramConfig = NgramConfig()
    token_filter: TokenFilterConfig = TokenFilterConfig()
    column_gates: GatesConfig | None = None  # of features and fields of events (ctr.tokens.gates)
    dense_bins: Count = 0  # piecewise-linear encoding of dense values; 0 = the scaled value alone
    time_gaps: bool = True  # whether events tell how long before the request they happened
    time_buckets: Positive = 32  # log2 buckets of the time gap event → request
    positions: Count = 0  # learnable positions counted from the newest event; 0 = none

    UNUSED: ClassVar[tuple[Unused, ...]] = (
        Unused(
            ("time_buckets",),
            by="time_gaps",
            when=lambda shown: not shown,
            because="time_gaps false shows no gap",
        ),
    )
