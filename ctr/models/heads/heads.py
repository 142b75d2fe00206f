"""How tasks share a model, one file for each way.

`HEADS` is the door: a line makes a way known to configurations, ablations, serving and tests.
"""

from __future__ import annotations

from ctr.models.heads.esmm import EsmmConfig
from ctr.models.heads.mmoe import MmoeConfig
from ctr.models.heads.ple import PleConfig
from ctr.models.heads.shared_bottom import SharedBottomConfig
from ctr.options.kinds import OneOf

HEADS = OneOf(
    {
        "shared_bottom": SharedBottomConfig,
        "mmoe": MmoeConfig,
        "ple": PleConfig,
        "esmm": EsmmConfig,
    },
    default="shared_bottom",
)
