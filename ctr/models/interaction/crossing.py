"""The interaction side of a two-stage model: T tokens of width D per candidate → T' tokens of width W.

B candidates, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ctr.blocks.layers import NormName
from ctr.options.knobs import KindSection


@dataclass(frozen=True)
class TokenSizes:
    """What an interaction must know of the model around it.

    Args:
        tokens: T, those of the sequences and the ns tokens together.
        width: D.
        heads: H, a divisor of D.
        expansion: hidden width of feed-forward parts over D.
        norm: of its layers.
        dropout: of its layers.
    """

    tokens: int
    width: int
    heads: int
    expansion: float
    norm: NormName
    dropout: float

    @property
    def flat(self) -> int:
        """T · D."""
        return self.tokens * self.width

    @property
    def hidden(self) -> int:
        """Hidden width of feed-forward parts."""
        return int(self.expansion * self.width)


class Interaction(nn.Module):
    """Crosses the tokens of a candidate with each other.

    Attributes:
        out_tokens: T'.
        out_width: W.
    """

    out_tokens: int
    out_width: int

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T', W)."""
        raise NotImplementedError


class InteractionConfig(KindSection):
    """The options of an interaction."""

    def build(self, sizes: TokenSizes) -> Interaction:
        """A new interaction."""
        raise NotImplementedError

    @property
    def mixes(self) -> bool:
        """Whether T must divide D."""
        return False
