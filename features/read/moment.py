"""One moment that somebody asks for: seconds since 1970 or ISO 8601, exactly, in nanoseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from features.errors import ConfigError

SECOND = 10**9  # nanoseconds
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:[.,](\d{1,9}))?"
    r"(Z|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)
_DIGITS = re.compile(r"[+-]?\d{1,19}(\.\d{1,9})?", re.ASCII)
_MUST = (
    "a time must be seconds since 1970 as a number, with fractions if need be, or a text in ISO 8601 such as "
    "2024-03-01T12:00:00.5+01:00"
)


def moment_of(value: object, *, zone: str | None = None) -> int:
    """Nanoseconds since 1970 of a moment that a caller gives.

    Args:
        value: seconds, int or float, or ISO 8601.
        zone: of texts that name none, in the names of the IANA list; None: UTC.

    Raises:
        ValueError: anything else, such as a boolean, NaN, digits in a text, or a time that a zone does not
            have or has twice.
        ConfigError: an unknown zone.

    Example:
        >>> moment_of(1.5), moment_of("1970-01-01T01:00:00+01:00"), moment_of("1970-01-01", zone="Etc/GMT+1")
        (1500000000, 0, 3600000000000)
    """
    if isinstance(value, str):
        return _of_text(value, zone)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_MUST}, got {value!r:.80}")
    if not abs(value) < 2**63:  # infinite and NaN too
        raise ValueError(f"{_MUST}, got {value!r:.80}, which is no moment")
    # As it is written: 0.123 is more than the float next to it.
    return int(Decimal(repr(value)) * SECOND // 1)


def moment_of_argument(text: str, *, zone: str | None = None) -> int:
    """The same from a command line, where digits are seconds.

    Raises:
        ConfigError: no moment.
    """
    try:
        return int(Decimal(text) * SECOND // 1) if _DIGITS.fullmatch(text) else moment_of(text, zone=zone)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def shown_moment(moment: int) -> str:
    """A moment for messages: ISO 8601 in UTC, and the seconds.

    Example:
        >>> shown_moment(1_500_000_000)
        '1970-01-01T00:00:01.5Z (1.5 s)'
    """
    seconds = f"{Decimal(moment) / SECOND:.9f}".rstrip("0").rstrip(".")
    fraction = seconds.partition(".")[2]
    try:
        text = f"{datetime.fromtimestamp(moment // SECOND, UTC):%Y-%m-%dT%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
    return f"{text}{'.' + fraction if fraction else ''}Z ({seconds} s)"


@dataclass(frozen=True)
class TimeRange:
    """The first and the last second of a data set, and what may be asked of it.

    A moment may lie before or behind by as much as the data set spans: a model is used some time after its
    data, but milliseconds that are taken for seconds lie 50,000 years behind.
    """

    first: int
    last: int

    def check(self, moment: int) -> None:
        """Refuse what lies outside by more than the span.

        Raises:
            ValueError: with the moment, and the first and the last time of the data set.
        """
        span = self.last + 1 - self.first
        if (self.first - span) * SECOND <= moment <= (self.last + 1 + span) * SECOND:
            return
        raise ValueError(
            f"a time must lie near those of the data set, {shown_moment(self.first * SECOND)} to "
            f"{shown_moment(self.last * SECOND)}, at most {span:,} s before or behind, got "
            f"{shown_moment(moment)}; give seconds and not milliseconds, or prepare the data set anew"
        )


def _of_text(text: str, zone: str | None) -> int:
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError(f"{_MUST}, got the text {text!r:.80}")
    day, clock, fraction, offset = found.groups()
    try:
        local = datetime.fromisoformat(f"{day}T{clock or '00:00'}")
        east = _zone(zone) if offset is None else _offset(offset)
    except ValueError:
        raise ValueError(f"{_MUST}, got {text!r:.80}, which no calendar has") from None
    since = local - datetime(1970, 1, 1) - _ahead(local.replace(tzinfo=east), text, zone)
    return (since.days * 86_400 + since.seconds) * SECOND + int((fraction or "0").ljust(9, "0"))


def _offset(text: str) -> tzinfo:
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError(text)
    return timezone((-1 if text[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes))


def _zone(name: str | None) -> tzinfo:
    try:
        return UTC if name in (None, "UTC") else ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"time_zone must be a name of the IANA list, such as Europe/Berlin, got {name!r}"
        ) from None


def _ahead(local: datetime, text: str, zone: str | None) -> timedelta:
    """How far a zone is ahead of UTC at a local time; refused where it has that twice, or not at all."""
    ahead = local.utcoffset()
    if ahead is None or ahead != local.replace(fold=1).utcoffset():
        raise ValueError(
            f"a time must exist once in {zone}, not when clocks are turned, got {text!r}; write its offset, "
            "as in +01:00"
        )
    return ahead
