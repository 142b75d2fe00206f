"""`ctr train CONFIG`: train a model; the same command on an existing run directory resumes it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ctr.build import (
    build_state,
    open_dataset,
    parameter_counts,
    pick_device,
    scoring_loader,
    training_loader,
)
from ctr.config import RunConfig, dump_config, load_config
from ctr.durable import replace_file
from ctr.run_dir import RunDir
from ctr.signals import GracefulStop
from ctr.tracking import Tracker
from ctr.trainer import Outcome, Trainer
from ctr.versions import check_versions
from features.dataset import Dataset
from pipelines.display import make_display


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
        print(dry_run(config))
        return 0
    outcome = train(config)
    if outcome.stopped_by is not None:
        print(f"stopped after step {outcome.steps}; the same command resumes", file=sys.stderr)
        return 128 + outcome.stopped_by
    print(f"trained {outcome.steps} steps")
    if outcome.best_value is not None:
        metric, value = config.train.metric, abs(outcome.best_value)
        print(f"best validation {metric} {value:.4f} at step {outcome.best_step}")
    print(f"run directory {config.run}; next: ctr evaluate {config.run}")
    return 0


def dry_run(config: RunConfig) -> str:
    """The resolved configuration and the model's size, after building everything."""
    dataset = open_dataset(config)
    counts = parameter_counts(build_state(config, dataset.manifest, pick_device(config.train.device)))
    sizes = "\n".join(f"# {name}: {count:,}" for name, count in counts.items())
    return f"{dump_config(config)}{sizes}\n# dataset {dataset.manifest.name}: {dataset.manifest.digest()}"


def train(config: RunConfig, *, until: int | None = None) -> Outcome:
    """Train or resume the run that a configuration names; `until`: pause at a step, and validate there."""
    dataset = open_dataset(config, verify=True)
    device = pick_device(config.train.device)
    display = make_display()
    tracking = config.tracking
    # All that a wrong configuration can break comes before the run directory is made.
    state = build_state(config, dataset.manifest, device)
    batches = training_loader(config, dataset)
    has_valid = dataset.manifest.splits["valid"].impressions > 0 and config.train.data == "train"
    valid = scoring_loader(config, dataset, "valid") if has_valid else None
    with RunDir.open(config.run) as run_dir, GracefulStop() as stop:
        tracker = Tracker(
            run_dir,
            uri=tracking.uri,
            experiment=tracking.experiment,
            config={**config.model_dump(mode="json"), **parameter_counts(state)},
            dataset=describe_dataset(dataset),
            tags=tracking.tags,
            system_seconds=tracking.system_every,
        )
        trainer = Trainer(
            config,
            state,
            train=batches,
            valid=valid,
            run_dir=run_dir,
            tracker=tracker,
            display=display,
            device=device,
        )
        with tracker:
            trainer.resume()
            replace_file(run_dir.config, dump_config(config).encode())
            tracker.artifact(run_dir.config)
            try:
                outcome = trainer.fit(stop, until=until)
                if until is not None and valid is not None and outcome.stopped_by is None:
                    tracker.log("rung", outcome.steps, trainer.validation_metrics())
            finally:
                display.stop()
            tracker.close("FINISHED" if outcome.stopped_by is None else "KILLED")
    return outcome


def describe_dataset(dataset: Dataset) -> dict[str, str]:
    """What tracking says of the data: name, hash of the manifest, place."""
    return {"name": dataset.manifest.name, "sha256": dataset.manifest.digest(), "source": str(dataset.root)}
