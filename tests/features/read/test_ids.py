"""What identifies, and how keys of different types meet (what came: one user for five, 5 → 3 merged IDs)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from features.encode.tables import fit_table
from features.errors import DataError
from features.past.keys import encode_keys
from features.read.codes import all_keys, code_of
from features.read.ids import common_keys, key_values
from features.spec import IdTable

BIG = 2**53


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        (pl.Series(["007", "7", ""]), ["007", "7", ""]),
        (pl.Series([1.0, float("nan"), None]), [1, None, None]),
        (pl.Series([BIG + 1, BIG]), [BIG + 1, BIG]),
        (pl.Series([2**63, 7], dtype=pl.UInt64), ["9223372036854775808", "7"]),
        (pl.Series([7, 8], dtype=pl.UInt64), [7, 8]),
        (pl.Series([Decimal("10.00"), None]), [10, None]),
        (pl.Series([Decimal(2**70)]), [str(2**70)]),
        (pl.Series(["b", "a"], dtype=pl.Categorical), ["b", "a"]),
        (pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"])), ["b", "a"]),
        (pl.Series([True, False]), ["true", "false"]),
        (pl.Series([b"ab"]), ["ab"]),
        (pl.Series([None, None]), [None, None]),
        (pl.Series([3], dtype=pl.Int8), [3]),
    ],
    ids=str,
)
def test_keys(values: pl.Series, keys: list[object]) -> None:
    assert key_values(values, what="user").to_list() == keys


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pl.Series([0.5]), "got Float64 with fractions, such as 0.5"),
        (pl.Series([float("inf")]), "with fractions, such as inf"),
        (pl.Series([float(BIG)]), "of 9,007,199,254,740,992 or more cannot be told from its neighbours"),
        (pl.Series([-float(BIG)]), "cannot be told from its neighbours as Float64"),
        (pl.Series([2.0**24], dtype=pl.Float32), "of 16,777,216 or more"),
        (pl.Series([Decimal("0.5")]), "with fractions, such as 0.5"),
        (pl.Series([[1]]), "got List"),
        (pl.Series([b"\xff"]), r"must be UTF-8 text, got others, such as b'\\xff'"),
    ],
    ids=str,
)
def test_what_identifies_nothing_is_refused(values: pl.Series, message: str) -> None:
    with pytest.raises(DataError, match=f"user.*{message}"):
        key_values(values, what="user")


SEVENS = [
    pl.Series([7]),
    pl.Series([7.0]),
    pl.Series(["7"]),
    pl.Series([Decimal(7)]),
    pl.Series(["7"], dtype=pl.Categorical),
    pl.Series([7], dtype=pl.UInt8),
    pl.Series([b"7"]),
]


@pytest.mark.parametrize("one", SEVENS, ids=lambda s: str(s.dtype))
@pytest.mark.parametrize("other", SEVENS, ids=lambda s: str(s.dtype))
def test_one_key_meets_itself_in_any_two_types(one: pl.Series, other: pl.Series) -> None:
    """As user, in counters and matches, in vocabularies and in hash tables."""
    keys = common_keys([key_values(s, what="k") for s in (one, other)])
    assert code_of(keys[1], all_keys(keys)).tolist() == [0]
    tables = (one.alias("k").to_frame(), other.alias("k").to_frame())
    first, second = encode_keys(*tables, by=[["k"], ["k"]], what="match")
    assert first.code.tolist() == second.code.tolist()
    fitted = fit_table(IdTable(), [one], what="t")
    assert fitted.look_up(other, what="t").tolist() == [2]


def test_moments_meet_whatever_their_unit_and_zone() -> None:
    moments = pl.Series([datetime(2024, 3, 1), datetime(2024, 3, 1, 12, 0, 0, 500_000), None])
    plain = ["2024-03-01 00:00:00", "2024-03-01 12:00:00.500", None]
    zoned = ["2024-03-01 00:00:00+00:00", "2024-03-01 12:00:00.500+00:00", None]
    for unit in ("ms", "us", "ns"):
        values = moments.dt.cast_time_unit(unit)
        assert key_values(values, what="x").to_list() == plain
        for zone in ("UTC", "Asia/Tokyo"):
            there = values.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
            assert key_values(there, what="x").to_list() == zoned


def test_zeros_in_front_are_part_of_a_text() -> None:
    keys = common_keys([key_values(s, what="k") for s in (pl.Series(["007"]), pl.Series([7]))])
    assert code_of(keys[0], all_keys([keys[1]])).tolist() == [-1]


def test_a_list_of_texts_meets_a_number() -> None:
    tables = pl.DataFrame({"k": [["1", "2"], ["3"]]}), pl.DataFrame({"k": [2, 4]})
    one, other = encode_keys(*tables, by=[["k"], ["k"]], what="match")
    assert np.isin(other.code, one.code).tolist() == [True, False]
