"""The record of a run: one JSON object per line, written before anything else hears of it.

A row is ``{"kind": …, "step": …, <values>, "wall": {"time": …, …}}``. All that depends on the clock or the
machine stands under ``wall`` or in a row whose kind is in `WALL_KINDS`; the rest of a resumed run's journal
equals that of an uninterrupted one, if a step's rows are written before the checkpoint of that step is saved.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctr.errors import RetryableError
from features.durable import replace_file
from features.errors import DataError

# A resumed run has more sessions, with their artifacts and models.
WALL_KINDS = frozenset({"session", "system", "artifact", "model"})
RESERVED = frozenset({"kind", "step", "wall", "not_finite"})
Row = dict[str, Any]


class Journal:
    """Append-only rows in a file; safe to use from several threads of the one job that holds the run's lock.

    Args:
        path: the file; created if absent. A last line torn by a kill is cut off.

    Raises:
        DataError: a line before the last is not a row.
        RetryableError: the file cannot be opened or repaired.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = path.open("ab", buffering=0)
            self._size = sum(len(line) for line, _ in _whole_lines(path))
            os.ftruncate(self._file.fileno(), self._size)
        except OSError as error:
            raise _unwritable(path, error) from error

    def write(self, kind: str, step: int, *, wall: Mapping[str, Any] | None = None, **values: Any) -> Row:
        """Append one row and return it as written.

        A NaN or infinite value becomes null, with its reason in ``not_finite``; scalars of torch and NumPy
        become numbers.

        Args:
            kind: what the row tells, such as ``train``, ``valid``, ``best``.
            step: the last finished training step.
            wall: values that depend on the clock or the machine, such as rows/s.
            values: the rest; any JSON.

        Raises:
            RetryableError: the row could not be written whole; the file is as before.
        """
        if taken := RESERVED & values.keys():
            raise ValueError(
                f"values of a row must not be named {sorted(taken)}: the journal uses these names itself"
            )
        bad: dict[str, str] = {}
        row: Row = {"kind": kind, "step": int(step), **_plain(values, bad)}
        row["wall"] = {"time": round(time.time(), 3), **_plain(wall or {}, bad, "wall/")}
        if bad:
            row["not_finite"] = bad
        self._append(json.dumps(row, allow_nan=False, ensure_ascii=False).encode() + b"\n")
        return row

    def _append(self, line: bytes) -> None:
        with self._lock:
            try:
                if self._file.write(line) != len(line):
                    raise OSError("only a part of the row could be written")
                self._size += len(line)
            except OSError as error:
                with suppress(OSError):
                    os.ftruncate(self._file.fileno(), self._size)
                raise _unwritable(self.path, error) from error

    def sync(self) -> None:
        """Force all rows to the disk; call it before each checkpoint.

        Raises:
            RetryableError: the disk refuses, or the file was deleted under the running job.
        """
        with self._lock:
            try:
                os.fsync(self._file.fileno())
                if not os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
                    raise FileNotFoundError("the file was deleted or replaced while the job ran")
            except OSError as error:
                raise _unwritable(self.path, error) from error

    def truncate_after(self, step: int) -> int:
        """Drop the rows of later steps, which a run resumed from `step` writes again.

        Returns:
            How many rows were dropped.
        """
        with self._lock:
            lines = list(_whole_lines(self.path))
            kept = [line for line, row in lines if row["step"] <= step]
            if len(kept) < len(lines):
                data = b"".join(kept)
                try:
                    replace_file(self.path, data)
                    self._file.close()
                    self._file = self.path.open("ab", buffering=0)
                except OSError as error:
                    raise _unwritable(self.path, error) from error
                self._size = len(data)
            return len(lines) - len(kept)

    def close(self) -> None:
        """Close the file; rows are already in it."""
        self._file.close()


def read_rows(path: Path) -> list[Row]:
    """All whole rows of a journal; an absent file has none."""
    return [row for _, row in _whole_lines(path)] if path.exists() else []


def read_from(path: Path, offset: int, *, limit: int) -> tuple[list[Row], int]:
    """At most `limit` whole rows from a byte offset on, and the offset behind them."""
    rows: list[Row] = []
    for line, row in _whole_lines(path, offset):
        rows.append(row)
        offset += len(line)
        if len(rows) == limit:
            break
    return rows, offset


def comparable(rows: Iterable[Row]) -> list[Row]:
    """The part of a journal that two runs with the same config and data have in common, bit by bit.

    Example:
        >>> comparable([{"kind": "train", "step": 1, "loss": 0.5, "wall": {"time": 7}}, {"kind": "system"}])
        [{'kind': 'train', 'step': 1, 'loss': 0.5}]
    """
    return [{k: v for k, v in row.items() if k != "wall"} for row in rows if row["kind"] not in WALL_KINDS]


def _whole_lines(path: Path, offset: int = 0) -> Iterator[tuple[bytes, Row]]:
    """Each line with its row, up to a torn last line."""
    with path.open("rb") as file:
        file.seek(offset)
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # the last one, torn by a kill, or a job beside is writing it now
            row = _parse(line)
            if row is not None:
                yield line, row
            elif file.read(1):
                raise DataError(
                    f"{path}: line {number} after byte {offset} must be a JSON object with kind and step, "
                    f"got {line[:80]!r}; mend or move the file"
                )
            else:
                return


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and "kind" in row and isinstance(row.get("step"), int) else None


def _plain(value: Any, bad: dict[str, str], prefix: str = "") -> Any:
    """The value as strict JSON; notes in `bad`, by path, the numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, bad, f"{prefix}{key}/") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, bad, f"{prefix}{index}/") for index, item in enumerate(value)]
    if not isinstance(value, str | int | float | None) and hasattr(value, "item"):
        value = value.item()  # a scalar of torch or NumPy
    if isinstance(value, float) and not math.isfinite(value):
        bad[prefix.rstrip("/")] = repr(float(value))
        return None
    return value


def _unwritable(path: Path, error: OSError) -> RetryableError:
    return RetryableError(
        f"{path} must be writable, got {error}; free space or mend the disk, then run the command again"
    )
