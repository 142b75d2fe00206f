"""RankMixer: tokens exchange pieces, then each has a network of its own; see ctr.blocks.mixing.

Source: RankMixer (arXiv 2507.15551). Differs: the head reads the top tokens side by side, the paper's their
mean (`model.head_reads: mean`); its networks are twice as wide inside (`model.expansion`), the paper's four
times.

B candidates, T tokens, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ctr.blocks.mixing import RankMixerBlock
from ctr.models.interaction.crossing import Interaction, InteractionConfig, TokenSizes
from ctr.options.knobs import Few


class RankMixerConfig(InteractionConfig):
    """How deep."""

    kind: Literal["rank_mixer"] = "rank_mixer"
    layers: Few = 2

    @property
    def mixes(self) -> bool:
        """Each token is cut into T pieces."""
        return True

    def build(self, sizes: TokenSizes) -> Interaction:
        """New blocks."""
        return RankMixer(self, sizes)


class RankMixer(Interaction):
    """See the module."""

    def __init__(self, config: RankMixerConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.out_tokens, self.out_width = sizes.tokens, sizes.width
        self.blocks = nn.Sequential(
            *(
                RankMixerBlock(
                    sizes.tokens, sizes.width, hidden=sizes.hidden, norm=sizes.norm, dropout=sizes.dropout
                )
                for _ in range(config.layers)
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.blocks(tokens)
