"""What the ranks of `tests/ctr/distributed/test_sharding.py` do; each job runs in every process."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctr.checkpoint.background import CheckpointWriter
from ctr.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from ctr.checkpoint.restore import restore_rng, rng_state
from ctr.config import EmbeddingConfig
from ctr.distributed.shards import Sharded, box
from ctr.distributed.world import World
from ctr.embedding import EmbeddingTables, make_tables
from ctr.errors import RetryableError
from ctr.transfer.rows import take_rows
from features.durable.faults import injected
from pipelines.train import train
from tests.ctr.tiny_run import tiny_config

ROWS = {"item.id": 300, "user": 50, "small": 7, "one": 1}
DIM = 16
KINDS: dict[str, dict[str, Any]] = {
    "auto": {},
    "table_wise": {"sharding": "table_wise", "weight_decay": 0.1},
    "row_wise": {"sharding": "row_wise", "weight_decay": 0.1},
    "column_wise": {"sharding": "column_wise", "weight_decay": 0.1},
    "mixed": {"sharding": "row_wise", "table_sharding": {"user": "column_wise", "small": "table_wise"}},
}

TRAINED = (
    "embedding.engine=auto",
    "embedding.sharding=row_wise",
    "embedding.weight_decay=0.01",
    "optimizer.eps=0.001",  # where the gradient is rounding alone, Adam makes whole steps of its sign
    "optimizer.ema_decay=0.9",
    "train.evaluate_every=4",
    "train.epochs=1",
)


def tables_of(kind: str, world: World, *, seed: int = 3) -> EmbeddingTables:
    config = EmbeddingConfig.model_validate({"engine": "torchrec", "dim": DIM, **KINDS[kind]})
    return make_tables(ROWS, config, seed=seed, world=world)


def reference_of(kind: str) -> EmbeddingTables:
    decay = KINDS[kind].get("weight_decay", 0.0)
    return make_tables(ROWS, EmbeddingConfig(engine="torch", dim=DIM, weight_decay=decay), seed=3)


def complete(state: Mapping[str, Tensor | Sharded], world: World) -> dict[str, Tensor]:
    """Whole tensors, bit by bit: parts are summed as integers, since they do not overlap."""
    found: dict[str, Tensor] = {}
    for name, held in state.items():
        if isinstance(held, Tensor):
            found[name] = held.clone()
            continue
        bits = torch.zeros(held.shape, dtype=torch.int32)
        for offset, part in held.parts:
            bits[box(offset, part.shape)] += part.detach().contiguous().view(torch.int32)
        found[name] = world.sum_(bits).view(torch.float32)
    return found


def draw(step: int, size: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Of each rank IDs, many on several ranks, and factors; every fourth step the last rank has nothing."""
    g = torch.Generator().manual_seed(step)
    ids = [
        {name: torch.randperm(n, generator=g)[: (step * 13 * (rank + 1)) % n] for name, n in ROWS.items()}
        for rank in range(size)
    ]
    if step % 4 == 0:
        ids[-1] = {}
    if step % 3 == 0:
        del ids[0]["small"]
    return ids, [{n: torch.randn(len(i), DIM, generator=g) for n, i in own.items()} for own in ids]


