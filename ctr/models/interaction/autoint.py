"""AutoInt: attention among tokens without a feed-forward network, and a mapped residual.

    Y = ReLU([softmax(Q_h K_hᵀ) V_h]_h + W_R X)         Q, K, V linear in X, without biases

Source: AutoInt (arXiv 1810.11921), section 4.3. Scores are not scaled in the paper; here they are by 1/√d
unless `scaled` is false.

B candidates, T tokens, D width.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from ctr.blocks.attention import attend
from ctr.blocks.linear import Linear
from ctr.models.interaction.crossing import Interaction, InteractionConfig, TokenSizes
from ctr.options.knobs import Few


class AutoIntConfig(InteractionConfig):
    """How deep; heads are those of the model."""

    kind: Literal["autoint"] = "autoint"
    layers: Few = 3
    scaled: bool = True  # scores by 1 / √d; the paper does not

    def build(self, sizes: TokenSizes) -> Interaction:
        """New layers."""
        return AutoInt(self, sizes)


class AutoIntLayer(nn.Module):
    """One layer."""

    def __init__(self, config: AutoIntConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.scale = 1.0 if config.scaled else (sizes.width // sizes.heads) ** 0.5
        self.mapped = Linear(sizes.width, 3 * sizes.width, bias=False)
        self.skip = Linear(sizes.width, sizes.width, bias=False)  # W_R

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        query, key, value = self.mapped(x).chunk(3, dim=-1)
        return (attend(query * self.scale, key, value, heads=self.heads) + self.skip(x)).relu()


class AutoInt(Interaction):
    """See the module."""

    def __init__(self, config: AutoIntConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.out_tokens, self.out_width = sizes.tokens, sizes.width
        self.layers = nn.ModuleList(AutoIntLayer(config, sizes) for _ in range(config.layers))
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        for layer in cast("list[AutoIntLayer]", self.layers):
            tokens = self.dropout(layer(tokens))
        return tokens
