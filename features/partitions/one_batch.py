"""One record batch that is larger than memory: its columns are put together on disk and mapped.

An event store is one batch, so that a history is one slice without a copy (`features.dataset.EventStore`).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from features.partitions.frames import read_table

_CHUNK = 2**24  # bytes that are written before the mapped pages are let go


def write_one_batch(path: Path, parts: Sequence[Path]) -> None:
    """Write the tables of some Arrow files below one another as one batch.

    Args:
        path: the file; more lies beside it while it is written.
        parts: at least one; a column has no missing values, or no others.
    """
    schema, columns = read_table(parts[0]).schema, _Columns(path)
    for part in parts:
        table = read_table(part)
        for field in schema:
            for chunk in table[field.name].chunks:
                columns.append(field.name, chunk)
    arrays = [columns.array(field.name, field.type) for field in schema]
    with path.open("wb") as file:
        sink = pa.PythonFile(_Sink(file, columns.maps), mode="w")
        with ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    columns.remove()


class _Columns:
    """The buffers of columns, each appended to in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, dict[str, Path]()
        self._lengths: dict[str, int] = {}
        self._nothing: set[str] = set()
        self.maps: list[mmap.mmap] = []

    def append(self, name: str, values: pa.Array) -> None:
        """Add values below those of the column so far."""
        length = self._lengths.get(name, 0)
        self._check(name, values)
        if values.null_count:
            self._nothing.add(name)
        elif isinstance(values.type, pa.LargeListType):
            offsets = values.offsets.to_numpy()
            inner = f"{name}.values"
            base = self._lengths.get(inner, 0) - int(offsets[0])
            begun = f"{name}.offsets" in self._files  # the first offset is written once
            self._write(f"{name}.offsets", (offsets[1:] if begun else offsets) + base)
            self.append(inner, values.flatten())
        elif isinstance(values.type, pa.FixedSizeListType):
            self.append(f"{name}.values", values.flatten())
        else:
            self._write(name, values.to_numpy())
        self._lengths[name] = length + len(values)

    def array(self, name: str, kind: pa.DataType) -> pa.Array:
        """The whole column, mapped."""
        length = self._lengths.get(name, 0)
        if name in self._nothing:
            zeros = [
                np.zeros(size, dtype=np.uint8) for size in (-(-length // 8), length * kind.bit_width // 8)
            ]
            return pa.Array.from_buffers(kind, length, [pa.py_buffer(z) for z in zeros], null_count=length)
        if isinstance(kind, pa.LargeListType | pa.FixedSizeListType):
            inner = self.array(f"{name}.values", kind.value_type)
            buffers = [None]
            if isinstance(kind, pa.LargeListType):
                buffers.append(self._mapped(f"{name}.offsets"))
            return pa.Array.from_buffers(kind, length, buffers, null_count=0, children=[inner])
        return pa.Array.from_buffers(kind, length, [None, self._mapped(name)], null_count=0)

    def _check(self, name: str, values: pa.Array) -> None:
        """A column has no missing values at all, or nothing else."""
        begun = self._lengths.get(name, 0) > 0
        some = 0 < values.null_count < len(values)
        if some or (begun and len(values) and (name in self._nothing) != bool(values.null_count)):
            raise AssertionError(f"column {name!r} of an event store has missing values")

    def remove(self) -> None:
        """Delete the files; what is mapped stays until it is let go."""
        for file in self._files.values():
            file.unlink()

    def _write(self, name: str, values: np.ndarray) -> None:
        file = self._files.setdefault(name, self._path.with_name(f"column-{len(self._files)}"))
        with file.open("ab") as sink:
            values.tofile(sink)

    def _mapped(self, name: str) -> pa.Buffer:
        file = self._files.get(name)
        if file is None or not file.stat().st_size:
            return pa.py_buffer(b"")
        with file.open("rb") as source:
            found = mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ)
        self.maps.append(found)
        return pa.py_buffer(found)


class _Sink:
    """A file that lets the mapped pages go that were written to it."""

    def __init__(self, file: Any, maps: list[mmap.mmap]) -> None:
        self._file, self._maps, self.closed = file, maps, False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for low in range(0, len(view), _CHUNK):
            self._file.write(view[low : low + _CHUNK])
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)
        return len(view)

    def tell(self) -> int:
        return int(self._file.tell())

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True
