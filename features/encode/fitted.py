"""What `ctr prepare` fitted, in a dataset directory: written once, read where raw values are encoded later.

fitted/<table>.parquet   a vocabulary: value, id, count
fitted/scalers.json      tables → name → boundaries of buckets, types of hashed columns
                         scalers → feature → column → how it is scaled
                         crosses → name → column → Int64, Boolean or String; not without crosses
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.dataset import Column, Dataset
from features.encode.crosses import PART_KINDS, PartTypes
from features.encode.scale import FittedDense, Scaler
from features.encode.tables import Bucketizer, FittedTable, Hash, Vocabulary
from features.errors import DataError, first_line
from features.names import under
from features.store.write import write_json, write_parquet

FOLDER = "fitted"
_SCALERS = "scalers.json"


def write_fitted(root: Path, tables: Mapping[str, FittedTable], fitted: dict[str, Any]) -> None:
    """Write the vocabularies among the tables, and what else was fitted as plain data."""
    for name, table in tables.items():
        if isinstance(table, Vocabulary):
            ids = np.arange(1 + table.oov_rows, table.info.rows, dtype=np.int32)
            book = {"value": table.values.to_arrow(), "id": ids, "count": table.counts.to_arrow()}
            write_parquet(root / FOLDER / f"{name}.parquet", pa.table(book))
    write_json(root / FOLDER / _SCALERS, fitted)


class Fitted:
    """The tables and scalers of a prepared data set, each read when it is first asked for.

    Args:
        dataset: as `ctr prepare` wrote it.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.root, self.manifest = under(dataset.root, FOLDER), dataset.manifest
        self._tables: dict[str, FittedTable] = {}

    def table(self, name: str) -> FittedTable:
        """The ID table of that name.

        Raises:
            DataError: its file is missing or damaged.
        """
        if name not in self._tables:
            self._tables[name] = self._read_table(name)
        return self._tables[name]

    def dense(self, column: Column) -> FittedDense:
        """The scalers of a dense feature, in the order of its values."""
        with _as_written(under(self.root, _SCALERS)):
            states = self.plain["scalers"][column.name]["columns"]
            # JSON keeps keys sorted; the manifest has the order.
            return FittedDense({name: Scaler.of(states[name]) for name in column.fields[: len(states)]})

    def scalers(self, key: str) -> dict[str, Any]:
        """How each column of a dense feature, or of a field of events (`domain/field`), is scaled."""
        found: dict[str, Any] = self.plain["scalers"][key]["columns"]
        return found

    def numbering(self, table: str) -> dict[str, Any]:
        """What gives a value its row in a table that keeps no values: boundaries, or the types it hashes."""
        entry = self.plain["tables"].get(table, {})
        found = {"boundaries": entry["boundaries"]} if "boundaries" in entry else {}
        return found | ({"types": sorted({*entry["types"].values()})} if "types" in entry else {})

    def hashed_type(self, table: str, use: str) -> str | None:
        """The type of a column that is hashed, Int64 or String; None where the data set does not tell."""
        with _as_written(under(self.root, _SCALERS)):
            found = self.plain["tables"][table].get("types", {}).get(use)
        return None if found is None else str(found)

    @property
    def parts(self) -> PartTypes:
        """The type of each column of each cross; none of a data set that does not tell."""
        found: PartTypes = self.plain.get("crosses", {})
        return found

    def _read_table(self, name: str) -> FittedTable:
        info = self.manifest.tables[name]
        if info.encode == "hash":
            return Hash(info.rows - 1)
        if info.encode == "vocabulary":
            return self._read_vocabulary(name, info.oov_rows)
        with _as_written(under(self.root, _SCALERS)):
            boundaries = np.array(self.plain["tables"][name]["boundaries"], dtype=np.float64)
            if boundaries.ndim != 1 or not np.isfinite(boundaries).all() or (np.diff(boundaries) <= 0).any():
                raise ValueError(f"boundaries of {name} must be finite and rise")
        return Bucketizer(info.encode, info.rows - 1, boundaries)

    def _read_vocabulary(self, name: str, oov_rows: int) -> Vocabulary:
        path = under(self.root, f"{name}.parquet")
        with _as_written(path):
            book = pq.read_table(path, page_checksum_verification=True).sort_by("id")
            wanted = np.arange(1 + oov_rows, self.manifest.tables[name].rows)
            if not np.array_equal(book["id"].to_numpy(), wanted) or book["value"].null_count:
                raise ValueError(f"it must have the IDs {1 + oov_rows} to {wanted[-1:]} with a value each")
            values, counts = (pl.Series(column, book[column]) for column in ("value", "count"))
        return Vocabulary(oov_rows, values, counts)

    @cached_property
    def plain(self) -> dict[str, Any]:
        """What was fitted beside the vocabularies, by `tables` and `scalers`.

        Raises:
            DataError: its file is missing or damaged.
        """
        with _as_written(path := under(self.root, _SCALERS)):
            data: dict[str, Any] = json.loads(path.read_text())
            crosses = data.get("crosses", {})
            if not all(isinstance(own, dict) for own in (data["tables"], data["scalers"], crosses)):
                raise TypeError("tables, scalers and crosses must be objects")
            if any(kind not in PART_KINDS for own in crosses.values() for kind in own.values()):
                raise ValueError(f"the types of crosses must be {PART_KINDS}")
        return data


_WRONG = (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)


@contextmanager
def _as_written(path: Path) -> Iterator[None]:
    """What goes wrong inside is a file that is not as it was written.

    Raises:
        DataError: naming it.
    """
    try:
        yield
    except (*_WRONG, pa.ArrowException, pl.exceptions.PolarsError) as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        raise DataError(
            f"{path} must be there as ctr prepare wrote it, got {said}; run ctr prepare again"
        ) from None
