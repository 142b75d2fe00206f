"""What copies on this machine are copies of, so that messages name the place that a user named."""

from __future__ import annotations

from pathlib import Path

from features.remote.url import Url

_places: dict[str, str] = {}  # directory of a copy → the place


def remember(copy: Path, url: Url) -> None:
    """Messages of this process name the place instead of its copy from now on."""
    _places[str(copy)] = str(url)


def as_named(text: str) -> str:
    """A message with the places that were named instead of their copies.

    Example:
        >>> remember(Path("/cache/tables/1f/files"), Url("s3", "logs", "raw"))
        >>> as_named("/cache/tables/1f/files/a.csv: line 3 must have 4 fields")
        's3://logs/raw/a.csv: line 3 must have 4 fields'
    """
    for copy, place in sorted(_places.items(), key=lambda item: -len(item[0])):
        text = text.replace(copy, place)
    return text
