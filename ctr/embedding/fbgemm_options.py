"""What both engines of FBGEMM's kernels share: its import, its options for our settings, what it lacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ctr.config import EmbeddingConfig
from ctr.sparse_optim import lacking, optimizer_class
from features.errors import ConfigError


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


def check_kernels(config: EmbeddingConfig, engine: str, device: torch.device, *, remedy: str) -> None:
    """Check that FBGEMM has kernels for the optimizer and the width.

    Args:
        config: of tables of one width.
        engine: `fbgemm` or `torchrec`.
        device: where the tables are to live.
        remedy: what the user can do, for the message.

    Raises:
        ConfigError: it has none; with the engines that have the optimizer.
    """
    if problem := lacking(config.optimizer, engine, device.type):
        raise ConfigError(f"{problem}; {remedy}, or choose another embedding.optimizer")
    if config.dim % 4:
        raise ConfigError(
            f"the width of embeddings with engine {engine} must be a multiple of 4 (FBGEMM's), "
            f"got {config.dim} (embedding.dim or model.ngram.dim); {remedy}"
        )


def update_options(config: EmbeddingConfig) -> dict[str, Any]:
    """The update rule as FBGEMM's arguments; an ID outside its table is an error."""
    from fbgemm_gpu import split_table_batched_embeddings_ops_common as common
    from fbgemm_gpu import split_table_batched_embeddings_ops_training as training
    from fbgemm_gpu.split_embedding_configs import EmbOptimType

    fused = optimizer_class(config.optimizer).FBGEMM
    assert fused is not None  # see `check_kernels`
    options = config.sparse_options().model_dump()
    if betas := options.pop("betas", None):
        options |= {"beta1": betas[0], "beta2": betas[1]}
    return {
        **options,
        "optimizer": EmbOptimType[fused.optimizer],
        "learning_rate": config.lr,
        "weight_decay_mode": training.WeightDecayMode.DECOUPLE,
        "bounds_check_mode": common.BoundsCheckMode.FATAL,
    }
