"""Moments that a caller gives: exact, in the declared zone, and refused where nothing can be meant."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConfigError
from features.read.moment import SECOND, TimeRange, moment_of, moment_of_argument, shown_moment

BERLIN = "Europe/Berlin"


@given(st.datetimes(timezones=st.timezones()))
def test_iso_texts_are_the_moments_that_they_name(moment: datetime) -> None:
    offset = moment.strftime("%z")
    if len(offset) != 5:  # of a zone before there were whole minutes
        return
    text = moment.replace(tzinfo=None).isoformat() + offset
    ahead = moment.utcoffset()
    assert ahead is not None
    since = moment.replace(tzinfo=None) - datetime(1970, 1, 1) - ahead
    micro = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    assert moment_of(text) == micro * 1000 == moment_of(text, zone=BERLIN)


@given(st.integers(-(2**53) // 1000, 2**53 // 1000))
def test_fractions_are_what_is_written(milliseconds: int) -> None:
    """0.123 is more than the double beside it: cut down, a millisecond would be lost."""
    assert moment_of(milliseconds / 1000) == milliseconds * 10**6


def test_a_text_without_a_zone_is_in_the_declared_one() -> None:
    winter, summer = "2024-03-01T12:00:00", "2024-07-01T12:00:00.5"
    assert moment_of(winter) == int(datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp()) * SECOND
    assert moment_of(winter) - moment_of(winter, zone=BERLIN) == 3600 * SECOND
    assert moment_of(summer) - moment_of(summer, zone=BERLIN) == 7200 * SECOND
    assert moment_of("2024-03-01") == moment_of("2024-03-01T00:00Z") == moment_of("2024-03-01 00:00:00Z")
    assert moment_of_argument("1.5") == moment_of(1.5) and moment_of_argument("-3") == -3 * SECOND


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, None, [1], {}, b"1", float("nan"), float("inf"), -float("inf"), 1e30, 10**30),
        *("", " ", "now", "1650500000", "1e9", " 2024-03-01", "2024-03-01 ", "2024-03-01\n", "20240301"),
        *("2024-02-30", "2024-03-01T25:00", "2024-03-01T12", "2024-03-01T12:00+25:00", "03/04/2024"),
        *("10000-01-01", "-2024-03-01", "2024-W09-5", "\u0662024-03-01", "2024-03-01T12:00:00.1234567890Z"),
    ],
)
def test_what_is_no_moment_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"a time must be seconds since 1970 .*, got "):
        moment_of(value)


def test_what_a_zone_does_not_have_once_is_refused() -> None:
    for text in ("2024-03-31T02:30:00", "2024-10-27T02:30:00"):
        with pytest.raises(ValueError, match=f"must exist once in {BERLIN}.*{text}"):
            moment_of(text, zone=BERLIN)
        assert moment_of(text + "+01:00", zone=BERLIN) == moment_of(text) - 3600 * SECOND
    with pytest.raises(ConfigError, match="time_zone must be a name of the IANA list"):
        moment_of("2024-03-01", zone="Mars/Olympus")
    with pytest.raises(ConfigError, match="a time must be"):
        moment_of_argument("soon")


def test_times_far_from_the_data_are_refused_with_all_of_them() -> None:
    """Milliseconds were once taken for seconds."""
    times = TimeRange(1_649_000_000, 1_650_500_000)
    for seconds in (1_649_000_000, 1_650_500_000, 1_650_500_000 + 1_500_001, 1_649_000_000 - 1_500_001):
        times.check(seconds * SECOND)
    for seconds in (1_650_500_000_000, 1_650_500_000 + 1_500_003, 0, -5, 253_402_300_799, -(2**63)):
        with pytest.raises(ValueError, match=r"2022-04-03T15:33:20Z .* 2022-04-21T00:13:20Z ") as found:
            times.check(seconds * SECOND)
        assert shown_moment(seconds * SECOND) in str(found.value)
