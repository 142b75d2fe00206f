"""HyFormer's three sequence representations: events S of a domain to H_l, once per request.

    transformer  H = FFN(Attn(S, S, S))            every event kept, every event seen
    longer       H = FFN(CrossAttn(S_short, S, S)) the newest k events are queries, all events keys
    swiglu       H = SwiGLU(S)                     no attention: linear in L

Nothing here knows a candidate, so all candidates of a request share the result.

Source: HyFormer (arXiv 2601.12681v2), 3.4.1.
Differs from the paper: it prints neither residuals nor norms; here they are options of each encoder, with
pre-norm residuals as default.

R requests, L events of one, D width, H heads.
"""

from __future__ import annotations

from typing import Unpack

from torch import nn

from ctr.blocks.attention import LayerOptions, TransformerLayer
from ctr.blocks.jagged import Jagged
from ctr.blocks.layers import NormOptions, Residual, SwiGLU


class AttentionEncoder(TransformerLayer):
    """A Transformer encoder layer in which the newest `recent` events attend to all events (both directions).

    A = S_short + Attn(norm(S_short), norm(S), norm(S));  H = A + FFN(norm(A)).

    Args:
        width: D.
        heads: H.
        recent: k, the events kept; None keeps all (the full encoder). Shorter histories keep all theirs.
        options: see `TransformerLayer`.
    """

    def __init__(
        self, width: int, heads: int, *, recent: int | None = None, **options: Unpack[LayerOptions]
    ) -> None:
        super().__init__(width, heads, **options)
        if recent is not None and recent < 1:
            raise ValueError(f"recent must be at least 1 event, or None for all, got {recent}")
        self.recent = recent

    def forward(self, sequence: Jagged) -> Jagged:
        """Events (ΣL, D) to H of min(L, k) events per request, the newest."""
        attention, norm = self.attention, self.around_attention.pre_norm
        if self.recent is None:
            short, update = sequence, attention.attend_itself(sequence, norm)
        else:
            short = sequence.last_k(self.recent)
            update = attention.attend_events(short, attention.project_kv(sequence, norm), norm=norm)
        return short.with_values(self.after_attention(short.values, update.values))


class SwiGLUEncoder(nn.Module):
    """Attention-free: H = S + SwiGLU(norm(S)), each event by itself.

    Args:
        width: D.
        hidden: width inside; 8 D / 3 unless given.
        residual: False gives the printed formula, H = SwiGLU(S), without norm.
        dropout: probability in [0, 1).
        norms: `norm` and `placement` of the residual connection, see `Residual`.
    """

    def __init__(
        self,
        width: int,
        *,
        hidden: int | None = None,
        residual: bool = True,
        dropout: float = 0.0,
        **norms: Unpack[NormOptions],
    ) -> None:
        super().__init__()
        self.swiglu = SwiGLU(width, hidden=hidden, dropout=dropout)
        self.around = Residual(width, **norms) if residual else None

    def forward(self, sequence: Jagged) -> Jagged:
        """Events (ΣL, D) to H (ΣL, D)."""
        values = sequence.values
        return sequence.with_values(self.around(values, self.swiglu) if self.around else self.swiglu(values))
