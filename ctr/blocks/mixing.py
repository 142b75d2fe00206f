"""RankMixer's token mixing, which has no parameters, and networks with weights of their own per token.

Every token is cut into T pieces of width D / T; the new token h consists of piece h of every token:

    a1 a2 a3         a1 b1 c1
    b1 b2 b3   mix   a2 b2 c2       T = 3 tokens; a transpose, and its own inverse
    c1 c2 c3         a3 b3 c3

Source: RankMixer (arXiv 2507.15551); HyFormer (arXiv 2601.12681v2), 3.5.

B candidates, T tokens, D width.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.layers import NormOptions, Residual


def check_mixable(width: int, tokens: int) -> None:
    """Refuse a width that cannot be cut into T pieces.

    Raises:
        ValueError: when D is not a multiple of T.
    """
    if tokens < 1 or width % tokens:
        near = tokens * max(round(width / tokens), 1) if tokens > 0 else width
        raise ValueError(
            "token mixing cuts each token into T equal pieces: the width D must be a multiple of the "
            f"number of tokens T, got D={width}, T={tokens}; change d_model (to {near}, say), "
            "the queries per sequence or the number of non-sequence tokens"
        )


def mix_tokens(x: Tensor) -> Tensor:
    """Exchange pieces between tokens: (B, T, D) to (B, T, D).

    Raises:
        ValueError: when D is not a multiple of T.

    Example:
        >>> mix_tokens(torch.tensor([[[1, 2], [3, 4]]]))
        tensor([[[1, 3],
                 [2, 4]]])
    """
    batch, tokens, width = x.shape
    check_mixable(width, tokens)
    return x.view(batch, tokens, tokens, width // tokens).transpose(1, 2).reshape(batch, tokens, width)


class PerTokenLinear(nn.Module):
    """y_t = x_t W_t + b_t: each of T tokens has a linear map of its own; all maps are one batched product.

    Args:
        tokens: T.
        inputs: width of x_t.
        outputs: width of y_t.
        bias: whether there is b_t.
        fan_in: weights start uniform in ±1/√fan_in; `inputs` unless the map is a part of a wider one.
    """

    MAPS = ("weight",)

    def __init__(
        self, tokens: int, inputs: int, outputs: int, *, bias: bool = True, fan_in: int | None = None
    ) -> None:
        super().__init__()
        bound = (fan_in or inputs) ** -0.5
        self.weight = nn.Parameter(torch.empty(tokens, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(tokens, 1, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) to (B, T, outputs); x may be (B, 1, inputs), read at every position."""
        by_token = x.transpose(0, 1).expand(self.weight.shape[0], -1, -1)
        if self.bias is None:
            return torch.bmm(by_token, self.weight).transpose(0, 1)
        return torch.baddbmm(self.bias, by_token, self.weight).transpose(0, 1)


class PerTokenFFN(nn.Module):
    """FFN_t(x_t) = W2_t GELU(W1_t x_t + b1_t) + b2_t, with own weights at every token position.

    Args:
        tokens: T.
        width: D.
        hidden: width between; 4 D unless given.
        dropout: probability in [0, 1), on the output.
    """

    def __init__(self, tokens: int, width: int, *, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = hidden or 4 * width
        self.up = PerTokenLinear(tokens, width, hidden)
        self.down = PerTokenLinear(tokens, hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.dropout(self.down(F.gelu(self.up(x))))


class RankMixerBlock(nn.Module):
    """Mix the tokens, then give each its own FFN: S = norm(X + mix(X)), Y = norm(S + PerTokenFFN(S)).

    Args:
        tokens: T, a divisor of D.
        width: D.
        hidden: width inside the FFN; 4 D unless given.
        dropout: probability in [0, 1).
        norms: `norm` and `placement` of both residual connections, see `Residual`; the paper's placement,
            `post`, unless given.

    Source: RankMixer (arXiv 2507.15551).
    """

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
        norms.setdefault("placement", "post")
        self.around_mixing = Residual(width, **norms)
        self.ffn = PerTokenFFN(tokens, width, hidden=hidden, dropout=dropout)
        self.around_ffn = Residual(width, **norms)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.around_ffn(self.around_mixing(x, mix_tokens), self.ffn)
