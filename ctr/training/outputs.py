"""From the logits of a model to what is said of a row: probabilities of tasks and of their chains, or values.

N rows, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ctr.models.heads.chains import joint_logit
from ctr.predictions import Output, outputs_of
from ctr.training.calibration import Calibrators
from features.dataset import TaskInfo


def probability(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−logit) in float64; exact enough that different float32 logits stay different."""
    wide = logit.astype(np.float64)
    return np.exp(-np.logaddexp(0.0, -wide))


class Outputs:
    """The outputs of a run, see `ctr.predictions.outputs`.

    Args:
        tasks: of a run with `tasks`; empty for one whose model gives the logit of the one label.
        calibration: what makes probabilities of logits; None: σ(logit).
    """

    def __init__(self, tasks: Sequence[TaskInfo] = (), calibration: Calibrators | None = None) -> None:
        self.tasks, self.calibration = list(tasks), calibration
        self.all: list[Output] = outputs_of(tasks) or [Output("", (0,), TaskInfo())]

    @property
    def names(self) -> list[str]:
        """Of all outputs, the first task's first; that of a run without `tasks` has the name ""."""
        return [output.name for output in self.all]

    @property
    def raw(self) -> Outputs:
        """The same without calibration."""
        return Outputs(self.tasks)

    def first_logit(self, logits: np.ndarray) -> np.ndarray:
        """(N,) of the first task, from what a model gives: (N,), or (N, K) of a run with tasks."""
        return logits[:, 0] if self.tasks else logits

    def scores(self, logits: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Float64 (N,) of the first output, and of each other one: probabilities, of regressions values.

        Args:
            logits: float32 (N,), or (N, K) of a run with tasks.
        """
        first, *others = (self._score(output, logit_of(output, logits)) for output in self.all)
        return first, tuple(others)

    def _score(self, output: Output, logit: np.ndarray) -> np.ndarray:
        if not output.binary:
            scale, wide = output.task.scale, logit.astype(np.float64)
            return wide if scale is None else scale.inverse(wide)
        calibrator = self.calibration.outputs.get(output.name) if self.calibration else None
        return probability(logit) if calibrator is None else calibrator(logit)


def logit_of(output: Output, logits: np.ndarray) -> np.ndarray:
    """(N,) what a model gives for an output: log-odds, float64 of a chain; of a regression its value."""
    table = logits if logits.ndim == 2 else logits[:, None]
    if len(output.chain) == 1:
        return table[:, output.chain[0]]
    return joint_logit(torch.from_numpy(table).double(), output.chain).numpy()
