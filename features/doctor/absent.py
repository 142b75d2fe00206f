"""Whether "missing" or "unknown" tells the label in training, as it cannot afterwards.

A vocabulary that counts clicks knows a rare item if it was clicked and not if it was skipped: in training
(nowhere else) "unknown" then means "not clicked", and a model learns that instead of the data. The same
happens to a field that is filled in only after a click.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from features.dataset import Column, SplitData, id_values
from features.doctor.opened import CheckResult, Opened

_FEW = 50  # rows: below it a rate says nothing
_OFTEN = 0.01  # of the training rows
_SHIFT, _GRAVE = 0.25, 0.5  # in standard deviations of the label
_SIGMAS = 5.0


def absent_values(opened: Opened) -> CheckResult:
    """The label's lift among missing and among unknown values is in training what it is later.

        lift = label rate among the values − label rate of all rows        |lift_train − lift_later| / σ_label

    Above 0.25 it is a warning, and above 0.5 in at least 1 % of the rows a failure; both only if it is
    5 standard errors beyond chance.
    """
    grave: list[str] = []
    some: list[str] = []
    for column in (c for c in opened.data.manifest.features if c.table is not None):
        for what, absent in _kinds(opened, column):
            shift, share, text = _shift(opened, column, absent)
            if abs(shift) > _SHIFT:
                worst = abs(shift) > _GRAVE and share >= _OFTEN
                (grave if worst else some).append(f"{column.name} {what}: {text}")
    if grave or some:
        return ("fail" if grave else "warn"), f"in training only: {'; '.join([*grave, *some])}"
    return "pass", ""


def _kinds(opened: Opened, column: Column) -> Iterator[tuple[str, range]]:
    """Missing and unknown as ranges of IDs."""
    yield "missing", range(1)
    if oov_rows := opened.data.manifest.tables[str(column.table)].oov_rows:
        yield "unknown", range(1, 1 + oov_rows)


def _shift(opened: Opened, column: Column, absent: range) -> tuple[float, float, str]:
    """How far the lift moves, in standard deviations of the label; the share of the rows; the rates.

    0 if the move may be chance.
    """
    train = _labels(opened.splits["train"], column, absent)
    later = [_labels(opened.splits[s], column, absent) for s in ("valid", "test")]
    held = tuple(np.concatenate(parts) for parts in zip(*later, strict=True))
    if min(len(train[0]), len(held[0])) < _FEW:
        return 0.0, 0.0, ""
    samples = (*train, *held)
    absent_rate, rate, absent_later, rate_later = rates = [labels.mean() for labels in samples]
    moved = float((absent_rate - rate) - (absent_later - rate_later))
    # A rate of 0 or 1 is taken for one row away from it: its error is not 0.
    errors = [max(r * (1 - r), 1 / len(x)) / len(x) for r, x in zip(rates, samples, strict=True)]
    deviation = float(np.sqrt(rate * (1 - rate)))
    certain = deviation > 0 and abs(moved) > _SIGMAS * float(np.sqrt(sum(errors)))
    few, later_few = len(train[0]), len(held[0])
    text = f"label rate {absent_rate:.3f} of {few:,} rows, later {absent_later:.3f} of {later_few:,}"
    return (moved / deviation if certain else 0.0), few / len(train[1]), text


def _labels(split: SplitData, column: Column, absent: range) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the rows whose value is absent, and of all rows of the part."""
    owners = split.requests if column.level == "request" else split.impressions
    ids = id_values(owners, column)
    found = (ids.values >= absent.start) & (ids.values < absent.stop)
    if ids.offsets is not None:
        counts = np.diff(np.concatenate([[0], np.cumsum(found)])[ids.offsets])
        found = (counts > 0) | (absent.start == 0) & (np.diff(ids.offsets) == 0)
    labels = split.impressions["label"].to_numpy()
    if column.level == "request":
        found = np.repeat(found, split.requests["num_rows"].to_numpy())
    if len(found) != len(labels):  # counts that do not fit are for the other checks to name
        found = np.zeros(len(labels), dtype=bool)
    return labels[found].astype(np.float64), labels.astype(np.float64)
