"""The sequence side of a two-stage model, one file for each way from events to tokens.

`SIDES` is the door: a line makes a way known to configurations, ablations, serving and tests.
"""

from __future__ import annotations

from ctr.models.sequence.bst import BstConfig
from ctr.models.sequence.convolution import ConvolutionConfig
from ctr.models.sequence.dien import DienConfig
from ctr.models.sequence.din import DinConfig
from ctr.models.sequence.hstu import HstuConfig
from ctr.models.sequence.linear_attention import LinearAttentionConfig
from ctr.models.sequence.longer import LongerSideConfig
from ctr.models.sequence.memory import MemoryConfig
from ctr.models.sequence.pooling import PoolingConfig
from ctr.models.sequence.recurrent import RecurrentConfig
from ctr.models.sequence.sdim import SdimConfig
from ctr.models.sequence.search import SearchConfig
from ctr.models.sequence.sparse_attention import SparseAttentionConfig
from ctr.models.sequence.target_attention import TargetAttentionConfig
from ctr.models.sequence.user_embedding import UserEmbeddingConfig
from ctr.models.sequence.weighted_pooling import WeightedPoolingConfig
from ctr.options.kinds import OneOf

SIDES = OneOf(
    {
        "pooling": PoolingConfig,
        "weighted_pooling": WeightedPoolingConfig,
        "recurrent": RecurrentConfig,
        "convolution": ConvolutionConfig,
        "din": DinConfig,
        "dien": DienConfig,
        "bst": BstConfig,
        "target_attention": TargetAttentionConfig,
        "sparse_attention": SparseAttentionConfig,
        "linear_attention": LinearAttentionConfig,
        "memory": MemoryConfig,
        "hstu": HstuConfig,
        "longer": LongerSideConfig,
        "search": SearchConfig,
        "sdim": SdimConfig,
        "user_embedding": UserEmbeddingConfig,
    },
    default="din",
)
