"""The files of a dataset directory: written beside it under a temporary name, renamed when all is on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from features.durable.directory import new_directory
from features.errors import ConfigError, DataError
from features.store.manifest import MANIFEST, Manifest, looks_like_manifest, sealed_json, sha256_of

BATCH_ROWS = 65_536


def new_dataset(out: Path, *, overwrite: bool) -> AbstractContextManager[Path]:
    """A directory that takes the place of `out` when the block ends, or vanishes if it raises.

    Args:
        out: where the dataset is to be.
        overwrite: replace a dataset that is there; nothing but a dataset or an empty directory is replaced.

    Raises:
        ConfigError: `out` is in the way: a file, a link, or files that are no dataset.
        DataError: there is a dataset, and it is not to be replaced.
    """
    _check_target(out, overwrite=overwrite)
    return new_directory(out, point="dataset")


def write_arrow(
    path: Path, table: pa.Table | Iterable[pa.Table], *, batch_rows: int | None = BATCH_ROWS
) -> None:
    """Write an Arrow file, in record batches of at most `batch_rows`, or in one.

    The same values give the same bytes, whether they come as one table or as slices of `batch_rows` rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    slices = iter([table] if isinstance(table, pa.Table) else table)
    first = next(slices)
    with pa.OSFile(str(path), "wb") as sink, ipc.new_file(sink, first.schema) as writer:
        for part in chain([first], slices):
            batches = part.combine_chunks().to_batches(max_chunksize=batch_rows)
            for batch in batches or [pa.RecordBatch.from_pylist([], schema=part.schema)]:
                writer.write_batch(batch if batch_rows is None else _compact(batch))


def _compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with buffers of its own: of a slice, Arrow writes some bytes of its neighbours as padding."""
    return pa.RecordBatch.from_arrays(
        [pa.concat_arrays([column]) for column in batch.columns], schema=batch.schema
    )


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a small table with checksums."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, write_page_checksum=True)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write plain data, keys in order; not a number is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")


def hash_files(root: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Relative path → sha256 of every file; `known` are those of files that were hashed when written."""
    names = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: (known or {}).get(name) or sha256_of(path) for name, path in names.items()}


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file of a dataset."""
    (root / MANIFEST).write_text(sealed_json(manifest))


def _check_target(out: Path, *, overwrite: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise ConfigError(f"{out} must be a new directory, but a file or link is there; choose another --out")
    if not any(out.iterdir()):
        return
    if not looks_like_manifest(out / MANIFEST):
        raise ConfigError(f"{out} holds files that are no dataset, and is left alone; choose another --out")
    if not overwrite:
        raise DataError(
            f"{out} already holds a dataset; choose another --out, or replace it with --overwrite"
        )
