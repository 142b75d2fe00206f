"""TorchRec's model-parallel collection of tables: how it is made, and what of it lies on this rank."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.distributed.shards import Offset
from ctr.distributed.world import World
from ctr.embedding.fbgemm_options import importing, update_options
from ctr.embedding.torchrec_plan import ROOT, make_plan


class LocalPart(NamedTuple):
    """A part of a table on this rank, and the optimizer's state of its rows."""

    table: str
    offset: Offset
    weight: Tensor
    states: list[Tensor]


def make_module(
    rows: Mapping[str, int],
    kinds: Mapping[str, str],
    config: EmbeddingConfig,
    *,
    scaled: Collection[str],
    world: World,
) -> Any:
    """Make TorchRec's DistributedModelParallel of all tables, with fused optimizers; weights are arbitrary.

    Its `module` is the ShardedEmbeddingCollection. It holds no dense weights: gradients of the model's are
    summed over the ranks by `ctr.distributed.gradients`, which lets them come a step later.

    Args:
        rows: table → number of rows; names without dots.
        kinds: table → kind of sharding.
        config: width and optimizer.
        scaled: tables whose gradients come scaled already: plain SGD.
        world: the ranks.

    Raises:
        ConfigError: TorchRec is not installed, or the tables cannot be divided among the ranks.
    """
    _import_torchrec()
    from torch.distributed.optim import _apply_optimizer_in_backward
    from torchrec.distributed.comm_ops import set_gradient_division
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.types import ShardingEnv, ShardingPlan
    from torchrec.modules import embedding_configs
    from torchrec.modules.embedding_modules import EmbeddingCollection

    set_gradient_division(False)  # gradients of one mean loss: their sum is the gradient, not their mean
    tables = [
        embedding_configs.EmbeddingConfig(
            name=table, feature_names=[table], num_embeddings=count, embedding_dim=config.dim, init_fn=_leave
        )
        for table, count in rows.items()
    ]
    collection = EmbeddingCollection(tables=tables, device=torch.device("meta"))
    for table in scaled:
        weight = collection.embeddings[table].weight
        _apply_optimizer_in_backward(torch.optim.SGD, [weight], {"lr": config.lr})
    sharder = EmbeddingCollectionSharder(update_options(config))
    plan = make_plan(collection, sharder, kinds, world=world)
    with torch.random.fork_rng(devices=[]):  # FBGEMM fills new tables with random numbers
        return DistributedModelParallel(
            collection,
            env=ShardingEnv.from_process_group(world.data),
            device=world.device,
            plan=ShardingPlan({ROOT: plan}),
            sharders=[sharder],
            init_data_parallel=False,
        )


def _import_torchrec() -> None:
    with importing("torchrec"):
        import torchrec.distributed.embedding  # noqa: F401
    for name in ("torchrec", "torch.fx._symbolic_trace"):  # hints for its developers, on every rank
        logging.getLogger(name).setLevel(logging.ERROR)


def _leave(weight: Tensor) -> None:
    """Initialise nothing: the engine fills in its own values."""


def kernels(module: Any) -> list[Any]:
    """FBGEMM's table-batched embeddings of this rank."""
    return [group.emb_module for lookup in module._lookups for group in lookup._emb_modules]


def local_parts(module: Any) -> Iterator[LocalPart]:
    """Every part of a table that lies on this rank; the tensors are the live ones."""
    for lookup in module._lookups:
        for group in lookup._emb_modules:
            weights = group.emb_module.split_embedding_weights()
            states = group.emb_module.split_optimizer_states() or [()] * len(weights)
            for table, weight, state in zip(group.config.embedding_tables, weights, states, strict=True):
                yield LocalPart(table.name, tuple(table.local_metadata.shard_offsets), weight, [*state])
