"""Embedding tables behind one interface: plain torch anywhere, TorchRec's FBGEMM kernels where installed.

Several processes share the tables by TorchRec, or keep equal copies of them in plain torch. All engines start
from the same weights, follow the same update rules and read each other's state.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ctr.config import EmbeddingConfig
from ctr.distributed.world import World
from ctr.embedding.base import EmbeddingTables
from ctr.embedding.by_width import TablesByWidth
from ctr.embedding.memory import check_fits
from ctr.embedding.replicated import ReplicatedTables
from ctr.embedding.torch_engine import TorchTables
from ctr.embedding.torchrec_plan import check_choices
from ctr.runs.versions import fbgemm_available
from ctr.sparse_optim import lacking

__all__ = ["EmbeddingTables", "make_tables"]


def make_tables(
    rows: dict[str, int],
    config: EmbeddingConfig,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    widths: Mapping[str, int] | None = None,
    world: World | None = None,
) -> EmbeddingTables:
    """Make one table of `config.dim` columns per entry of `rows`, filled with N(0, init_std²).

    A table's weights depend on the seed and its name, not on its place among the others. Row 0 (missing) and
    the unknown rows are learned like every other row.

    Args:
        rows: table → number of rows, as in the manifest.
        config: width, optimizer and engine; `auto` takes FBGEMM (in several processes TorchRec) where it is
            installed and has the optimizer.
        seed: of the weights.
        device: where the tables live.
        widths: of the tables that are not `config.dim` wide.
        world: the processes that train together; this one alone if None.

    Raises:
        ConfigError: a sharding of a table that does not exist; an engine that is not installed or lacks the
            optimizer on this device; tables that do not fit into memory.

    Example:
        >>> tables = make_tables({"item": 10}, EmbeddingConfig(dim=4), seed=1)
        >>> tables.lookup({"item": torch.tensor([0, 3])})["item"].shape
        torch.Size([2, 4])
    """
    device = torch.device(device)
    check_choices(rows, config)
    width_of = {table: (widths or {}).get(table, config.dim) for table in rows}
    world = world or World.single(device)
    check_fits(rows, width_of, config, device=device, world=world)
    engines = {
        width: _make_engine(
            {table: count for table, count in rows.items() if width_of[table] == width},
            config.model_copy(update={"dim": width}),
            seed=seed,
            device=device,
            world=world,
        )
        for width in dict.fromkeys(width_of.values()) or [config.dim]
    }
    if [*engines] == [config.dim]:
        return engines[config.dim]
    return TablesByWidth(engines, config, device=device)


def _make_engine(
    rows: dict[str, int], config: EmbeddingConfig, *, seed: int, device: torch.device, world: World
) -> EmbeddingTables:
    """Tables of one width."""
    engine = _choose_engine(rows, config, device, several=world.size > 1)
    if engine == "torchrec":
        from ctr.embedding.torchrec_engine import ShardedTables

        return ShardedTables(rows, config, seed=seed, world=world)
    if engine == "fbgemm":
        from ctr.embedding.fbgemm_engine import FbgemmTables

        return FbgemmTables(rows, config, seed=seed, device=device)
    if world.size > 1:
        return ReplicatedTables(rows, config, seed=seed, device=device, world=world)
    return TorchTables(rows, config, seed=seed, device=device)


def _choose_engine(
    rows: dict[str, int], config: EmbeddingConfig, device: torch.device, *, several: bool
) -> str:
    """FBGEMM's kernels are those of TorchRec: one process has them as fbgemm, several as torchrec."""
    wanted = config.engine
    if wanted == "torch" or not rows:
        return "fbgemm" if wanted == "fbgemm" and not several else "torch"
    has_optimizer = lacking(config.optimizer, "fbgemm", device.type) is None
    fits = has_optimizer and config.dim % 4 == 0 and fbgemm_available()
    if several:
        return "torchrec" if fits or wanted != "auto" else "torch"
    return "fbgemm" if fits or wanted == "fbgemm" else "torch"
