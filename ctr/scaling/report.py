"""What the report of a sweep says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ctr.ablate.page import HeadAndRows, Picture, ReportPage, write_page
from ctr.ablate.plots import si
from ctr.scaling.fit import Curve, Parameter
from ctr.scaling.plots import draw_all, label
from ctr.scaling.predict import LAST, LINE
from ctr.scaling.results import Measured, SweepResults, notes

READING = (
    "The curve y = αx^β + γ is fitted by least squares to the sizes that were not held out, every training "
    "counted once. With β < 0 it levels off at γ.",
    "An interval of a parameter holds its values in all curves that fit nearly as well (profile likelihood, "
    "95 %). Where it is open, the points set no bound on that side.",
    "The interval of a prediction is for the mean of the point's trainings on the same test rows: it counts "
    "the uncertainty of the curve and the noise of these trainings, not that the form may be wrong.",
    "All points share their test rows, so what these rows add to every point alike is not in the intervals.",
    "Three parameters through a few points extrapolate a step, not a decade. A curve that is not nearer than "
    "the last point or a straight line has not earned its parameters.",
)


def write_report(folder: Path, results: SweepResults) -> Path:
    """Write the report; see `ctr.ablate.page.write_page`."""
    return write_page(folder, page(results, draw_all(results)), results.to_dict())


def page(results: SweepResults, images: Mapping[str, bytes]) -> ReportPage:
    """The report, not yet written."""
    when = "before their points were trained" if results.before else "after their points were measured"
    return ReportPage(
        title=f"Scaling {results.name}",
        facts={**results.facts, "predictions": f"made {when}"},
        heading="Predictions, curves, points",
        tables=[predictions(results), curves(results), points(results)],
        notes=list(all_notes(results)),
        figures=[
            Picture(name, f"{label(name)} against size and cost", image) for name, image in images.items()
        ],
        reading=READING,
        changes_heading="What makes the sizes",
        changes=results.changes,
    )


def all_notes(results: SweepResults) -> Iterator[str]:
    """Of all metrics, and what would come next."""
    for found in results.findings:
        yield from notes(found, label(found.metric), results.before)
        ahead = found.following
        said = f"{ahead.value:.4f} ({ahead.low:.4f} to {ahead.high:.4f}) at {size(ahead.x)}"
        yield f"{label(found.metric)}: the curve through all sizes predicts {said}, which was not trained"


def predictions(results: SweepResults) -> HeadAndRows:
    """Every prediction and how it turned out."""
    position = results.axis if results.against == "x" else results.against
    head = ["metric", position, "predicted (95 %)", "observed", "inside"]
    head += ["error of the curve", f"error of {LAST}", f"error of {LINE}"]
    rows = []
    for found in results.findings:
        for s in found.scores:
            f = s.prediction.forecast
            errors = [f"{s.errors[name]:+.4f}" for name in ("curve", LAST, LINE)]
            said = f"{f.value:.4f} ({f.low:.4f} to {f.high:.4f})"
            rows.append(
                [
                    label(found.metric),
                    size(f.x),
                    said,
                    f"{s.observed:.4f}",
                    "yes" if s.inside else "no",
                    *errors,
                ]
            )
    return head, rows


def curves(results: SweepResults) -> HeadAndRows:
    """Parameters with their intervals, of the curve that predicted and of that through all points."""
    head = ["curve", "α", "β", "γ", "R²", "noise of a training", "misfit p"]
    rows = []
    for found in results.findings:
        rows.append([f"{label(found.metric)}, first sizes", *_parameters(found.first)])
        rows.append([f"{label(found.metric)}, all sizes", *_parameters(found.whole)])
    return head, rows


def _parameters(curve: Curve) -> list[str]:
    explained, p = curve.explained, curve.misfit()
    return [
        parameter(curve.alpha),
        "0 (fixed)" if curve.is_line else parameter(curve.beta),
        parameter(curve.gamma),
        "–" if explained is None else f"{explained:.4f}",
        f"{curve.variance**0.5:.5f}",
        "–" if p is None else f"{p:.3f}",
    ]


def parameter(found: Parameter) -> str:
    """With its interval: `-0.52 (-0.71 to -0.35)`; what is open is said.

    Example:
        >>> parameter(Parameter(-0.5, None, -0.25)), parameter(Parameter(None, None, 0.5))
        ('-0.5000 (below -0.2500)', 'open (below 0.5000)')
    """
    value = "open" if found.value is None else f"{found.value:.4f}"
    if found.low is None and found.high is None:
        return value if found.value is None else f"{value} (no bounds)"
    if found.low is None:
        return f"{value} (below {found.high:.4f})"
    if found.high is None:
        return f"{value} (above {found.low:.4f})"
    return f"{value} ({found.low:.4f} to {found.high:.4f})"


def points(results: SweepResults) -> HeadAndRows:
    """Mean and spread of the trainings of every size, with their cost."""
    metrics = [found.metric for found in results.findings]
    head = [results.axis, "", "trainings", *(label(m) for m in metrics)]
    head += ["parameters", "FLOPs/row", "FLOPs of a training"]
    fitted = len(results.points) - results.held_out
    rows = [
        [
            size(point.x),
            "fitted" if number < fitted else "held out",
            str(len(point.values[metrics[0]])),
            *(_mean(point, m) for m in metrics),
            si(point.parameters),
            si(point.flops_per_row),
            si(point.flops),
        ]
        for number, point in enumerate(results.points)
    ]
    return head, rows


def _mean(point: Measured, metric: str) -> str:
    values = point.values[metric]
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{point.mean(metric):.4f}{spread}"


def size(x: float) -> str:
    """A size or cost in few letters.

    Example:
        >>> size(0.125), size(80.0), size(2.5e9)
        ('0.125', '80', '2.5 G')
    """
    return si(x) if x >= 1e5 else f"{x:g}"


def text(results: SweepResults) -> str:
    """What the terminal shows: points, curves, and the notes."""
    shown = [_aligned(*table) for table in (points(results), curves(results))]
    return "\n\n".join([*shown, "\n".join(all_notes(results))])


def _aligned(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
