"""What a model costs beside what it gives: parameters, operations, speed and memory of its training."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ctr.batch import Batch
from ctr.bench.flops import count_flops
from ctr.build import parameter_counts
from ctr.runs.journal import Row
from ctr.training.objective import objective_of
from ctr.training.state import TrainingState

ROW = "cost"  # kind of the journal row


@dataclass(frozen=True)
class Cost:
    """Of one training, or the mean of several.

    Args:
        dense_parameters, embedding_parameters: counts.
        flops_per_row: operations of forward and backward of a training batch, for each of its rows.
        rows_per_s: median over the training's journal rows.
        peak_mib: largest resident memory of the training's process.
    """

    dense_parameters: float
    embedding_parameters: float
    flops_per_row: float
    rows_per_s: float | None = None
    peak_mib: float | None = None

    @property
    def parameters(self) -> float:
        """All of them."""
        return self.dense_parameters + self.embedding_parameters

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what depends on the machine stands under `wall`, as in a journal."""
        plain = asdict(self)
        wall = {name: plain.pop(name) for name in ("rows_per_s", "peak_mib")}
        return {**plain, "wall": wall}


def measure(state: TrainingState, batch: Batch, *, bf16: bool) -> dict[str, float]:
    """The values of the journal's cost row: parameters, and operations per row; weights stay as they are."""
    # Cut off from the tables: a fused engine would update them in backward.
    rows = {t: r.detach().requires_grad_() for t, r in state.tables.lookup(batch.unique_ids).items()}

    def step() -> None:
        with torch.autocast(batch.label.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = state.model(batch, rows).float()
        objective_of(state.model)(logits, batch).backward()

    try:
        flops = count_flops(step)
    finally:
        state.tables.discard()
        state.model.zero_grad()
    counts = parameter_counts(state)
    return {**{name: float(n) for name, n in counts.items()}, "flops_per_row": flops / batch.num_rows}


def peak_mib() -> float:
    """The largest resident memory of this process so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def cost_of(rows: Iterable[Row]) -> Cost | None:
    """The cost that a run's journal tells; None where it does not."""
    rows = list(rows)
    own = [row for row in rows if row["kind"] == ROW]
    if not own:
        return None
    names = ("dense_parameters", "embedding_parameters", "flops_per_row")
    speeds = [
        row["wall"]["rows_per_s"] for row in rows if row["kind"] == "train" and "rows_per_s" in row["wall"]
    ]
    memory = [row["wall"]["rss_mib"] for row in rows if row["kind"] == "system"]
    memory += [row["wall"]["peak_mib"] for row in own]
    speed = float(np.median(speeds)) if speeds else None
    return Cost(**{name: own[-1][name] for name in names}, rows_per_s=speed, peak_mib=max(memory))


def mean_cost(costs: Iterable[Cost | None]) -> Cost | None:
    """The mean of those that are known; the largest peak."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return None
    speeds = [c.rows_per_s for c in known if c.rows_per_s is not None]
    return Cost(
        float(np.mean([c.dense_parameters for c in known])),
        float(np.mean([c.embedding_parameters for c in known])),
        float(np.mean([c.flops_per_row for c in known])),
        float(np.median(speeds)) if speeds else None,
        max((c.peak_mib for c in known if c.peak_mib is not None), default=None),
    )
