"""Random small tables for the feature tests: many ties, missing values and repeated keys on purpose."""

from __future__ import annotations

import polars as pl
from hypothesis import strategies as st

Row = dict[str, object]

_genres = st.none() | st.lists(st.sampled_from(["a", "b", "c", None]), max_size=4)
_OWN = {"item": pl.Int64, "sex": pl.String, "item.genres": pl.List(pl.String)}
_CLOCK = {"__user": pl.Int64, "__clock": pl.Int64, "__time": pl.Int64}


def _row(**more: st.SearchStrategy[object]) -> st.SearchStrategy[Row]:
    """A row whose time is one second per two ticks of its clock: equal times at different clocks."""
    own = {"item": st.none() | st.integers(0, 2), "sex": st.sampled_from(["f", "m", None])}
    own |= {"item.genres": _genres}
    fields = {"__user": st.integers(0, 1), "__clock": st.integers(0, 12), **own, **more}
    return st.fixed_dictionaries(fields).map(lambda row: row | {"__time": row["__clock"] // 2})


impressions = st.lists(_row(__label=st.integers(0, 1)), max_size=14)
events = st.lists(_row(__outcome=st.sampled_from([0, 1, None])), max_size=14)


def table(rows: list[Row]) -> pl.DataFrame:
    """The rows as a table with the types of a prepared one; without rows it has both flags."""
    flags = {name: pl.Int8 for name in ("__label", "__outcome") if not rows or name in rows[0]}
    return pl.DataFrame(rows, schema=_CLOCK | _OWN | flags)


def values_of(value: object) -> set[object]:
    """The distinct values of a field, none for a missing one."""
    return (set(value) if isinstance(value, list) else {value}) - {None}
