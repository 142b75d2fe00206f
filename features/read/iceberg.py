"""Which files are a snapshot of an Iceberg table that lies in a folder, without a catalog."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import StaticTable

from features.errors import DataError, first_line
from features.read.files import TableFile
from features.read.lake import LakeFiles

LOG = "metadata"
_NUMBER = re.compile(r"v?(\d+)(?:-.*)?(?:\.gz)?\.metadata\.json(?:\.gz)?")
_FROM, _TO = "ctr.from", "ctr.to"
_FIELD = b"PARQUET:field_id"


class MovedFiles(PyArrowFileIO):
    """Reads what the table says lies at its location from the folder where it is now."""

    def new_input(self, location: str) -> Any:
        """The file on this machine."""
        return super().new_input(str(_moved(location, self.properties[_FROM], Path(self.properties[_TO]))))


def files_of_version(folder: Path, version: int | None, *, what: str) -> LakeFiles:
    """The files of a snapshot; see `features.read.lake`."""
    metadata = _newest(folder, what)
    try:
        table = _open(metadata, folder)
        snapshot = table.current_snapshot() if version is None else table.snapshot_by_id(version)
        if snapshot is None:
            known = [s.snapshot_id for s in table.snapshots()][-5:]
            raise ValueError(f"no snapshot {version or ''}; the newest are {known}")
        scan = table.scan(snapshot_id=snapshot.snapshot_id)
        tasks, schema = list(scan.plan_files()), scan.projection()
        paths = [_moved(task.file.file_path, table.metadata.location, folder) for task in tasks]
    except (ValueError, OSError, KeyError) as error:
        raise DataError(
            f"{what}: {folder} must be an Iceberg table that has its snapshot, got {first_line(error)}; "
            "correct path or version in the spec"
        ) from None
    if any(task.delete_files for task in tasks):
        raise DataError(
            f"{what}: {folder} has rows that are deleted but not yet gone from its files; compact it "
            "(rewrite_data_files), or name an older version"
        )
    if not paths:
        raise DataError(f"{what}: {folder} has no rows in snapshot {snapshot.snapshot_id}; name another one")
    files = [TableFile(path) for path in sorted(paths, key=str)]
    _check_columns(files, schema, what)
    return LakeFiles(snapshot.snapshot_id, files, [field.name for field in schema.fields])


def _open(metadata: Path, folder: Path) -> StaticTable:
    location = FromInputFile.table_metadata(PyArrowFileIO().new_input(str(metadata))).location
    moved = {"py-io-impl": f"{__name__}.{MovedFiles.__name__}", _FROM: location, _TO: str(folder)}
    # The metadata file is where it is now, so that it is named by the place that the table knows.
    return StaticTable.from_metadata(f"{location.rstrip('/')}/{LOG}/{metadata.name}", moved)


def _newest(folder: Path, what: str) -> Path:
    """The metadata file of the present table."""
    hint = folder / LOG / "version-hint.text"
    numbers = {
        p: int(m[1]) for p in (folder / LOG).glob("*.metadata.json*") if (m := _NUMBER.fullmatch(p.name))
    }
    wanted = hint.read_text().strip() if hint.is_file() else None
    if wanted is not None and wanted.isdecimal():
        newest = [p for p, number in numbers.items() if number == int(wanted)]
    elif wanted is not None:
        newest = [p for p in numbers if p.name in (wanted, f"{wanted}.metadata.json")]
    else:
        newest = [p for p, number in numbers.items() if number == max(numbers.values())]
    if len(newest) != 1:
        found = [p.name for p in newest]
        raise DataError(
            f"{what}: {folder} must be an Iceberg table with one newest metadata file in {LOG}/, got "
            f"{found}; correct path in the spec, or write version-hint.text"
        )
    return newest[0]


def _moved(location: str, root: str, folder: Path) -> Path:
    """Where a file of the table lies below the folder."""
    path, base = (_plain(text) for text in (location, root.rstrip("/")))
    rest = path.removeprefix(f"{base}/")
    if rest == path or ".." in rest.split("/"):
        raise ValueError(f"a file of the table must lie at its location {root}, got {location}")
    return folder / rest


def _plain(location: str) -> str:
    """A location without the spelling of its scheme: file:///x, file:/x and /x are one place."""
    parts = urlsplit(location)
    if parts.scheme in ("", "file"):
        return unquote(parts.path) if parts.scheme else location
    return f"{parts.scheme.replace('s3a', 's3').replace('s3n', 's3')}://{location.partition('://')[2]}"


def _check_columns(files: list[TableFile], schema: Schema, what: str) -> None:
    """Refuse files in which a column has another name than in the snapshot: only field IDs tell it."""
    names = {field.field_id: field.name for field in schema.fields}
    for file in files:
        if not file.path.is_file():
            continue  # a copy of which only the log is here yet
        for field in pq.read_schema(file.path):
            told = (field.metadata or {}).get(_FIELD)
            if told is not None and names.get(int(told), field.name) != field.name:
                raise DataError(
                    f"{what}: column {names[int(told)]!r} was renamed after {file.path} was written, "
                    f"where it is {field.name!r}; rewrite the table's data files"
                )
