"""Vocabularies that grow day by day: who enters, who waits, who retires."""

from __future__ import annotations

import polars as pl
import pytest

from features.encode.tables import Vocabulary
from features.errors import DataError
from features.lineage.vocabulary import Counted, grow
from features.spec import IdTable

OLD = Vocabulary(2, pl.Series("value", ["a", "b", "c"]), pl.Series("count", [3, 2, 2]))
BEFORE = Counted.of([pl.Series(list("aaabbccd"))], [], what="t")


def seen(text: str) -> Counted:
    return Counted.of([pl.Series(list(text), dtype=pl.String)], [], what="t")


def test_counts_of_all_days_decide_who_enters() -> None:
    found, total, grown = grow(OLD, IdTable(min_count=2), BEFORE, seen("deef"), what="t")
    assert found.values.to_list() == ["a", "b", "c", "d", "e"]  # d: once on each day
    assert found.counts.to_list() == [3, 2, 2, 2, 2] and found.oov_rows == 2
    assert (grown.new, grown.retired, grown.full) == (2, 0, 0)
    assert dict(total.frame.select("value", "shown").rows())["f"] == 1


def test_events_count_only_for_values_that_were_never_shown() -> None:
    happened = Counted.of([pl.Series(["x"])], [pl.Series(["x", "x", "y", "y"])], what="t")
    found, _, _ = grow(OLD, IdTable(min_count=2), BEFORE, happened, what="t")
    assert found.values.to_list() == ["a", "b", "c", "y"]


def test_a_full_vocabulary_lets_nobody_in_and_counts_them() -> None:
    table = IdTable(min_count=1, max_size=4)
    found, _, grown = grow(OLD, table, BEFORE, seen("eeffg"), what="t")
    assert found.values.to_list() == ["a", "b", "c", "e"]
    assert (grown.new, grown.retired, grown.full) == (1, 0, 3)  # f, g, and d of the day before


def test_unseen_values_retire_the_rarest_first_and_are_counted_anew() -> None:
    table = IdTable(min_count=2, max_size=3, retire=True)
    found, total, grown = grow(OLD, table, BEFORE, seen("bxxyyyzz"), what="t")
    assert found.values.to_list() == ["x", "b", "y"]  # c was rarer than a
    assert found.counts.to_list() == [2, 3, 3]
    assert (grown.new, grown.retired, grown.full) == (2, 2, 1)
    assert not total.frame["value"].is_in(["a", "c"]).any()
    again, _, grown = grow(found, table, total, seen("c"), what="t")
    assert again.values.to_list() == ["x", "b", "y"] and grown.full == 1  # z waits; c was counted once


def test_numbers_that_have_become_texts_are_refused() -> None:
    old = Vocabulary(1, pl.Series("value", [1, 2]), pl.Series("count", [1, 1]))
    before = Counted.of([pl.Series([1, 2])], [], what="t")
    with pytest.raises(DataError, match="must be Int64 as in the data set before, the new day has String"):
        grow(old, IdTable(), before, seen("a"), what="t")
