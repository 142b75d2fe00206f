"""Texts → moments: ISO 8601, or a declared format. Nothing is guessed: 03/04/2024 has two meanings."""

from __future__ import annotations

import re
from typing import Literal

import polars as pl

from features.errors import ConfigError

_OFFSET = r" ?(Z|UTC|[+-]\d{2}(?::?\d{2})?)"
_ISO = rf"^\d{{4}}-\d{{2}}-\d{{2}}([T ]\d{{2}}:\d{{2}}(:\d{{2}}([.,]\d{{1,9}})?)?({_OFFSET})?)?$"
_ZONE = rf"\d{_OFFSET}$"
_DAY_LAST = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{4}"


def parse_iso(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Moments of ISO 8601 texts, and which of them name a zone.

    Args:
        text: such as 2024-03-01, 2024-03-01T12:30:00.5Z, 2024-03-01 12:30:00+02:00.

    Returns:
        Datetime without zone (UTC where one was named), null where the text is no such moment; bool.

    Example:
        >>> moments, zoned = parse_iso(pl.Series(["2024-03-01T01:00:00+02:00", "1.3.2024"]))
        >>> [str(m) for m in moments], zoned.to_list()
        (['2024-02-29 23:00:00', 'None'], [True, False])
    """
    text = text.str.strip_chars()
    text = text.set(~text.str.contains(_ISO).fill_null(False), None)
    day = text.str.head(10)
    rest = text.str.slice(10)
    zoned = rest.str.contains(_ZONE).fill_null(False)
    clock = rest.str.slice(1)
    if zoned.any():
        zone = rest.str.extract(_ZONE)
        clock = clock.str.replace(rf"{_OFFSET}$", "")
        shift = _seconds_east(zone)
    clock = clock.str.replace(",", ".", literal=True)
    clock = clock.set(clock == "", "00:00")
    moments = pl.Series(day + " " + _with_seconds(clock))
    fine = bool(moments.str.contains(r"\.\d{6}0*[1-9]").any())
    unit: Literal["ns", "us"] = "ns" if fine else "us"
    parsed = moments.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit=unit, strict=False)
    if zoned.any():
        per_second = 10**9 if fine else 10**6
        parsed = (parsed.to_physical() - shift.fill_null(0) * per_second).cast(pl.Datetime(unit))
    return parsed, zoned


def _with_seconds(clock: pl.Series) -> pl.Series:
    return clock.set(clock.str.len_bytes() == 5, None).fill_null(clock + ":00")


def _seconds_east(zone: pl.Series) -> pl.Series:
    """How far a zone such as +02:00 is ahead of UTC."""
    digits = zone.str.extract_groups(r"([+-])(\d{2}):?(\d{2})?").struct.unnest()
    sign, hours, minutes = (digits.to_series(i) for i in range(3))
    seconds = hours.cast(pl.Int64) * 3600 + minutes.cast(pl.Int64, strict=False).fill_null(0) * 60
    return seconds.fill_null(0) * sign.replace_strict({"+": 1, "-": -1}, default=1, return_dtype=pl.Int64)


def parse_format(text: pl.Series, form: str) -> tuple[pl.Series, pl.Series]:
    """Moments of texts in a declared format, null where one does not fit; which of them name a zone.

    What a format leaves out is the least: %Y%m is the first of the month, %y%m%d%H the full hour.

    Raises:
        ConfigError: a format that says no year, month and day, that nothing can be read by, or with %Z.

    Example:
        >>> [str(m) for m in parse_format(pl.Series(["24030113"]), "%y%m%d%H")[0]]
        ['2024-03-01 13:00:00']
    """
    if not re.search(r"%([sFDcx+]|[Yy].*%[mbBhj]|[mbBhj].*%[Yy])", form):
        raise _no_format(form)
    if "%Z" in form:
        raise ConfigError(
            "time_format must not hold %Z, since the name of a zone does not say how far it is from UTC, "
            f"got {form!r}; write the name itself, as in '%H:%M:%S PST', and set time_zone in the table"
        )
    form = form.replace(".%f", "%.f").replace("%f", "%6f")  # as in strftime: microseconds
    text, full = text.str.strip_chars(), form
    if re.search(r"%[HI]", form) and not re.search(r"%[MTRXc]", form):
        text, full = text + " 00", full + " %M"
    if re.search(r"%[mbB]", form) and not re.search(r"%[dejDF]", form):
        text, full = text + " 01", full + " %d"
    zoned = "%z" in form
    try:
        if re.search(r"%[HIsTRXc+]", form):
            parsed = text.str.to_datetime(
                full, time_unit="us", time_zone="UTC" if zoned else None, strict=False
            )
        else:
            parsed = text.str.to_date(full, strict=False)
    except pl.exceptions.PolarsError:
        raise _no_format(form) from None
    parsed = parsed.dt.replace_time_zone(None) if zoned else parsed
    return parsed, pl.repeat(zoned, len(text), eager=True)


def _no_format(form: str) -> ConfigError:
    return ConfigError(
        f"time_format must name year, month and day, as in %d/%m/%Y %H:%M:%S, got {form!r}; correct it"
    )


def hint(text: str) -> str:
    """What to set for a text that is no ISO 8601 moment."""
    if re.match(_DAY_LAST, text):
        mark = re.sub(r"\d", "", text)[0]
        rest = _rest_of_format(text)
        day, month = (f"{a}{mark}{b}{mark}%Y{rest}" for a, b in (("%d", "%m"), ("%m", "%d")))
        return (
            f"set time_format: {day!r} in the table if the day comes first, {month!r} if the month does; "
            "neither is guessed"
        )
    if re.fullmatch(r"[\d.]+[eE][+-]?\d+", text):
        return "a number with an exponent has lost digits: export the column again, with all of them"
    return "set time_format in the table, such as '%Y/%m/%d %H:%M', or write ISO 8601 (2024-03-01T12:00:00Z)"


def _rest_of_format(text: str) -> str:
    found = re.search(r"\d{4}(.*)$", text)
    rest = found.group(1) if found else ""
    for digits, code in ((r"\d{1,2}:\d{2}:\d{2}", "%H:%M:%S"), (r"\d{1,2}:\d{2}", "%H:%M")):
        if re.search(digits, rest):
            return re.sub(r"\.\d+$", "%.f", re.sub(digits, code, rest, count=1))
    return ""
