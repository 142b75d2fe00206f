"""Non-sequence features to tokens, by semantic groups or by an automatic split.

B candidates, R requests, M non-sequence tokens, U unique IDs of a table, E embedding width, D width.

A linear map of concatenated parts is a sum of linear maps, W [a; b] = W_a a + W_b b: the request's part is
mapped once per request and added to the candidates' parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.batch import Batch, IdColumn
from ctr.blocks.linear import Linear
from ctr.blocks.request_map import RequestMap
from ctr.tokens.config import AutoConfig, SemanticConfig, TokensConfig
from ctr.tokens.gates import ColumnGates
from features.dataset import Column, Manifest
from kernels.unique_pooling import gather_bags

UniqueRows = dict[str, Tensor]  # table → its rows for the batch's unique IDs, (U, E)


def look_up(rows: Tensor, column: IdColumn) -> Tensor:
    """(bags, E): the embedding of each bag's ID, or the (weighted) mean of its list; zeros if empty."""
    return gather_bags(rows, column.inverse_indices, offsets=column.offsets, weights=column.weights)


class FeatureVectors(nn.Module):
    """The concatenated vectors of features of one level: embeddings of IDs, and dense values.

    Args:
        columns: features of one level (request or candidate).
        dim: E.
        dropout: probability in [0, 1) that the whole embedding of an ID feature becomes 0 in training.
        bins: pieces of the piecewise-linear encoding of dense values; 0 takes them as they are.
        gated: whether each column has a gate.
    """

    def __init__(
        self, columns: Sequence[Column], *, dim: int, dropout: float, bins: int = 0, gated: bool = False
    ) -> None:
        super().__init__()
        self.columns = list(columns)
        self.gates = ColumnGates([c.name for c in columns]) if gated and columns else None
        self.dropout = dropout
        self.bins = bins
        self.dim = dim
        self.width = sum(self.widths())

    def widths(self) -> list[int]:
        """The width of each column's vector."""
        return [self.dim if c.kind != "dense" else c.dim * (self.bins + 1) for c in self.columns]

    def forward(self, ids: dict[str, IdColumn], dense: dict[str, Tensor], rows: UniqueRows) -> Tensor:
        """(R, width) or (B, width)."""
        parts = [
            piecewise(dense[c.name], self.bins)
            if c.kind == "dense"
            else self._embed(ids[c.name], rows[str(c.table)])
            for c in self.columns
        ]
        if self.gates is not None:
            parts = [gate * part for gate, part in zip(self.gates.values(), parts, strict=True)]
        return torch.cat(parts, dim=-1)

    def _embed(self, column: IdColumn, rows: Tensor) -> Tensor:
        vectors = look_up(rows, column)
        if self.training and self.dropout > 0:
            keep = torch.rand(vectors.shape[0], 1, device=vectors.device) >= self.dropout
            vectors = vectors * keep / (1 - self.dropout)
        return vectors


def piecewise(values: Tensor, bins: int) -> Tensor:
    """Each scaled value x and its position in each of K pieces of [−2, 2], clamp((x − t_k) K / 4, 0, 1).

    A linear map of this encoding is a continuous piecewise-linear function of the value.

    Source: Gorishniy et al. (arXiv 2203.05556), piecewise linear encoding.
    Differs from the paper: its knots are quantiles; here knots are even, and the data set may scale values to
    quantiles.

    Args:
        values: (rows, dim) scaled values.
        bins: K; 0 gives the values alone.

    Returns:
        (rows, dim · (K + 1)).

    Example:
        >>> piecewise(torch.tensor([[0.5]]), 4)
        tensor([[0.5000, 1.0000, 1.0000, 0.5000, 0.0000]])
    """
    if not bins:
        return values
    knots = torch.linspace(-2.0, 2.0, bins + 1, device=values.device, dtype=values.dtype)[:-1]
    pieces = ((values[..., None] - knots) * (bins / 4.0)).clamp(0.0, 1.0)
    return torch.cat([values[..., None], pieces], dim=-1).flatten(1)


class TwoLevelVectors(nn.Module):
    """Features of both levels: the request's vectors (R, …) and the candidates' vectors (B, …)."""

    def __init__(self, columns: Sequence[Column], config: TokensConfig, *, dim: int) -> None:
        super().__init__()
        make = partial(
            FeatureVectors,
            dim=dim,
            dropout=config.feature_dropout,
            bins=config.dense_bins,
            gated=config.column_gates is not None,
        )
        self.request = make([c for c in columns if c.level == "request"])
        self.candidate = make([c for c in columns if c.level == "candidate"])

    def of_requests(self, batch: Batch, rows: UniqueRows) -> Tensor | None:
        """The request's vectors; None where there is no feature of the level."""
        return self.request(batch.request_ids, batch.request_dense, rows) if self.request.width else None

    def of_candidates(self, batch: Batch, rows: UniqueRows) -> Tensor | None:
        """The candidates' vectors; None where there is no feature of the level."""
        if not self.candidate.width:
            return None
        vectors: Tensor = self.candidate(batch.candidate_ids, batch.candidate_dense, rows)
        return vectors


