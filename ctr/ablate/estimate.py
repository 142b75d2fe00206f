"""How long an ablation will take: a training step of each model, timed on one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ctr.ablate.subruns import SubRun
from ctr.build import build_state, open_dataset, pick_device, training_loader
from ctr.training.step import Updates

STARTUP = 8.0  # seconds of imports until a worker trains
SCORING = 0.4  # of the time of a training step for as many rows
TIMED = 2  # steps


@dataclass(frozen=True)
class Estimate:
    """Of what is still to do."""

    seconds: dict[str, float]  # key of a sub-run → time of one worker
    workers: int

    @property
    def total(self) -> float:
        """Seconds with all workers at work."""
        return sum(self.seconds.values()) / self.workers


def estimate(subruns: Sequence[SubRun], *, workers: int) -> Estimate:
    """Time a step of every different model; sub-runs that differ by seed or window share it.

    Args:
        subruns: those to do.
        workers: how many go on at a time; each has its share of the cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    per_step: dict[str, float] = {}
    seconds = {}
    try:
        for subrun in subruns:
            variant = subrun.trials[0].variant
            if variant not in per_step:
                per_step[variant] = _seconds_per_step(subrun)
            passes = 1 + SCORING * _scored_share(subrun)
            seconds[subrun.key] = STARTUP + subrun.steps * per_step[variant] * passes
    finally:
        torch.set_num_threads(threads)
    return Estimate(seconds, workers)


def _seconds_per_step(subrun: SubRun) -> float:
    config = subrun.config
    dataset = open_dataset(config)
    device = pick_device(config.train.device)
    state = build_state(config, dataset.manifest, device)
    updates = Updates(
        state.model, state.tables, state.optimizer, averaged=None, config=config, total_steps=subrun.steps
    )
    batch = next(training_loader(config, dataset).iterate(0)).to(device)
    updates.step(batch, 0)
    began = time.perf_counter()
    for step in range(1, TIMED + 1):
        updates.step(batch, step)
    return (time.perf_counter() - began) / TIMED


def _scored_share(subrun: SubRun) -> float:
    """Rows that are scored after or while training, for each row trained."""
    splits, config = subrun.manifest.splits, subrun.config
    epochs = max(1, config.train.epochs)
    trained = max(1, splits["train"].impressions * epochs)
    evaluations = subrun.steps // config.train.evaluate_every if config.train.evaluate_every else epochs
    return (splits["valid"].impressions * evaluations + splits["test"].impressions) / trained
