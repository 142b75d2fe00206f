"""What both engines of FBGEMM's kernels share: its import, its options for our settings, names of state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ctr.config import EmbeddingConfig
from features.errors import ConfigError

# The optimizer's state in FBGEMM's order, by its names in all engines.
STATE_NAMES = {"rowwise_adagrad": ("sum",), "adam": ("exp_avg", "exp_avg_sq")}


@contextmanager
def importing(engine: str) -> Iterator[None]:
    """Import what an engine needs inside: without its warnings, and with one error where it is missing.

    Raises:
        ConfigError: it is not installed, or cannot be loaded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"engine {engine} needs torchrec and fbgemm-gpu of the pinned versions, importing gave: {error}; "
            "install them with `make clean env`, or set embedding.engine to torch"
        ) from None


def update_options(config: EmbeddingConfig) -> dict[str, Any]:
    """The update rule as FBGEMM's arguments; an ID outside its table is an error."""
    from fbgemm_gpu import split_table_batched_embeddings_ops_common as common
    from fbgemm_gpu import split_table_batched_embeddings_ops_training as training
    from fbgemm_gpu.split_embedding_configs import EmbOptimType

    optimizers = {"rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "adam": EmbOptimType.ADAM}
    return {
        "optimizer": optimizers[config.optimizer],
        "learning_rate": config.lr,
        "eps": config.eps,
        "beta1": config.betas[0],
        "beta2": config.betas[1],
        "weight_decay": config.weight_decay,
        "weight_decay_mode": training.WeightDecayMode.DECOUPLE,
        "bounds_check_mode": common.BoundsCheckMode.FATAL,
    }
