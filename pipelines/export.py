"""`ctr export RUN --out DIR`: the trained model as programs that run where this package is not installed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ctr.build import ngrams_of, scoring_loader
from ctr.export import mlflow_model
from ctr.export.directory import Exported, check_difference, fill
from ctr.export.inputs import Input, inputs_of_candidates, inputs_of_requests, joined, packed
from ctr.export.outputs import score_array
from ctr.models.model import Model
from ctr.runs.directory import RunDir
from ctr.tracking.exported import add_mlflow_files
from ctr.training.scoring import outputs_of_run, score_batches, tasks_of
from features.durable.directory import check_absent, new_directory
from features.errors import ConfigError
from pipelines.runs import DATASET_HELP, OpenRun, open_run
from pipelines.terminal import echo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add("run_dir", type=Path, help="run directory")
    add("--out", type=Path, required=True, metavar="DIR", help="a directory that does not exist yet")
    add("--checkpoint", default="best", help="best, last or a step number")
    add("--dataset", type=Path, help=DATASET_HELP)
    add("--split", default="test", choices=("train", "valid", "test"), help="of the example requests")
    add("--rows", type=int, default=1000, metavar="N", help="of the example, at least; default: 1000")
    add("--onnx", action="store_true", help="also as ONNX files, where torch can translate the graphs")
    add("--mlflow", action="store_true", help="also as a model for mlflow.pyfunc.load_model(DIR)")
    add("--raw", action="store_true", help="scores without the calibration of the run")
    add("--no-compile", action="store_true", help="portable graphs alone, in seconds instead of minutes")


def run(arguments: argparse.Namespace) -> int:
    """Export, load, compare, and only then give the directory its name."""
    if arguments.rows < 1:
        raise ConfigError(f"--rows must be at least 1, got {arguments.rows}")
    check_absent(arguments.out)
    opened = open_run(
        RunDir(arguments.run_dir),
        dataset=arguments.dataset,
        checkpoint=arguments.checkpoint,
        raw=arguments.raw,
    )
    bf16 = opened.config.train.precision == "bf16"
    example = _example(opened, arguments.split, arguments.rows)
    with opened.state.for_scoring() as model, new_directory(arguments.out, point="export") as folder:
        exported = _exported(opened, cast(Model, model), arguments.run_dir)
        difference = fill(
            folder,
            exported,
            example,
            compiled=not arguments.no_compile,
            onnx=arguments.onnx,
            say=echo,
        )
        check_difference(difference, bf16=bf16)
        if arguments.mlflow:
            example_rows = mlflow_model.rows(mlflow_model.read_schema(folder), example, 2)
            scores = example["score"][: example["candidate.ends"][:3][-1]].tolist()
            add_mlflow_files(folder, Path(mlflow_model.__file__), example_rows, scores)
    echo(
        f"wrote {arguments.out} (weights of step {opened.step}): {len(example['score']):,} scores differ "
        f"from those of ctr predict{' --raw' if arguments.raw else ''} by at most {difference:.1e}"
        f"{' before calibration' if opened.state.calibration else ''}"
        f"{' (the run computes in bfloat16, the exported model in float32)' if bf16 else ''}"
    )
    return 0


def _exported(opened: OpenRun, model: Model, run_dir: Path) -> Exported:
    calibration = opened.state.calibration
    about = {
        "model": opened.config.model.kind,
        "run": run_dir.resolve().name,
        "step": opened.step,
        "dataset": opened.dataset.manifest.name,
        "dataset_sha256": opened.dataset.manifest.digest(),
        # Of the last axis of the logits; empty where there is one label and no such axis.
        "tasks": [task.model_dump(mode="json") for task in tasks_of(opened.state.model)],
        "calibration": None if calibration is None else calibration.model_dump(mode="json"),
    }
    ngrams, outputs = ngrams_of(opened.config, opened.dataset.manifest), outputs_of_run(opened.state)
    return Exported(model, opened.state.tables, opened.dataset, ngrams, outputs, about, opened.device)


def _example(opened: OpenRun, split: str, rows: int) -> dict[str, Tensor]:
    """The first requests of a split with at least so many rows (or all), packed, with row IDs and scores."""
    manifest = opened.dataset.manifest
    inputs = [
        *inputs_of_requests(manifest, ngrams_of(opened.config, manifest)),
        *inputs_of_candidates(manifest),
    ]
    parts: list[dict[str, Tensor]] = []
    found = 0
    for part, count in _scored(opened, inputs, split):
        parts.append(part)
        found += count
        if found >= rows:
            break
    if not parts:
        raise ConfigError(f"--split {split} has no rows to make an example of; name another one")
    return joined(parts)


def _scored(opened: OpenRun, inputs: list[Input], split: str) -> Iterator[tuple[dict[str, Tensor], int]]:
    loader = scoring_loader(opened.config, opened.dataset, split)
    bf16 = opened.config.train.precision == "bf16"
    outputs = outputs_of_run(opened.state)
    for batch, logits in score_batches(opened.state, loader.iterate(0), bf16=bf16, device=opened.device):
        found = {"score": score_array(outputs, logits), "logit": logits}
        said = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in found.items()}
        yield packed(batch, inputs) | said | {"row_id": batch.row_id}, batch.num_rows
