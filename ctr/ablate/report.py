"""What the report of an ablation says: tables, notes, how to read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ctr.ablate.page import HeadAndRows, Picture, ReportPage, write_page
from ctr.ablate.plots import draw_all, si
from ctr.ablate.results import AblationResults, VariantResult
from ctr.compare import Judgement
from ctr.metrics import METRICS
from ctr.report.plots import number

CAPTIONS = {
    "deltas": "Difference from the base, the largest gain first; lines are 95 % intervals, not corrected",
    "windows": "Difference in AUC in each test window, mean over seeds",
    "cost": "Difference from the base against the operations of a training row",
    "slices": "Difference in AUC in parts of the test rows",
}
READING = (
    "Every variant is compared with the base on the same test rows and for the same seeds.",
    "An interval says where the difference would lie for other users and other seeds of the same kind; it is "
    "95 % for each variant alone.",
    "p is corrected by Holm over the variants of a metric: with no effect anywhere, any verdict in a metric "
    "comes with a chance of at most 5 %.",
    "Detectable is the difference that would have been found in four of five ablations like this one. "
    "No evidence does not mean no effect: smaller ones than that pass unseen.",
)


def write_report(folder: Path, results: AblationResults) -> Path:
    """Write results.json, report.md, the pictures and, last, index.html, each whole.

    Args:
        folder: made where it is missing; pictures of an earlier report that this one has not are removed.
        results: what to say.

    Returns:
        Path of index.html.
    """
    images = draw_all(results)
    return write_page(folder, page(results, images), results.to_dict())


def title(results: AblationResults) -> str:
    """The heading."""
    return f"Ablation {results.plan.name}"


def table(results: AblationResults) -> HeadAndRows:
    """The first metric and the cost: the base, then the variants, the largest gain first."""
    name = METRICS[results.plan.metrics[0]].in_text
    head = ["variant", name, f"Δ {name}", "p (Holm)", "verdict", "detectable"]
    head += ["parameters", "FLOPs/row", "rows/s", "peak MiB"]
    same = [line for line in results.lines if line.same_as_base]
    return head, [_row(line, results) for line in (results.base, *results.compared(), *same)]


def _row(line: VariantResult, results: AblationResults) -> list[str]:
    judgement = line.judgements.get(results.plan.metrics[0])
    if judgement is not None:
        quality = [number(judgement.value), delta(judgement), p_value(judgement), verdict(judgement)]
        quality.append("–" if judgement.detectable is None else f"± {judgement.detectable:.4f}")
    elif line.same_as_base:
        quality = ["–", "same run as the base", "–", "–", "–"]
    else:
        quality = [_base_value(results), "–", "–", "–", "–"]
    return [line.name, *quality, *_cost(line)]


def others(results: AblationResults) -> HeadAndRows:
    """The other metrics: differences and verdicts."""
    names = {m: None for line in results.compared() for m in line.judgements if m != results.plan.metrics[0]}
    head = ["variant", *(cell for m in names for cell in (f"Δ {METRICS[m].in_text}", "verdict"))]
    rows = [
        [
            line.name,
            *(cell for m in names for cell in (delta(line.judgements[m]), verdict(line.judgements[m]))),
        ]
        for line in results.compared()
    ]
    return head, rows if names else []


def _base_value(results: AblationResults) -> str:
    compared = results.compared()
    return number(compared[0].judgements[results.plan.metrics[0]].base) if compared else "–"


def _cost(line: VariantResult) -> list[str]:
    if line.cost is None:
        return ["–"] * 4
    speed, peak = line.cost.rows_per_s, line.cost.peak_mib
    return [
        si(line.cost.parameters),
        si(line.cost.flops_per_row),
        "–" if speed is None else f"{speed:,.0f}",
        "–" if peak is None else f"{peak:,.0f}",
    ]


def delta(judgement: Judgement) -> str:
    """A difference with its interval: `+0.0012 (-0.0003 to +0.0027)`."""
    if judgement.delta is None:
        return judgement.reason or "–"
    if judgement.low is None or judgement.high is None:
        return f"{judgement.delta:+.4f}"
    return f"{judgement.delta:+.4f} ({judgement.low:+.4f} to {judgement.high:+.4f})"


def p_value(judgement: Judgement) -> str:
    """The corrected p-value."""
    if judgement.p_holm is None:
        return "–"
    return "< 0.0001" if judgement.p_holm < 1e-4 else f"{judgement.p_holm:.4f}"


def verdict(judgement: Judgement) -> str:
    """The verdict, or why there is none."""
    return judgement.reason or judgement.verdict


def caveats(results: AblationResults) -> list[str]:
    """What the intervals do not cover, each once."""
    found = (c for line in results.lines for j in line.judgements.values() for c in j.caveats)
    return list(dict.fromkeys(found))


def notes(results: AblationResults) -> Iterator[str]:
    """Variants without a comparison, and why."""
    for s in results.stopped:
        yield (
            f"{s.variant}: stopped for the budget after {s.share:.0%} of its training, validation "
            f"{s.value:.4f} (the worst that went on: {s.kept:.4f})"
        )
    for name, why in results.failed.items():
        yield f"{name}: failed, {why}"


def changes(results: AblationResults) -> list[tuple[str, str]]:
    """What each variant changes."""
    return [(line.name, line.changes) for line in results.lines if line.changes]


def page(results: AblationResults, images: Mapping[str, bytes]) -> ReportPage:
    """The report, not yet written."""
    return ReportPage(
        title=title(results),
        facts=results.facts,
        heading="Variants",
        tables=[table(results), others(results)],
        notes=list(notes(results)),
        figures=[Picture(name, CAPTIONS[name], image) for name, image in images.items()],
        reading=[*READING, *caveats(results)],
        changes_heading="What the variants change",
        changes=changes(results),
    )


def text(results: AblationResults) -> str:
    """The main table for the terminal."""
    head, rows = table(results)
    shown = [[row[i] for i in range(6)] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(6)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join([*lines, *(f"  {note}" for note in notes(results))])
