from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.past.matches import match_columns
from features.spec import Match
from tests.features.tables import Row, events, impressions, table, values_of

MATCH_OUTPUTS = [  # written out: an output that is added must be defined below, too
    "count",
    "decayed",
    "recency",
    "last",
    "share",
    "share_old",
    "share_recent",
    "count_recent",
    "positive_share",
]


def by_definition(row: Row, domain: list[Row], match: Match) -> list[float | None]:
    """Every output of a match feature straight from the words of the spec."""
    mine = values_of(row[match.candidate])
    if not mine:
        return [None] * len(MATCH_OUTPUTS)
    everyone = [e for e in domain if e["__clock"] < row["__clock"]]
    told = [e for e in domain if e.get("told", e["__clock"]) < row["__clock"] and e["__outcome"] is not None]
    known = [e["__outcome"] for e in told]
    running = sum(known) / len(known) if known else 0.5
    before = [(row["__time"] - e["__time"], e) for e in everyone if e["__user"] == row["__user"]]
    fields = [(age, e) for age, e in before if e.get("known", -1) < row["__clock"]]
    pairs = [(age, e) for age, e in fields for _ in mine & values_of(e[match.event])]
    newest = max((e["__clock"] for _, e in before), default=None)
    outcomes = [e["__outcome"] for _, e in pairs if e in told]

    def share(keep: object) -> float:
        whole = sum(keep(age) for age, _ in before)
        return sum(keep(age) for age, _ in pairs) / whole if whole else 0.0

    return [
        len(pairs),
        sum(2 ** (-age / match.half_life) for age, _ in pairs),
        min((age for age, _ in pairs), default=None),
        int(any(e["__clock"] == newest for _, e in pairs)),
        share(lambda age: True),
        share(lambda age: age > match.old),
        share(lambda age: age < match.recent),
        sum(age < match.recent for age, _ in pairs),
        (sum(outcomes) + running) / (len(outcomes) + 1),
    ]


@pytest.mark.fault(19)
@pytest.mark.parametrize("chunk", [1, 2**18])
@settings(deadline=None, max_examples=100)
@given(impressions, events, st.sampled_from(["item", "item.genres"]), st.sampled_from([0.5, 1.0, 2.5]))
def test_equals_the_definition(
    chunk: int, rows: list[Row], domain: list[Row], field: str, seconds: float
) -> None:
    """Also where every user is looked at alone."""
    scales = {"half_life": 1.5, "old": seconds, "recent": seconds}
    match = Match(domain="d", candidate=field, event=field, outputs=MATCH_OUTPUTS, **scales)
    expected = [by_definition(row, domain, match) for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.past.matches._CHUNK", chunk)
        got = match_columns(table(rows), table(domain), "n", match)
    assert got.columns == [f"match.n.{output}" for output in MATCH_OUTPUTS]
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


delays = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=14, max_size=14)


@settings(deadline=None, max_examples=150)
@given(impressions, events, delays, st.sampled_from(["item", "item.genres"]), st.sampled_from([0.5, 2.5]))
def test_late_fields_and_outcomes_equal_the_definition(
    rows: list[Row], domain: list[Row], gaps: list[tuple[int, int]], field: str, seconds: float
) -> None:
    """The field is known later than the event, and the outcome later than that, in any order."""
    scales = {"half_life": 1.5, "old": seconds, "recent": seconds}
    match = Match(domain="d", candidate=field, event=field, outputs=MATCH_OUTPUTS, **scales)
    domain = [
        event | {"known": event["__clock"] + one, "told": event["__clock"] + one + two, "id": i}
        for i, (event, (one, two)) in enumerate(zip(domain, gaps, strict=False))
    ]
    expected = [by_definition(row, domain, match) for row in rows]
    known = {
        f"__known.{field}": [e["known"] for e in domain],
        "__known.__outcome": [e["told"] for e in domain],
    }
    columns = pl.DataFrame(known, schema=dict.fromkeys(known, pl.Int64))
    got = match_columns(table(rows), table(domain).hstack(columns), "n", match)
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


