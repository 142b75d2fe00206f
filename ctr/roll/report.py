"""What the page of a roll says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ctr.ablate.page import HeadAndRows, Picture, ReportPage, write_page
from ctr.compare import Judgement
from ctr.metrics import METRICS as ENTRIES
from ctr.report.plots import BLUE, GREEN, GREY, drawn, new_figure, number, with_ends
from ctr.roll.results import FROZEN, METRICS, NAMES, ROLLED, SCRATCH, Day, RollResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {ROLLED: BLUE, FROZEN: GREY, SCRATCH: GREEN}
READING = (
    "Every figure of a day is of a model that had seen nothing of that day: it is tested before it is "
    "trained on it. Intervals are 95 % and resample users.",
    "The champion is the model that would have served. Whether the day's model takes its place is decided on "
    "the end of the day, which neither was trained on; the next day goes on from the champion.",
    "New users and items occur in no earlier day: the models that are tested do not know them.",
    "Differences over all days are means over the days; they hold for these days.",
)


def write_report(folder: Path, results: RollResults) -> Path:
    """Write the report; see `ctr.ablate.page.write_page`."""
    images = drawn({metric: lambda m=metric: picture(results, m) for metric in METRICS})  # type: ignore[misc]
    return write_page(folder, page(results, images), results.to_dict())


def page(results: RollResults, images: dict[str, bytes]) -> ReportPage:
    """The report, not yet written."""
    rule = results.plan.promotion
    how = "unless it is worse" if rule.rule == "unless_worse" else "if it is better"
    return ReportPage(
        title=f"Roll {results.plan.name}",
        facts={
            "days": f"{len(results.days)}, {results.days[0].name} to {results.days[-1].name}",
            "promotion": f"{how} in {ENTRIES[rule.metric].in_text}, alpha {rule.alpha:g}",
            "champion": results.days[-1].decision["champion"],
        },
        heading="Days",
        tables=[tested(results), promoted(results), differences(results)],
        notes=list(notes(results)),
        figures=[Picture(n, f"{ENTRIES[n].in_text} by day", image) for n, image in images.items()],
        reading=READING,
    )


def tested(results: RollResults) -> HeadAndRows:
    """Every model on every day, before it was trained on."""
    models = _models(results.days)
    head = ["day", "rows", "label mean", "new users", "new items"]
    head += [f"{ENTRIES[m].in_text}, {NAMES[name]}" for name in models for m in METRICS]
    rows = []
    for day in (day for day in results.days if day.figures):
        facts = day.facts
        cells = [f"{facts['rows']:,}", f"{facts['label_mean']:.4f}"]
        cells += [f"{facts[name]:.1%}" for name in ("new_users", "new_items")]
        for name in models:
            own = day.figures.get(name)
            cells += ["–"] * len(METRICS) if own is None else [with_ends(own[m]) for m in METRICS]
        rows.append([day.name, *cells])
    return head, rows


def promoted(results: RollResults) -> HeadAndRows:
    """The day's model against the champion, and what became of it."""
    metric = ENTRIES[results.plan.promotion.metric].in_text
    head = ["day", f"{metric} of the champion", "of the day's model", "difference (95 %)", "promoted"]
    rows = []
    for day in results.days:
        j = day.judgement
        shown = ["–"] * 3 if j is None else [number(j["base"]), number(j["value"]), _ends(Judgement(**j))]
        said = "yes" if day.decision["promoted"] else "no"
        rows.append([day.name, *shown, f"{said}: {day.decision['why']}"])
    return head, rows


def differences(results: RollResults) -> HeadAndRows:
    """Over all days on which both models were tested."""
    head = ["over all days", "beside", "days", "metric", "difference (95 %)", "p (Holm)", "verdict"]
    rows = [
        [
            NAMES[j.variant],
            NAMES[base],
            str(j.windows),
            ENTRIES[j.metric].in_text,
            _ends(j),
            _p(j.p_holm),
            j.verdict,
        ]
        for base, found in ((FROZEN, results.pooled), (SCRATCH, results.apart))
        for j in found
        if j.metric in ("auc", "ne") and (base, j.variant) != (SCRATCH, FROZEN)
    ]
    return head, rows


def _p(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else number(value, 3)


def notes(results: RollResults) -> Iterator[str]:
    """What is not in the tables."""
    yield f"{results.days[0].name} is the first day: nothing was tested on it"
    if not any(SCRATCH in day.files for day in results.days):
        yield "no model was trained from scratch (scratch: true or last)"


def text(results: RollResults) -> str:
    """What the terminal shows: a line for each day, and the differences."""
    lines = []
    for day in results.days:
        aucs = [f"{name} {number(day.figures[name]['auc'].value)}" for name in day.figures]
        said = "promoted" if day.decision["promoted"] else "kept the champion"
        lines.append(f"{day.name}  {'AUC ' + ', '.join(aucs) if aucs else 'first day'}  {said}")
    lines += ["  ".join(row) for row in differences(results)[1]]
    return "\n".join(lines)


def picture(results: RollResults, metric: str) -> Figure | None:
    """A metric by day, a line for each model."""
    days = [day for day in results.days if day.figures]
    if not days:
        return None
    figure = new_figure(8.4, 4.4)
    axes = figure.add_subplot()
    for name in _models(days):
        at = [i for i, day in enumerate(days) if name in day.figures]
        found = [days[i].figures[name][metric] for i in at]
        values = [float("nan") if v.value is None else v.value for v in found]
        axes.plot(at, values, marker="o", color=COLOURS[name], linewidth=2, label=NAMES[name])
        some = [(i, v.low, v.high) for i, v in zip(at, found, strict=True) if v.low and v.high]
        for i, low, high in some:
            axes.vlines(i, low, high, color=COLOURS[name], alpha=0.5)
    axes.set_xticks(range(len(days)), [day.name for day in days])
    axes.set_title(f"{ENTRIES[metric].in_text} of each day, before training on it")
    figure.legend(loc="outside lower center", ncols=3, fontsize=10)
    return figure


def _models(days: Sequence[Day]) -> list[str]:
    return [name for name in NAMES if any(name in day.figures for day in days)]


def _ends(judgement: Judgement) -> str:
    if judgement.delta is None:
        return "–"
    if judgement.low is None or judgement.high is None:
        return f"{judgement.delta:+.4f}"
    return f"{judgement.delta:+.4f} ({judgement.low:+.4f} to {judgement.high:+.4f})"
