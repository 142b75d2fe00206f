"""A full Transformer over the tokens of a candidate: every token sees every other, no order among them.

    A = X + Attn(norm(X)),  Y = A + FFN(norm(A))        with `per_token_ffn` each token has an FFN of its own

Source: Transformer (arXiv 1706.03762); over fields as HyFormer's Table 1 compares it. Differs: pre-norm
layers. With `per_token_ffn` the FFN alone is each token's own: the maps to Q, K and V are those of all
tokens, where in HiFormer (arXiv 2311.05884) each token has its own.

B candidates, T tokens, D width.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from ctr.blocks.attention import attend
from ctr.blocks.layers import FeedForward, Residual
from ctr.blocks.linear import Linear
from ctr.blocks.mixing import PerTokenFFN
from ctr.models.interaction.crossing import Interaction, InteractionConfig, TokenSizes
from ctr.options.knobs import Few


class TransformerConfig(InteractionConfig):
    """How deep; heads are those of the model."""

    kind: Literal["transformer"] = "transformer"
    layers: Few = 2
    per_token_ffn: bool = False

    def build(self, sizes: TokenSizes) -> Interaction:
        """New layers."""
        return TokenTransformer(self, sizes)


class TokenLayer(nn.Module):
    """One layer."""

    def __init__(self, config: TransformerConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.mapped = Linear(sizes.width, 3 * sizes.width)
        self.output = Linear(sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.around_attention = Residual(sizes.width, norm=sizes.norm)
        self.ffn = (
            PerTokenFFN(sizes.tokens, sizes.width, hidden=sizes.hidden, dropout=sizes.dropout)
            if config.per_token_ffn
            else FeedForward(sizes.width, hidden=sizes.hidden, dropout=sizes.dropout)
        )
        self.around_ffn = Residual(sizes.width, norm=sizes.norm)

    def attend(self, x: Tensor) -> Tensor:
        """(B, T, D), attention of all tokens to all."""
        return self.dropout(self.output(attend(*self.mapped(x).chunk(3, dim=-1), heads=self.heads)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.around_ffn(self.around_attention(x, self.attend), self.ffn)


class TokenTransformer(Interaction):
    """See the module."""

    def __init__(self, config: TransformerConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.out_tokens, self.out_width = sizes.tokens, sizes.width
        self.layers = nn.ModuleList(TokenLayer(config, sizes) for _ in range(config.layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        for layer in cast("list[TokenLayer]", self.layers):
            tokens = layer(tokens)
        return tokens
