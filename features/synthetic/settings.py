"""How large a simulated log is, and the fixed scales of its clock."""

from __future__ import annotations

from dataclasses import dataclass, fields

from features.errors import ConfigError

HOUR = 3_600
DAY = 24 * HOUR
START = 1_704_067_200  # Monday 2024-01-01 00:00 UTC: the first second in which a request can fall
WARMUP_DAYS = 7  # behaviour is logged for so long before the first request
REQUEST_GAP = 120  # seconds, at least, between two requests of one user
REQUEST_ID_STRIDE = 10_000  # request_id = user_id * stride + running number of the user's request

# Random numbers belong to a block of users and to nothing else, so that the log does not depend on
# how many blocks share one part file.
BLOCK_USERS = 1_024


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a simulated log; `requests_per_user` and `events_per_user` are means.

    Raises:
        ConfigError: a size lies outside its range.

    Example:
        >>> Sizes(users=10).blocks
        1
        >>> Sizes(candidates=0)
        Traceback (most recent call last):
        features.errors.ConfigError: candidates must lie in [1, 100], got 0; choose a value in this range
    """

    users: int = 3_000
    items: int = 2_000
    days: int = 14
    requests_per_user: int = 7
    candidates: int = 5
    events_per_user: int = 85
    categories: int = 20
    chunk_users: int = 4 * BLOCK_USERS

    def __post_init__(self) -> None:
        """Check every size, and that the catalogue is large enough for distinct candidates."""
        for field in fields(self):
            _check_range(field.name, getattr(self, field.name), *_RANGES[field.name])
        least = max(8 * self.categories, 8 * self.candidates)
        if self.items < least:
            raise ConfigError(
                f"items must be at least 8 per category and 8 per candidate, here {least}, got {self.items}; "
                "raise items, or lower categories or candidates"
            )

    @property
    def blocks(self) -> int:
        """The number of blocks of `BLOCK_USERS` users, the last one possibly smaller."""
        return -(-self.users // BLOCK_USERS)

    @property
    def blocks_per_part(self) -> int:
        """The number of blocks in one part file: `chunk_users` rounded up to whole blocks."""
        return -(-self.chunk_users // BLOCK_USERS)

    @property
    def first_second(self) -> int:
        """The earliest possible event time, seconds."""
        return START - WARMUP_DAYS * DAY

    @property
    def end(self) -> int:
        """The second at which the drawn request and event times end."""
        return START + self.days * DAY


_RANGES = {
    "users": (1, 100_000_000),
    "items": (8, 10_000_000),
    "days": (1, 365),
    "requests_per_user": (1, 500),
    "candidates": (1, 100),
    "events_per_user": (0, 20_000),
    "categories": (1, 5_000),
    "chunk_users": (1, 100_000_000),
}


def _check_range(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} must lie in [{low}, {high}], got {value!r}; choose a value in this range")
