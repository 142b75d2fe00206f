from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.read.clock import time_bounds, to_ticks
from features.read.digits import dates_in_digits
from features.read.iso import parse_iso
from features.read.time_column import TimeColumn
from features.read.times import check_range, read_times
from features.read.zones import warn_of_zones
from tests.features.small_log import RATINGS_SPEC, changed, rating_tables, run

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def seconds(values: pl.Series, *, unit: str = "auto", **column: str) -> list[float]:
    ticks = to_ticks(pl.DataFrame({"at": values}), TimeColumn("at", "clicks", **column), unit)
    return [v / {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[ticks.unit] for v in ticks.values]


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01T12:00:00Z",
        "2024-03-01 12:00:00 UTC",
        "2024-03-01 12:00",
        "2024-03-01T12:00:00.000",
        "2024-03-01T13:00:00+01:00",
        "2024-03-01T05:30:00-0630",
        "2024-03-01 14:00:00+02",
        "2024-03-01 12:00:00,000000",
        " 1709294400 ",
        "1709294400.0",
        "1709294400000",
        "1709294400000000.000",
    ],
)
def test_one_moment_in_many_forms(text: str) -> None:
    assert seconds(pl.Series([text])) == [NOON.timestamp()]
    assert seconds(pl.Series([text], dtype=pl.Categorical)) == [NOON.timestamp()]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("01/03/2024 12:00:00", "%d/%m/%Y %H:%M:%S"),
        ("03/01/2024 12:00", "%m/%d/%Y %H:%M"),
        ("24030112", "%y%m%d%H"),
        ("20240301120000", "%Y%m%d%H%M%S"),
        ("1 Mar 2024 12 PM", "%d %b %Y %I %p"),
        ("2024-03-01 13:00 +0100", "%Y-%m-%d %H:%M %z"),
        ("2024-03-01 12:00:00.000000", "%Y-%m-%d %H:%M:%S.%f"),
        ("2024-03-01 12:00:00,000000", "%Y-%m-%d %H:%M:%S,%f"),
        ("1709294400000", "ms"),
    ],
)
def test_a_declared_format(text: str, form: str) -> None:
    assert seconds(pl.Series([text]), form=form) == [NOON.timestamp()]
    with pytest.raises(DataError, match=r"clicks: a time must read as time_format|number"):
        seconds(pl.Series([text, "12.12.2024 bad"]), form=form)


@pytest.mark.parametrize("mark", [".", ","])
def test_fractions_of_a_format_are_microseconds_as_in_python(mark: str) -> None:
    assert seconds(pl.Series([f"2024-03-01 12:00:00{mark}250000"]), form=f"%Y-%m-%d %H:%M:%S{mark}%f") == [
        NOON.timestamp() + 0.25
    ]


def test_the_name_of_a_zone_is_not_read_as_utc() -> None:
    with pytest.raises(ConfigError, match=r"must not hold %Z.*set time_zone"):
        seconds(pl.Series(["2024-03-01 12:00:00 PST"]), form="%Y-%m-%d %H:%M:%S %Z")
    pst = pl.Series(["2024-03-01 04:00:00 PST"])
    zone = {"form": "%Y-%m-%d %H:%M:%S PST", "zone": "America/Los_Angeles"}
    assert seconds(pst, **zone) == [NOON.timestamp()]


def test_days_among_moments_are_refused_unless_a_tick_says_so() -> None:
    """A click of a day, at its midnight, would be history of an impression in its morning."""
    frame = pl.DataFrame({"at": ["2024-03-01", "2024-03-01T09:00:00"]})
    with pytest.raises(
        DataError, match=r"either all times are days or none.*1 rows hold \['2024-03-01'\].*tick: 1d"
    ):
        to_ticks(frame, TimeColumn("at", "clicks"), "auto")
    assert to_ticks(frame, TimeColumn("at", "clicks", tick=86_400.0), "auto").seconds == 86_400


