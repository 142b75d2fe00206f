"""What each feature tells of the label all by itself: in training and in validation.

A feature that tells nearly all is most likely an outcome: seconds watched, when the label is the click. One
that tells much more in training than in validation was fitted on, or filled in after, what it tells.
Categories are scored by their label rate, that of training rows by the rate in the other half of the
training requests, so that no row scores itself.

Letters: S sampled rows, I rows of an ID table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.dataset import Column, EventStore, IdValues
from features.doctor.opened import CheckResult, Opened
from features.doctor.sample import Sample, auc, auc_error

_TOO_GOOD = 0.9
_SHIFT = 0.1
_SIGMAS = 5.0
_PRIOR = 20.0  # rows of the mean rate, added to each category
_SHOWN = 5


@dataclass(frozen=True)
class Alone:
    """The AUC of one signal in training and in validation, and whether both could be chance."""

    name: str
    train: float
    valid: float
    error: float  # standard error of their difference

    def __str__(self) -> str:
        later = "" if np.isnan(self.valid) else f", {self.valid:.3f} in validation"
        return f"{self.name}: AUC {self.train:.3f} in training{later}"


def each_alone(opened: Opened, *, shuffled: bool = False) -> list[Alone]:
    """Every signal of every feature, by its AUC on a sample of training and validation.

    Args:
        opened: the data set.
        shuffled: with the labels of the sampled rows in random order.
    """
    train, valid = opened.samples["train"], opened.samples["valid"]
    if not len(train.row):
        return []
    labels = [s.label for s in (train, valid)]
    if shuffled:
        labels = [np.random.default_rng(0).permutation(label) for label in labels]
    error = float(np.hypot(auc_error(labels[0]), auc_error(labels[1])))
    found = []
    for name, *scores in _signals(opened, train, valid, labels[0]):
        before, after = (auc(score, label) for score, label in zip(scores, labels, strict=True))
        if before < 0.5:  # the other way round tells as much
            before, after = 1 - before, 1 - after
        found.append(Alone(name, before, after, error))
    return found


def too_good(found: list[Alone]) -> CheckResult:
    """No feature alone tells nearly all of the label."""
    best = sorted((a for a in found if not np.isnan(a.train)), key=lambda a: -a.train)
    wrong = [a for a in best if max(a.train, np.nan_to_num(a.valid)) > _TOO_GOOD]
    if wrong:
        remedy = "are they known at the request? If not, name them under impressions.outcomes"
        return "warn", f"{_listed(wrong)}; {remedy}"
    return "pass", f"the strongest is {best[0]}" if best else ""


def shifted(found: list[Alone]) -> CheckResult:
    """No feature alone tells much more in training than in validation, or the other way round."""
    wrong = [a for a in found if abs(a.train - a.valid) > max(_SHIFT, _SIGMAS * a.error)]
    wrong.sort(key=lambda a: -abs(a.train - a.valid))
    return ("warn", _listed(wrong)) if wrong else ("pass", "")


def shuffled_labels(opened: Opened) -> CheckResult:
    """Labels in random order are told by nothing: AUC 0.5 within its interval."""
    found = each_alone(opened, shuffled=True)
    wrong = [a for a in found if abs(a.train - 0.5) > _SIGMAS * a.error]
    if wrong:
        return "fail", _listed(wrong)
    most = max((abs(a.train - 0.5) for a in found), default=0.0)
    return "pass", f"at most {most:.3f} from 0.5"


def _listed(found: list[Alone]) -> str:
    rest = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(map(str, found[:_SHOWN])) + rest


def _signals(
    opened: Opened, train: Sample, valid: Sample, label: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, and the score (S,) of each sampled row of training and of validation."""
    for column in opened.data.manifest.features:
        if column.kind == "dense":
            one, two = train.dense(column), valid.dense(column)
            for j, field in enumerate(column.fields):
                yield f"{column.name} ({field})", one[:, j], two[:, j]
            continue
        info = opened.data.manifest.tables[str(column.table)]
        one_ids, two_ids = train.ids(column), valid.ids(column)
        half = train.request % 2 == 1
        scores = np.empty(len(label))
        for mine in (half, ~half):
            scores[mine] = _scores(one_ids, _rates(one_ids, label, ~mine, info.rows))[mine]
        everyone = np.ones(len(label), dtype=bool)
        yield column.name, scores, _scores(two_ids, _rates(one_ids, label, everyone, info.rows))
        for what, low, high in (("missing", 0, 1), ("unknown", 1, 1 + info.oov_rows)):
            absent = [_any_between(ids, low, high).astype(np.float64) for ids in (one_ids, two_ids)]
            if absent[0].any() and not absent[0].all():
                yield f"{column.name} is {what}", absent[0], absent[1]
    yield from _newest(opened, train, valid)


def _newest(opened: Opened, train: Sample, valid: Sample) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Whether the newest event of a history is of the candidate's value, for fields that share a table."""
    for domain, store in opened.events.items():
        for side in (c for c in store.info.side if c.kind == "id" and not c.known_later):
            for column in opened.data.manifest.features:
                if (column.kind, column.table) == ("id", side.table) and column.level == "candidate":
                    one, two = (_is_newest(s, domain, store, side, column) for s in (train, valid))
                    yield f"the newest event of {domain} is of the same {column.name}", one, two


def _is_newest(sample: Sample, domain: str, store: EventStore, side: Column, column: Column) -> np.ndarray:
    start, end = (sample.plain(f"{pointer}.{domain}") for pointer in ("start", "end"))
    found = np.zeros(len(start))
    some = np.flatnonzero((end > start) & (start >= 0) & (end <= len(store.clock)))
    candidate = sample.ids(column).values[some]
    found[some] = (store.ids[side.name].values[end[some] - 1] == candidate) & (candidate > 0)
    return found


def _rates(ids: IdValues, label: np.ndarray, of: np.ndarray, rows: int) -> np.ndarray:
    """Label rate (I,) of each ID among the sampled rows `of` (S,), drawn towards their mean."""
    per_value = (lambda x: x) if ids.offsets is None else (lambda x: np.repeat(x, np.diff(ids.offsets)))
    weight, hit = per_value(of).astype(np.float64), per_value(of & label).astype(np.float64)
    mean = label[of].mean() if of.any() else 0.5
    values = np.minimum(ids.values, rows - 1)  # IDs outside their table are for another check to name
    count = np.bincount(values, weights=weight, minlength=rows)
    return (np.bincount(values, weights=hit, minlength=rows) + _PRIOR * mean) / (count + _PRIOR)


def _scores(ids: IdValues, rates: np.ndarray) -> np.ndarray:
    """The mean rate (S,) of each row's values; that of ID 0 without a value."""
    of_value = rates[np.minimum(ids.values, len(rates) - 1)]
    if ids.offsets is None:
        return of_value
    sums = np.concatenate([[0.0], np.cumsum(of_value)])[ids.offsets]
    length = np.diff(ids.offsets)
    return np.where(length > 0, np.diff(sums) / np.maximum(length, 1), rates[0])


def _any_between(ids: IdValues, low: int, high: int) -> np.ndarray:
    """Whether a row (S,) has a value in [low, high); no value at all counts as ID 0."""
    found = (ids.values >= low) & (ids.values < high)
    if ids.offsets is None:
        return found
    counts = np.diff(np.concatenate([[0], np.cumsum(found)])[ids.offsets])
    return (counts > 0) | ((low == 0) & (np.diff(ids.offsets) == 0))
