"""A log cut into days, and the comparison of days that follow each other with one prepare of all of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from features.dataset import SPLITS, Column, Dataset, dense_values, id_values
from features.encode.encoding import encoding_of
from features.encode.row_map import map_rows
from features.prepare import prepare
from features.spec import parse_spec
from tests.features.small_log import Tables, changed, write_tables

LATER_SPLIT = {"valid": 0.3, "test": 0}


def cut(tables: Tables, times: dict[str, str], bounds: list[int]) -> list[Tables]:
    """The tables of each day; those without a time column are those of every day.

    Args:
        tables: of the whole log.
        times: table → its time column.
        bounds: the first time of every day but the first.
    """
    days = []
    for low, high in zip([None, *bounds], [*bounds, None], strict=True):
        within = {
            name: pl.lit(True)
            & (pl.lit(True) if low is None else pl.col(time) >= low)
            & (pl.lit(True) if high is None else pl.col(time) < high)
            for name, time in times.items()
        }
        days.append({n: t.filter(within[n]) if n in times else t for n, t in tables.items()})
    return days


def written(out: Path) -> dict[str, str]:
    """Relative path → sha256 of every file of a data set."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def one_day(root: Path, spec: dict[str, Any], day: int) -> Path:
    """Prepare a day, whose raw tables are in `root/raw-<day>`, after the day before."""
    out = root / f"day-{day}"
    after = root / f"day-{day - 1}" if day else None
    prepare(parse_spec(spec), out, base=root / f"raw-{day}", after=after, keep_state=True)
    return out


def day_by_day(root: Path, spec: dict[str, Any], days: list[Tables], split: dict[str, Any]) -> list[Path]:
    """Prepare the days one after the other; `split` is that of the first."""
    found = []
    for day, tables in enumerate(days):
        write_tables(root / f"raw-{day}", tables)
        own = split if day == 0 else LATER_SPLIT
        found.append(one_day(root, changed(spec, split=own), day))
    return found


def all_at_once(root: Path, spec: dict[str, Any], tables: Tables, split: dict[str, Any]) -> Dataset:
    """All days in one data set, fitted on the training part of the first."""
    write_tables(root / "raw", tables)
    prepare(parse_spec(changed(spec, split=split)), root / "whole", base=root / "raw")
    return Dataset(root / "whole")


def assert_same_features(whole: Dataset, days: list[Path]) -> None:
    """Every row, feature and history of all days is that of the whole: numbers to the bit, IDs by value."""
    first = encoding_of(whole)
    assert first is not None
    wanted = _Rows(whole, {})
    columns, histories = wanted.columns(), wanted.histories()
    at = 0
    for path in days:
        day = Dataset(path)
        maps = {
            name: map_rows(day, name, known, lambda: whole).old_rows
            for name, known in first.tables.items()
            if known.encode == "vocabulary"
        }
        rows = _Rows(day, maps)
        own = slice(at, at + len(rows.label))
        for name, found in rows.columns().items():
            np.testing.assert_array_equal(found, columns[name][own], err_msg=f"{path.name}: {name}")
        assert rows.histories() == histories[own], path.name
        at = own.stop
    assert at == len(wanted.label)


class _Rows:
    """The rows of all parts of a data set, with raw keys for codes and IDs of the first day's tables."""

    def __init__(self, data: Dataset, maps: dict[str, np.ndarray]) -> None:
        self._data, self._maps = data, maps
        self._splits = [data.split(name) for name in SPLITS]
        self.label = np.concatenate([s.impressions["label"].to_numpy() for s in self._splits])

    def columns(self) -> dict[str, np.ndarray]:
        """Every column of numbers, ragged ones as objects."""
        found = {"label": self.label}
        users, items = self._keys("users"), self._keys("items")
        spread = [np.diff(s.row_offsets) for s in self._splits]
        per_row = [np.repeat(np.arange(len(n)), n) for n in spread]
        found["item"] = items[np.concatenate([s.impressions["item_id"].to_numpy() for s in self._splits])]
        for name, of in (("user_id", lambda x: users[x]), ("time", np.asarray), ("clock", np.asarray)):
            own = [s.requests[name].to_numpy()[i] for s, i in zip(self._splits, per_row, strict=True)]
            found[name] = of(np.concatenate(own))
        for column in self._data.manifest.features:
            request = column.level == "request"
            parts = []
            for split, index in zip(self._splits, per_row, strict=True):
                table = split.requests if request else split.impressions
                values = self._values(column, table)
                parts += [values[i] for i in index] if request else list(values)
            found[column.name] = np.array([_plain(v) for v in parts], dtype=object)
        return found

    def histories(self) -> list[Any]:
        """For every row the events of each domain, field by field."""
        stores = {d: self._data.events(d) for d in self._data.manifest.domains}
        found = []
        for split in self._splits:
            index = np.repeat(np.arange(split.requests.num_rows), np.diff(split.row_offsets))
            cache: dict[int, Any] = {}
            for i in index.tolist():
                if i not in cache:
                    cache[i] = {d: self._history(split.requests, d, s, i) for d, s in stores.items()}
                found.append(cache[i])
        return found

    def _history(self, requests: Any, domain: str, store: Any, i: int) -> Any:
        low, high = requests[f"start.{domain}"][i].as_py(), requests[f"end.{domain}"][i].as_py()
        fields: dict[str, Any] = {
            "time": store.time[low:high].tolist(),
            "clock": store.clock[low:high].tolist(),
        }
        for column in store.info.side:
            if column.kind == "dense":
                fields[column.name] = store.dense[column.name][low:high].tobytes()
                continue
            ids = store.ids[column.name]
            mapped = self._mapped(column, ids.values)
            if ids.offsets is None:
                fields[column.name] = mapped[low:high].tolist()
            else:
                fields[column.name] = [
                    mapped[ids.offsets[j] : ids.offsets[j + 1]].tolist() for j in range(low, high)
                ]
        return fields

    def _values(self, column: Column, table: Any) -> list[Any]:
        if column.kind == "dense":
            return [row.tobytes() for row in dense_values(table, column)]
        ids = id_values(table, column)
        mapped = self._mapped(column, ids.values)
        if ids.offsets is None:
            return mapped.tolist()
        weights = [None] * len(mapped) if ids.weights is None else ids.weights.tolist()
        pairs = list(zip(mapped.tolist(), weights, strict=True))
        return [tuple(pairs[a:b]) for a, b in zip(ids.offsets[:-1], ids.offsets[1:], strict=True)]

    def _mapped(self, column: Column, values: np.ndarray) -> np.ndarray:
        rows = self._maps.get(str(column.table))
        return values.astype(np.int64) if rows is None else rows[values].astype(np.int64)

    def _keys(self, name: str) -> np.ndarray:
        book = pq.read_table(self._data.root / "keys" / f"{name}.parquet")
        return np.array([*map(str, book["key"].to_pylist()), "none"], dtype=object)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, tuple) else value
