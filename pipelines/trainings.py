"""What commands that do several trainings share: how many at a time, and how a signal ends them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ctr.ablate.schedule import Launch, ProcessWorker, how_many
from ctr.ablate.subruns import SubRun
from ctr.build import pick_device
from ctr.config import RunConfig
from ctr.training.trainer import Outcome
from pipelines.options import at_least_one
from pipelines.terminal import echo
from pipelines.train import train


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Declare `--workers`."""
    parser.add_argument("--workers", type=at_least_one, metavar="N",
                        help="trainings at a time; default: as cores and memory allow")  # fmt: skip


@dataclass(frozen=True)
class Processes:
    """How many trainings go on at a time, and what begins one."""

    workers: int
    launch: Launch

    @classmethod
    def sharing_cores(cls, subruns: Sequence[SubRun], workers: int | None) -> Processes:
        """As many as asked for, or as fit; each in a process with its share of the cores.

        Args:
            subruns: all trainings, the base's first, which says on which device they are.
            workers: at least 1; None: as cores and memory allow, one on a GPU.
        """
        on_gpu = pick_device(subruns[0].config.train.device).type == "cuda"
        count = how_many(subruns, on_gpu=on_gpu) if workers is None else workers
        threads = max(1, torch.get_num_threads() // count)
        return cls(count, partial(ProcessWorker, threads=threads))


class TrainingStopped(Exception):
    """A signal ended a training; its number."""


def train_to_the_end(config: RunConfig) -> Outcome:
    """Train or resume a run of which only the finished one is of use.

    Raises:
        TrainingStopped: a signal ended the training; it has saved, and the next call goes on.
    """
    outcome = train(config)
    if outcome.stopped_by is not None:
        raise TrainingStopped(outcome.stopped_by)
    return outcome


def until_stopped(job: Callable[[], int]) -> int:
    """The exit code of a job of several trainings; 128 + signal where one ended a training."""
    try:
        return job()
    except TrainingStopped as stopped:
        echo("stopped; the same command goes on", err=True)
        return 128 + int(stopped.args[0])
