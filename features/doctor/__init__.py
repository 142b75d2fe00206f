"""`ctr doctor`: does the written data leak, and what is in it? Everything is computed anew from the files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.dataset import SPLITS, Dataset, sha256_of
from features.doctor.absent import absent_values
from features.doctor.alone import each_alone, shifted, shuffled_labels, too_good
from features.doctor.fitted import constant_features, counts_equal, fitted_before, moments
from features.doctor.joins import (
    beside_impressions,
    joins_found,
    moments_before,
    names_of_ages,
    shared_counts,
    sharing_pairs,
    unknown_values,
)
from features.doctor.opened import CheckResult, Opened, Status
from features.doctor.order import (
    complete,
    events_sorted,
    lists_in_order,
    over_splits,
    parts_in_order,
    rows_of_requests,
    some_history,
    strictly_before,
)
from features.doctor.profile import profile
from features.doctor.spans import windows_fit
from features.doctor.tasks import labels_at_rest, labels_in_parts
from features.encode.fitted import Fitted
from features.errors import CtrError, DataError
from features.names import under


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and whether it does."""

    name: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """All checks, and a description of the data as text."""

    checks: list[Check]
    description: str

    @property
    def healthy(self) -> bool:
        """Whether no check failed; warnings are no failures."""
        return all(c.status != "fail" for c in self.checks)

    def summary(self) -> str:
        """One line: how many checks ended how, and the failed ones by name."""
        counts = [
            f"{n} {s}" for s in ("pass", "warn", "fail") if (n := sum(c.status == s for c in self.checks))
        ]
        failed = [c.name for c in self.checks if c.status == "fail"]
        return ", ".join(counts) + (f": {'; '.join(failed)}" if failed else "")

    def text(self) -> str:
        """What `ctr doctor` prints."""
        width = max(len(c.name) for c in self.checks)
        lines = [f"{c.status.upper():4}  {c.name:{width}}  {c.detail}".rstrip() for c in self.checks]
        return "\n".join([self.description, "", *lines, "", self.summary()])


def examine(root: Path | str) -> Diagnosis:
    """Check a dataset directory and describe it.

    Args:
        root: the directory that `ctr prepare` wrote.

    Raises:
        DataError: the directory is no dataset, or a file of it cannot be read at all.
    """
    data = Dataset(root)
    try:
        return _examine(data)
    except CtrError:
        raise
    except Exception:
        status, detail = _files(data)
        if status == "fail":
            raise DataError(f"{data.root}: {detail}, and cannot be read; run ctr prepare again") from None
        raise


def _examine(data: Dataset) -> Diagnosis:
    events = {d: data.events(d) for d in data.manifest.domains}
    opened = Opened(data, {s: data.split(s) for s in SPLITS}, events, Fitted(data).plain)
    checks = [Check(name, *found) for name, found in _checks(opened)]
    return Diagnosis(checks, profile(data, opened.splits, opened.events))


def _checks(opened: Opened) -> Iterator[tuple[str, CheckResult]]:
    yield "files are as they were written", _files(opened.data)
    yield "rows of a request are contiguous", rows_of_requests(opened)
    yield "train, valid and test follow one another in time", parts_in_order(opened)
    for name, store in opened.events.items():
        yield f"{name}: events are sorted by user and clock", events_sorted(store)
        yield f"{name}: history is strictly before the request", over_splits(opened, name, strictly_before)
        if store.info.timed:
            yield f"{name}: history is complete and the newest", over_splits(opened, name, complete)
        else:
            yield f"{name}: the lists show their order", lists_in_order(opened, name)
        yield f"{name}: some request has a history", some_history(opened, name)
    for name, table in opened.fitted["tables"].items():
        yield f"table {name}: fitted before the validation period", fitted_before(opened, table)
        yield f"table {name}: IDs and counts are those of the training data", counts_equal(opened, name)
    for key, scaler in opened.fitted["scalers"].items():
        yield f"scaler {key}: fitted before the validation period", fitted_before(opened, scaler)
        yield f"scaler {key}: mean and variance are those of the training data", moments(opened, key)
    yield "every part has both labels", labels_in_parts(opened)
    yield "labels are fixed when the log ends", labels_at_rest(opened)
    yield "missing and unknown tell no more of the label in training than later", absent_values(opened)
    yield "no feature is constant in training", constant_features(opened)
    yield "windows of time are shorter than what training sees", windows_fit(opened)
    found = each_alone(opened)
    yield "no feature alone tells the label", too_good(found)
    yield "no feature alone tells more in training than in validation", shifted(found)
    yield "shuffled labels are told by nothing", shuffled_labels(opened)
    yield "users and items are found in their tables", joins_found(opened)
    yield "values are as well known after training as in it", unknown_values(opened)
    for name in names_of_ages(opened):
        yield f"age {name}: its moments lie before the requests", moments_before(opened, name)
    for name in sharing_pairs(opened):
        yield f"pair {name}: pairs have counts of their own", shared_counts(opened, name)
    for name in (name for name, store in opened.events.items() if store.info.timed):
        yield f"{name}: events beside an impression of the same", beside_impressions(opened, name)


def _files(data: Dataset) -> CheckResult:
    files = data.manifest.every_file()
    paths = {name: under(data.root, *name.split("/")) for name in files}
    changed = [n for n, path in paths.items() if not path.is_file() or sha256_of(path) != files[n]]
    return ("fail", f"changed since: {changed}") if changed else ("pass", f"{len(files)} files")
