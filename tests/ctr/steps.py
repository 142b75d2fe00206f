"""Steps taken by hand: the state of a fresh run, its updates and first batches, what has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.build import build_state, training_loader
from ctr.config import RunConfig
from ctr.runs.versions import fbgemm_available
from ctr.training.state import TrainingState
from ctr.training.step import Updates
from features.dataset import Dataset
from tests.ctr.tiny_run import tiny_config

TOTAL = 20  # steps of the schedule
ENGINES = [
    "torch",
    pytest.param("fbgemm", marks=pytest.mark.skipif(not fbgemm_available(), reason="no FBGEMM")),
]
Started = tuple[RunConfig, TrainingState, Updates, list[Batch]]


def start(dataset: Dataset, *overrides: str, **others: Any) -> Started:
    """A fresh run with the batches of its first epoch; `others` go to its updates."""
    config = tiny_config(dataset.root, Path("run"), *overrides)
    state = build_state(config, dataset.manifest, torch.device("cpu"))
    updates = Updates(
        state.model,
        state.tables,
        state.optimizer,
        averaged=state.averaged,
        config=config,
        total_steps=TOTAL,
        pending=state.pending,
        **others,
    )
    return config, state, updates, list(training_loader(config, dataset).iterate(0))


def snapshot(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of a state, copied."""
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


def different(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> set[str]:
    """Names of the tensors that are not equal bit by bit, or on one side alone."""
    both = now.keys() & before.keys()
    return (now.keys() ^ before.keys()) | {name for name in both if not torch.equal(now[name], before[name])}


def changed(state: TrainingState, before: Mapping[str, Tensor]) -> set[str]:
    """Which parts of the state differ from a snapshot."""
    return {name.split("/")[0] for name in different(state.tensors(), before)}
