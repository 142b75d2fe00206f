"""What is in a dataset: label rates, missing and unseen values, history lengths, unique IDs; as text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from features.dataset import Column, Dataset, EventStore, SplitData, dense_values, id_values
from features.doctor.tasks import task_lines

WINDOW = 1024  # requests
_TASK_HEAD = ["task", "part", "known", "not mature", "mean label", "kind", "given"]
_WINDOWS = 8  # of the train part, spread evenly


def profile(data: Dataset, splits: dict[str, SplitData], events: dict[str, EventStore]) -> str:
    """Describe a dataset in a few tables.

    Args:
        data: the dataset.
        splits: its parts.
        events: its event stores.
    """
    tasks = list(task_lines(data.manifest.tasks, splits))
    sections = [
        _table(["part", "requests", "rows", "label rate", "known users", "from", "to"], _split_lines(splits)),
        *([_table(_TASK_HEAD, iter(tasks))] if tasks else []),
        _table(["feature", "level", "table", *_per_split(splits)], _feature_lines(data, splits)),
        _table(["history", "part", "empty", "p50", "p90", "p99", "max"], _history_lines(splits, events)),
        _table(
            ["table", "encode", "rows", f"unique/uses in {WINDOW} requests"],
            _table_lines(data, splits, events),
        ),
    ]
    counted = [f"{name}: {count:,}" for name, count in data.manifest.counters.items()]
    head = f"{data.manifest.name}: {data.manifest.users:,} users, {data.manifest.items:,} items"
    return "\n\n".join([head, *sections, *(["counted: " + ", ".join(counted)] if counted else [])])


def missing_rate(values: np.ndarray, offsets: np.ndarray | None) -> float:
    """Share of owners without a value (ID 0, or an empty list); NaN without owners."""
    wrong = values == 0 if offsets is None else np.diff(offsets) == 0
    return float(wrong.mean()) if len(wrong) else float("nan")


def unseen_rate(values: np.ndarray, oov_rows: int) -> float:
    """Share of the values that are unknown to the vocabulary; NaN without values."""
    known = values[values > 0]
    return float((known <= oov_rows).mean()) if len(known) else float("nan")


def unique_ratios(
    data: Dataset, split: SplitData, events: dict[str, EventStore], *, window: int = WINDOW
) -> dict[str, float]:
    """Distinct IDs over all uses in a window of requests, histories included; the mean of some windows."""
    starts = range(0, max(split.requests.num_rows - window, 0) + 1, window)
    chosen = [starts[i] for i in np.unique(np.linspace(0, len(starts) - 1, _WINDOWS).astype(int))]
    ratios: dict[str, list[float]] = {}
    for first in chosen:
        uses: dict[str, list[np.ndarray]] = {}
        for table, values in _window_uses(data, split, events, first, window):
            uses.setdefault(table, []).append(values)
        for table, parts in uses.items():
            every = np.concatenate(parts)
            ratios.setdefault(table, []).append(len(np.unique(every)) / max(len(every), 1))
    return {table: float(np.mean(values)) for table, values in ratios.items()}


def _window_uses(
    data: Dataset, split: SplitData, events: dict[str, EventStore], first: int, window: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Every use of every table in the requests of one window."""
    requests = split.requests.slice(first, window)
    low, high = split.row_offsets[first], split.row_offsets[first + requests.num_rows]
    impressions = split.impressions.slice(low, high - low)
    for column in data.manifest.features:
        if column.table is not None:
            yield (
                column.table,
                id_values(requests if column.level == "request" else impressions, column).values,
            )
    for name, store in events.items():
        start, end = (requests[f"{part}.{name}"].to_numpy() for part in ("start", "end"))
        index = _ranges(start, end)
        for column in store.info.side:
            if column.table is not None:
                ids = store.ids[column.name]
                at = index if ids.offsets is None else _ranges(ids.offsets[index], ids.offsets[index + 1])
                yield column.table, ids.values[at]


def _ranges(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """start[0] … end[0] − 1, start[1] … end[1] − 1, and so on."""
    lengths = end - start
    return np.repeat(start - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


def _split_lines(splits: dict[str, SplitData]) -> Iterator[list[str]]:
    for name, split in splits.items():
        label, known = split.impressions["label"].to_numpy(), split.requests["known_user"].to_numpy()
        rates = [f"{label.mean():.4f}", f"{known.mean():.1%}"] if len(known) else ["–", "–"]
        period = [_date(t) for t in split.info.time_range] if split.info.time_range else ["–", "–"]
        yield [name, f"{len(known):,}", f"{len(label):,}", *rates, *period]


def _per_split(splits: dict[str, SplitData]) -> list[str]:
    return [f"{what} {name}" for what in ("missing", "unseen") for name in splits]


def _feature_lines(data: Dataset, splits: dict[str, SplitData]) -> Iterator[list[str]]:
    for column in data.manifest.features:
        rates = [
            _rates(data, column, s.requests if column.level == "request" else s.impressions)
            for s in splits.values()
        ]
        columns = [_percent(r[i]) for i in (0, 1) for r in rates]
        yield [column.name, column.level, column.table or f"dense ({column.dim})", *columns]


def _rates(data: Dataset, column: Column, table: object) -> tuple[float, float]:
    """Missing and unseen rate of one column; of a dense one the mean of its indicators."""
    if column.kind == "dense":
        flags = [i for i, field in enumerate(column.fields) if field.endswith(".missing")]
        values = dense_values(table, column)
        return (float(values[:, flags].mean()) if flags and len(values) else 0.0), float("nan")
    ids = id_values(table, column)
    assert column.table is not None
    info = data.manifest.tables[column.table]
    unseen = unseen_rate(ids.values, info.oov_rows) if info.encode == "vocabulary" else float("nan")
    return missing_rate(ids.values, ids.offsets), unseen


def _history_lines(splits: dict[str, SplitData], events: dict[str, EventStore]) -> Iterator[list[str]]:
    for domain in events:
        for name, split in splits.items():
            length = split.requests[f"end.{domain}"].to_numpy() - split.requests[f"start.{domain}"].to_numpy()
            if len(length):
                quantiles = [f"{q:.0f}" for q in np.quantile(length, [0.5, 0.9, 0.99, 1.0])]
                yield [domain, name, f"{(length == 0).mean():.1%}", *quantiles]


def _table_lines(
    data: Dataset, splits: dict[str, SplitData], events: dict[str, EventStore]
) -> Iterator[list[str]]:
    ratios = unique_ratios(data, splits["train"], events)
    for name, info in data.manifest.tables.items():
        yield [name, info.encode, f"{info.rows:,}", _percent(ratios.get(name, float("nan")))]


def _table(head: list[str], lines: Iterator[list[str]]) -> str:
    """Text in columns, the first left, the others right."""
    rows = [head, *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _percent(rate: float) -> str:
    return "–" if np.isnan(rate) else f"{rate:.1%}"


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
