"""Tables between the tasks of a job: Arrow files, mapped where they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc as ipc


class Writers:
    """Arrow files of one task, each appended to as often as something for it comes.

    All that is written to one file has the types of what came first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._writers: dict[str, tuple[pa.Schema, ipc.RecordBatchFileWriter]] = {}

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def write(self, name: str, frame: pl.DataFrame) -> None:
        """Append a frame to the file of that name."""
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if name not in self._writers:
            sink = self._stack.enter_context(pa.OSFile(str(self._folder / f"{name}.arrow"), "wb"))
            self._writers[name] = table.schema, self._stack.enter_context(ipc.new_file(sink, table.schema))
        schema, writer = self._writers[name]
        writer.write_table(table if table.schema == schema else table.cast(schema))

    def split(self, name: str, frame: pl.DataFrame, part: np.ndarray, parts: int) -> None:
        """Append the rows of each part, `part` (N,) in [0, parts), to `<name>-<part>`, in their order."""
        order = np.argsort(part, kind="stable")
        counts = np.bincount(part, minlength=parts)
        ends = np.cumsum(counts)
        ordered = frame[order]
        for p in range(parts):
            if counts[p] or f"{name}-{p}" not in self._writers:
                self.write(f"{name}-{p}", ordered.slice(int(ends[p] - counts[p]), int(counts[p])))


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write one Arrow file."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    with pa.OSFile(str(path), "wb") as sink, ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_table(path: Path) -> pa.Table:
    """An Arrow file, mapped."""
    return ipc.open_file(pa.memory_map(str(path))).read_all()


def read_frame(path: Path) -> pl.DataFrame:
    """An Arrow file, mapped."""
    return _polars(read_table(path))


def read_frames(paths: Iterable[Path]) -> pl.DataFrame:
    """Arrow files one below the other."""
    return pl.concat([_polars(read_table(p)) for p in paths], how="vertical", rechunk=True)


def _polars(table: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def slices_of(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Tables of one schema cut anew into tables of `rows` rows; at least one, though it may be empty."""
    waiting: list[pa.Table] = []
    held, given = 0, False
    for table in tables:
        waiting, held = [*waiting, table], held + table.num_rows
        while held >= rows:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, rows)
            given = True
            waiting, held = [joined.slice(rows)], held - rows
    if held or not given:
        yield pa.concat_tables(waiting)
