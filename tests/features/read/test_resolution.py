"""Times that are written as text in a CSV, finely or not: what is history follows from what they can mean."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from features.dataset import SPLITS, Dataset, dense_values
from features.prepare import prepare
from features.spec import parse_spec
from tests.features.small_log import changed
from tests.features.test_leakage import DAY, MATCH, NEWS_SPEC, news_log

# How a click's time is written → length of its tick, ms.
WRITTEN = {
    "%Y-%m-%dT%H:%M:%S%.3f": 1,
    "%Y-%m-%d %H:%M:%S": 1000,
    "%Y-%m-%d %H:%M": 60_000,
    "%Y-%m-%d": DAY,
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("of_one_day", [False, True])
def test_clicks_are_history_when_their_tick_is_over(tmp_path: Path, written: str, of_one_day: bool) -> None:
    tables = {
        name: table.with_columns(pl.col("user") % 10, pl.col("item") % 8)
        for name, table in news_log(rows=1500).items()
    }
    shown, clicks = tables["shown"], tables["clicks"]
    day = clicks["at"][clicks.height // 2] // DAY
    clicks = clicks.filter(pl.col("at") // DAY == day) if of_one_day else clicks
    shown.write_csv(tmp_path / "shown.csv")
    text = pl.from_epoch("at", time_unit="ms").dt.strftime(written)
    clicks.with_columns(at=text).write_csv(tmp_path / "clicks.csv")
    files = {name: {"path": f"{name}.csv", "format": "csv"} for name in tables}
    spec = parse_spec(changed(NEWS_SPEC, source__tables=files, **MATCH))
    prepare(spec, tmp_path / "data", base=tmp_path)
    data, tick = Dataset(tmp_path / "data"), WRITTEN[written]
    column = data.manifest.column("again")
    got = [n for s in SPLITS for n in dense_values(data.split(s).impressions, column)[:, 0].tolist()]
    ends = [(user, item, (at // tick + 1) * tick) for user, item, at in clicks.iter_rows()]
    wanted = [
        sum((user, item) == (u, i) and end <= at for u, i, end in ends)
        for at, user, item in shown.select("at", "user", "item").sort("at", "user", "item").iter_rows()
    ]
    assert got == wanted and sum(wanted) > 50
