"""Wukong: a stack of factorization machines and linear maps over tokens; layer i reaches order 2^i.

    FMB(X) = MLP(norm(flatten(X XᵀY)))  cut into n_F tokens        Y (n, k) learned: cost O(n k D), not n² D
    LCB(X) = W_L X                                                 n_L tokens
    X' = norm([FMB(X); LCB(X)] + W_R X)                            W_R the identity where the counts agree

XᵀY comes first, so that no n × n product is made.

Source: Wukong (arXiv 2403.02545), section 3. Differs: Y is a weight, the same for all rows, where the paper
also computes it from X by an MLP. The MLP of FMB has a GELU inside, where public reproductions have a ReLU,
and ends linear (FuxiCTR's ends in a ReLU).

B candidates, n tokens, D width, k compressed tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ctr.blocks.layers import build_norm
from ctr.blocks.linear import Linear
from ctr.models.interaction.crossing import Interaction, InteractionConfig, TokenSizes
from ctr.options.knobs import Few, Positive


class WukongConfig(InteractionConfig):
    """Depth, and the tokens of each block."""

    kind: Literal["wukong"] = "wukong"
    layers: Few = 3
    fm_tokens: Positive = 4  # n_F
    linear_tokens: Positive = 4  # n_L
    rank: Positive = 4  # k
    hidden: Positive = 64  # of the MLP

    def build(self, sizes: TokenSizes) -> Interaction:
        """New layers."""
        return Wukong(self, sizes)


class WukongLayer(nn.Module):
    """One layer, n tokens to n_F + n_L."""

    def __init__(self, config: WukongConfig, sizes: TokenSizes, tokens: int) -> None:
        super().__init__()
        self.fm_tokens = config.fm_tokens
        made = config.fm_tokens + config.linear_tokens
        self.compress = nn.Parameter(torch.randn(tokens, config.rank) * tokens**-0.5)  # Y
        flat = tokens * config.rank
        self.fm_norm = build_norm(sizes.norm, flat)
        self.mlp = nn.Sequential(
            Linear(flat, config.hidden), nn.GELU(), Linear(config.hidden, config.fm_tokens * sizes.width)
        )
        self.linear = Linear(tokens, config.linear_tokens, bias=False)  # W_L
        self.skip = Linear(tokens, made, bias=False) if made != tokens else nn.Identity()  # W_R
        self.norm = build_norm(sizes.norm, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, D) to (B, n_F + n_L, D)."""
        by_token = x.transpose(1, 2)
        products = x @ (by_token @ self.compress)  # X (Xᵀ Y), (B, n, k)
        crossed = self.mlp(self.fm_norm(products.flatten(1))).unflatten(1, (self.fm_tokens, -1))
        new = torch.cat([crossed, self.linear(by_token).transpose(1, 2)], dim=1)
        kept = self.skip(by_token).transpose(1, 2)
        joined: Tensor = self.norm(self.dropout(new) + kept)
        return joined


class Wukong(Interaction):
    """See the module."""

    def __init__(self, config: WukongConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.out_tokens, self.out_width = config.fm_tokens + config.linear_tokens, sizes.width
        counts = [sizes.tokens, *[self.out_tokens] * (config.layers - 1)]
        self.layers = nn.Sequential(*(WukongLayer(config, sizes, tokens) for tokens in counts))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, n_F + n_L, D)."""
        return self.layers(tokens)
