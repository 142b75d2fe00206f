"""What the report of a search says: trials, finalists, and how much of the promised gain was there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctr.ablate.page import HeadAndRows, Picture, ReportPage, write_page
from ctr.ablate.plots import deltas
from ctr.ablate.report import delta, p_value, verdict
from ctr.ablate.report import notes as ablation_notes
from ctr.compare import Judgement
from ctr.metrics import METRICS
from ctr.report.plots import BLUE, GREEN, GREY, INK, ORANGE, drawn, new_figure, number
from ctr.tune.plan import words
from ctr.tune.results import Promise, TuningResults, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 15  # trials in the table
READING = (
    "A trial's figure is that of its best validation: the search maximised it, so the largest is large in "
    "part by luck. It is no estimate of what the settings give.",
    "Searched is a finalist's gain over the base with the seed of the search; other seeds had no part in the "
    "choice, but see the same validation rows; the test part lies on later days.",
    "The test part was scored once, for the finalists alone, after their names were written to the journal. "
    "Whoever searches on after reading this page needs new test days.",
    "Intervals are 95 % for each finalist alone; p is corrected by Holm over the finalists.",
)


def write_report(folder: Path, results: TuningResults) -> Path:
    """Write results.json, report.md, the pictures and index.html; returns the path of index.html."""
    pictures = drawn({
        "search": lambda: search(results),
        "curse": lambda: curse(results),
        "deltas": lambda: deltas(results.compared.compared(), results.compared),
    })  # fmt: skip
    captions = {
        "search": "Validation of each trial in the order of the search; the line is the best so far",
        "curse": "The finalists' gains over the base: of the search, with other seeds, on later days",
        "deltas": "The finalists on the test part",
    }
    figures = [Picture(name, captions[name], image) for name, image in pictures.items()]
    return write_page(folder, page(results, figures), results.to_dict())


def page(results: TuningResults, figures: list[Picture]) -> ReportPage:
    """The report, not yet written."""
    states = [t.state for t in results.trials]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("complete", "pruned", "failed"))
    return ReportPage(
        title=f"Tuning {results.plan.name}",
        facts={
            **results.compared.facts,
            "search": f"{len(states)} trials: {counts}; validation {METRICS[results.metric].in_text}",
        },
        heading="Finalists and trials",
        tables=[finalists(results), trials(results), importance(results)],
        notes=[*verdicts(results), *ablation_notes(results.compared)],
        figures=figures,
        reading=READING,
        changes_heading="What the finalists change",
        changes=[(p.name, words(p.settings)) for p in results.promises],
    )


def finalists(results: TuningResults) -> HeadAndRows:
    """What was promised of each finalist, and what came."""
    name = METRICS[results.metric].in_text
    head = ["finalist", f"Δ {name}, searched", "other seeds", "test", "p (Holm)", "verdict"]
    rows = []
    for p in results.promises:
        judged = on_test(results, p)
        tested = ["–"] * 3 if judged is None else [delta(judged), p_value(judged), verdict(judged)]
        others = "–" if p.others is None else f"{p.others:+.4f}"
        rows.append([p.name, f"{p.searched:+.4f}", others, *tested])
    return head, rows


def trials(results: TuningResults) -> HeadAndRows:
    """The best trials, and how the others ended."""
    head = ["trial", f"validation {METRICS[results.metric].in_text}", "", "settings"]
    ranked = sorted(results.trials, key=lambda t: (t.state != "complete", -(t.value or -np.inf), t.number))
    selection = results.metric
    rows = [["base", number(figure(results.base, selection)), "", ""]]
    rows += [[t.name, number(figure(t.value, selection)), t.state, words(t.settings)] for t in ranked[:SHOWN]]
    return head, rows


def importance(results: TuningResults) -> HeadAndRows:
    """How much of the differences between trials each option accounts for."""
    return ["option", "importance"], [[path, f"{share:.0%}"] for path, share in results.importance.items()]


def on_test(results: TuningResults, promise: Promise) -> Judgement | None:
    """The finalist's judgement in the metric of the search; None if it failed."""
    lines = {line.name: line for line in results.compared.lines}
    return lines[promise.name].judgements.get(results.metric) if promise.name in lines else None


def verdicts(results: TuningResults) -> Iterator[str]:
    """The winner's curse in words."""
    if not results.promises:
        return
    winner = results.promises[0]
    judged = on_test(results, winner)
    if judged is None or judged.delta is None:
        return
    others = "" if winner.others is None else f", {winner.others:+.4f} with other seeds"
    yield (
        f"The winner {winner.name} promised {winner.searched:+.4f} in the search{others} and gave "
        f"{delta(judged)} on the test part."
    )
    best = max(results.promises, key=lambda p: _tested(results, p))
    if best is not winner:
        yield (
            f"On the test part {best.name} came out first, not the winner; to pick it for that would be a "
            "new choice, with a new optimism."
        )


def _tested(results: TuningResults, promise: Promise) -> float:
    judged = on_test(results, promise)
    return (
        -np.inf
        if judged is None or judged.delta is None
        else METRICS[results.metric].direction * judged.delta
    )


def search(results: TuningResults) -> Figure | None:
    """Trials in their order, and the best so far."""
    shown = [(t, v) for t in results.trials if (v := figure(t.value, results.metric)) is not None]
    if not shown:
        return None
    new = new_figure(8.4, 4.0)
    axes = new.add_subplot()
    for state, colour in (("complete", BLUE), ("pruned", GREY)):
        points = [(t.number, v) for t, v in shown if t.state == state]
        if points:
            axes.scatter(*zip(*points, strict=True), color=colour, label=state, zorder=3)
    direction = METRICS[results.metric].direction
    done = [(t.number, direction * v) for t, v in shown if t.state == "complete"]
    if done:
        numbers, values = zip(*done, strict=True)
        axes.step(numbers, direction * np.maximum.accumulate(values), where="post", color=INK, linewidth=1.2)
    if (base := figure(results.base, results.metric)) is not None:
        axes.axhline(base, color=ORANGE, linewidth=1.4, label="base")
    axes.set_xlabel("trial")
    axes.set_title(f"Validation {METRICS[results.metric].in_text} of each trial")
    axes.legend()
    return new


def curse(results: TuningResults) -> Figure | None:
    """Gains of each finalist: searched, other seeds, test with its interval."""
    shown = [
        (p, j) for p in results.promises if (j := on_test(results, p)) is not None and j.delta is not None
    ]
    if not shown:
        return None
    new = new_figure(8.4, 1.8 + 0.6 * len(shown))
    axes = new.add_subplot()
    axes.axvline(0, color=INK, linewidth=1)
    for at, (p, j) in enumerate(reversed(shown)):
        if j.low is not None and j.high is not None:
            axes.plot([j.low, j.high], [at, at], color=GREEN, linewidth=1.6)
        axes.scatter([p.searched], [at], color=ORANGE, zorder=3, label="searched" if at == 0 else None)
        if p.others is not None:
            axes.scatter([p.others], [at], color=BLUE, zorder=3, label="other seeds" if at == 0 else None)
        axes.scatter([j.delta or 0.0], [at], color=GREEN, zorder=3, label="test, 95 %" if at == 0 else None)
    axes.set_yticks(range(len(shown)), [p.name for p, _ in reversed(shown)])
    axes.set_xlabel(f"{METRICS[results.metric].in_text} minus that of the base")
    axes.set_title("What the search promised, and what came")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return new


def text(results: TuningResults) -> str:
    """The finalists for the terminal."""
    head, rows = finalists(results)
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return "\n".join([*lines, *(f"  {line}" for line in verdicts(results))])
