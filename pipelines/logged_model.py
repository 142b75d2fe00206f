"""What MLflow opens when it loads a logged run: configuration, checkpoint and data set to scores of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ctr.batch import Batch
from ctr.build import build_state, open_dataset, pick_device, scoring_loader
from ctr.checkpoint.load import load_checkpoint
from ctr.config import load_config
from ctr.serving.rows import score_rows
from ctr.tracking.pyfunc import Said
from ctr.training.scoring import outputs_of_run, score_batches
from features.dataset import Dataset
from pipelines.runs import keep_calibration

OPENER = f"{__name__}:open_rows"


def open_rows(config: Path, checkpoint: Path, dataset: Path) -> Callable[[np.ndarray], Said]:
    """A function from row IDs, int64 (N,), to probabilities, float64 (N,), or those of several tasks by name.

    Args:
        config: config.yaml of the run.
        checkpoint: directory of a step.
        dataset: where the data set of the run lies now.

    Raises:
        CheckpointError: damaged, or of another configuration or data set.
    """
    run = load_config(config)
    data = open_dataset(run, at=dataset)
    device = pick_device(run.train.device)
    state = build_state(run, data.manifest, device)
    found = load_checkpoint(checkpoint)
    state.restore(found, weights_only=True)
    keep_calibration(state, run, step=found.step)

    def score(part: Dataset, name: str) -> Iterable[tuple[Batch, np.ndarray]]:
        batches = scoring_loader(run, part, name).iterate(0)
        return score_batches(state, batches, bf16=run.train.precision == "bf16", device=device)

    outputs = outputs_of_run(state)

    def said(row_id: np.ndarray) -> Said:
        first, others = outputs.scores(score_rows(data, row_id, score=score))
        further = zip(outputs.names[1:], others, strict=True)
        return {"score": first} | {f"score_{n}": own for n, own in further} if others else first

    return said
