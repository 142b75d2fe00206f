"""Counter features of a score request from an export of `ctr counters`, as `ctr prepare` computes them.

A counter is filled in where the columns of its key are known: those of the score request, its user and its
items. What the score request gives itself is left as it is.

C candidates, or 1 request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.serving.keys import DIGITS
from features.errors import DataError
from features.past.counter_files import CounterBook, CounterFile, key_part, key_text
from features.past.counter_state import SUMS, outputs_of
from features.read.moment import SECOND, shown_moment
from features.spec import Counter

if TYPE_CHECKING:
    from features.raw import Raw, RawEncoder, RawLevel


@dataclass(frozen=True)
class Asker:
    """Who asks when: a raw key of a user, None where nobody is known, and nanoseconds since 1970."""

    user: int | str | None
    moment: int


class CounterFill:
    """Fills the columns of counters.

    Args:
        file: the export.
        encoder: of the data set.
    """

    def __init__(self, file: CounterFile, encoder: RawEncoder) -> None:
        self.file, self.encoder = file, encoder
        self._shown = encoder.spec.impressions

    def columns(
        self,
        level: RawLevel,
        given: Raw,
        *,
        encoded: Collection[str],
        items: Sequence[Any] | None,
        asker: Asker,
        count: int,
    ) -> dict[str, list[float | None]]:
        """The columns of counters that make features of the level whole, C values each.

        Args:
            level: of the features.
            given: columns of the score request.
            encoded: features that it gives encoded.
            items: raw keys of the candidates, if these are named.
            asker: the user and the time.
            count: C.

        Raises:
            DataError: the export is of a later moment.
        """
        if asker.moment < self.file.moment:
            raise DataError(
                f"counters of {shown_moment(self.file.moment)} would tell the future of a score request at "
                f"{shown_moment(asker.moment)}; export them for an earlier time"
            )
        keys: dict[str, Sequence[Any]] = {self._shown.user: [asker.user] * count}
        keys |= {} if items is None else {self._shown.item: items}
        keys |= given
        counters = self.encoder.spec.counters
        known = {
            f"count.{name}.{output}": name
            for name, counter in counters.items()
            if set(counter.by) <= keys.keys()
            for output in counter.outputs
        }
        whole = self.encoder.completed_by(level, known, given=given, without=encoded)
        wanted = [column for column in whole if column not in given]
        found: dict[str, list[float | None]] = {}
        for name in dict.fromkeys(known[column] for column in wanted):
            found |= self._outputs(name, counters[name], keys, asker.moment // SECOND)
        return {column: found[column] for column in wanted}

    def _outputs(
        self, name: str, counter: Counter, keys: Mapping[str, Sequence[Any]], time: int
    ) -> dict[str, list[float | None]]:
        book, count = self.file.books[name], len(next(iter(keys.values())))
        types = zip(counter.by, book.types, strict=True)
        columns = [_parts(keys[column], counter.separator, dtype) for column, dtype in types]
        rows = [_joined(parts) for parts in zip(*columns, strict=True)]
        owner = np.repeat(np.arange(count), [len(row) for row in rows])
        sums = _sums(book, book.find([key for row in rows for key in row]), owner, count)
        has_key = np.array([bool(row) for row in rows])
        seen = has_key & (sums["count"] > 0)
        valid = {"since_last": seen, "since_first": seen}
        return {
            f"count.{name}.{output}": [
                value if there else None
                for value, there in zip(values.tolist(), valid.get(output, has_key).tolist(), strict=True)
            ]
            for output, values in outputs_of(counter, book.running, sums, time).items()
        }


def _sums(book: CounterBook, at: np.ndarray, owner: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Sums (C,) over the keys (Q,) of each row, and the first and the last time."""
    owner, at = owner[at >= 0], at[at >= 0]
    sums = {n: np.bincount(owner, weights=book.numbers[n][at], minlength=count) for n in SUMS}
    first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(first, owner, book.numbers["first"][at])
    np.maximum.at(last, owner, book.numbers["last"][at])
    none = sums["count"] == 0
    return {**sums, "first": np.where(none, 0, first), "last": np.where(none, 0, last)}


def _joined(parts: tuple[list[str], ...]) -> list[str]:
    """The distinct keys of one row, from the values of its cells; none where a value is missing."""
    if all(len(part) == 1 for part in parts):
        return [key_text(part[0] for part in parts)]
    return list(dict.fromkeys(key_text(key) for key in product(*parts)))


def _parts(values: Sequence[Any], separator: str | None, dtype: str) -> list[list[str]]:
    """The values of each cell as they stand in keys; those of equal cells are made once."""
    made: dict[tuple[type, Any], list[str]] = {}
    parts = []
    for value in values:
        if isinstance(value, list):
            parts.append(_values(value, separator, dtype))
            continue
        cell = (type(value), value)  # True is 1 for a dictionary
        if cell not in made:
            made[cell] = _values(value, separator, dtype)
        parts.append(made[cell])
    return parts


def _values(value: Any, separator: str | None, dtype: str) -> list[str]:
    if isinstance(value, str) and separator is not None:
        value = [part for part in map(str.strip, value.split(separator)) if part]
    cells = value if isinstance(value, list) else [value]
    return [key_part(_key(cell, dtype)) for cell in cells if cell is not None and cell == cell]


def _key(value: Any, dtype: str) -> int | str:
    """A value as an ID: a whole number, or a text; a number meets its own digits (`features.read.ids`)."""
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float):
        value = int(value) if value.is_integer() else repr(value)
    if dtype == "String" or not isinstance(value, str):
        return str(value) if dtype == "String" else int(value)
    return int(value) if DIGITS.fullmatch(value) else value
