"""Which files are a version of a Delta table."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from features.errors import DataError, first_line
from features.read.files import TableFile
from features.read.lake import LakeFiles

LOG = "_delta_log"
_MAPPED = "delta.columnMapping.mode"
# Of a reader: what only says how the log is kept or cleaned, or which types the Parquet files have.
_HARMLESS = {
    "deletionVectors", "columnMapping", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "typeWidening",
    "typeWidening-preview",
}  # fmt: skip


def files_of_version(folder: Path, version: int | None, *, what: str) -> LakeFiles:
    """The files of a version; see `features.read.lake`."""
    try:
        table = DeltaTable(str(folder), version=version)
        _refuse(table, folder, what)
        actions = pa.table(table.get_add_actions())
        columns = [field.name for field in table.schema().fields]
    except (DeltaError, OSError, ValueError) as error:
        there = "its newest" if version is None else f"version {version}"
        raise DataError(
            f"{what}: {folder} must be a Delta table that has {there}, got {first_line(error)}; correct path "
            "or version in the spec"
        ) from None
    paths = actions["path"].to_pylist()
    parts = actions["partition"].to_pylist() if "partition" in actions.column_names else [{}] * len(paths)
    files = [TableFile(folder / unquote(p), _texts(own)) for p, own in zip(paths, parts, strict=True)]
    for file in files:
        if not file.path.is_relative_to(folder) or ".." in file.path.parts:
            raise DataError(
                f"{what}: a file of the table must lie in {folder}, got {file.path}; copy the table deeply"
            )
    if not files:
        raise DataError(f"{what}: {folder} has no rows in version {table.version()}; name another version")
    return LakeFiles(table.version(), sorted(files, key=lambda f: str(f.path)), columns)


def _refuse(table: DeltaTable, folder: Path, what: str) -> None:
    """Refuse rows and columns that the files alone do not tell."""
    unknown = sorted(set(table.protocol().reader_features or []) - _HARMLESS)
    if unknown:
        raise DataError(f"{what}: {folder} uses {unknown}, which is not read; rewrite the table without it")
    if table.metadata().configuration.get(_MAPPED, "none") != "none":
        raise DataError(
            f"{what}: {folder} has renamed columns ({_MAPPED}), which its files do not tell; write it anew"
        )
    if pa.table(table.deletion_vectors()).num_rows:
        raise DataError(
            f"{what}: {folder} has rows that are deleted but not yet gone from its files (deletion vectors); "
            "purge it (REORG TABLE … APPLY (PURGE)), or name an older version"
        )


def _texts(values: dict[str, Any]) -> dict[str, str | None]:
    """The values of a partition as texts, as folders would have them."""
    return {name: None if value is None else _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
