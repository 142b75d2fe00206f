"""No interaction but that of an MLP over all tokens side by side.

    x = [X_1 … X_T],  x ← GELU(W x + b)  for each hidden width

Source: the "embedding and MLP" base of DIN (arXiv 1706.06978).

B candidates, T tokens, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ctr.blocks.linear import Linear
from ctr.models.interaction.crossing import Interaction, InteractionConfig, TokenSizes
from ctr.options.knobs import Positive


class MlpConfig(InteractionConfig):
    """Hidden layers in front of the head's."""

    kind: Literal["mlp"] = "mlp"
    hidden: list[Positive] = []

    def build(self, sizes: TokenSizes) -> Interaction:
        """A new MLP."""
        return Mlp(self, sizes)


class Mlp(Interaction):
    """See the module."""

    def __init__(self, config: MlpConfig, sizes: TokenSizes) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = sizes.flat
        for hidden in config.hidden:
            layers += [Linear(width, hidden), nn.GELU(), nn.Dropout(sizes.dropout)]
            width = hidden
        self.layers = nn.Sequential(*layers)
        self.out_tokens, self.out_width = (1, width) if config.hidden else (sizes.tokens, sizes.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, 1, h), or as it is without a hidden layer."""
        return self.layers(tokens.flatten(1))[:, None] if len(self.layers) else tokens
