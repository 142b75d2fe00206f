"""What the ranks of `tests/ctr/distributed/test_world.py` do; each job runs in every process of its world."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctr.build import build_state, hidden_columns, open_dataset, scoring_loader, training_loader
from ctr.checkpoint.checkpoint import load_latest
from ctr.distributed.world import World
from ctr.training.scoring import score_split
from ctr.training.step import Updates
from features.durable.faults import injected
from pipelines import train as pipeline
from pipelines.cli import main
from pipelines.train import train
from tests.ctr.tiny_run import tiny_config

KILL = "ckpt.after_rename:8:kill"  # once: the start after it has that checkpoint


def helpers(world: World) -> dict[str, Any]:
    """Every collective of `World` once."""
    own = {"x": np.arange(world.rank * 2, dtype=np.float32), "y": np.full((1, 2), world.rank)}
    tensor = torch.tensor([1.0, world.rank])
    world.copy_from_first([copied := torch.tensor([world.rank + 5.0])])
    return {
        "sum": world.sum_(tensor).tolist(),
        "sums": world.sums(0.5, world.rank),
        "largest": world.largest(10 - world.rank),
        "first": world.broadcast_json({"from": world.rank, "nothing": None}),
        "copied": copied.tolist(),
        "gathered": [{k: v.tolist() for k, v in found.items()} for found in world.gather_arrays(own)],
    }


def train_runs(world: World, dataset: Path, folder: Path, runs: dict[str, tuple[str, ...]]) -> list[Any]:
    """Train one run after the other; every rank must end alike."""
    return [_weights_agree(world, tiny_config(dataset, folder / name, *runs[name])) for name in runs]


def _weights_agree(world: World, config: Any) -> tuple[Any, ...]:
    outcome = train(config, world=world)
    return outcome.stopped_by, outcome.steps, outcome.best_step, outcome.best_value


def hidden_gains(world: World, dataset: Path, run: Path) -> list[Any]:
    """What each ID column tells an untrained model."""
    config = tiny_config(dataset, run)
    opened = open_dataset(config)
    found = hidden_columns(config, opened, world=world)
    assert found is not None
    return found.measure(build_state(config, opened.manifest, world.device, world=world))


def skip_on_last_rank(world: World, dataset: Path, run: Path, options: tuple[str, ...]) -> Any:
    """Steps 3 and 7 have a bad loss on the last rank alone."""
    with injected("loss:3:nan,loss:7:nan" if world.rank == world.size - 1 else ""):
        return train(tiny_config(dataset, run, *options), world=world).steps


def stop_on_last_rank(world: World, dataset: Path, run: Path, options: tuple[str, ...]) -> list[Any]:
    """The last rank alone gets a SIGTERM in step 5; then all go on."""
    display = pipeline.NoDisplay
    config = tiny_config(dataset, run, *options)

    class Signalled(display):
        def step(self, *, step: int, rows: int, figures: dict[str, float]) -> None:
            if step == 5:
                signal.raise_signal(signal.SIGTERM)

    pipeline.NoDisplay = Signalled if world.rank == world.size - 1 else display
    try:
        first = train(config, world=world)
    finally:
        pipeline.NoDisplay = display
    second = train(config, world=world)
    return [first.stopped_by, first.steps, second.stopped_by, second.steps]


def shares(world: World, dataset: Path, options: tuple[str, ...]) -> list[tuple[int, list[int], int]]:
    """Of each batch: its whole number of rows, the rows of this rank and its events."""
    config = tiny_config(dataset, dataset / "unused", *options)
    loader = training_loader(config, open_dataset(config), world=world)
    return [
        (b.total_rows or 0, b.row_id.tolist(), sum(len(s.time_gap) for s in b.sequences.values()))
        for b in loader.iterate(0)
    ]


def replicas(world: World, dataset: Path, options: tuple[str, ...]) -> list[str]:
    """Names of what differs between the ranks after some steps; none may."""
    config = tiny_config(dataset, dataset / "unused", *options)
    data = open_dataset(config)
    state = build_state(config, data.manifest, world.device, world=world)
    updates = Updates(
        state.model, state.tables, state.optimizer, averaged=None, config=config, total_steps=9, world=world
    )
    for step, batch in enumerate(training_loader(config, data, world=world).iterate(0)):
        updates.step(batch, step)
    tensors = {n: t.numpy().reshape(-1) for n, t in state.tensors().items() if not n.startswith("rng/")}
    found = world.gather_arrays(tensors)
    return [n for n in tensors if any(not np.array_equal(f[n], tensors[n]) for f in found)]


def score(world: World, dataset: Path, run: Path, options: tuple[str, ...]) -> list[float] | None:
    """The logits of the validation split with the weights of a finished run, in file order, of rank 0."""
    config = tiny_config(dataset, run, *options)
    data = open_dataset(config)
    state = build_state(config, data.manifest, world.device, world=world)
    checkpoint = load_latest(run / "checkpoints", world=world)
    assert checkpoint is not None
    state.restore(checkpoint, weights_only=True)
    loader = scoring_loader(config, data, "valid", world=world)
    found = score_split(state, loader, bf16=False, device=world.device, world=world)
    return None if found is None else found.logit.tolist()


def command(*line: str) -> int:
    """What `python -u -m pipelines.train CONFIG` does, but for a kill of rank 0 by `KILL`."""
    assert line[:3] == ("-u", "-m", "pipelines.train")
    with injected(KILL):
        return main(["train", *line[3:]])


def die(world: World, how: str) -> None:
    """The last rank is gone, or silent, while the others wait for it."""
    if world.rank == world.size - 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(6 if how == "silent" else 0)
        raise ValueError("a mistake of one rank")
    world.barrier()
