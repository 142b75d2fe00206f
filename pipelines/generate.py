"""`ctr generate STAGE CONFIG`: train a next-behaviour generator, decode with it, compare strategies."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ctr.build import open_dataset, pick_device
from ctr.distributed import World
from ctr.generate.config import GenerateConfig, load_generate_config
from ctr.generate.semantic_ids import save_semantic_ids
from ctr.generate.training import (
    FOLDER,
    GeneratorTrainer,
    build_generator,
    generator_loader,
    mean_loss,
    semantic_ids,
    target_counts,
    training_view,
)
from ctr.trainer import Outcome
from ctr.versions import check_versions
from pipelines.train import describe_outcome, fit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("stage", choices=("train", "decode", "evaluate"))
    parser.add_argument("config", type=Path, help="YAML configuration of the generator")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=1", dest="overrides")


def run(arguments: argparse.Namespace) -> int:
    """Run one stage."""
    check_versions()
    config = load_generate_config(arguments.config, arguments.overrides)
    if arguments.stage == "train":
        outcome = train(config)
        describe_outcome(config, outcome)
        return 0 if outcome.stopped_by is None else 128 + outcome.stopped_by
    return 0


def train(config: GenerateConfig) -> Outcome:
    """Train or resume the generator that a configuration names."""
    world = World.single(pick_device(config.train.device))
    dataset = open_dataset(config, verify=True)
    ids = semantic_ids(config, dataset.manifest, Path(config.run) / FOLDER)
    state = build_generator(config, dataset.manifest, ids, world.device)
    view = training_view(dataset, config)
    make = partial(
        GeneratorTrainer,
        train=generator_loader(config, view, "train", train=True),
        valid=generator_loader(config, view, "valid", train=False),
        objective=mean_loss,
        popularity=target_counts(dataset, config, len(ids.tokens)),
    )
    return fit(
        config, dataset, state, make, world=world, prepare=lambda d: save_semantic_ids(d.path / FOLDER, ids)
    )