@settings(deadline=None, max_examples=100)
@given(impressions, events, delays, st.sampled_from(["positive", "negative"]), st.booleans())
def test_of_one_outcome_the_others_are_not_there(
    rows: list[Row], domain: list[Row], gaps: list[tuple[int, int]], outcome: str, late: bool
) -> None:
    """Events of the other outcome, and those whose outcome is not known yet, might as well not be logged."""
    outputs = [name for name in MATCH_OUTPUTS if name != "positive_share"]
    scales = {"half_life": 1.5, "old": 2.5, "recent": 2.5}
    match = Match(domain="d", candidate="item", event="item", outputs=outputs, outcome=outcome, **scales)
    told = [e["__clock"] + gap * late for e, (gap, _) in zip(domain, gaps, strict=False)]
    wanted = {"positive": 1, "negative": 0}[outcome]
    alone = [
        event | {"__clock": clock}
        for event, clock in zip(domain, told, strict=False)
        if event["__outcome"] == wanted
    ]
    expected = [by_definition(row, alone, match)[: len(outputs)] for row in rows]
    known = pl.Series("__known.__outcome", told, dtype=pl.Int64)
    logged = table(domain[: len(told)])
    got = match_columns(table(rows), logged.with_columns(known) if late else logged, "n", match)
    assert [pytest.approx(line) for line in expected] == [list(line) for line in got.rows()]


def test_a_long_history_is_counted_whole() -> None:
    size = 5000
    domain = pl.DataFrame({"__user": [3] * size, "__clock": range(size), "__time": range(size)})
    domain = domain.with_columns(item=pl.Series([1, 2] * (size // 2)))
    rows = pl.DataFrame({"__user": [3], "__clock": [size], "__time": [size], "item": [1]})
    match = Match(domain="d", candidate="item", event="item", outputs=["count", "decayed"], half_life=1000.0)
    count, decayed = match_columns(rows, domain, "n", match).row(0)
    assert count == size // 2
    assert decayed == pytest.approx(sum(2 ** (-age / 1000) for age in range(2, size + 1, 2)))


def test_one_value_against_several_and_strings() -> None:
    domain = pl.DataFrame({"__user": [0, 0], "__clock": [1, 2], "__time": [1, 2], "tags": ["a|b", "b"]})
    rows = pl.DataFrame({"__user": [0, 1], "__clock": [3, 3], "__time": [3, 3], "tag": ["b", "b"]})
    match = Match(domain="d", candidate="tag", event="tags", outputs=["count", "last"], separator="|")
    assert match_columns(rows, domain, "n", match).rows() == [(2, 1), (0, 0)]


def test_errors_name_the_field_and_the_remedy() -> None:
    rows, domain = table([]), table([]).drop("__outcome")
    halves = domain.with_columns(pl.Series("sex", [], dtype=pl.Duration))
    with pytest.raises(DataError, match=r"match 'n', column 'sex': an ID must be a number or a text"):
        match_columns(rows, halves, "n", Match(domain="d", candidate="item", event="sex"))
    with pytest.raises(ConfigError, match=r"give domain 'd' an outcome column"):
        liked = Match(domain="d", candidate="item", event="item", outputs=["positive_share"])
        match_columns(rows, domain, "n", liked)
    with pytest.raises(ConfigError, match=r"match 'n': outcome needs an outcome; give domain 'd'"):
        skipped = Match(domain="d", candidate="item", event="item", outputs=["count"], outcome="negative")
        match_columns(rows, domain, "n", skipped)
    with pytest.raises(ValueError, match="positive_share compares both outcomes, got outcome 'positive'"):
        Match(domain="d", candidate="item", event="item", outputs=["positive_share"], outcome="positive")
    with pytest.raises(ConfigError, match=r"match 'n' reads columns that are not there: \['gone'\]"):
        match_columns(rows, domain, "n", Match(domain="d", candidate="gone", event="item"))
