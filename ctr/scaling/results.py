"""What a sweep found: curves with intervals, predictions with their scores, and what would come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ctr.scaling.fit import Curve, Forecast
from ctr.scaling.measured import Against, Measured, flat
from ctr.scaling.predict import Prediction, Score, predict, score
from features.errors import ConfigError

WRONG = 0.05  # a misfit below it is told


@dataclass(frozen=True)
class Finding:
    """Of one metric.

    Args:
        first: the curve through the points that were not held out.
        scores: of the held-out points, in order.
        whole: the curve through all points.
        following: what it says of a point as far again as the last two lie apart.
    """

    metric: str
    first: Curve
    scores: list[Score]
    whole: Curve
    following: Forecast


@dataclass(frozen=True)
class SweepResults:
    """Everything a report says."""

    name: str
    axis: str
    against: Against
    points: list[Measured]  # ascending
    held_out: int
    before: bool  # whether the predictions were made before the points were measured
    findings: list[Finding]
    facts: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)

    def has_flops(self) -> bool:
        """Whether the operations of every training are known."""
        return all(point.flops for point in self.points)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "axis": self.axis,
            "against": self.against,
            "predicted_before_training": self.before,
            "facts": self.facts,
            "points": [asdict(point) for point in self.points],
            "metrics": {finding.metric: _finding_dict(finding) for finding in self.findings},
        }


def _finding_dict(finding: Finding) -> dict[str, Any]:
    return {
        "curve": curve_dict(finding.first),
        "predictions": [s.to_dict() for s in finding.scores],
        "curve_of_all_points": curve_dict(finding.whole),
        "next": asdict(finding.following),
    }


def curve_dict(curve: Curve) -> dict[str, Any]:
    """Parameters, fit and noise of a curve as plain data."""
    return {
        "alpha": asdict(curve.alpha),
        "beta": asdict(curve.beta),
        "gamma": asdict(curve.gamma),
        "line_in_log_x": curve.is_line,
        "levels_off": curve.has_asymptote,
        "r2": curve.explained,
        "noise_sd": curve.variance**0.5,
        "df": curve.df,
        "misfit_p": curve.misfit(),
    }


def finding(
    points: Sequence[Measured], metric: str, predictions: Sequence[Prediction], against: Against
) -> Finding:
    """Fit, score and look ahead.

    Args:
        points: ascending; the last ones are those that were predicted.
        metric: one of their values.
        predictions: of the last points, in order.
        against: the axis.
    """
    held = points[len(points) - len(predictions) :]
    first = Curve(*flat(points[: len(points) - len(held)], metric, against))
    whole = Curve(*flat(points, metric, against))
    xs = sorted(point.at(against) for point in points)
    scores = [score(p, point.values[metric]) for p, point in zip(predictions, held, strict=True)]
    following = whole.forecast(xs[-1] ** 2 / xs[-2], repeats=len(points[-1].values[metric]))
    return Finding(metric, first, scores, whole, following)


def notes(finding: Finding, label: str, before: bool) -> list[str]:
    """What a reader must know of a curve, in sentences."""
    told = [_told(label, s, before) for s in finding.scores]
    curve = finding.first
    if curve.is_line:
        told.append(f"{label}: 3 sizes determine no curve; β is fixed at 0, a straight line in log x")
    elif curve.beta.value is None:
        told.append(f"{label}: no β within −3 to 1 can be told from these points, and so neither α nor γ")
    elif curve.gamma.value is None:
        told.append(
            f"{label}: β may be 0, a straight line in log x: whether the curve levels off, and where, is open"
        )
    elif curve.gamma.low is None:
        told.append(f"{label}: β has no bound on one side, so α and γ have none")
    p = curve.misfit()
    if p is not None and p < WRONG:
        told.append(f"{label}: the points lie further from the curve than seeds explain (p = {p:.2g})")
    return told


def _told(label: str, found: Score, before: bool) -> str:
    forecast = found.prediction.forecast
    place = "inside" if found.inside else "OUTSIDE"
    nearest = min(found.errors, key=lambda name: abs(found.errors[name]))
    errors = ", ".join(f"{name} {error:+.4f}" for name, error in found.errors.items())
    how = "predicted" if before else "computed from smaller sizes (it was measured already)"
    return (
        f"{label} at {forecast.x:g}: {how} {forecast.value:.4f} ({forecast.low:.4f} to {forecast.high:.4f}), "
        f"observed {found.observed:.4f}, {place} the interval; errors: {errors}; nearest: {nearest}"
    )


def from_points(points: Sequence[Measured], metric: str, *, hold_out: int, name: str) -> SweepResults:
    """The results of a sweep that was measured elsewhere.

    Args:
        points: ascending.
        metric: what was measured.
        hold_out: so many of the largest are predicted from the others.
        name: of the sweep.

    Raises:
        ConfigError: fewer than 3 points are left.
    """
    first = len(points) - hold_out
    if hold_out < 1 or first < 3:
        raise ConfigError(
            f"at least one point must be held out and 3 be left, got {len(points)} points and {hold_out} "
            "to hold out; add points or hold out fewer"
        )
    targets = [(point.x, len(point.values[metric])) for point in points[first:]]
    found = finding(points, metric, predict(points[:first], metric, targets, "x"), "x")
    facts = {"points": f"{len(points)}, {sum(len(p.values[metric]) for p in points)} trainings"}
    return SweepResults(name, "x", "x", list(points), hold_out, False, [found], facts)
