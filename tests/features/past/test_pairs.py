from __future__ import annotations

import math
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError
from features.past.pairs import pair_columns
from features.spec import Pair
from tests.features.tables import Row, events, impressions, table, values_of

KINDS, AGGREGATES = ["rate", "lift", "count", "ppmi"], ["mean", "max", "sum", "decayed"]
OUTPUTS = [f"{kind}_{how}" for kind in KINDS for how in AGGREGATES]
WINDOWS = [{}, {"last": 2}, {"within": 1.0}, {"older": 1.5}, {"within": 2.5, "older": 0.5, "last": 1}]


def history(row: Row, domain: list[Row], pair: Pair) -> list[tuple[object, float]]:
    """Each value of the row's earlier events with the age of its event."""
    mine = [e for e in domain if e["__clock"] < row["__clock"] and e["__user"] == row["__user"]]
    mine = [(row["__time"] - e["__time"], e) for e in sorted(mine, key=lambda e: e["__clock"])]
    mine = [(age, e) for age, e in mine if pair.within is None or age <= pair.within]
    mine = [(age, e) for age, e in mine if pair.older is None or age > pair.older]
    mine = mine if pair.last is None else mine[-pair.last :]
    mine = [(age, e) for age, e in mine if e.get("known", -1) < row["__clock"]]
    return [(value, age) for age, e in mine for value in values_of(e[pair.event])]


def by_definition(rows: list[Row], histories: list[list[tuple[object, float]]], at: int, pair: Pair):
    """Every output straight from the words of the spec."""
    row, mine = rows[at], values_of(rows[at][pair.candidate])
    if not mine:
        return [None] * len(OUTPUTS)
    n, k, p = Counter(), Counter(), Counter()  # by (c, v), and by (c,), (None, v) and () for the sums
    for other, bag in zip(rows, histories, strict=True):
        for c in values_of(other[pair.candidate]):
            for v, _ in bag:
                for key in ((c, v), (c,), (None, v), ()):
                    n[key] += other["__clock"] < row["__clock"]
                    is_known = max(other["__clock"], other.get("told", -1)) < row["__clock"]
                    k[key] += is_known
                    p[key] += is_known * other["__label"]
    prior, running = pair.prior, p[()] / k[()] if k[()] else 0.5
    found = []
    for c in mine:
        base = (p[(c,)] + prior * running) / (k[(c,)] + prior)
        for v, age in histories[at]:
            rate = (p[c, v] + prior * base) / (k[c, v] + prior)
            chance = n[(c,)] * n[None, v] / n[()] if n[()] else 0.0
            ppmi = max(0.0, math.log((n[c, v] + prior) / (chance + prior)))
            found.append((2 ** (-age / pair.half_life), rate, rate / base if base else 1.0, n[c, v], ppmi))
    outputs = []
    for i in range(1, 5):
        values = [each[i] for each in found]
        outputs += [sum(values) / len(values), max(values)] if values else [None, None]
        outputs += [sum(values), sum(each[0] * each[i] for each in found)]
    return outputs


delays = st.lists(st.integers(0, 9), min_size=14, max_size=14)
fields = st.sampled_from(["item", "item.genres", "sex"])


@pytest.mark.parametrize("block", [1, 6, 2**20])
@settings(deadline=None, max_examples=40)
@given(impressions, events, fields, fields, st.sampled_from(WINDOWS), delays, delays, st.integers(0, 3))
def test_equals_the_definition(
    block: int,
    rows: list[Row],
    domain: list[Row],
    candidate: str,
    event: str,
    window: dict[str, float],
    told: list[int],
    known: list[int],
    late: int,
) -> None:
    """Two ID spaces; labels and fields of events known at once or later; block by block and all together."""
    pair = Pair(
        candidate=candidate, domain="d", event=event, outputs=OUTPUTS, half_life=1.5, prior=2.0, **window
    )
    rows = [r | ({"told": r["__clock"] + t} if late & 1 else {}) for r, t in zip(rows, told, strict=False)]
    # One clock a event of a user: which of two is newer would be a matter of their order.
    domain = list({(e["__user"], e["__clock"]): e for e in domain}.values())
    domain = [
        e | ({"known": e["__clock"] + t} if late & 2 else {}) for e, t in zip(domain, known, strict=False)
    ]
    histories = [history(row, domain, pair) for row in rows]
    expected = [by_definition(rows, histories, at, pair) for at in range(len(rows))]
    shown, happened = table(rows), table(domain)
    if late & 1 and rows:
        shown = shown.with_columns(pl.Series("__known.__label", [r["told"] for r in rows], dtype=pl.Int64))
    if late & 2 and domain:
        happened = happened.with_columns(
            pl.Series(f"__known.{event}", [e["known"] for e in domain], dtype=pl.Int64)
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.past.pairs._BLOCK", block)
        got = pair_columns(shown, "n", pair, happened)
    assert got.columns.columns == [f"pair.n.{output}" for output in OUTPUTS] and got.counters == {}
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.columns.rows()]


