"""User and item tables: one row per key, joined to impressions and events by code."""

from __future__ import annotations

import logging

import polars as pl

from features.errors import DataError
from features.read.codes import code_of
from features.read.columns import dense_columns
from features.read.ids import key_values
from features.read.locate import locate
from features.read.moments import Side, moment_names, moments_of
from features.read.rows import read_columns
from features.spec import Spec

_log = logging.getLogger(__name__)


def read_entity(
    spec: Spec,
    what: Side,
    columns: list[str],
    counters: dict[str, int],
    *,
    keys: pl.Series,
    tables: dict[str, pl.LazyFrame],
) -> pl.DataFrame:
    """Read the entities that occur in the log.

    Args:
        spec: without patterns, with a table of these entities.
        what: user or item.
        columns: which columns of the table.
        counters: gets how many values were infinite, and how many rows repeat another.
        keys: the raw key of every code of the log.
        tables: the raw tables.

    Returns:
        `__user` or `__item` (code), the columns as `user.*` or `item.*`, and the moments that ages read
        (`features.read.moments`).

    Raises:
        DataError: a key has several rows that differ in these columns, or a moment cannot be read.
    """
    entity, moments = (spec.user if what == "user" else spec.item), moment_names(spec, what)
    assert entity is not None
    features = [*spec.features.values(), *(f for d in spec.domains.values() for f in d.side.values())]
    name = f"table {entity.table!r} ({what})"
    wanted = list(dict.fromkeys([entity.key, *columns, *moments]))
    side = read_columns(
        tables[entity.table],
        wanted,
        counters,
        keys=[entity.key],
        times=moments,
        dense=dense_columns(features, what),
        name=entity.table,
        what=name,
    ).drop_nulls(entity.key)
    key = key_values(side[entity.key], what=f"{name}, column {entity.key!r}")
    if key.is_duplicated().any():  # rows that agree in all that is read are one
        rows = side.height
        side = side.unique(wanted, keep="first", maintain_order=True)
        counters[f"{entity.table}.rows_repeated"] = rows - side.height
        key = key_values(side[entity.key], what=f"{name}, column {entity.key!r}")
    if (repeated := key.is_duplicated()).any():
        some = key.filter(repeated).unique().sort()
        raise DataError(
            f"{name} must have one row per {entity.key!r}, but {len(some)} keys have several: "
            f"{some.head(5).to_list()}, in {locate(side, repeated)}; keep one row each"
        )
    named: list[pl.Expr | pl.Series] = [
        *(pl.col(c).alias(f"{what}.{c}") for c in columns),
        *moments_of(side, spec, what),
    ]
    # With the code in one step: a selection of nothing, where nothing is read, would lose the rows.
    code = pl.Series(f"__{what}", code_of(key, keys))
    return side.select(*named, code).filter(pl.col(f"__{what}") >= 0)


def join_entity(
    frame: pl.DataFrame,
    side: pl.DataFrame,
    code: str,
    counters: dict[str, int],
    *,
    keys: pl.Series,
    what: str,
) -> pl.DataFrame:
    """Left join by code; rows whose entity is unknown are counted and get missing values.

    Args:
        frame: rows or events.
        side: of `read_entity`.
        code: user or item.
        counters: gets `<what>.unknown_<code>`.
        keys: the raw key of every code.
        what: which frame this is, for the counter.
    """
    key = pl.col(f"__{code}")
    unknown = frame.select(((key >= 0) & ~key.is_in(side[f"__{code}"].implode())).sum()).item()
    if unknown:
        counters[f"{what}.unknown_{code}"] = unknown
    if unknown > frame.height / 2:
        strange = frame.filter((key >= 0) & ~key.is_in(side[f"__{code}"].implode()))[f"__{code}"].unique()
        _log.warning(
            "%s: %s of %s rows find no row in the %s table, so that their %s.* columns are missing; it lacks "
            "keys such as %s: compare how both write them (007 is not 7)",
            what,
            f"{unknown:,}",
            f"{frame.height:,}",
            code,
            code,
            keys.gather(strange.sort().head(3)).to_list(),
        )
    return frame.join(side, on=f"__{code}", how="left", maintain_order="left")
