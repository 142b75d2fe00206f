"""What is held while features are computed: a column goes with its last reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from features import prepare as module
from features.prepare import prepare
from features.read.log import Log
from features.spec import Spec, parse_spec
from tests.features.small_log import RATINGS_SPEC, rating_tables, write_tables


def test_raw_columns_go_with_their_last_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step only what a later step reads is there, at the end what the slices read."""
    held: list[set[str]] = []
    events: list[set[str]] = []
    drop = Log.drop_unread

    def watched(log: Log, rest: Spec) -> None:
        drop(log, rest)
        held.append({c for c in log.rows.columns if not c.startswith("__")})
        events.append({c for c in log.events["ratings"].columns if not c.startswith("__")})

    monkeypatch.setattr(module.Log, "drop_unread", watched)
    write_tables(tmp_path / "raw", rating_tables())
    prepare(parse_spec(RATINGS_SPEC), tmp_path / "dataset", base=tmp_path / "raw")
    assert all("timestamp" not in columns and "rating" not in columns for columns in held)
    assert "movie_id" in held[0] and "count.item.count" not in held[0]  # the counter still asks for the movie
    assert any("count.item.count" in columns for columns in held)
    assert held[-1] == {"user.sex"} and events[-1] == set()
    assert events[0] >= {"item.genres"}  # for the match
