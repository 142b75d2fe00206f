"""Five days of the simulator, one after the other, beside all of them at once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.dataset import Dataset
from features.prepare import prepare
from features.spec import Spec, Split, load_spec
from features.synthetic import simulate, write_days
from tests.features.lineage.days import assert_same_features

SPEC = Path(__file__).parents[3] / "pipelines" / "configs" / "specs" / "simulator.yaml"


def simulator_spec(source: Path, split: dict[str, Any]) -> Spec:
    """The shipped spec on a log, with parts of its own."""
    spec = load_spec(SPEC)
    own = {"source": spec.source.model_copy(update={"path": str(source)}), "split": Split(**split)}
    return spec.model_copy(update=own)


def test_the_days_hold_the_whole_log(tmp_path: Path) -> None:
    simulate(tmp_path / "log", users=50, items=200, days=3)
    days = write_days(tmp_path / "log", tmp_path / "days")
    assert [day.name for day in days] == ["day-01", "day-02", "day-03"]
    for name in ("impressions", "view", "cart", "search"):
        parts = [pl.read_parquet(day / name / "*.parquet") for day in days]
        whole = pl.read_parquet(tmp_path / "log" / name / "*.parquet")
        assert pl.concat(parts).sort(pl.all()).equals(whole.sort(pl.all()))
        for before, after in pairwise(parts):
            assert before["time"].max() < after["time"].min()


@pytest.mark.slow
def test_five_days_have_the_features_of_all_at_once(tmp_path: Path) -> None:
    simulate(tmp_path / "log", users=400, items=200, days=5)
    logs = write_days(tmp_path / "log", tmp_path / "days")
    last = pl.read_parquet(logs[0] / "impressions" / "*.parquet")["time"].max()
    first = {"valid": last - 4 * 3600, "test": last - 2 * 3600}
    days: list[Path] = []
    for number, log in enumerate(logs):
        split = {"valid": 0, "test": 0.1} if days else first
        out, after = tmp_path / f"data-{number}", days[-1] if days else None
        prepare(simulator_spec(log, split), out, base=tmp_path, after=after, keep_state=True)
        days.append(out)
    prepare(simulator_spec(tmp_path / "log", first), tmp_path / "whole", base=tmp_path)
    assert_same_features(Dataset(tmp_path / "whole"), days)
