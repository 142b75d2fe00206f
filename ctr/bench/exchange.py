"""What the ranks send each other for sharded tables: each ID of a batch once, and each as often as it occurs.

OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node=2 -m ctr.bench.exchange CONFIG --steps 5
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.build import build_tables, ngrams_of, open_dataset, training_loader
from ctr.config import load_config
from ctr.distributed.world import World, open_world
from ctr.embedding import EmbeddingTables
from ctr.loader.collate import ColumnKey, batch_columns, column_tables


def repeated_ids(batch: Batch, table_of: dict[ColumnKey, str]) -> dict[str, Tensor]:
    """The IDs of each table as often as they occur in the batch.

    Args:
        batch: a batch.
        table_of: (level, feature) → table, from `ctr.loader.collate.column_tables`.

    Returns:
        table → (V,) int64.
    """
    columns = batch_columns(batch)
    ids: dict[str, list[Tensor]] = {table: [unique[:0]] for table, unique in batch.unique_ids.items()}
    for key, table in table_of.items():
        ids[table].append(batch.unique_ids[table][columns[key].inverse_indices])
    return {table: torch.cat(parts) for table, parts in ids.items()}


def sent(
    tables: EmbeddingTables, batches: Iterable[Batch], ids_of: Callable[[Batch], dict[str, Tensor]]
) -> Counter[str]:
    """Bytes that this rank sends for batches, by kind, and `looked_up`, the IDs it asks for.

    The rows' gradients are counted and not sent; nothing is learned.
    """
    total: Counter[str] = Counter()
    for batch in batches:
        ids = ids_of(batch)
        tables.lookup(ids)
        tables.discard()
        total.update({name: int(value) for name, value in tables.traffic().items()})
        total["looked_up"] += sum(len(part) for part in ids.values())
    return total


def measure(config_path: Path, world: World, *, steps: int, overrides: list[str]) -> list[str]:
    """Lines of a table: of all ranks together, per step, MB."""
    config = load_config(config_path, overrides)
    dataset = open_dataset(config)
    tables = build_tables(config, dataset.manifest, world.device, world=world)
    table_of = column_tables(dataset.manifest, ngrams_of(config, dataset.manifest))
    loader = training_loader(config, dataset, world=world).iterate(0)
    batches = [batch.to(world.device) for batch, _ in zip(loader, range(steps), strict=False)]
    ways: dict[str, Callable[[Batch], dict[str, Tensor]]] = {
        "unique IDs": lambda batch: batch.unique_ids,
        "repeated IDs": lambda batch: repeated_ids(batch, table_of),
    }
    lines = []
    for way, ids_of in ways.items():
        found = sent(tables, batches, ids_of)
        names = sorted(found)
        figures = dict(zip(names, world.sums(*(found[name] for name in names)), strict=True))
        megabytes = {n: v / len(batches) / 1e6 for n, v in figures.items() if n != "looked_up"}
        parts = ", ".join(f"{name} {value:.2f}" for name, value in megabytes.items())
        looked_up = figures["looked_up"] / len(batches)
        lines.append(f"{way}: {looked_up:,.0f} IDs, {parts}, together {sum(megabytes.values()):.2f} MB")
    return lines


def main() -> None:
    """Measure, and print on rank 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_args()
    with open_world("cuda" if torch.cuda.is_available() else "cpu") as world:
        lines = measure(arguments.config, world, steps=arguments.steps, overrides=arguments.overrides)
        if world.first:
            print("\n".join(lines))


if __name__ == "__main__":
    main()
