"""A data set as a run reads it that was trained on another: exactly as the run's own would have encoded it.

IDs that the run never had are unknown to it. Everything else must mean what it meant in training, or the data
set is refused: the figures of a model are no figures where its inputs are others.
"""

from __future__ import annotations

from collections.abc import Iterator

from ctr.errors import CheckpointError
from ctr.transfer.plan import BUCKETS, defined_otherwise, differing_inputs, fitted_otherwise
from ctr.transfer.trained import Trained, check_known
from features.dataset import Dataset, TableInfo
from features.encode.encoding import Encoding, TableEncoding, encoding_of
from features.encode.row_map import RowMap, map_rows

_MOST = 20  # reasons in a message


def read_as_trained(dataset: Dataset, trained: Trained) -> Dataset:
    """The data set with the rows that a run's vocabularies give its values.

    Args:
        dataset: an opened one, without what the run drops.
        trained: the run.

    Raises:
        CheckpointError: it is not encoded as the run's own; the message names each table and feature.
        DataError: no vocabularies are kept of it.
    """
    if dataset.manifest.digest() == trained.dataset_digest:
        return dataset
    own = check_known(encoding_of(dataset), str(dataset.root))
    known = check_known(trained.encoding, str(trained.checkpoint.path))
    maps = {
        table: map_rows(dataset, table, known.tables[table], lambda: trained.dataset)
        for table in _vocabularies(own, known)
    }
    if problems := [*_problems(own, known), *_inexact(maps)]:
        more = [f"  … and {len(problems) - _MOST} more"] if len(problems) > _MOST else []
        raise CheckpointError(
            f"{dataset.root} must be encoded as the data set that {trained.run} was trained on, with nothing "
            "but further values in its vocabularies:\n" + "\n".join([*problems[:_MOST], *more]) + "\n"
            "prepare the days that the run is to score together with those it was trained on"
        )
    tables = {table: _info(known.tables[table]) for table in maps}
    return dataset.read_as(tables, {table: rows.old_rows for table, rows in maps.items()})


def _vocabularies(own: Encoding, known: Encoding) -> list[str]:
    """The vocabularies of both that differ."""
    both = own.tables.keys() & known.tables.keys()
    return [
        name
        for name in sorted(both)
        if own.tables[name].encode == known.tables[name].encode == "vocabulary"
        and own.tables[name] != known.tables[name]
    ]


def _problems(own: Encoding, known: Encoding) -> Iterator[str]:
    """What differs that no map of rows can mend."""
    yield from (f"  {name}: {how}" for name, how in differing_inputs(known, own).items())
    yield from (f"  {name} was fitted to other values" for name in fitted_otherwise(own, known))
    yield from (f"  {name} is defined otherwise by the spec" for name in defined_otherwise(own, known))
    for name in sorted(own.tables.keys() & known.tables.keys()):
        here, there = own.tables[name], known.tables[name]
        if not _comparable(here, there):
            yield f"  table {name}: expected {_described(there)}, found {_described(here)}"


def _comparable(here: TableEncoding, there: TableEncoding) -> bool:
    """Whether the rows of two tables are the same, or both are vocabularies, which a map of rows compares."""
    if here.encode == there.encode == "vocabulary":
        return True
    same = here == there or here.encode in BUCKETS  # of buckets the boundaries are compared elsewhere
    return same and (here.encode, here.rows) == (there.encode, there.rows)


def _described(table: TableEncoding) -> str:
    return f"{table.rows} rows by {table.encode}"


def _inexact(maps: dict[str, RowMap]) -> Iterator[str]:
    for table, rows in maps.items():
        if (reason := rows.why_not_exact()) is not None:
            yield f"  table {table}: {reason}"


def _info(table: TableEncoding) -> TableInfo:
    return TableInfo(rows=table.rows, encode=table.encode, oov_rows=table.oov_rows)
