"""Measured points of a sweep: a size, the metrics of its trainings, and what they cost."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ConfigError, DataError

Against = Literal["x", "flops", "parameters"]


@dataclass(frozen=True)
class Measured:
    """One point.

    Args:
        x: the size that is varied.
        values: metric → its value in each training, in the order of the seeds.
        flops: operations of a whole training, forward and backward; None where unknown.
        flops_per_row: the same for a row.
        parameters: of the model with its tables.
    """

    x: float
    values: Mapping[str, Sequence[float]]
    flops: float | None = None
    flops_per_row: float | None = None
    parameters: float | None = None

    def at(self, against: Against) -> float:
        """Its position on an axis.

        Raises:
            ConfigError: the axis is not known for this point.
        """
        value: float | None = getattr(self, against)
        if value is None or not value > 0:
            raise ConfigError(
                f"a curve against {against} needs it positive at every point, got {value} at x = {self.x:g}; "
                "add it, or fit against x"
            )
        return value

    def mean(self, metric: str) -> float:
        """Over its trainings."""
        return float(np.mean(self.values[metric]))


def flat(points: Iterable[Measured], metric: str, against: Against) -> tuple[np.ndarray, np.ndarray]:
    """Every training as a pair of position and value, each float64 (n,)."""
    pairs = [(point.at(against), y) for point in points for y in point.values[metric]]
    return np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])


def read_points(path: Path, *, metric: str) -> list[Measured]:
    """Points from a table with a row for each training, in ascending order of x.

    Args:
        path: .csv, .parquet or .json (a list of objects); columns x and y; where known seed, flops (of the
            whole training) and parameters.
        metric: what y is.

    Raises:
        DataError: not such a table, x not positive, a value that is not finite, or a seed twice at a point.
    """
    rows: dict[float, list[dict[str, Any]]] = {}
    for number, row in enumerate(_rows(path), start=1):
        row = {
            key: _number(row, key, f"{path}, row {number}")
            for key in _COLUMNS
            if row.get(key) not in ("", None)
        }
        if missing := [key for key in ("x", "y") if key not in row]:
            raise DataError(f"{path}, row {number}: must have x and y, got no {' and no '.join(missing)}")
        if row["x"] <= 0:
            raise DataError(
                f"{path}, row {number}: x must be positive, since log x is used, got {row['x']:g}"
            )
        rows.setdefault(row["x"], []).append(row)
    return [_point(path, x, rows[x], metric) for x in sorted(rows)]


_COLUMNS = ("x", "y", "seed", "flops", "parameters")


def _point(path: Path, x: float, rows: list[dict[str, Any]], metric: str) -> Measured:
    seeds = [row["seed"] for row in rows if "seed" in row]
    if len(set(seeds)) != len(seeds):
        raise DataError(
            f"{path}: the seeds of a point must differ, got {seeds} at x = {x:g}; remove repetitions"
        )
    means = {
        key: float(np.mean([row[key] for row in rows])) if all(key in row for row in rows) else None
        for key in ("flops", "parameters")
    }
    return Measured(x, {metric: [row["y"] for row in rows]}, **means)


def _number(row: Mapping[str, Any], key: str, where: str) -> float:
    try:
        value = float(row[key])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {key} must be a finite number, got {str(row[key])[:60]!r}")
    return value


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, as plain data."""
    kinds = {".csv": _csv, ".parquet": lambda p: pq.read_table(p).to_pylist(), ".json": _json}
    if path.suffix not in kinds or not path.is_file():
        raise DataError(f"{path}: must be a .csv, .parquet or .json file that is there; check the path")
    try:
        rows: list[dict[str, Any]] = kinds[path.suffix](path)
    except (ValueError, pa.ArrowException, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as {path.suffix} ({str(error)[:200]}); mend the file"
        ) from error
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError('it must be a list of objects such as {"x": 1, "y": 0.7}')
    return rows
