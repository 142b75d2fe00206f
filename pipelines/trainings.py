"""What commands that do several trainings share: how a signal ends them."""

from __future__ import annotations

from collections.abc import Callable

from ctr.config import RunConfig
from ctr.training.trainer import Outcome
from pipelines.terminal import echo
from pipelines.train import train


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
