"""From the logits of a model to what is said of a row: probabilities of tasks and of their chains, or values.

N rows, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ctr.models.heads.chains import joint_logit
from ctr.predictions import Output, outputs_of
from features.dataset import TaskInfo


def probability(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−logit) in float64; exact enough that different float32 logits stay different."""
    wide = logit.astype(np.float64)
    return np.exp(-np.logaddexp(0.0, -wide))


class Outputs:
    """The outputs of a run, see `ctr.predictions.outputs`.

    Args:
        tasks: of a run with `tasks`; empty for one whose model gives the logit of the one label.
    """

    def __init__(self, tasks: Sequence[TaskInfo] = ()) -> None:
        self.tasks = list(tasks)
        self.all: list[Output] = outputs_of(tasks)

    @property
    def names(self) -> list[str]:
        """Of all outputs, the first task's first; none of a run without `tasks`."""
        return [output.name for output in self.all]

    def first_logit(self, logits: np.ndarray) -> np.ndarray:
        """(N,) of the first task, from what a model gives: (N,), or (N, K)."""
        return logits[:, 0] if self.all else logits

    def scores(self, logits: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Float64 (N,) of the first output, and of each other one: probabilities, of regressions values.

        Args:
            logits: float32 (N,), or (N, K) of a run with tasks.
        """
        if not self.all:
            return probability(logits), ()
        first, *others = (_score(output, logits) for output in self.all)
        return first, tuple(others)


def _score(output: Output, logits: np.ndarray) -> np.ndarray:
    own = logits[:, output.chain[-1]]
    if not output.binary:
        scale = output.task.scale
        return own.astype(np.float64) if scale is None else scale.inverse(own.astype(np.float64))
    if len(output.chain) == 1:
        return probability(own)
    return probability(joint_logit(torch.from_numpy(logits).double(), output.chain).numpy())
