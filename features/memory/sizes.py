"""Sizes in bytes, as people write them and as they are shown."""

from __future__ import annotations

import re

from features.errors import ConfigError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([KMGTP]?)(I?)(B?)", re.IGNORECASE)


def parse_size(text: str, *, what: str) -> int:
    """Bytes that a text such as `4GB`, `512 MiB` or `1.5g` means.

    Args:
        text: a number and a unit: B, KB, MB, GB, TB, PB are powers of 1,000, KiB, MiB, … of 1,024; the B may
            be left out, a number alone may not.
        what: names the option in the message.

    Raises:
        ConfigError: it is no size, or none above 0.

    Example:
        >>> parse_size("4GB", what="--memory"), parse_size("512 MiB", what="--memory")
        (4000000000, 536870912)
    """
    found = _SIZE.fullmatch(text.strip())
    number, unit, binary, byte = found.groups() if found else ("0", "", "", "")
    factor = _UNITS[unit.upper()]
    size = int(float(number) * (factor if not binary else 2 ** (10 * list(_UNITS).index(unit.upper()))))
    if not (unit or byte) or (binary and not unit) or size <= 0:
        raise ConfigError(
            f"{what} must be a size with its unit, such as 4GB, 512MB or 1.5GiB, got {text!r:.60}"
        )
    return size


def shown(size: float) -> str:
    """Bytes with three digits and a unit.

    Example:
        >>> shown(4_812_000_000), shown(999)
        ('4.81 GB', '999 B')
    """
    for unit, factor in reversed(_UNITS.items()):
        if unit and size >= factor:
            number = size / factor
            return f"{number:,.3g} {unit}B" if number < 999.5 else f"{number:,.0f} {unit}B"
    return f"{int(size)} B"
