from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encode.tables import fit_table, hashes
from features.errors import DataError
from features.spec import IdTable

WHAT = "table 't'"
keys = st.lists(st.none() | st.sampled_from(["a", "b", "c", "d", "e"]), max_size=40)


def strings(values: list[str | None]) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


@given(seen=keys, asked=keys, min_count=st.integers(1, 3), max_size=st.none() | st.integers(1, 3))
def test_vocabulary_by_definition(
    seen: list[str | None], asked: list[str | None], min_count: int, max_size: int | None
) -> None:
    """Frequent values get rows by count, then value; others rows 1 and 2; missing is row 0."""
    table = IdTable(min_count=min_count, max_size=max_size, oov_rows=2)
    fitted = fit_table(table, [strings(seen), strings(seen[::2])], what=WHAT)
    every = [v for v in [*seen, *seen[::2]] if v is not None]
    ranked = sorted({v for v in every if every.count(v) >= min_count}, key=lambda v: (-every.count(v), v))
    ids = {v: 3 + i for i, v in enumerate(ranked[:max_size])}
    found = fitted.look_up(strings(asked), what=WHAT).tolist()
    for value, row in zip(asked, found, strict=True):
        assert row == (0 if value is None else ids.get(value, row))
        assert value is None or value in ids or row in (1, 2)
    assert fitted.info.rows == 3 + len(ids)


@given(seen=keys, asked=keys)
def test_a_few_values_are_searched_and_many_joined(seen: list[str | None], asked: list[str | None]) -> None:
    """A column longer than the table is joined with it, a shorter one is searched; the IDs are the same."""
    fitted = fit_table(IdTable(oov_rows=2), [strings(seen)], what=WHAT)
    at_once = fitted.look_up(strings([*asked, *["a"] * len(seen)]), what=WHAT)[: len(asked)]
    apart = [int(fitted.look_up(strings([value]), what=WHAT)[0]) for value in asked]
    assert at_once.tolist() == apart


def test_integers_and_strings_share_a_table() -> None:
    """A field that is a number in one table and a string in the other is compared as a string."""
    fitted = fit_table(IdTable(), [pl.Series([7, 8]), strings(["7", None])], what=WHAT)
    assert fitted.look_up(pl.Series([7, None, 9]), what=WHAT).tolist() == [2, 0, 1]
    assert fitted.look_up(strings(["8", "7"]), what=WHAT).tolist() == [3, 2]


@pytest.mark.fault(15, 36)
@pytest.mark.parametrize(
    "values", [pl.Series([-1, 2**31, 2**63 - 1, -(2**63)]), strings(["", "é", "x" * 999])]
)
def test_hash_has_a_row_for_anything(values: pl.Series) -> None:
    fitted = fit_table(IdTable(encode="hash", rows=5), [], what=WHAT)
    ids = fitted.look_up(pl.concat([values, values.clear(1)]), what=WHAT)
    assert ids[-1] == 0 and (ids[:-1] >= 1).all() and (ids <= 5).all() and fitted.info.rows == 6


@pytest.mark.fault(36)
def test_hashes_stay_the_same() -> None:
    """Golden values: a stored dataset must mean the same in every version."""
    assert hashes(pl.Series([0, -1])).tolist() == [16294208416658607535, 16490336266968443936]
    assert hashes(strings(["a"])).tolist() == [3405396810240292928]


def test_hashes_are_spread_evenly() -> None:
    for values in (pl.Series(np.arange(10_000) * 64), strings([f"user{i}" for i in range(10_000)])):
        counts = np.bincount((hashes(values) % 100).astype(int), minlength=100)
        assert counts.min() > 60 and counts.max() < 150


def test_quantile_buckets_are_even_and_fitted_on_finite_values() -> None:
    values = pl.Series([*np.arange(1000.0), np.inf, np.nan, None])
    fitted = fit_table(IdTable(encode="quantile", rows=4), [values], what=WHAT)
    ids = fitted.look_up(values, what=WHAT)
    assert np.bincount(ids[:1000]).tolist() == [0, 250, 250, 250, 250]
    assert ids[1000:].tolist() == [4, 0, 0]
    assert fitted.look_up(pl.Series([-5.0, 1e9]), what=WHAT).tolist() == [1, 4]


@given(st.integers(0, 10**6))
def test_log_buckets_by_definition(value: int) -> None:
    """floor(log2(1 + x)) exactly, also at powers of two."""
    fitted = fit_table(IdTable(encode="log", rows=10), [], what=WHAT)
    assert fitted.look_up(pl.Series([value]), what=WHAT)[0] == 1 + min((value + 1).bit_length() - 1, 9)


def test_log_table_with_more_rows_than_floats_have_powers() -> None:
    fitted = fit_table(IdTable(encode="log", rows=2000), [], what=WHAT)
    assert np.isfinite(fitted.state()["boundaries"]).all()


@pytest.mark.parametrize(
    ("values", "table"),
    [
        (pl.Series([0.5]), IdTable()),
        (pl.Series([[1]]), IdTable()),
        (pl.Series([2.0**53]), IdTable()),
        (strings(["x"]), IdTable(encode="quantile", rows=2)),
    ],
)
def test_unusable_values_are_refused(values: pl.Series, table: IdTable) -> None:
    with pytest.raises(DataError, match="table 't'"):
        fit_table(table, [values], what=WHAT)
