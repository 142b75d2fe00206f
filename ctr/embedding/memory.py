"""What embedding tables take, told before they are allocated: rows × (width + optimizer state)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod

import torch

from ctr.config import EmbeddingConfig
from ctr.distributed.world import World
from ctr.sparse_optim import optimizer_class
from features.errors import ConfigError
from features.memory.limit import MemoryLimit, memory_limit
from features.memory.sizes import shown

_BYTES = 4  # of a float32


def check_fits(
    rows: Mapping[str, int],
    widths: Mapping[str, int],
    config: EmbeddingConfig,
    *,
    device: torch.device,
    world: World,
) -> None:
    """Check that embedding tables and the state of their optimizer fit into memory.

    Args:
        rows: table → rows.
        widths: table → values of a row.
        config: the optimizer, and whether processes share the tables.
        device: where they are to be.
        world: the processes; those of this machine share its memory.

    Raises:
        ConfigError: they do not; names the largest table.
    """
    sizes = {name: table_bytes(count, widths[name], config) for name, count in rows.items()}
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if world.size > 1 and device.type == "cpu" else 1
    shared = world.size if config.engine != "torch" else 1
    limit, needed = memory_of(device), sum(sizes.values()) * local // shared
    if needed <= limit.left:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    raise ConfigError(
        f"the embedding tables must fit into the {limit}, but with the state of {config.optimizer} they take "
        f"{shown(needed)}; the largest is {largest!r}: {rows[largest]:,} rows of {widths[largest]} values, "
        f"{shown(sizes[largest])}; make embedding.dim smaller, take an optimizer with less state, such as "
        "rowwise_adagrad, leave the feature out (drop), give its table fewer rows in the spec, or train in "
        "more processes that share the tables (embedding.engine: auto)"
    )


def table_bytes(rows: int, width: int, config: EmbeddingConfig) -> int:
    """Bytes of a table's weights and optimizer state."""
    rule = optimizer_class(config.optimizer)
    state = (rule.state_shape(name, rows, width) for name in rule.STATE)
    return _BYTES * (rows * width + sum(map(prod, state)))


def memory_of(device: torch.device) -> MemoryLimit:
    """The memory of a device that this process may still take."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return MemoryLimit(total, free, "free on the GPU")
    return memory_limit()
