"""Write a simulated log: all of it or nothing, one block of users in memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from features.durable import rename
from features.errors import ConfigError
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


@contextmanager
def staged_directory(out_dir: Path) -> Iterator[Path]:
    """Yield a new directory beside `out_dir` that takes its place at the end, or vanishes on an error.

    Raises:
        ConfigError: `out_dir` exists and is not an empty directory, or cannot be made.
    """
    if out_dir.is_symlink() or (out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir()))):
        raise ConfigError(
            f"{out_dir} must not exist or be an empty directory; choose another one or remove it"
        )
    staging = out_dir.parent / f".{out_dir.name}.partial-{os.getpid()}"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{out_dir} must be a place that can be written to: {error}; choose another one"
        ) from error
    try:
        yield staging
        if out_dir.exists():
            out_dir.rmdir()
        rename(staging, out_dir, point="simulated")
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


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