def test_a_format_reads_integers_too_and_what_it_leaves_out_is_the_least() -> None:
    assert seconds(pl.Series([24030112]), form="%y%m%d%H") == [NOON.timestamp()]
    assert seconds(pl.Series([202403]), form="%Y%m") == [datetime(2024, 3, 1, tzinfo=UTC).timestamp()]
    with pytest.raises(ConfigError, match="must name year, month and day"):
        seconds(pl.Series(["12:00"]), form="%H:%M")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("03/04/2024 10:11", r"'%d/%m/%Y %H:%M' in the table if the day comes first, '%m/%d/%Y %H:%M' if"),
        ("3.4.2024", r"'%d.%m.%Y' in the table if the day"),
        ("2024/03/01 05:00", "set time_format in the table, such as"),
        ("1.7093e+09", "a number with an exponent has lost digits"),
        ("2024-13-01", "must read as ISO 8601"),
        ("2024-02-30T10:00:00", "must read as ISO 8601"),
        ("24-03-01", "must read as ISO 8601"),
        ("2024-03-01+02", "must read as ISO 8601"),
        ("2024-03-01 10:00:00 CET", "must read as ISO 8601"),
        ("now", "must read as ISO 8601"),
    ],
)
def test_what_is_not_iso_is_refused_with_the_format_to_set(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        seconds(pl.Series([text]))


def test_a_form_that_changes_is_refused_where_it_does() -> None:
    texts = ["2024-03-01 05:00"] * 3 + ["2024/03/01 05:00"]
    frame = pl.DataFrame({"at": texts, "__file": ["logs/a.csv"] * 4, "__line": [2, 3, 4, 5]})
    with pytest.raises(DataError, match=r"1 rows \(line 5 of a.csv\) hold \['2024/03/01 05:00'\]"):
        read_times(frame, TimeColumn("at", "clicks"))
    with pytest.raises(DataError, match="or be a number in every row"):
        seconds(pl.Series(["2024-03-01", "1709294400"]))


@pytest.mark.parametrize(
    ("numbers", "form"),
    [
        ([20240301, 20241231], "%Y%m%d"),
        ([24030100, 24123123], "%y%m%d%H"),
        ([2024030123], "%Y%m%d%H"),
        ([2403012359], "%y%m%d%H%M"),
        ([202403012359], "%Y%m%d%H%M"),
        ([20240301235959], "%Y%m%d%H%M%S"),
        ([202403], "%Y%m"),
        ([240301], "%y%m%d"),
        ([20241301], None),
        ([1_709_294_400], None),
        ([1_709_294_400_000], None),
        ([20240301, 240301], None),
    ],
)
def test_digits_that_are_dates(numbers: list[int], form: str | None) -> None:
    assert dates_in_digits(pl.Series(numbers)) == form
    assert dates_in_digits(pl.Series([str(n) for n in numbers])) == form
    if form is not None:
        days = [(datetime(2024, 3, 1) + timedelta(hours=31 * i)).strftime(form) for i in range(1500)]
        with pytest.raises(DataError, match=f"the digits of all times are dates.*'{form}'"):
            seconds(pl.Series(days))


@pytest.mark.parametrize("step", [1, 2, 60, 600])
def test_seconds_that_read_as_dates_by_chance_are_seconds(step: int) -> None:
    """1709251200 is also 12:00 on 25 September 2017."""
    times = [1_709_251_200 + step * i for i in range(60)]
    assert seconds(pl.Series(times)) == times


def test_a_log_far_from_now_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    tables = rating_tables()
    old = tables | {"ratings": tables["ratings"].with_columns(pl.col("timestamp") - 880_000_000)}
    with pytest.raises(DataError, match=r"must lie from 1990-01-01 00:00 to .*read as .'1970-01-01"):
        run(tmp_path, RATINGS_SPEC, old)
    for told in ("any", [0, 10**9], ["1970-01-01", "1971-01-01"]):
        run(tmp_path / str(told)[:4], changed(RATINGS_SPEC, time_range=told), old)
    with pytest.raises(ConfigError, match="first before last"):
        time_bounds((5, 4))


def test_a_date_of_digits_is_named_where_the_range_finds_it() -> None:
    frame, bounds = pl.DataFrame({"at": [20240301, 20240302]}), time_bounds(None)
    column = TimeColumn("at", "clicks")
    ticks = to_ticks(frame, column, "auto")
    assert bounds is not None
    with pytest.raises(DataError, match="these digits are dates: set time_format: '%Y%m%d'"):
        check_range(ticks.values, ticks.unit, frame, column, bounds)


def test_fractions_are_kept_and_rounded_floats_refused() -> None:
    tenths = [Decimal("1709294400.1"), Decimal("1709294400.25")]
    for values in (pl.Series(tenths), pl.Series([str(t) for t in tenths]), pl.Series(map(float, tenths))):
        assert seconds(values) == [float(t) for t in tenths]
    nine = to_ticks(pl.DataFrame({"at": ["1709294400.123456789"]}), TimeColumn("at", "x"), "auto")
    assert (nine.unit, nine.values.to_list()) == ("ns", [1_709_294_400_123_456_789])
    assert seconds(pl.Series(["-5.25"]), unit="s") == [-5.25]
    with pytest.raises(DataError, match="a 32-bit float rounds times to minutes"):
        seconds(pl.Series([1.7e9], dtype=pl.Float32))
    with pytest.raises(DataError, match="time must be finite and exact"):
        seconds(pl.Series([1.7e18]))


def test_zones_are_converted_and_meet_naive_times_by_declaration_alone() -> None:
    berlin = pl.Series([datetime(2024, 7, 1, 12)]).dt.replace_time_zone("Europe/Berlin")
    assert seconds(berlin) == [datetime(2024, 7, 1, 10, tzinfo=UTC).timestamp()]
    local = pl.Series(["2024-07-01 12:00"])
    assert seconds(local, zone="Europe/Berlin") == seconds(berlin)
    assert seconds(pl.Series([datetime(2024, 7, 1, 12)]), zone="Europe/Berlin") == seconds(berlin)
    both = pl.Series(["2024-07-01 12:00", "2024-07-01T10:00:00Z", "2024-03-31T02:30:00Z"])
    with pytest.raises(DataError, match=r"either all times name a zone or none.*set time_zone"):
        seconds(both)
    assert seconds(both, zone="Europe/Berlin")[:2] == seconds(berlin) * 2
    with pytest.raises(ConfigError, match="must be a name of the IANA list"):
        seconds(local, zone="Berlin")


@pytest.mark.fault(36)
@pytest.mark.parametrize("turned", ["2024-03-31 02:30", "2024-10-27 02:30"])
def test_times_that_exist_never_or_twice_are_refused(turned: str) -> None:
    """When clocks are turned; one minute before and after they are not."""
    for values in (pl.Series([turned]), pl.Series([datetime.fromisoformat(turned)])):
        with pytest.raises(DataError, match=r"must exist once in Europe/Berlin.*write the times in UTC"):
            seconds(values, zone="Europe/Berlin")
        assert len(seconds(values, zone="UTC")) == 1
    beside = pl.Series(["2024-03-31 01:59", "2024-03-31 03:00", "2024-10-27 01:59", "2024-10-27 03:00"])
    found = seconds(beside, zone="Europe/Berlin")
    assert [found[1] - found[0], found[3] - found[2]] == [60, 60 + 2 * 3600]


@pytest.mark.parametrize(
    ("shown", "acts", "zone", "told"),
    [
        (NOON, NOON.replace(tzinfo=None), None, True),
        ("2024-03-01T12:00:00Z", NOON.replace(tzinfo=None), None, True),
        ("2024-03-01T12:00:00Z", "2024-03-01T12:00:00", None, True),
        (NOON, NOON.replace(tzinfo=None), "UTC", False),
        (NOON, 1_709_294_400, None, False),
        (NOON, NOON, None, False),
        ("2024-03-01", "2024-03-01", None, False),
    ],
)
def test_a_zone_in_one_table_alone_is_told(
    shown: object, acts: object, zone: str | None, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    frames = {"shown": pl.DataFrame({"at": [shown]}), "acts": pl.DataFrame({"at": [acts]})}
    times = {"shown": TimeColumn("at", "shown"), "acts": TimeColumn("at", "acts", zone=zone)}
    with caplog.at_level(logging.WARNING):
        warn_of_zones(frames, times)
    assert ("but not those of acts, which are taken for UTC" in caplog.text) == told


def test_days_are_dates() -> None:
    """Which says how finely they are logged: an event of a day is over at its end."""
    column = TimeColumn("at", "clicks")
    for text, form in (("2024-03-01", None), ("1.3.2024", "%d.%m.%Y")):
        times = read_times(pl.DataFrame({"at": [text]}), TimeColumn("at", "clicks", form=form))
        assert times.to_list() == [date(2024, 3, 1)]
    assert to_ticks(pl.DataFrame({"at": ["2024-03-01"]}), column, "auto").seconds == 86_400


@given(
    st.lists(
        st.datetimes(datetime(1990, 1, 1), datetime(2099, 1, 1), timezones=st.sampled_from([None, UTC])),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["T", " "]),
)
def test_iso_equals_pythons_reader(moments: list[datetime], mark: str) -> None:
    parsed, zoned = parse_iso(pl.Series([m.isoformat(mark) for m in moments]))
    assert parsed.to_list() == [m.replace(tzinfo=None) for m in moments]
    assert zoned.to_list() == [m.tzinfo is not None for m in moments]


def test_a_narrow_column_of_a_declared_unit_is_read() -> None:
    """A column that is no time of its table was made narrow, and its unit is checked in 64 bits."""
    times = pl.Series("told", [1_700_000_000, 1_700_000_001], dtype=pl.Int32)
    for values in (times, times.cast(pl.UInt32)):
        assert seconds(values, unit="s") == [1_700_000_000, 1_700_000_001]
