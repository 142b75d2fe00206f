"""DCNv2: crosses of ever higher degree, each layer times the first input.

    x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l           x_0 = [X_1 … X_T], n = T · D wide
    low rank: W_l = U_l V_lᵀ, r wide

Source: DCNv2 (arXiv 2008.13535), sections 3.2 and 3.3 (without the mixture of experts).

B candidates, T tokens, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ctr.blocks.linear import Linear
from ctr.models.interaction.crossing import Interaction, InteractionConfig, TokenSizes
from ctr.options.knobs import Count, Few


class DcnConfig(InteractionConfig):
    """How deep, of which rank."""

    kind: Literal["dcn"] = "dcn"
    layers: Few = 3
    rank: Count = 0  # r; 0 = full maps

    def build(self, sizes: TokenSizes) -> Interaction:
        """New cross layers."""
        return Dcn(self, sizes)


class Dcn(Interaction):
    """See the module."""

    def __init__(self, config: DcnConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.out_tokens, self.out_width = 1, sizes.flat
        self.maps = nn.ModuleList(self._map(sizes.flat, config.rank) for _ in range(config.layers))

    @staticmethod
    def _map(width: int, rank: int) -> nn.Module:
        if not rank:
            return Linear(width, width)
        return nn.Sequential(Linear(width, rank, bias=False), Linear(rank, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, 1, T · D)."""
        x = first = tokens.flatten(1)
        for linear in self.maps:
            x = first * linear(x) + x
        return x[:, None]