class GroupToken(nn.Module):
    """One semantic group of features → one token: W [x_1; …; x_n] + b.

    With a hidden layer it is W_2 GELU(W_1 [x_1; …; x_n] + b_1) + b_2.

    The token of a group that has request-level features alone is computed once per request.
    """

    def __init__(self, columns: Sequence[Column], config: TokensConfig, *, dim: int, hidden: int = 0) -> None:
        super().__init__()
        self.vectors = TwoLevelVectors(columns, config, dim=dim)
        first = hidden or config.d_model
        self.of_request = Linear(self.vectors.request.width, first) if self.vectors.request.width else None
        self.of_candidate = (
            Linear(self.vectors.candidate.width, first, bias=self.of_request is None)
            if self.vectors.candidate.width
            else None
        )
        self.out = Linear(first, config.d_model) if hidden else None

    def forward(self, batch: Batch, rows: UniqueRows, requests: RequestMap) -> Tensor:
        """(B, D)."""
        return self.score(self.encode(batch, rows), batch, rows, requests)

    def encode(self, batch: Batch, rows: UniqueRows) -> Tensor | None:
        """The request's part (R, ·): the whole token if it is all; None without request features."""
        if self.of_request is None:
            return None
        token: Tensor = self.of_request(self.vectors.of_requests(batch, rows))
        return self._finish(token) if self.of_candidate is None else token

    def score(self, part: Tensor | None, batch: Batch, rows: UniqueRows, requests: RequestMap) -> Tensor:
        """(B, D), given the request's part."""
        if self.of_candidate is None:
            assert part is not None
            return requests.to_rows(part)
        mapped = self.of_candidate(self.vectors.of_candidates(batch, rows))
        return self._finish(mapped if part is None else mapped + requests.to_rows(part))

    def _finish(self, token: Tensor) -> Tensor:
        return token if self.out is None else self.out(F.gelu(token))


class SemanticTokenizer(nn.Module):
    """One token per semantic group of the data set's spec.

    Source: HyFormer §3.3.1 (semantic grouping).
    """

    def __init__(self, manifest: Manifest, config: TokensConfig, *, dim: int, hidden: int = 0) -> None:
        super().__init__()
        self.names = list(manifest.tokens)
        groups = [[manifest.column(name) for name in members] for members in manifest.tokens.values()]
        self.groups = nn.ModuleList(GroupToken(columns, config, dim=dim, hidden=hidden) for columns in groups)

    @property
    def num_tokens(self) -> int:
        """M."""
        return len(self.groups)

    def candidate_tokens(self) -> list[int]:
        """Indices of the tokens that hold a candidate-level feature."""
        return [i for i, g in enumerate(self.groups) if g.of_candidate is not None]

    def forward(self, batch: Batch, rows: UniqueRows, requests: RequestMap) -> Tensor:
        """(B, M, D)."""
        return torch.stack([group(batch, rows, requests) for group in self.groups], dim=1)

    def encode(self, batch: Batch, rows: UniqueRows) -> list[Tensor | None]:
        """The request's part (R, ·) of each token."""
        return [cast(GroupToken, group).encode(batch, rows) for group in self.groups]

    def score(
        self, parts: Sequence[Tensor | None], batch: Batch, rows: UniqueRows, requests: RequestMap
    ) -> Tensor:
        """(B, M, D), given the requests' parts."""
        groups = zip(cast("list[GroupToken]", self.groups), parts, strict=True)
        return torch.stack([group.score(part, batch, rows, requests) for group, part in groups], dim=1)


class AutoTokenizer(nn.Module):
    """All features concatenated, cut into M equal pieces (zeros behind the last), and a linear map per piece.

    Source: HyFormer §3.3.1 (automatic split, as in RankMixer).
    """

    def __init__(self, manifest: Manifest, config: TokensConfig, *, dim: int, tokens: int) -> None:
        super().__init__()
        self.num_tokens = tokens
        self.vectors = TwoLevelVectors(manifest.features, config, dim=dim)
        width = self.vectors.request.width + self.vectors.candidate.width
        self.piece = -(-width // self.num_tokens)
        self.maps = nn.ModuleList(Linear(self.piece, config.d_model) for _ in range(self.num_tokens))

    def candidate_tokens(self) -> list[int]:
        """Indices of the tokens that may hold a candidate-level feature: all of them."""
        return list(range(self.num_tokens))

    def forward(self, batch: Batch, rows: UniqueRows, requests: RequestMap) -> Tensor:
        """(B, M, D)."""
        return self.score(self.encode(batch, rows), batch, rows, requests)

    def encode(self, batch: Batch, rows: UniqueRows) -> list[Tensor | None]:
        """The request's vectors (R, width); pieces are cut when the candidates' vectors are there too."""
        return [self.vectors.of_requests(batch, rows)]

    def score(
        self, parts: Sequence[Tensor | None], batch: Batch, rows: UniqueRows, requests: RequestMap
    ) -> Tensor:
        """(B, M, D), given the requests' vectors."""
        vectors = [requests.to_rows(part) for part in parts if part is not None]
        if (candidate := self.vectors.of_candidates(batch, rows)) is not None:
            vectors.append(candidate)
        whole = torch.cat(vectors, dim=-1)
        pieces = F.pad(whole, (0, self.piece * self.num_tokens - whole.shape[-1])).split(self.piece, dim=-1)
        return torch.stack([m(p) for m, p in zip(self.maps, pieces, strict=True)], dim=1)


Tokenizer = SemanticTokenizer | AutoTokenizer


def make_tokenizer(manifest: Manifest, config: TokensConfig, *, dim: int) -> Tokenizer:
    """The tokenizer that the configuration names."""
    tokenizer = config.tokenizer
    if isinstance(tokenizer, AutoConfig):
        return AutoTokenizer(manifest, config, dim=dim, tokens=tokenizer.tokens)
    assert isinstance(tokenizer, SemanticConfig)
    return SemanticTokenizer(manifest, config, dim=dim, hidden=tokenizer.hidden)
