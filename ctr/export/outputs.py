"""What `ctr predict` makes of logits (`ctr.training.outputs.Outputs`), as operators of a graph.

N candidates, K tasks, O outputs: the tasks, then the joint chances of those that need another one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ctr.models.heads.chains import joint_logit
from ctr.predictions import Output
from ctr.training.calibration import Isotonic, Platt
from ctr.training.outputs import Outputs


class ScoreOutputs(nn.Module):
    """Scores, float64 (N,), or (N, O) of a run with tasks, from logits (N,), or (N, K).

    Args:
        outputs: of the run, with its calibration or without.
    """

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.tasks, self.chains = len(outputs.tasks), [output.chain for output in outputs.all]
        self.score_of = nn.ModuleList(_score_of(output, outputs) for output in outputs.all)

    def forward(self, logits: Tensor) -> Tensor:
        """Probabilities; of regressions the values in the unit of the log."""
        table = logits.double().reshape(-1, max(self.tasks, 1))
        found = [of(joint_logit(table, c)) for c, of in zip(self.chains, self.score_of, strict=True)]
        return torch.stack(found, dim=1) if self.tasks else found[0]


def score_array(outputs: Outputs, logits: np.ndarray) -> np.ndarray:
    """The same by `Outputs.scores`, as `ctr predict` has it."""
    first, others = outputs.scores(logits)
    return np.stack([first, *others], axis=1) if outputs.tasks else first


def _score_of(output: Output, outputs: Outputs) -> nn.Module:
    """The module that makes the score of one output of its logit (N,)."""
    scale = output.task.scale
    if not output.binary:
        if scale is None or scale.kind == "none":
            return nn.Identity()
        if scale.kind == "log":
            return _ExpM1()
        shares = torch.linspace(0, 1, len(scale.quantiles), dtype=torch.float64).tolist()
        return Interpolated(shares, scale.quantiles)
    calibrator = outputs.calibration.outputs.get(output.name) if outputs.calibration else None
    if isinstance(calibrator, Isotonic):
        return Interpolated(calibrator.logit, calibrator.probability)
    return _Sigmoid(calibrator or Platt(slope=1.0, offset=0.0))


class _Sigmoid(nn.Module):
    def __init__(self, platt: Platt) -> None:
        super().__init__()
        self.slope, self.offset = platt.slope, platt.offset

    def forward(self, logit: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * logit + self.offset)


class _ExpM1(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return torch.expm1(value)


class Interpolated(nn.Module):
    """Linear between points, constant beyond them; `numpy.interp` by operators that ONNX has too.

    Args:
        at: where the points are, (P,), rising.
        values: there, (P,).

    Example:
        >>> Interpolated([0.0, 1.0, 3.0], [5.0, 6.0, 8.0])(torch.tensor([-1.0, 2.0, 9.0]).double()).tolist()
        [5.0, 7.0, 8.0]
    """

    at: Tensor
    values: Tensor

    def __init__(self, at: Sequence[float], values: Sequence[float]) -> None:
        super().__init__()
        # A single point becomes a line of two.
        at, values = ([at[0], at[0] + 1], [*values] * 2) if len(at) == 1 else (at, values)
        self.register_buffer("at", torch.tensor(at, dtype=torch.float64))
        self.register_buffer("values", torch.tensor(values, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Float64 (N,) of (N,)."""
        low = (x[:, None] >= self.at).sum(dim=1).clamp(1, len(self.at) - 1) - 1
        share = ((x - self.at[low]) / (self.at[low + 1] - self.at[low])).clamp(0, 1)
        return self.values[low] + share * (self.values[low + 1] - self.values[low])
