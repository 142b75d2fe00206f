"""Which rank holds what of which table: TorchRec's planner, told what is allowed.

table_wise    a whole table on one rank: no ID of it goes to two ranks. For many tables of similar size.
row_wise      each rank holds a block of rows: for tables that one rank cannot hold, or that most IDs are in.
column_wise   each rank holds some columns of all rows: every ID goes to every rank, a row comes from all. For
              few tables, wide rows, and IDs that crowd in one block of rows.
auto          table_wise or row_wise, whichever the planner finds faster for the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ctr.config import EmbeddingConfig
from ctr.distributed.world import World
from features.errors import ConfigError
from features.memory.limit import memory_limit

ROOT = ""  # where the tables are in the module that DistributedModelParallel gets: they are all of it
KERNEL = "fused"  # the update happens in FBGEMM's backward
_EXPECTED_IDS = 4096.0  # unique IDs of a large table in a batch of one rank; only the ratio of tables matters
_OTHER_MEMORY = 0.3  # of a rank's memory: for all that is no table


def check_choices(rows: Mapping[str, int], config: EmbeddingConfig) -> None:
    """Check that choices are for tables that exist.

    Raises:
        ConfigError: naming those that do not.
    """
    if unknown := sorted(set(config.table_sharding) - set(rows)):
        raise ConfigError(f"embedding.table_sharding must name tables among {sorted(rows)}, got {unknown}")


def kinds_of(rows: Mapping[str, int], config: EmbeddingConfig) -> dict[str, str]:
    """The kind of sharding that each table is to have.

    Example:
        >>> kinds_of({"item": 9, "user": 9}, EmbeddingConfig(table_sharding={"item": "row_wise"}))
        {'item': 'row_wise', 'user': 'auto'}
    """
    return {table: config.table_sharding.get(table, config.sharding) for table in rows}


def make_plan(collection: Any, sharder: Any, kinds: Mapping[str, str], *, world: World) -> dict[str, Any]:
    """Plan where the parts of each table lie, the same on every rank.

    Args:
        collection: a TorchRec EmbeddingCollection without memory.
        sharder: of its type.
        kinds: table of the collection → kind.
        world: the ranks.

    Returns:
        table → TorchRec's ParameterSharding.

    Raises:
        ConfigError: the tables do not fit into memory, or columns cannot be divided among all ranks.
    """
    from torchrec.distributed.comm import get_local_size
    from torchrec.distributed.sharding_plan import column_wise, construct_module_sharding_plan, row_wise

    width = collection.embedding_dim()
    fixed = {table: row_wise(compute_kernel=KERNEL) for table, kind in kinds.items() if kind == "row_wise"}
    for table, kind in kinds.items():
        if kind == "column_wise":
            ranks = [part % world.size for part in range(column_parts(width, world.size))]
            fixed[table] = column_wise(ranks=ranks, compute_kernel=KERNEL)
    device, local = world.device.type, get_local_size(world.size)
    plan = _plan_freely(collection, sharder, {t: k for t, k in kinds.items() if t not in fixed}, world, local)
    if fixed:
        part = _only(collection, fixed)
        plan |= construct_module_sharding_plan(part, fixed, sharder, local, world.size, device)
    return plan


def column_parts(width: int, ranks: int) -> int:
    """Into how many equal parts columns are cut: the fewest that give each rank one, multiples of 4 wide.

    Raises:
        ConfigError: there is no such number.

    Example:
        >>> column_parts(32, 2), column_parts(32, 3)
        (2, 4)
    """
    fitting = [n for n in range(ranks, width // 4 + 1) if width % n == 0 and (width // n) % 4 == 0]
    if not fitting:
        raise ConfigError(
            f"sharding column_wise must give each of {ranks} ranks equal parts of 4, 8, 12 … columns, got "
            f"tables of {width}; set embedding.sharding to row_wise, or embedding.dim to {4 * ranks}"
        )
    return fitting[0]


def _plan_freely(
    collection: Any, sharder: Any, kinds: Mapping[str, str], world: World, local: int
) -> dict[str, Any]:
    """Let the planner place tables; rank 0 plans for all."""
    if not kinds:
        return {}
    from torchrec.distributed.planner import EmbeddingShardingPlanner
    from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
    from torchrec.distributed.planner.types import ParameterConstraints, PlannerError

    free = _only(collection, kinds)
    constraints = {
        table.name: ParameterConstraints(
            sharding_types=["table_wise", "row_wise"] if kinds[table.name] == "auto" else [kinds[table.name]],
            compute_kernels=[KERNEL],
            pooling_factors=[min(_EXPECTED_IDS, float(table.num_embeddings))],
        )
        for table in free.embedding_configs()
    }
    planner = EmbeddingShardingPlanner(
        topology=_topology(world, local),
        batch_size=1,
        storage_reservation=FixedPercentageStorageReservation(percentage=_OTHER_MEMORY),
        constraints=constraints,
        debug=False,
        stats=[],
    )
    try:
        plan = planner.collective_plan(free, [sharder], world.data)
    except PlannerError as error:
        raise ConfigError(
            f"the embedding tables must fit into the memory of {world.size} ranks; TorchRec's planner says: "
            f"{str(error)[:500]}. Use more ranks, embedding.sharding: row_wise, or a smaller embedding.dim"
        ) from None
    return dict(plan.plan[ROOT])


def _topology(world: World, local: int) -> Any:
    from torchrec.distributed.planner import Topology

    if world.device.type == "cuda":
        memory = {"hbm_cap": torch.cuda.get_device_properties(world.device).total_memory}
    else:
        memory = {"ddr_cap": memory_limit().total // local}
    return Topology(world_size=world.size, local_world_size=local, compute_device=world.device.type, **memory)


def _only(collection: Any, tables: Mapping[str, Any]) -> Any:
    """A collection of some of the tables."""
    kept = [table for table in collection.embedding_configs() if table.name in tables]
    return type(collection)(tables=kept, device=torch.device("meta"))
