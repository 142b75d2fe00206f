"""From the bytes of a body to a score request: everything is counted before it is made.

A body of a few MiB can hold millions of wrong values. It is refused by its number of values, then of names
and candidates, before any of them is looked at; a list is given up at its first wrong value.
"""

from __future__ import annotations

import json
from typing import Any

from ctr.serving.score_request import ScoreRequest, parse_score_request
from features.errors import DataError

MOST_VALUES = 500_000  # of all candidates and columns together
MOST_NAMES = 1_000  # columns or features in one field
MOST_PER_CELL = 10_000  # values of one list


class BadBody(DataError):
    """Not JSON that a score request could be read from."""


def parse_body(body: bytes, *, most: int) -> ScoreRequest:
    """The checked score request in a body.

    Args:
        body: JSON.
        most: candidates it may have.

    Raises:
        BadBody: it is not JSON, a key stands twice in an object, or it holds more values than any score
            request may have.
        DataError: a field is unknown, missing or not as it must be, or there are too many candidates.
    """
    values = body.count(b",") + 1
    if values > MOST_VALUES:
        raise BadBody(f"the body must hold at most {MOST_VALUES:,} values, got {values:,}; send it in parts")
    try:
        data = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body must be JSON: {str(error)[:200]}") from None
    _check_counts(data, most)
    return parse_score_request(data, what="the score request", most=most)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object; name it once")
    return found


def _check_counts(data: Any, most: int) -> None:
    """Refuse more names, candidates or values of a cell than a score request may have."""
    if not isinstance(data, dict):
        return
    for field, content in data.items():
        named = content.items() if isinstance(content, dict) else [(None, content)]
        _at_most(len(named), MOST_NAMES, f"{field[:80]} must hold", "names")
        for name, values in named:
            what = field[:80] if name is None else f"{field[:80]}.{name[:80]}"
            whole = isinstance(values, list)
            limit = MOST_PER_CELL if field.startswith("request_") else most
            _at_most(len(values) if whole else 1, limit, f"{what} must have", "candidates")
            longest = max(map(_length, values), default=0) if whole else 0
            _at_most(longest, MOST_PER_CELL, f"a value of {what} must have", "values")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 1


def _at_most(count: int, most: int, what: str, unit: str) -> None:
    if count > most:
        raise DataError(f"the score request: {what} at most {most:,} {unit}, got {count:,}; send it in parts")
