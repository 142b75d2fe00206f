"""Histories that come as lists of items without times: read from the impressions, each event stored once.

A list holds what its user did before the line, and no more is known: an event has no time. Its clock is the
one just before the first request whose list shows it, so that it lies before this request and after all that
older lists show; it orders events, and is never told as a time.

Letters: L lines (requests), V values of all different lists, E stored events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from features.errors import DataError
from features.read.clock import CLOCK, TIME
from features.read.columns import input_reads
from features.read.explode import packed_lists
from features.read.lists import TEXT
from features.read.overlap import Overlaps, find_overlaps, of_ranges
from features.spec import Domain, Spec

_CHUNK = 2**22  # values that are compared at a time


@dataclass(frozen=True)
class Lists:
    """The different lists of one domain, the oldest event of each first.

    Attributes:
        values: the item column (V,), one list after the other.
        offsets: int64 (lists + 1,).
    """

    values: pl.DataFrame
    offsets: np.ndarray


@dataclass(frozen=True)
class Direction:
    """Which way the lists of a domain grow.

    Attributes:
        changed: lists that differ from the one before of their user.
        agree: those of them that go on at the end that is declared to be the newest.
        other: those that go on at the other end.
        first: the request of the first of these, in order of time; None where it is not known.
    """

    changed: int
    agree: int
    other: int
    first: int | None


def timed_domains(spec: Spec) -> dict[str, Domain]:
    """The domains whose events have times."""
    return {name: domain for name, domain in spec.domains.items() if domain.from_list is None}


def take_lists(rows: pl.DataFrame, spec: Spec, *, what: str) -> tuple[pl.DataFrame, dict[str, Lists]]:
    """Read the lists of all domains of lists.

    Args:
        rows: impressions with the lists' columns, as they are in the table.
        spec: without patterns.
        what: the table, for messages.

    Returns:
        The rows with `__list.DOMAIN`, the number of each one's list, instead of the lists; the lists.
    """
    found = {}
    for name, domain in spec.domains.items():
        if (rule := domain.from_list) is None:
            continue
        column = rows[rule.column]
        if isinstance(column.dtype, TEXT):  # few texts are different, and numbers stand for them
            column = column.cast(pl.String)
            different = column.unique(maintain_order=True).to_frame().with_row_index("__number")
            both = column.to_frame().join(
                different, on=rule.column, how="left", nulls_equal=True, maintain_order="left"
            )
            number, source = both["__number"], different
        else:
            number, source = pl.Series(np.arange(rows.height)), rows
        lists = packed_lists(source, rule, what=what)
        lists = lists.list.reverse() if rule.order == "newest_first" else lists
        offsets = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
        values = lists.filter(lists.list.len() > 0).explode().alias(str(domain.item))
        found[name] = Lists(values.to_frame(), offsets)
        rows = rows.with_columns(number.cast(pl.Int64).alias(f"__list.{name}"))
    gone = {d.from_list.column for d in spec.domains.values() if d.from_list is not None}
    explode = spec.impressions.explode
    if explode is not None:
        gone -= {explode.column, explode.clicked}
    return rows.drop(gone - {column for column, _ in input_reads(spec)}), found


def store_lists(
    rows: pl.DataFrame,
    name: str,
    lists: Lists,
    values: pl.DataFrame,
    counters: dict[str, int],
) -> tuple[pl.DataFrame, pl.DataFrame, Direction]:
    """Store every event once, and let the rows point to them.

        list of a request       a b c            stored   a b c d
        of the user's next        b c d          pointers [0, 3) and [1, 4)

    Where a list does not go on from the one before of its user, all of it is stored anew.

    Args:
        rows: the impressions in order, with `__list.NAME`.
        name: the domain.
        lists: of `take_lists`.
        values: the lists' values, with `__item` codes.
        counters: gets how the lists follow one another.

    Returns:
        The rows with `__start.NAME` and `__end.NAME` instead; the events, sorted by (user, clock); and which
        way the lists grow, for `check_direction`.

    Raises:
        DataError: a request with different lists.
    """
    what = f"domain {name!r}"
    user, clock, request, number = (
        rows[c].to_numpy() for c in ("__user", CLOCK, "__request", f"__list.{name}")
    )
    changed = (np.diff(request, prepend=-1) != 0) | (np.diff(number, prepend=-1) != 0)
    first, line_of_row = np.flatnonzero(changed), np.cumsum(changed) - 1
    lengths = np.diff(lists.offsets)[number[first]]
    some = np.flatnonzero(lengths > 0)
    order = some[np.argsort(user[first][some], kind="stable")]  # by user, then as the rows are: by clock
    lines = first[order]
    codes, low, length = values["__item"].to_numpy(), lists.offsets[number[lines]], lengths[order]
    overlaps = find_overlaps(codes, low, length, user[lines])
    _count(overlaps, name, counters)
    direction = _direction(overlaps, rows["__request"].to_numpy()[lines])
    new = length - overlaps.shared
    end = np.cumsum(new)
    take = of_ranges(low + overlaps.shared, new)
    _prove(codes, take, low, length, end - length, what)
    owner = np.repeat(lines, new)
    events = values[take].with_columns(
        pl.Series("__user", user[owner]),
        pl.Series(CLOCK, clock[owner] - 1),
        pl.lit(None, dtype=pl.Int64).alias(TIME),
    )
    bounds = {}
    for part, at in (("start", end - length), ("end", end)):
        of_line = np.zeros(len(first), dtype=np.int64)
        of_line[order] = at
        bounds[part] = pl.Series(f"__{part}.{name}", of_line[line_of_row])
    rows = rows.drop(f"__list.{name}").with_columns(bounds.values())
    _check_requests(rows, name, what)
    return rows, events, direction


def _count(overlaps: Overlaps, name: str, counters: dict[str, int]) -> None:
    counters[f"events.{name}.lists_that_changed"] = int(overlaps.changed.sum())
    counters[f"events.{name}.lists_stored_anew"] = int((overlaps.changed & (overlaps.shared == 0)).sum())


def _direction(overlaps: Overlaps, request: np.ndarray) -> Direction:
    agree, other = overlaps.grows_new, overlaps.grows_old
    first = int(request[int((other & ~agree).argmax())]) if other.any() else None
    return Direction(int(overlaps.changed.sum()), int(agree.sum()), int(other.sum()), first)


def check_direction(found: Direction, spec: Spec, name: str) -> None:
    """Refuse lists that go on at their other end more often than at the end that is declared.

    Raises:
        DataError: naming the first.
    """
    rule = spec.domains[name].from_list
    if rule is None or found.other <= found.agree:
        return
    turned = "newest_first" if rule.order == "oldest_first" else "oldest_first"
    first = "" if found.first is None else f"the first is request {found.first}, in order of time; "
    raise DataError(
        f"domain {name!r}: from_list.order says {rule.order}, but of {found.changed} lists that differ "
        f"from the one before of their user {found.other} go on at the other end and "
        f"{found.agree} at this; {first}set order: {turned}"
    )


def _prove(
    codes: np.ndarray, take: np.ndarray, low: np.ndarray, length: np.ndarray, start: np.ndarray, what: str
) -> None:
    """Compare every list with what the store gives back for it."""
    stored, total = codes[take], np.cumsum(length)
    for chunk in np.split(np.arange(len(low)), np.flatnonzero(np.diff(total // _CHUNK)) + 1):
        given = codes[of_ranges(low[chunk], length[chunk])]
        if not np.array_equal(given, stored[of_ranges(start[chunk], length[chunk])]):
            raise AssertionError(f"{what}: the event store does not give back the lists of the log")


def _check_requests(rows: pl.DataFrame, name: str, what: str) -> None:
    inside = pl.col("__request") == pl.col("__request").shift(1)
    bounds = (f"__start.{name}", f"__end.{name}")
    differ = pl.any_horizontal(pl.col(c) != pl.col(c).shift(1) for c in bounds)
    wrong = rows.filter(inside & differ)["__request"].unique()
    if len(wrong):
        raise DataError(
            f"{what}: all rows of a request must hold one list, but {len(wrong)} requests have several; name "
            "the request's ID under impressions.request, or correct the lists"
        )
