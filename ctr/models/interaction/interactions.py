"""The interaction side of a two-stage model, one file for each way to cross tokens.

`INTERACTIONS` is the door: a line makes a way known to configurations, ablations, serving and tests.
"""

from __future__ import annotations

from ctr.models.interaction.autoint import AutoIntConfig
from ctr.models.interaction.dcn import DcnConfig
from ctr.models.interaction.mlp import MlpConfig
from ctr.models.interaction.rank_mixer import RankMixerConfig
from ctr.models.interaction.transformer import TransformerConfig
from ctr.models.interaction.wukong import WukongConfig
from ctr.options.kinds import OneOf

INTERACTIONS = OneOf(
    {
        "mlp": MlpConfig,
        "dcn": DcnConfig,
        "wukong": WukongConfig,
        "rank_mixer": RankMixerConfig,
        "transformer": TransformerConfig,
        "autoint": AutoIntConfig,
    },
    default="mlp",
)
