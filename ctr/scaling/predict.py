"""Predictions of points before they are measured, beside naive ones, and how they turned out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ctr.runs.journal import Row
from ctr.scaling.fit import Curve, Forecast
from ctr.scaling.lines import Lines
from ctr.scaling.measured import Against, Measured, flat
from features.durable import canonical_json

ROW = "prediction"  # kind of the journal row
LAST, LINE = "last point", "line in log x"


@dataclass(frozen=True)
class Prediction:
    """Of one metric at one point.

    Args:
        forecast: of the fitted curve.
        naive: what "as at the last point" and a straight line in log x say.
    """

    forecast: Forecast
    naive: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self.forecast), "naive": self.naive}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prediction:
        """The inverse of `to_dict`."""
        forecast = {key: value for key, value in data.items() if key != "naive"}
        return cls(Forecast(**forecast), dict(data["naive"]))


@dataclass(frozen=True)
class Score:
    """How a prediction turned out.

    Args:
        observed: the mean of the point's trainings.
        inside: whether it lies in the prediction's interval.
        errors: observed − predicted, for the curve and the naive predictions.
    """

    prediction: Prediction
    observed: float
    inside: bool
    errors: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        own = {"observed": self.observed, "inside": self.inside, "errors": self.errors}
        return {**self.prediction.to_dict(), **own}


def predict(
    points: Sequence[Measured], metric: str, targets: Sequence[tuple[float, int]], against: Against
) -> list[Prediction]:
    """What the curve through some points says of others.

    Args:
        points: ascending, at least 3.
        metric: one of their values.
        targets: positions on the axis, and how many trainings each will have.
        against: the axis.
    """
    x, y = flat(points, metric, against)
    curve = Curve(x, y)
    log_m = np.log(x).mean()
    line = Lines(np.zeros(1), np.log(x) - log_m, y)
    straight = line.at(np.log([at for at, _ in targets]) - log_m)[0][0]
    last = points[-1].mean(metric)
    return [
        Prediction(curve.forecast(at, repeats=repeats), {LAST: last, LINE: float(there)})
        for (at, repeats), there in zip(targets, straight, strict=True)
    ]


def score(prediction: Prediction, values: Sequence[float]) -> Score:
    """Compare a prediction with what was measured.

    Example:
        >>> made = Prediction(Forecast(8.0, 2, 0.70, 0.69, 0.71), {"last point": 0.68})
        >>> found = score(made, [0.70, 0.704])
        >>> found.inside, {name: round(error, 4) for name, error in found.errors.items()}
        (True, {'curve': 0.002, 'last point': 0.022})
    """
    observed = float(np.mean(values))
    forecast = prediction.forecast
    said = {"curve": forecast.value, **prediction.naive}
    errors = {name: observed - value for name, value in said.items()}
    return Score(prediction, observed, forecast.low <= observed <= forecast.high, errors)


@dataclass(frozen=True)
class Record:
    """Predictions as they stand in the journal.

    Args:
        key: what they were made from and for; another sweep in the same directory has another.
        before: whether no training of the predicted points was there when they were made.
        predictions: metric → point → prediction.
    """

    key: str
    before: bool
    predictions: dict[str, dict[str, Prediction]]

    def values(self) -> dict[str, Any]:
        """For a journal row."""
        made = {m: {name: p.to_dict() for name, p in own.items()} for m, own in self.predictions.items()}
        return {"key": self.key, "before": self.before, "metrics": made}


def recorded(rows: Sequence[Row], key: str) -> Record | None:
    """The first predictions of this key in a journal: later ones cannot replace them."""
    for row in rows:
        if row["kind"] == ROW and row["key"] == key:
            made = {
                metric: {name: Prediction.from_dict(data) for name, data in own.items()}
                for metric, own in row["metrics"].items()
            }
            return Record(key, row["before"], made)
    return None


def record_key(about: Mapping[str, Any]) -> str:
    """Identifies predictions by the trainings they rest on, those they are for, and what is predicted."""
    return hashlib.sha256(canonical_json(dict(about))).hexdigest()[:12]
