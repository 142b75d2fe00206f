"""Judgements as a table for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ctr.compare.verdict import SEEDS_NOT_COVERED, Judgement
from ctr.metrics.table import METRICS
from features.names import markdown as escaped
from features.names import one_line

_STYLES = {"helps": "green", "hurts": "red", "no evidence": "dim"}
_VERDICT = 8  # the column


def table(judgements: Sequence[Judgement], *, alpha: float) -> Table:
    """A table for the terminal: a line for each metric and variant."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for head, numeric in zip(_head(alpha), [False, False, *[True] * 6, False, True], strict=True):
        drawn.add_column(head, justify="right" if numeric else "left", no_wrap=True)
    for judgement in _shown(judgements):
        cells = [Text(one_line(cell)) for cell in _cells(judgement)]
        cells[_VERDICT].stylize(_STYLES[judgement.verdict])
        drawn.add_row(*cells)
    return drawn


def markdown(judgements: Sequence[Judgement], *, alpha: float, base: str) -> str:
    """The same table, and the notes below it, as a page."""
    head = _head(alpha)
    rows = [[escaped(cell) for cell in _cells(j)] for j in _shown(judgements)]
    lines = [f"# Beside {escaped(base)}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in notes(judgements)), ""])


def to_json(judgements: Sequence[Judgement], *, settings: Mapping[str, Any]) -> str:
    """Settings and judgements as strict JSON; what is undefined is null with its reason."""
    found = {**settings, "judgements": [judgement.to_dict() for judgement in judgements]}
    return json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def notes(judgements: Sequence[Judgement]) -> list[str]:
    """What was compared, what is missing from the table, and what the verdicts do not cover."""
    said = []
    if judgements:
        first = judgements[0]
        counts = [(first.rows, "row"), (first.seeds, "seed"), (first.windows, "window")]
        if first.unit != "row":  # not their number: some share a cluster
            counts.insert(1, (first.clusters, f"{first.unit} cluster"))
        said.append(", ".join(f"{count:,} {what}{'s' * (count != 1)}" for count, what in counts))
    reasons = {f"{METRICS[j.metric].label}: {j.reason}": None for j in judgements if j.reason}
    caveats = {c: None for j in judgements if not METRICS[j.metric].check_of for c in j.caveats}
    return [*said, *reasons, *(f"{c} (*)" if c == SEEDS_NOT_COVERED else c for c in caveats)]


def _shown(judgements: Sequence[Judgement]) -> list[Judgement]:
    return [judgement for judgement in judgements if judgement.delta is not None]


def _head(alpha: float) -> tuple[str, ...]:
    interval = f"{100 * (1 - alpha):g} % interval"
    return ("metric", "variant", "base", "value", "delta", interval, "p", "Holm p", "verdict", "detectable")


def _cells(judgement: Judgement) -> list[str]:
    j = judgement
    interval = "" if j.low is None or j.high is None else f"{j.low:+.5f} to {j.high:+.5f}"
    return [
        METRICS[j.metric].label,
        j.variant,
        *(_number(value, ".5f") for value in (j.base, j.value)),
        _number(j.delta, "+.5f"),
        interval,
        *(_p(value) for value in (j.p, j.p_holm)),
        f"{j.verdict}{_mark(j)}" if j.se is not None else "",
        _number(j.detectable, ".5f"),
    ]


def _mark(judgement: Judgement) -> str:
    """A star at a verdict that another seed may turn."""
    return "*" if SEEDS_NOT_COVERED in judgement.caveats and judgement.verdict != "no evidence" else ""


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _p(value: float | None) -> str:
    """A p-value to three decimals.

    Example:
        >>> _p(0.0321), _p(0.00002)
        ('0.032', '<0.001')
    """
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
