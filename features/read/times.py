"""Time columns of any type → whole ticks since 1970 in one unit, or an error that says what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from features.errors import DataError
from features.read.digits import dates_in_digits
from features.read.iso import hint, parse_format, parse_iso
from features.read.locate import locate
from features.read.resolution import PER_SECOND
from features.read.time_column import TimeColumn, refuse
from features.read.zones import days_of, in_utc, one_zone

_LIMITS = {"s": 10**11, "ms": 10**14, "us": 10**17}  # |time| below it is in this unit: up to the year 5138
_THREE_HOURS = 10_000  # seconds
_EXACT = 2**53
_DIGITS = r"^\s*[+-]?\d+(\.\d*)?\s*$"


def read_times(frame: pl.DataFrame, time: TimeColumn) -> pl.Series:
    """The times as dates, datetimes (in UTC) or numbers; texts as ISO 8601 or by the declared format.

    Args:
        frame: has the time column: integers, floats, decimals, dates, datetimes or texts.
        time: which column.

    Raises:
        DataError: a time that is missing, ambiguous, or of another form.

    Example:
        >>> frame = pl.DataFrame({"at": ["2024-03-01", "2024-03-02"]})
        >>> read_times(frame, TimeColumn("at", "clicks")).dtype
        Date
    """
    values = frame[time.column]
    if values.null_count():
        where = locate(frame, values.is_null())
        raise DataError(f"{time.what}: every row needs a time, {where} have none; drop or fill them")
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if time.form in PER_SECOND:
        return values
    if time.form is not None and (values.dtype == pl.String or values.dtype.is_integer()):
        return _formatted(frame, values.cast(pl.String), time, time.form)
    if values.dtype == pl.String and not values.str.contains(_DIGITS).all():
        return _iso(frame, values, time)
    return in_utc(frame, values, time) if isinstance(values.dtype, pl.Datetime) else values


def whole_numbers(
    frame: pl.DataFrame, times: pl.Series, time: TimeColumn, unit: str
) -> tuple[pl.Series, str]:
    """Whole numbers since 1970-01-01 UTC, and their unit.

    Args:
        frame: the rows, for messages.
        times: of `read_times`.
        time: their column.
        unit: the unit of numbers, "datetime", or "auto" to tell it by magnitude.

    Raises:
        DataError: times that are of no usable type, rounded, in mixed units, or digits of dates.
    """
    if isinstance(times.dtype, pl.Datetime):
        return times.to_physical().cast(pl.Int64), times.dtype.time_unit or "us"
    if times.dtype == pl.Date:
        return times.cast(pl.Datetime("us")).to_physical() // 10**6, "s"
    if unit == "datetime":
        raise DataError(
            f"{time.what}: time must be a datetime, got {times.dtype}; convert it, or set time_unit"
        )
    return _numbers(frame, times, time.what, time.form if time.form in PER_SECOND else unit)


def check_range(
    ticks: pl.Series, unit: str, frame: pl.DataFrame, time: TimeColumn, bounds: tuple[float, float]
) -> None:
    """Refuse times outside the bounds (s), which mean a wrong unit or format more often than an old log.

    Raises:
        DataError: names the first times and their rows.
    """
    low, high = (bound * PER_SECOND[unit] for bound in bounds)
    if not (wrong := (ticks < low) | (ticks >= high)).any():
        return
    came = frame[time.column].filter(wrong)
    first = [_shown(t / PER_SECOND[unit]) for t in ticks.filter(wrong).head(3)]
    raise DataError(
        f"{time.what}: times must lie from {_shown(bounds[0])} to {_shown(bounds[1])}, but "
        f"{locate(frame, wrong)} hold {came.head(3).to_list()}, read as {first}; "
        f"{_remedy(frame[time.column], time)}"
    )


def plausible_times() -> tuple[float, float]:
    """The first second that a log holds unless its spec says more, and the one after the last."""
    first, after = (datetime(year, 1, 1, tzinfo=UTC) for year in (1990, datetime.now(UTC).year + 2))
    return first.timestamp(), after.timestamp()


def unit_of(value: float) -> str:
    """The unit of a number since 1970, by its magnitude."""
    return next((u for u, limit in _LIMITS.items() if abs(value) < limit), "ns")


def _remedy(values: pl.Series, time: TimeColumn) -> str:
    form = dates_in_digits(values) if time.form is None else None
    if form is not None:
        return f"these digits are dates: set time_format: {form!r} in the table"
    return (
        "correct time_unit or time_format, or, if the log is like that (as with seconds since its begin), "
        "set time_range: any, or the first and last time, in the spec"
    )


def _shown(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.4g} s"


def _formatted(frame: pl.DataFrame, text: pl.Series, time: TimeColumn, form: str) -> pl.Series:
    moments, zoned = parse_format(text, form)
    must = f"{time.what}: a time must read as time_format {form!r}"
    refuse(frame, text, moments.is_null(), must, "correct it")
    if moments.dtype == pl.Date:
        return days_of(frame, moments, time)
    return in_utc(frame, one_zone(frame, text, moments, zoned, time), time)


def _iso(frame: pl.DataFrame, text: pl.Series, time: TimeColumn) -> pl.Series:
    moments, zoned = parse_iso(text)
    wrong = moments.is_null()
    if wrong.any():
        must = f"{time.what}: a time must read as ISO 8601, or be a number in every row"
        refuse(frame, text, wrong, must, hint(text.filter(wrong)[0].strip()))
    days = text.str.strip_chars().str.len_bytes() == 10
    if days.any() and not days.all() and time.tick is None:
        must = (
            f"{time.what}: either all times are days or none, since an event of a day may lie anywhere in it"
        )
        refuse(frame, text, days, must, "write all of them alike, or set tick: 1d where the column is read")
    if days.all():
        return days_of(frame, moments.cast(pl.Date), time)
    return in_utc(frame, one_zone(frame, text, moments, zoned, time), time)


def _numbers(frame: pl.DataFrame, values: pl.Series, what: str, unit: str) -> tuple[pl.Series, str]:
    """Numbers since 1970 as whole ticks; a fraction makes the unit finer."""
    if values.dtype == pl.Float32:
        raise DataError(
            f"{what}: a 32-bit float rounds times to minutes, got {values.dtype}; write integers or datetimes"
        )
    if values.dtype.is_decimal():
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        return _exact_digits(frame, values, what, unit)
    if not values.dtype.is_numeric():
        raise DataError(
            f"{what}: time must be a number or a datetime, got {values.dtype}; convert it, or set time_unit"
        )
    if values.dtype.is_float():
        wrong = ~(values.is_finite() & (values.abs() < _EXACT))
        refuse(frame, values, wrong, f"{what}: time must be finite and exact", "write integers or datetimes")
    elif values.dtype != pl.UInt64:  # a column that is no time of its table may have been made narrow
        values = values.cast(pl.Int64)
    unit = _unit(frame, values, unit, what)
    if values.dtype.is_float() and (values != values.round()).any():
        values, unit = (values * (10**6 // PER_SECOND[unit])).round(), "us"
    return values.cast(pl.Int64), unit


def _exact_digits(frame: pl.DataFrame, text: pl.Series, what: str, unit: str) -> tuple[pl.Series, str]:
    """Digits with a fraction, exactly: as many finer units as the fraction needs, down to ns."""
    digits_only = text.str.contains(_DIGITS).fill_null(False)
    refuse(frame, text, ~digits_only, f"{what}: time must be a number", "correct it or set time_format")
    parts = text.str.strip_chars().str.splitn(".", 2)
    whole = parts.struct.field("field_0").cast(pl.Int64, strict=False)
    refuse(frame, text, whole.is_null(), f"{what}: time must be a number of 64 bits", "correct the column")
    unit = _unit(frame, whole, unit, what)
    fraction = parts.struct.field("field_1").fill_null("").str.strip_chars_end("0")
    digits = int(fraction.str.len_bytes().max() or 0)  # type: ignore[arg-type]
    if not digits:
        return whole, unit
    units = list(PER_SECOND)
    fine = units[min(units.index(unit) + -(-digits // 3), 3)]
    room = PER_SECOND[fine] // PER_SECOND[unit]
    width = len(str(room)) - 1
    part = fraction.str.head(width).str.pad_end(width, "0").cast(pl.Int64) if width else whole * 0
    sign = pl.Series(text.str.strip_chars().str.starts_with("-")).cast(pl.Int64) * -2 + 1
    return whole * room + sign * part, fine


def _unit(frame: pl.DataFrame, values: pl.Series, unit: str, what: str) -> str:
    if unit != "auto":
        return _check_unit(frame, values, unit, what)
    if (form := dates_in_digits(values)) is not None and _is_surely_dates(values):
        raise DataError(
            f"{what}: the digits of all times are dates, such as {values[0]}; set time_format: {form!r} in "
            "the table, or time_unit if they are numbers since 1970"
        )
    return _one_unit(frame, values, what)


def _is_surely_dates(values: pl.Series) -> bool:
    """Whether chance does not explain that all numbers read as dates.

    Seconds since 1970 may: those from 1709251200 to 1709251259 read as a minute of the year 2017. Over three
    hours of seconds, many of them would be no date.
    """
    low, high = (float(str(v)) for v in (values.min(), values.max()))
    first, after = plausible_times()
    if low / PER_SECOND[unit_of(low)] >= first and high / PER_SECOND[unit_of(high)] < after:
        return high - low >= _THREE_HOURS and values.n_unique() >= 20
    return values.n_unique() >= 10


def _one_unit(frame: pl.DataFrame, values: pl.Series, what: str) -> str:
    """The unit of all values by their magnitude; different magnitudes are refused."""
    size = values.abs()
    units = {u for v in (size.min(), size.max()) if v is not None and (u := unit_of(float(str(v))))}
    if len(units) > 1:
        small = size < _LIMITS[min(units, key=PER_SECOND.__getitem__)]
        low, high = values.filter(small)[0], values.filter(~small)[0]
        raise DataError(
            f"{what}: times must be in one unit, but {locate(frame, small)} hold {unit_of(low)} ({low}) and "
            f"{locate(frame, ~small)} hold {unit_of(high)} ({high}); convert the file that differs, or set "
            "time_unit if all are in one"
        )
    return units.pop() if units else "s"


def _check_unit(frame: pl.DataFrame, values: pl.Series, unit: str, what: str) -> str:
    """The declared unit, unless values are so large that they must be in a finer one."""
    if unit in _LIMITS and (large := values.abs() >= _LIMITS[unit]).any():
        value = values.filter(large)[0]
        raise DataError(
            f"{what}: time_unit is {unit}, but {locate(frame, large)} hold {unit_of(value)} ({value}); "
            "convert the file, or correct time_unit"
        )
    return unit
