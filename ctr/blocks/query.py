"""HyFormer's query tokens: generated once, then decoded from the sequences and boosted in every layer.

Source: HyFormer (arXiv 2601.12681v2), 3.3.2, 3.4.2, 3.5.
Differs from the paper: it prints no norms; `placement` names them, `none` is the printed formula.

B candidates, R requests, S sequences, L events of one, M ns tokens, N query tokens (all sequences
together, those of the first sequence first), T = N + M, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal, Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.attention import MultiHeadAttention
from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues
from ctr.blocks.layers import NormOptions, Residual
from ctr.blocks.mixing import PerTokenFFN, PerTokenLinear, check_mixable, mix_tokens
from ctr.blocks.request_map import RequestMap

Pools = Literal["all", "own", "none"]


class QueryGeneration(nn.Module):
    """Q_i = FFN_i(GlobalInfo), GlobalInfo = Concat(F_1..F_M, MeanPool(seq_1)..MeanPool(seq_S)).

    Each query has an FFN of its own. The first map of a concatenation is a sum of two maps: that of the
    pools is computed once per request, that of the ns tokens per candidate.

    Args:
        width: D.
        ns_tokens: M.
        queries: the number of queries of each of the S sequences.
        hidden: width inside each FFN; 2 D unless given.
        pools: `all` is the paper's; `own` gives a query the pool of its own sequence only, `none` no pool.
        target: None reads all M tokens; an index reads that token alone ("query from target features").
    """

    def __init__(
        self,
        width: int,
        ns_tokens: int,
        queries: Sequence[int],
        *,
        hidden: int | None = None,
        pools: Pools = "all",
        target: int | None = None,
    ) -> None:
        super().__init__()
        check_queries(queries)
        if pools not in ("all", "own", "none"):
            raise ValueError(f"pools must be 'all', 'own' or 'none', got {pools!r}")
        if target is not None and not 0 <= target < ns_tokens:
            raise ValueError(f"target must be the index of one of the {ns_tokens} ns tokens, got {target}")
        hidden = hidden or 2 * width
        self.pools, self.target = pools, target
        count, from_tokens = sum(queries), width * (ns_tokens if target is None else 1)
        from_pools = {"all": len(queries), "own": 1, "none": 0}[pools] * width
        fan_in = from_tokens + from_pools
        self.tokens_up = PerTokenLinear(count, from_tokens, hidden, fan_in=fan_in)
        self.pools_up = (
            PerTokenLinear(count, from_pools, hidden, bias=False, fan_in=fan_in) if from_pools else None
        )
        self.down = PerTokenLinear(count, hidden, width)
        counts = torch.tensor(queries)
        sequence = torch.arange(len(queries)).repeat_interleave(counts, output_size=sum(queries))
        self.register_buffer("sequence_of_query", sequence, persistent=False)

    def forward(self, ns_tokens: Tensor, pools: Tensor, requests: RequestMap) -> Tensor:
        """Make the queries of every candidate.

        Args:
            ns_tokens: (B, M, D).
            pools: (R, S, D), the mean event of each sequence, zeros for an empty one.
            requests: maps B to R.

        Returns:
            (B, N, D).
        """
        read = ns_tokens if self.target is None else ns_tokens[:, self.target : self.target + 1]
        inner = self.tokens_up(read.flatten(1).unsqueeze(1))
        if self.pools_up is not None:
            inner = inner + requests.to_rows(self.pools_up(self._pools(pools)))
        return self.down(F.gelu(inner))

    def _pools(self, pools: Tensor) -> Tensor:
        if self.pools == "all":
            return pools.flatten(1).unsqueeze(1)
        return pools.index_select(1, self.get_buffer("sequence_of_query"))


class DecodingOptions(NormOptions, total=False):
    """Options of query decoding; see `SequenceDecoding`."""

    residual: bool
    dropout: float
    sink: bool


class SequenceDecoding(nn.Module):
    """Q̃ = Q + CrossAttn(norm(Q), K, V) for one sequence; K = norm(H) W_K, V = norm(H) W_V.

    Args:
        width: D.
        heads: H.
        residual: False gives the printed formula, in which an empty history leaves only the output bias.
        dropout: probability in [0, 1), on the output of the attention.
        sink: see `MultiHeadAttention`; not in the paper.
        norms: `norm` and `placement`, see `Residual`: `pre` norms queries and events, `post` the sum, `none`
            nothing; without a residual there is no sum to norm.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        residual: bool = True,
        dropout: float = 0.0,
        sink: bool = False,
        **norms: Unpack[NormOptions],
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = MultiHeadAttention(width, heads, dropout=dropout, sink=sink)
        self.around = Residual(width, **norms)
        placement = self.around.placement
        if placement == "post" and not residual:
            raise ValueError("placement 'post' norms the residual sum: it needs residual=True")
        self.event_norm = deepcopy(self.around.norm) if placement == "pre" else nn.Identity()

    def project_kv(self, events: Jagged) -> KeyValues:
        """K and V of H (ΣL, D); they depend on the request alone."""
        return self.attention.project_kv(events, self.event_norm)

    def forward(self, queries: Tensor, kv: KeyValues, requests: RequestMap) -> Tensor:
        """(B, n, D) to (B, n, D): the queries of all candidates of a request in one attention call."""
        read = requests.unpack(self.attention(requests.pack(self.around.pre(queries)), kv))
        return self.around.join(queries, read) if self.residual else read


