"""Successive halving: after a quarter and after half of the training the worse half of the variants stops.

Only if the rest would not fit into the budget. Variants are ranked by the base's validation metric, the mean
over seeds and windows, never by the test part; the base goes on, and so does a variant that costs nothing.

Source: Jamieson and Talwalkar (arXiv 1502.07943), successive halving.
Differs from the paper: nothing is stopped while the time suffices for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctr.ablate.expand import BASE
from ctr.ablate.subruns import SubRun
from ctr.runs.journal import Row, read_rows
from ctr.training.validation import selection_value

SHARES = (0.25, 0.5)
ROW = "halving"  # kind of the journal row of a decision


@dataclass(frozen=True)
class Stopped:
    """A variant that was stopped for the budget."""

    variant: str
    share: float  # of its training that was done
    value: float  # its validation metric then
    kept: float  # of the worst variant that went on


def pause_step(subrun: SubRun, share: float) -> int:
    """The step at which a share of the training is done."""
    return max(1, math.ceil(share * subrun.steps))


def rung_value(subrun: SubRun, metric: str) -> float | None:
    """A validation metric at the last pause."""
    rows = [row for row in read_rows(subrun.path / "journal.jsonl") if row["kind"] == "rung"]
    return selection_value(rows[-1], metric) if rows else None


def choose(values: Mapping[str, float], share: float) -> list[Stopped]:
    """The worse half of the variants, which stops; at least one goes on.

    Args:
        values: variant → its validation metric, larger is better.
        share: of the training that is done.

    Example:
        >>> [s.variant for s in choose({"a": 0.71, "b": 0.74, "c": 0.70}, 0.25)]
        ['c']
    """
    ranked = sorted(values, key=lambda name: (-values[name], name))
    kept = math.ceil(len(ranked) / 2)
    return [Stopped(name, share, values[name], values[ranked[kept - 1]]) for name in ranked[kept:]]


def candidates(subruns: Sequence[SubRun], alive: Sequence[str], metric: str) -> dict[str, float]:
    """Variants that could be stopped, with their mean of one validation metric, whatever is their own.

    Left out: the base, what shares its trainings, what is finished, and what has no value.
    """
    found: dict[str, float] = {}
    for name in alive:
        own = [s for s in subruns if any(t.variant == name for t in s.trials)]
        shared = any(t.variant == BASE for s in own for t in s.trials)
        values = [v for s in own if not s.is_finished() and (v := rung_value(s, metric)) is not None]
        if not shared and values:
            found[name] = float(np.mean(values))
    return found


def decided(rows: Sequence[Row]) -> dict[float, list[Stopped]]:
    """Decisions of an earlier call, from the ablation's journal: share → who was stopped."""
    return {
        row["share"]: [Stopped(s["variant"], row["share"], s["value"], s["kept"]) for s in row["stopped"]]
        for row in rows
        if row["kind"] == ROW
    }
