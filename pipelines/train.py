"""`ctr train CONFIG`: train a model; the same command on an existing run directory resumes it.

Under torchrun (``torchrun --nproc-per-node=2 -m pipelines.train CONFIG``) all processes train one run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ctr.build import (
    build_state,
    hidden_columns,
    open_dataset,
    parameter_counts,
    pick_device,
    training_loader,
    validation_loader,
)
from ctr.checkpoint.directories import steps
from ctr.config import RunConfig, dump_config, load_config
from ctr.cooccurrence.start import Placed, start_from_cooccurrence
from ctr.distributed.world import World, open_world
from ctr.embedding.restart import restart_of
from ctr.runs.directory import RunDir
from ctr.runs.ensemble import refuse_ensemble
from ctr.runs.learned import LEARNED, JudgedPart, learned_from, learned_until, unseen_warning
from ctr.runs.signals import GracefulStop
from ctr.runs.versions import check_versions
from ctr.tracking import SilentTracker, Tracker
from ctr.tracking.address import tracking_uri
from ctr.training.state import TrainingState
from ctr.training.trainer import Outcome, Trainer
from ctr.training.validation import selected_figure
from ctr.transfer.report import TakenOver
from ctr.transfer.start import start_from_run
from features.dataset import Dataset
from features.durable import replace_file
from features.encode.encoding import encoding_of
from features.errors import ConfigError
from features.remote.url import remote
from features.remote.working_copy import here
from pipelines.display import NoDisplay, make_display
from pipelines.remote_runs import runs_here
from pipelines.runs import keep_spec
from pipelines.terminal import echo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("config", type=Path, help="YAML configuration of the run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=1",
        dest="overrides",
        help="override a value; repeatable",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="build everything, print the resolved configuration, stop"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train; the exit code is 0, or 128 + the signal that ended it."""
    check_versions()
    config = load_config(arguments.config, arguments.overrides)
    if arguments.dry_run:
        with runs_here(*_runs_of(config)):
            echo(dry_run(config))
        return 0
    with open_world(pick_device(config.train.device), timeout=config.distributed.timeout) as world:
        check_alone(config, world)
        with runs_here(*_runs_of(config)):
            outcome = train(config, world=world)
    if world.first:
        describe_outcome(config, outcome)
    return 0 if outcome.stopped_by is None else 128 + outcome.stopped_by


def _runs_of(config: RunConfig) -> list[str | None]:
    """The run, and those that it starts from."""
    init, lora = config.init, config.lora
    return [config.run, None if init is None else init.run, None if lora is None else lora.base]


def check_alone(config: RunConfig, world: World) -> None:
    """Several processes would each work in a copy of a remote run."""
    if world.size > 1 and any(remote(run) for run in _runs_of(config) if run is not None):
        raise ConfigError(
            f"a run in an object store is trained by one process, got {world.size} for {config.run}; "
            "train into a directory that all processes see"
        )


def describe_outcome(config: RunConfig, outcome: Outcome, *, following: str | None = None) -> None:
    """Tell a person how it ended, and what comes next."""
    if outcome.stopped_by is not None:
        echo(f"stopped after step {outcome.steps}; the same command resumes", err=True)
        return
    echo(f"trained {outcome.steps} steps")
    if outcome.best_value is not None:
        metric = config.train.metric
        value = selected_figure(outcome.best_value, metric)
        echo(f"best validation {metric} {value:.4f} at step {outcome.best_step}")
    echo(f"run directory {config.run}; next: {following or f'ctr evaluate {config.run}'}")


def dry_run(config: RunConfig) -> str:
    """The resolved configuration and the model's size, after building everything."""
    tracking_uri(here(config.run), config.tracking.uri)  # refuses an address that is wrong
    dataset = open_dataset(config)
    state = build_state(config, dataset.manifest, pick_device(config.train.device))
    state.encoding = encoding_of(dataset)
    started = start_from_run(state, config, dataset)
    sizes = "\n".join(f"# {name}: {count:,}" for name, count in parameter_counts(state).items())
    sizes += "".join(f"\n# {line}" for line in (started.lines() if started else ()))
    sizes += f"\n# {reason}" if (reason := restart_of(config, dataset.manifest).reason) else ""
    return f"{dump_config(config)}{sizes}\n# dataset {dataset.manifest.name}: {dataset.manifest.digest()}"


def train(config: RunConfig, *, until: int | None = None, world: World | None = None) -> Outcome:
    """Train or resume the run that a configuration names.

    Args:
        config: the run.
        until: pause at a step, and validate there.
        world: the processes that train together, each in this function; this one alone if None.
    """
    world = world or World.single(pick_device(config.train.device))
    dataset = open_dataset(config, verify=world.local_rank == 0)
    # All that a wrong configuration can break comes before the run directory is made.
    tracking_uri(here(config.run), config.tracking.uri)
    state = build_state(config, dataset.manifest, world.device, world=world)
    state.encoding = encoding_of(dataset)
    begun = steps(here(config.run) / "checkpoints")  # then it goes on from there, and starts nowhere else
    begun = world.broadcast_json(begun)
    started = None if begun else start_from_run(state, config, dataset, world=world)
    placed = None if begun else start_from_cooccurrence(state, config, dataset)
    batches = training_loader(config, dataset, world=world)
    state.teacher = None if batches.teacher is None else batches.teacher.digest
    valid = validation_loader(config, dataset, world=world)
    hidden = hidden_columns(config, dataset, world=world)
    restart = restart_of(config, dataset.manifest)
    trainer = partial(Trainer, train=batches, valid=valid, restart=restart, hidden=hidden)
    return fit(config, dataset, state, trainer, world=world, until=until, started=started or placed)


