from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import DataError
from features.sources import read_source
from features.spec import Source
from features.synthetic import simulate


def test_reads_what_the_simulator_writes(tmp_path: Path) -> None:
    simulate(tmp_path / "log", seed=1, users=20, items=200, days=2, requests_per_user=2, events_per_user=10)
    tables = read_source(Source(kind="simulator", path="log"), base=tmp_path)
    assert set(tables) == {"impressions", "view", "cart", "search", "users", "items"}
    assert {"clicked", "request_id"} <= set(tables["impressions"].collect_schema())
    assert tables["users"].collect().height == 20
    (tmp_path / "log" / "items.parquet").unlink()
    with pytest.raises(DataError, match=r"'items\.parquet'"):
        read_source(Source(kind="simulator", path="log"), base=tmp_path)


def test_without_a_log_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run: ctr simulate --out"):
        read_source(Source(kind="simulator", path="log"), base=tmp_path)
