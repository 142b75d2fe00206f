"""Delta and Iceberg tables as the plain files of one of their versions.

Such a table is a folder of Parquet files and a log of which of them are its rows. The log is asked once for
the files of a version; they are then read as all files are. What the files alone do not tell, such as deleted
rows, is refused.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from features.errors import ConfigError
from features.read.files import TableFile, find_files, with_told
from features.source import RawTable

# A module is imported when a table is of its format.
_MODULES = {"delta": ("features.read.delta", "deltalake"), "iceberg": ("features.read.iceberg", "pyiceberg")}


@dataclass(frozen=True)
class LakeFiles:
    """What a version of a table consists of.

    Attributes:
        version: number of a Delta version, ID of an Iceberg snapshot.
        files: under the table's folder, in the order of their paths.
        columns: of the version; a file that was written before a column was added lacks it.
    """

    version: int
    files: list[TableFile]
    columns: list[str]


class LakeFormat(Protocol):
    """What a module of a format offers."""

    LOG: str  # the folder of the log, below that of the table

    def files_of_version(self, folder: Path, version: int | None, *, what: str) -> LakeFiles:
        """The files of a version, None for the newest; of the folder only the log has to be there."""


def lake_format(raw: RawTable) -> LakeFormat | None:
    """The module of a table's format; None for plain files.

    Raises:
        ConfigError: its library is not installed.
    """
    if raw.format not in _MODULES:
        return None
    module, library = _MODULES[raw.format]
    try:
        return cast(LakeFormat, importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "features":
            raise
        raise ConfigError(
            f"format: {raw.format} needs {library}, but {error.name} is not installed; "
            "pip install --no-deps -r requirements/lake.txt"
        ) from None


def files_of(raw: RawTable, root: Path, *, what: str) -> tuple[RawTable, list[TableFile]]:
    """The files of a table, and the table with what its format tells of it.

    Args:
        raw: its description.
        root: what its path is relative to.
        what: the table, for messages.

    Raises:
        ConfigError: the library of its format is not installed.
        DataError: there is no such file, folder or version, or one that files alone do not tell.
    """
    lake = lake_format(raw)
    if lake is None:
        return raw, with_told(find_files(root, raw.path, what=what), raw.by_file, root=root, what=what)
    found = lake.files_of_version(root / raw.path, raw.version, what=what)
    added = {raw.rename.get(name, name): None for name in found.columns}
    told = {"version": found.version, "optional": {**added, **raw.optional}}
    return raw.model_copy(update=told), found.files