def loss_of(rows: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([(torch.tanh(5 * rows[name]) * factors[name]).sum() for name in rows]).sum()


def one_step(tables: EmbeddingTables, step: int, world: World) -> dict[str, Tensor]:
    """This rank's share of a step; a table that the loss does not reach is among them."""
    ids, factors = (everyone[world.rank] for everyone in draw(step, world.size))
    tables.set_lr(0.05 * (1 - step / 60))
    rows = tables.lookup(ids)
    used = {name: part for name, part in rows.items() if name != "user" or step % 2}
    if used:
        loss_of(used, factors).backward()
    tables.apply_gradients()
    return rows


def whole_step(reference: EmbeddingTables, step: int, size: int) -> dict[str, Tensor]:
    """The same step of all ranks together, in one process; returns the rows by ID."""
    ids, factors = draw(step, size)
    none = torch.empty(0, dtype=torch.int64)
    every = {n: torch.cat([own.get(n, none) for own in ids]).unique() for n in ROWS}
    reference.set_lr(0.05 * (1 - step / 60))
    rows = reference.lookup(every)
    total = torch.zeros(())
    for own, weights in zip(ids, factors, strict=True):
        places = {n: torch.searchsorted(every[n], i) for n, i in own.items() if n != "user" or step % 2}
        if places:
            total = total + loss_of({n: rows[n][p] for n, p in places.items()}, weights)
    total.backward()
    reference.apply_gradients()
    return {n: torch.zeros(ROWS[n], DIM).index_copy(0, every[n], rows[n].detach()) for n in ROWS}


def equals_one_process(world: World, kind: str) -> None:
    tables, reference = tables_of(kind, world), reference_of(kind)
    same_bits(complete(tables.state(), world), reference.state())
    for step in range(1, 10):
        rows = one_step(tables, step, world)
        expected = whole_step(reference, step, world.size)
        for name, ids in draw(step, world.size)[0][world.rank].items():
            torch.testing.assert_close(rows[name].detach(), expected[name][ids], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(complete(tables.state(), world), reference.state(), rtol=1e-4, atol=1e-6)


def rows_of_another_run() -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Trained tables of other sizes, and where their rows go: shuffled, some dropped, a table left out."""
    rows = {"item.id": 350, "user": 40, "small": 7}
    other = make_tables(rows, EmbeddingConfig(dim=DIM), seed=8)
    found = other.lookup({name: torch.arange(0, count, 2) for name, count in rows.items()})
    torch.stack([part.square().sum() for part in found.values()]).sum().backward()
    other.apply_gradients()
    shuffled = np.random.default_rng(1).permutation(350)
    maps = {"item.id": np.where(shuffled < 300, shuffled, -1), "user": np.arange(40) + 10}
    return {name: tensor.clone() for name, tensor in other.state().items()}, maps


def takes_rows(world: World) -> None:
    """Rows of another run end where they do in one process, and new ones are those of fresh tables."""
    stored, maps = rows_of_another_run()
    for keep in (True, False):
        for kind in KINDS:
            tables, reference = tables_of(kind, world), reference_of(kind)
            for some in (tables, reference):
                take_rows(some, stored, maps, keep_optimizer=keep)
            same_bits(complete(tables.state(), world), reference.state())
            one_step(tables, 1, world)
            whole_step(reference, 1, world.size)
            found, wanted = complete(tables.state(), world), reference.state()
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def same_bits(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


def leaves_no_trace(world: World) -> None:
    tables = tables_of("mixed", world)
    one_step(tables, 1, world)
    before = complete(tables.state(), world)
    with torch.no_grad():
        found = tables.lookup({"item.id": torch.tensor([3, 299])} if world.first else {})
    if world.first:
        assert torch.equal(found["item.id"], before["item.id.weight"][[3, 299]])
    tables.lookup({"user": torch.tensor([world.rank, 9])})["user"].sum().backward()
    tables.discard()
    tables.apply_gradients()
    same_bits(complete(tables.state(), world), before)


def counts_bytes(world: World) -> None:
    """Row-wise: what is not in this rank's block of rows goes out, and as much comes back as rows."""
    tables = tables_of("row_wise", world)
    ids = torch.arange(0, 300, 3 + world.rank)
    tables.lookup({"item.id": ids})["item.id"].sum().backward()
    tables.apply_gradients()
    block = -(-300 // world.size)
    away = int((ids // block != world.rank).sum())
    asked = sum(
        int((torch.arange(0, 300, 3 + other) // block == world.rank).sum())
        for other in range(world.size)
        if other != world.rank
    )
    sent = {"bytes_ids": 8 * away, "bytes_rows": 4 * DIM * asked, "bytes_row_gradients": 4 * DIM * away}
    assert tables.traffic() == sent, (tables.traffic(), sent)


def saves(world: World, folder: Path, kind: str) -> None:
    """A trained state as a checkpoint, and whole in a file beside it, written by rank 0."""
    tables = tables_of(kind, world)
    for step in range(1, 5):
        one_step(tables, step, world)
    torch.manual_seed(100 + world.rank)
    state = {f"rng/{name}": held for name, held in rng_state(world).items()}
    state |= {f"tables/{name}": held for name, held in tables.state().items()}
    root = folder / f"{kind}-of-{world.size}"
    save_checkpoint(root, 4, tensors=state, state={"kind": kind}, world=world)
    expected = complete(tables.state(), world)
    if world.first:
        save_file(expected, root.with_suffix(".safetensors"))


def loads(world: World, folder: Path, size: int, kind: str, own_kind: str) -> None:
    """What `size` ranks saved, into tables that are dealt otherwise."""
    root = folder / f"{kind}-of-{size}"
    found = load_checkpoint(root / "step-4", world=world)
    tables = tables_of(own_kind, world, seed=99)
    tables.load_state(found.tensors.within("tables/"))
    same_bits(complete(tables.state(), world), load_file(root.with_suffix(".safetensors")))
    restore_rng({name: found.tensors[f"rng/{name}"] for name in ("torch",)}, world)
    if world.rank < size:
        got = torch.rand(3)
        assert torch.equal(got, torch.rand(3, generator=torch.Generator().manual_seed(100 + world.rank)))


def damage_is_found_by_all(world: World, folder: Path) -> None:
    """The ranks share the files to verify; what one finds, all refuse."""
    from ctr.checkpoint.checkpoint import load_latest

    found = load_latest(folder / "damaged", world=world)
    assert found is not None and found.step == 4


def background_errors(world: World, folder: Path) -> None:
    """A full disk on the last rank alone: an error on all, nothing half, and the next save works."""
    writer = CheckpointWriter(folder / "errors", world=world)
    held = {"t": Sharded((world.size, 4), [((world.rank, 0), torch.full((1, 4), float(world.rank)))])}
    writer.save(1, tensors=held, state={})
    writer.wait()
    with injected("ckpt.after_data:2:enospc" if world.rank == world.size - 1 else ""):
        writer.save(2, tensors=held, state={})
        try:
            writer.wait()
            raise AssertionError("an error was expected")
        except RetryableError as error:
            assert "No space left" in str(error) and "step 2" in str(error), error
    world.barrier()
    assert sorted(os.listdir(folder / "errors")) == ["step-1"]
    world.barrier()
    writer.save(3, tensors=held, state={})
    writer.wait()
    assert load_checkpoint(folder / "errors" / "step-3", world=world).tensors["t"][:, 0].tolist() == list(
        range(world.size)
    )


def dies_in_a_save(world: World, folder: Path) -> None:
    """The last rank is killed while its thread writes; the first hears of it."""
    writer = CheckpointWriter(folder / "killed", world=world)
    held = {"t": Sharded((world.size,), [((world.rank,), torch.ones(1))]), "dense": torch.ones(3)}
    writer.save(1, tensors=held, state={})
    with injected("ckpt.after_data:2:kill" if world.rank == world.size - 1 else ""):
        writer.save(2, tensors=held, state={})  # waits for the first
        writer.wait()


def trains(world: World, folder: Path, until: int) -> None:
    """A run with sharded tables and averages, up to a step or its end."""
    train(tiny_config(folder / "dataset", folder / "run", *TRAINED), world=world, until=until)


def run(world: World, folder: Path, scenarios: list[tuple[str, tuple[Any, ...]]]) -> dict[str, str | None]:
    """Scenario → what went wrong; those after a failure are not run, the ranks may be apart."""
    found: dict[str, str | None] = {}
    for name, arguments in scenarios:
        job: Callable[..., None] = globals()[name]
        label = " ".join([name, *(str(a) for a in arguments if not isinstance(a, Path))])
        try:
            job(world, *arguments)
            found[label] = None
        except Exception:
            found[label] = traceback.format_exc()
            break
    return found