@settings(deadline=None, max_examples=60)
@given(impressions, fields, fields)
def test_a_column_of_the_row_equals_the_definition(rows: list[Row], candidate: str, column: str) -> None:
    outputs = [o for o in OUTPUTS if not o.endswith("_decayed")]
    pair = Pair(candidate=candidate, column=column, outputs=outputs, prior=2.0)
    histories = [[(value, 0.0) for value in values_of(row[column])] for row in rows]
    expected = [by_definition(rows, histories, at, pair) for at in range(len(rows))]
    expected = [[v for o, v in zip(OUTPUTS, line, strict=True) if o in outputs] for line in expected]
    got = pair_columns(table(rows), "n", pair, None).columns
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


@settings(deadline=None, max_examples=40)
@given(impressions, events, st.randoms(use_true_random=False))
def test_neither_the_order_of_the_rows_nor_the_numbers_matter(
    rows: list[Row], domain: list[Row], random: object
) -> None:
    """The histories number their values in their own way, as anonymised logs do."""
    order = list(range(len(rows)))
    random.shuffle(order)
    outputs = [o for o in OUTPUTS if o != "ppmi_max"]
    pair = Pair(candidate="item", domain="d", event="item", outputs=outputs, last=3)
    own = pair_columns(table(rows), "n", pair, table(domain)).columns
    renamed = [
        e | {"item": None if e["item"] is None else {0: 77, 1: -5, 2: 10**12}[e["item"]]} for e in domain
    ]
    shuffled = pair_columns(table([rows[i] for i in order]), "n", pair, table(renamed)).columns
    assert [pytest.approx(own.row(i)) for i in order] == shuffled.rows()


def shared(rows: int, most: int) -> tuple[pl.DataFrame, dict[str, int]]:
    shown = pl.DataFrame({"ad": [i % 5 for i in range(rows)], "place": [i % 7 for i in range(rows)]})
    shown = shown.with_columns(__user=0, __label=pl.col("ad") % 2, __clock=pl.int_range(rows), __time=0)
    pair = Pair(candidate="ad", column="place", outputs=["count_sum"], max_pairs=most)
    found = pair_columns(shown, "n", pair, None)
    return found.columns["pair.n.count_sum"], found.counters


def test_pairs_above_the_most_share_counts_and_say_so() -> None:
    plain, counters = shared(200, most=35)
    assert plain.to_list() == [float(i // 35) for i in range(200)] and counters == {}
    one, counters = shared(200, most=1)
    assert one.to_list() == [float(i) for i in range(200)]
    others = sum(i % 35 > 0 for i in range(200))  # the first pair had the only count first
    assert counters == {"pair.n.possible_pairs": 35, "pair.n.pairs": 200, "pair.n.shared_counts": others}
    some, counters = shared(200, most=20)
    assert (some >= plain).all() and (some > plain).any() and 0 < counters["pair.n.shared_counts"] < 200


def test_lists_without_times() -> None:
    """Each row has its own list in the store; the newest event stands last."""
    rows = pl.DataFrame({"ad": [1, 1, 2], "__clock": [0, 1, 2], "__time": [0, 1, 2], "__label": [1, 0, 0]})
    rows = rows.with_columns(pl.Series("__start.d", [0, 2, 2]), pl.Series("__end.d", [2, 4, 5]), __user=0)
    events = pl.DataFrame({"word": ["a", "b", "c", "b", "b"]})
    pair = Pair(candidate="ad", domain="d", event="word", outputs=["count_sum", "rate_max"], prior=1.0)
    assert pair_columns(rows, "n", pair, events).columns.rows() == [(0.0, 0.5), (1.0, 1.0), (0.0, 0.5)]
    newest = pair.model_copy(update={"last": 1})
    assert pair_columns(rows, "n", newest, events).columns["pair.n.count_sum"].to_list() == [0.0, 1.0, 0.0]


def test_errors_name_the_field_and_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"pair 'n' reads columns that are not there: \['gone'\]"):
        pair_columns(table([]), "n", Pair(candidate="gone", domain="d", event="item"), table([]))
    with pytest.raises(ValueError, match="either `domain` and `event`, or `column`"):
        Pair(candidate="item", domain="d")
    with pytest.raises(ValueError, match=r"\['last', 'rate_decayed'\] mean nothing; drop them"):
        Pair(candidate="item", column="tags", last=3, outputs=["rate_decayed"])
