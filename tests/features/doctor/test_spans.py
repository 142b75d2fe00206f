"""Borders in time that lie beyond all that training has seen; the log has 40 hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.doctor import examine
from tests.features.small_log import RATINGS_SPEC, changed, prepared, rating_tables

WINDOWS = "windows of time are shorter than what training sees"
FITTING = {"matches__genre__old": "2h", "matches__genre__recent": "2h", "counters__item__window": "1h"}


def found(folder: Path, **changes: Any) -> tuple[str, str]:
    """Status and detail of the check."""
    spec = changed(RATINGS_SPEC, **{**FITTING, **changes})
    checks = examine(prepared(folder, spec, rating_tables()).root).checks
    return next((c.status, c.detail) for c in checks if c.name == WINDOWS)


def test_windows_inside_the_log_are_nothing_to_say(tmp_path: Path) -> None:
    assert found(tmp_path) == ("pass", "")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        (
            "matches__genre__old",
            "30d",
            "match genre: share_old is always 0, since old is 30 days, and training",
        ),
        (
            "matches__genre__recent",
            "3d",
            "match genre: share_recent is of all events, since recent is 3 days",
        ),
        ("counters__item__window", "7d", "counter item: a window of 7 days holds everything, since training"),
    ],
)
def test_a_border_made_for_months_is_named_with_what_it_does(
    tmp_path: Path, option: str, value: str, told: str
) -> None:
    status, detail = found(tmp_path, **{option: value})
    assert status == "warn"
    assert detail.startswith(told) and "hours" in detail and ";" not in detail
