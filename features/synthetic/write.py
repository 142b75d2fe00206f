"""Write a simulated log: all of it or nothing, one block of users in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from features.durable.directory import check_absent, new_directory
from features.synthetic import tables
from features.synthetic.block import UserBlock
from features.synthetic.catalogue import Catalogue

_STREAMS = {
    "impressions": tables.impressions_table,
    "view": tables.view_table,
    "cart": tables.cart_table,
    "search": tables.search_table,
    "truth/impressions": tables.truth_table,
}


def new_log(out_dir: Path) -> AbstractContextManager[Path]:
    """A directory that takes the place of `out_dir` when the block ends, or vanishes if it raises.

    Raises:
        ConfigError: `out_dir` exists and is not an empty directory, or cannot be made.
    """
    check_absent(out_dir)
    return new_directory(out_dir, point="simulated")


class TableWriter:
    """One Parquet file, written table by table; the first table gives the schema.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, TableWriter(Path(folder) / "x.parquet") as writer:
        ...     writer.add(pa.table({"x": [1, 2]}))
        ...     writer.add(pa.table({"x": [3]}))
        ...     writer.rows
        3
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Append a table as one row group."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", compression_level=1, write_page_checksum=True
            )
        self._writer.write_table(table)
        self.rows += table.num_rows

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def write_catalogue(root: Path, catalogue: Catalogue) -> None:
    """Write the item table, and the hidden tables of the click model."""
    for name, table in (
        ("items", tables.items_table(catalogue)),
        ("truth/items", tables.truth_items_table(catalogue)),
        ("truth/tags", tables.truth_tags_table(catalogue)),
        ("truth/affinity", tables.truth_affinity_table(catalogue)),
    ):
        with TableWriter(root / f"{name}.parquet") as writer:
            writer.add(table)


def write_part(root: Path, number: int, catalogue: Catalogue, blocks: Iterator[UserBlock]) -> dict[str, int]:
    """Write blocks of users as part `number` of every stream.

    Returns:
        Rows written by stream.
    """
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(TableWriter(root / name / f"part-{number:05d}.parquet"))
            for name in _STREAMS
        }
        for block in blocks:
            for name, make_table in _STREAMS.items():
                writers[name].add(make_table(block, catalogue))
        return {name: writer.rows for name, writer in writers.items()}