class QueryDecoding(nn.Module):
    """The queries of each sequence read that sequence, by a `SequenceDecoding` of its own.

    Args:
        width: D.
        heads: H.
        queries: the number of queries of each of the S sequences.
        options: see `SequenceDecoding`.
    """

    def __init__(
        self, width: int, heads: int, queries: Sequence[int], **options: Unpack[DecodingOptions]
    ) -> None:
        super().__init__()
        check_queries(queries)
        self.queries = list(queries)
        self.layers = nn.ModuleList(SequenceDecoding(width, heads, **options) for _ in queries)

    def project_kv(self, sequences: Sequence[Jagged]) -> list[KeyValues]:
        """K and V of the S sequences, values (ΣL_s, D)."""
        layers = cast("list[SequenceDecoding]", self.layers)
        return [layer.project_kv(events) for layer, events in zip(layers, sequences, strict=True)]

    def forward(self, queries: Tensor, kvs: Sequence[KeyValues], requests: RequestMap) -> Tensor:
        """(B, N, D) to (B, N, D); `kvs` are those of this layer."""
        parts = zip(self.layers, queries.split(self.queries, dim=1), kvs, strict=True)
        return torch.cat([layer(part, kv, requests) for layer, part, kv in parts], dim=1)


class QueryBoosting(nn.Module):
    """X_boost = X + PerTokenFFN(mix(norm(X))), X the decoded queries and the ns tokens.

    Args:
        tokens: T = N + M, a divisor of D.
        width: D.
        hidden: width inside the FFN; 4 D unless given.
        dropout: probability in [0, 1).
        norms: `norm` and `placement`, see `Residual`; with `none` it is the printed formula.
    """

    # What `RankMixerBlock` takes, too: that has two residual connections where this has one.
    def __init__(
        self,
        tokens: int,
        width: int,
        *,
        hidden: int | None = None,
        dropout: float = 0.0,
        **norms: Unpack[NormOptions],
    ) -> None:
        super().__init__()
        check_mixable(width, tokens)
        self.ffn = PerTokenFFN(tokens, width, hidden=hidden, dropout=dropout)
        self.around = Residual(width, **norms)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.around(x, lambda tokens: self.ffn(mix_tokens(tokens)))


def check_queries(queries: Sequence[int]) -> None:
    """Refuse an empty list of sequences or a sequence without query.

    Raises:
        ValueError: in these cases.
    """
    if not queries or min(queries) < 1:
        raise ValueError(f"queries must name at least one query for each sequence, got {list(queries)}")
