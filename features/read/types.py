"""One type for a column whose files differ: widened where nothing is lost, refused otherwise."""

from __future__ import annotations

import polars as pl

_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Binary)
_SIGNED = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128)
_UNSIGNED = (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_UNITS = ("ms", "us", "ns")


def common_type(
    one: pl.DataType, other: pl.DataType, *, is_id: bool, zone: str | None = None
) -> pl.DataType | None:
    """The type that holds the values of both, or None.

    Args:
        one: of some files.
        other: of others.
        is_id: the column is an ID or an order: whole floats become integers, integers never floats.
        zone: declared of datetimes that name none.

    Example:
        >>> common_type(pl.Int32(), pl.Int64(), is_id=True), common_type(pl.Int64(), pl.Float64(), is_id=True)
        (Int64, Int64)
    """
    if one == other:
        return one
    if pl.Null() in (one, other):
        return other if one == pl.Null() else one
    if isinstance(one, _TEXT) and isinstance(other, _TEXT):
        return pl.String()
    if one.is_numeric() and other.is_numeric():
        return _common_number(one, other, is_id)
    if one.is_temporal() and other.is_temporal():
        return _common_time(one, other, zone)
    if one.is_nested() and other.is_nested():
        return _common_list(one, other, is_id)
    flags = {one.base_type(), other.base_type()}
    if pl.Boolean in flags and (one.is_numeric() or other.is_numeric()) and not is_id:
        return pl.Float64()
    return None


def _common_number(one: pl.DataType, other: pl.DataType, is_id: bool) -> pl.DataType:
    if one.is_integer() and other.is_integer():
        return _common_integer(one, other)
    return pl.Int64() if is_id else pl.Float64()


def _common_integer(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    kinds = [one.base_type(), other.base_type()]
    for family in (_SIGNED, _UNSIGNED):
        if all(k in family for k in kinds):
            return family[max(family.index(k) for k in kinds)]()
    signed, unsigned = sorted(kinds, key=lambda k: k in _UNSIGNED)
    wide = max(_SIGNED.index(signed), _UNSIGNED.index(unsigned) + 1)
    return _SIGNED[wide]()


def _common_time(one: pl.DataType, other: pl.DataType, zone: str | None) -> pl.DataType | None:
    if pl.Date in (one.base_type(), other.base_type()):
        moment = one if isinstance(one, pl.Datetime) else other
        return moment if isinstance(moment, pl.Datetime) and moment.time_zone is None else None
    if not (isinstance(one, pl.Datetime) and isinstance(other, pl.Datetime)):
        return None
    if (one.time_zone is None) != (other.time_zone is None) and zone is None:
        return None
    unit = max(one.time_unit or "us", other.time_unit or "us", key=_UNITS.index)
    return pl.Datetime(unit, "UTC" if one.time_zone or other.time_zone else None)


def _common_list(one: pl.DataType, other: pl.DataType, is_id: bool) -> pl.DataType | None:
    kinds = (pl.List, pl.Array)
    if not (isinstance(one, kinds) and isinstance(other, kinds)):
        return None
    inner = common_type(one.inner, other.inner, is_id=is_id)  # type: ignore[arg-type]
    return None if inner is None else pl.List(inner)
