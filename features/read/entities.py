"""User and item tables: one row per key, joined to impressions and events by code."""

from __future__ import annotations

import polars as pl

from features.errors import DataError
from features.read.codes import code_of, key_values
from features.read.scan import collect
from features.spec import Entity


def read_entity(
    entity: Entity, what: str, columns: list[str], *, keys: pl.Series, tables: dict[str, pl.LazyFrame]
) -> pl.DataFrame:
    """Read the entities that occur in the log.

    Args:
        entity: the table and its key.
        what: user or item.
        columns: which columns of the table.
        keys: the raw key of every code of the log.
        tables: the raw tables.

    Returns:
        `__user` or `__item` (code) and the columns as `user.*` or `item.*`.

    Raises:
        DataError: a key has several rows.
    """
    name = f"table {entity.table!r} ({what})"
    side = collect(tables[entity.table].select(list(dict.fromkeys([entity.key, *columns]))), what=name)
    side = side.drop_nulls(entity.key)
    key = key_values(side[entity.key], what=f"{name}, column {entity.key!r}")
    if (repeated := key.is_duplicated()).any():
        some = key.filter(repeated).unique().sort()
        raise DataError(
            f"{name} must have one row per {entity.key!r}, but {len(some)} keys have several: "
            f"{some.head(5).to_list()}; keep one row each"
        )
    named = side.select(pl.col(c).alias(f"{what}.{c}") for c in columns)
    return named.with_columns(pl.Series(f"__{what}", code_of(key, keys))).filter(pl.col(f"__{what}") >= 0)


def join_entity(
    frame: pl.DataFrame, side: pl.DataFrame, code: str, counters: dict[str, int], *, what: str
) -> pl.DataFrame:
    """Left join by code; rows whose entity is unknown are counted and get missing values.

    Args:
        frame: rows or events.
        side: of `read_entity`.
        code: user or item.
        counters: gets `<what>.unknown_<code>`.
        what: which frame this is, for the counter.
    """
    key = pl.col(f"__{code}")
    unknown = frame.select(((key >= 0) & ~key.is_in(side[f"__{code}"].implode())).sum()).item()
    if unknown:
        counters[f"{what}.unknown_{code}"] = unknown
    return frame.join(side, on=f"__{code}", how="left", maintain_order="left")
