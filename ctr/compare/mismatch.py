"""What keeps two prediction files from being compared: how many rows, and the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError


@dataclass
class _Mismatch:
    count: int = 0
    first: Any = None

    def add(self, ids: pa.ChunkedArray | pa.Array) -> None:
        if len(ids):
            smallest = pc.min(ids).as_py()
            self.first = smallest if self.first is None else min(self.first, smallest)
            self.count += len(ids)


class Mismatches:
    """Counts rows that do not match.

    Args:
        paths: of the files, the base first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._kind: pa.DataType | None = None
        kinds = ("missing", "extra", "repeated", "differ", "weigh")
        self._found = [{kind: _Mismatch() for kind in kinds} for _ in paths]

    def same_kind_of_id(self, kind: pa.DataType | None) -> None:
        """Refuse integers in one file and text in another; `kind` is None for a file without rows."""
        if self._kind is not None and kind is not None and kind != self._kind:
            raise DataError(
                f"ids must be integers in all files or text in all, got {self._kind} and {kind} "
                f"in {', '.join(map(str, self._paths))}; convert them"
            )
        self._kind = self._kind or kind

    def compare_labels(self, tables: Sequence[pa.Table]) -> None:
        """Note rows of equal ids whose labels or weights differ from the base's."""
        base = tables[0]
        for table, found in zip(tables[1:], self._found[1:], strict=True):
            for kind, column in (("differ", "label"), ("weigh", "weight")):
                if column not in base.column_names:
                    continue
                differ = pc.not_equal(table.column(column), base.column(column))
                if pc.any(differ).as_py():
                    found[kind].add(base.column("id").filter(differ))

    def match(self, tables: Sequence[pa.Table | None]) -> bool:
        """Compare sorted tables of one part; True where all have the same ids, each once."""
        repeated = [_repeated(table) for table in tables]
        for found, ids in zip(self._found, repeated, strict=True):
            found["repeated"].add(ids)
        base = tables[0]
        whole = base is not None and not any(len(ids) for ids in repeated)
        for table, found in zip(tables[1:], self._found[1:], strict=True):
            if not _ids(table).equals(_ids(base)):
                whole = False
                found["missing"].add(_only_in(base, table))
                found["extra"].add(_only_in(table, base))
        if whole:
            self.compare_labels([table for table in tables if table is not None])
        return whole and base is not None and len(base) > 0

    def refuse(self) -> None:
        """Raise for what was found.

        Raises:
            DataError: with counts and the first id of each kind, for the first file that does not match.
        """
        texts = {
            "missing": "{count:,} ids of the base are missing, first {first!r}",
            "extra": "{count:,} ids are not in the base, first {first!r}",
            "repeated": "{count:,} rows repeat an id, first {first!r}",
            "differ": "{count:,} labels differ, first at id {first!r}",
            "weigh": "{count:,} weights differ, first at id {first!r}",
        }
        for path, found in zip(self._paths, self._found, strict=True):
            said = [texts[kind].format(count=f.count, first=f.first) for kind, f in found.items() if f.count]
            if said:
                rows = "" if path == self._paths[0] else f"the rows of {self._paths[0]}, "
                raise DataError(
                    f"{path} must have {rows}each id once, got: {'; '.join(said)}; "
                    f"compare predictions of the same test rows"
                )


def _ids(table: pa.Table | None) -> pa.ChunkedArray:
    return pa.chunked_array([[]], pa.null()) if table is None else table.column("id")


def _repeated(table: pa.Table | None) -> pa.ChunkedArray:
    """The ids that equal the one before, in a table sorted by id."""
    ids = _ids(table)
    if len(ids) < 2:
        return ids.slice(0, 0)
    return ids.slice(1).filter(pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1)))


def _only_in(table: pa.Table | None, other: pa.Table | None) -> pa.ChunkedArray:
    ids = _ids(table)
    if table is None or other is None:
        return ids
    return ids.filter(pc.invert(pc.is_in(ids, value_set=other.column("id").combine_chunks())))