def fit(
    config: RunConfig,
    dataset: Dataset,
    state: TrainingState,
    make_trainer: Callable[..., Trainer],
    *,
    world: World,
    until: int | None = None,
    prepare: Callable[[RunDir], None] = lambda run_dir: None,
    kind: str | None = None,
    started: TakenOver | Placed | None = None,
) -> Outcome:
    """Train in the run's directory, from its newest checkpoint on, with tracking and signals.

    Args:
        config: the run.
        dataset: what it trains on.
        state: fresh.
        make_trainer: a kind of Trainer with its loaders.
        world: the processes that train together.
        until: pause at a step, and validate there.
        prepare: called with the locked run directory, before the first step.
        kind: of the model, for tracking; None: that of the configuration.
        started: what was taken over from another run, or found in the data, if it starts from that now.
    """
    display = make_display() if world.first else NoDisplay()
    with (
        start_run(config, dataset, state, world, kind=kind or config.model.kind) as (run_dir, tracker),
        GracefulStop() as stop,
    ):
        trainer = make_trainer(
            config, state, run_dir=run_dir, tracker=tracker, display=display, device=world.device, world=world
        )
        with tracker:
            trainer.resume()
            _tell_restart(trainer)
            for line in trainer.train.teacher.lines if trainer.train.teacher else ():
                display.message(line)
            if started is not None:
                tracker.log(started.kind, 0, started.to_json())
                for line in started.lines():
                    display.message(line)
            if world.first:
                prepare(run_dir)
                _keep_learned(trainer, config, dataset)
                replace_file(run_dir.config, dump_config(config).encode())
                tracker.artifact(run_dir.config)
                if keep_spec(run_dir, dataset):
                    tracker.artifact(run_dir.spec)
            try:
                outcome = trainer.fit(stop, until=until)
                if until is not None and trainer.valid is not None and outcome.stopped_by is None:
                    tracker.log("rung", outcome.steps, trainer.validation_metrics(trainer.valid))
            finally:
                display.stop()
            tracker.close("FINISHED" if outcome.stopped_by is None else "KILLED")
    return outcome


def _tell_restart(trainer: Trainer) -> None:
    """Say which tables are drawn anew at each epoch, and why, if that was not asked for by name."""
    restart = trainer.restart
    if restart.reason:
        trainer.display.message(restart.reason)
    if restart.per_row and trainer.progress.step == 0:
        trainer.tracker.log("restart", 0, restart.to_json())


def _keep_learned(trainer: Trainer, config: RunConfig, dataset: Dataset) -> None:
    """Write down what the run learns from, and say which part is not unseen by a run that it goes on from."""
    run = trainer.run_dir.path
    goes_on = trainer.progress.step > 0 and (run / LEARNED).is_file()
    learned = learned_until(run) if goes_on else learned_from(config, dataset)
    learned.write(run)
    for split in ("valid", "test"):
        if split not in config.train.data.split("+"):
            warning = unseen_warning(config.run, learned, JudgedPart.of(dataset, split), others=True)
            if warning is not None:
                trainer.display.message(f"warning: {split}: {warning}")


@contextmanager
def start_run(
    config: RunConfig, dataset: Dataset, state: TrainingState, world: World, *, kind: str
) -> Iterator[tuple[RunDir, Tracker | SilentTracker]]:
    """The run's directory, locked by rank 0 alone, and its tracker; the other ranks only read."""
    if not world.first:
        yield RunDir(here(config.run)), SilentTracker()
        return
    tracking, data = config.tracking, describe_dataset(dataset)
    tags = {"ctr.model": kind, "ctr.dataset": data["name"], "ctr.dataset_sha256": data["sha256"]}
    refuse_ensemble(here(config.run))
    with RunDir.open(config.run) as run_dir:
        yield (
            run_dir,
            Tracker(
                run_dir,
                uri=tracking.uri,
                experiment=tracking.experiment,
                config={**config.model_dump(mode="json"), **parameter_counts(state), "ranks": world.size},
                dataset=data,
                tags={**tags, **tracking.tags},
                system_seconds=tracking.system_every,
            ),
        )


def describe_dataset(dataset: Dataset) -> dict[str, str]:
    """What tracking says of the data: name, hash of the manifest, place."""
    return {"name": dataset.manifest.name, "sha256": dataset.manifest.digest(), "source": dataset.place}


if __name__ == "__main__":  # for torchrun -m pipelines.train
    from pipelines.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
