"""Probabilities that are right on average, made from logits after training: fitted on the validation part.

    platt       p = σ(a z + b), by maximum likelihood
    isotonic    p = f(z), the non-decreasing step function of least squares, linear between its steps

Both keep the order of rows, but that isotonic regression makes ties where the order was no evidence. The
first assumes a shape and needs few rows, the second assumes none. Each output of a run has its own.

What is fitted is a handful of numbers, kept with a checkpoint as plain data.

Source: Platt, Probabilistic Outputs for Support Vector Machines (1999); Zadrozny and Elkan, Transforming
Classifier Scores into Accurate Multiclass Probability Estimates (KDD 2002).

N rows.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, ValidationError
from scipy.special import expit

from ctr.config import CalibrationKind
from ctr.options.knobs import Knobs
from features.errors import explain

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Platt(Knobs):
    """σ(slope · logit + offset)."""

    kind: Literal["platt"] = "platt"
    slope: Annotated[Finite, Field(gt=0)]
    offset: Finite

    def __call__(self, logit: np.ndarray) -> np.ndarray:
        """Probabilities, float64 (N,), of logits (N,)."""
        return expit(self.slope * logit.astype(np.float64) + self.offset)


class Isotonic(Knobs):
    """Linear between points, constant beyond them."""

    kind: Literal["isotonic"] = "isotonic"
    logit: list[Finite] = Field(min_length=1)  # ascending
    probability: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)  # ascending

    def __call__(self, logit: np.ndarray) -> np.ndarray:
        """Probabilities, float64 (N,), of logits (N,)."""
        return np.interp(logit.astype(np.float64), self.logit, self.probability)


Calibrator: TypeAlias = Annotated[Platt | Isotonic, Field(discriminator="kind")]


class Calibrators(Knobs):
    """The calibrators of the weights of a step.

    Args:
        step: after which the validation part was scored.
        outputs: output → its calibrator; "" of a run without `tasks`. Where the validation part has one class
            alone there is none.
    """

    step: int
    outputs: dict[str, Calibrator]

    @classmethod
    def from_plain(cls, data: object) -> Calibrators:
        """The inverse of `model_dump`.

        Raises:
            ValueError: it is none.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ValueError(f"calibration: {explain(error).strip()}") from None


def fit(
    kind: CalibrationKind, logit: np.ndarray, label: np.ndarray, weight: np.ndarray
) -> Platt | Isotonic | None:
    """A calibrator of logits; None where the rows are of one class, or say that higher logits mean less.

    Args:
        kind: platt or isotonic.
        logit, label: of the validation part, (N,).
        weight: how much each row counts, ≥ 0.
    """
    counts = weight > 0
    wide, own, weight = logit[counts].astype(np.float64), label[counts], weight[counts]
    if not 0 < own.sum() < len(own):
        return None
    return _platt(wide, own, weight) if kind == "platt" else _isotonic(wide, own, weight)


def _platt(logit: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Platt | None:
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=np.inf, max_iter=1000).fit(logit[:, None], label, weight)
    slope = float(found.coef_[0, 0])
    return Platt(slope=slope, offset=float(found.intercept_[0])) if slope > 0 else None


def _isotonic(logit: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Isotonic:
    """No probability is nearer to 0 or 1 than one row more of either class would have it."""
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(label) + 2)
    found = IsotonicRegression(y_min=least, y_max=1 - least, increasing=True).fit(logit, label, weight)
    return Isotonic(logit=found.X_thresholds_.tolist(), probability=found.y_thresholds_.tolist())
