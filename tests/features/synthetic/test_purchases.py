"""features.synthetic.purchases: they change nothing else, follow p_buy, and are known late."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.synthetic import simulate

SMALL = {
    "users": 1200,
    "items": 400,
    "days": 6,
    "requests_per_user": 4,
    "categories": 10,
    "events_per_user": 20,
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    root = tmp_path_factory.mktemp("logs")
    for flag in (False, True):
        simulate(root / str(flag), seed=3, purchases=flag, **SMALL)
    return {flag: root / str(flag) for flag in (False, True)}


def rows(root: Path, what: str = "impressions") -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((root / what).glob("*.parquet"))])


def test_everything_else_stays_as_it_was(logs: dict[bool, Path]) -> None:
    for path in (p for p in sorted(logs[False].rglob("*.parquet")) if p.parent.name != "impressions"):
        assert path.read_bytes() == (logs[True] / path.relative_to(logs[False])).read_bytes()
    for what in ("impressions", "truth/impressions"):
        plain, more = rows(logs[False], what), rows(logs[True], what)
        assert more.select(plain.columns).equals(plain)
        new = ["bought", "bought_at"] if what == "impressions" else ["p_buy", "bought", "bought_at"]
        assert more.columns[len(plain.columns) :] == new


def test_purchases_follow_clicks_with_their_probability(logs: dict[bool, Path]) -> None:
    truth = rows(logs[True], "truth/impressions")
    assert truth.filter(clicked=0)["bought"].sum() == 0
    clicked = truth.filter(clicked=1)
    p = clicked["p_buy"].to_numpy()
    assert 0.005 < p.min() < 0.1 < p.mean() < 0.4 and p.max() < 0.95
    for part in np.array_split(np.argsort(p), 3):
        error = np.sqrt((p[part] * (1 - p[part])).sum())
        assert abs(clicked["bought"].to_numpy()[part].sum() - p[part].sum()) < 4 * error


def test_the_log_knows_what_happened_before_its_end(logs: dict[bool, Path]) -> None:
    log, truth = rows(logs[True]), rows(logs[True], "truth/impressions")
    end = 1_704_067_200 + 6 * 86_400
    known = truth.select((pl.col("bought") == 1) & (pl.col("bought_at") < end)).to_series()
    assert (log["bought"] == 1).to_list() == known.fill_null(False).to_list()
    assert log["bought_at"].null_count() == log.height - int(log["bought"].sum())
    assert 0 < log["bought"].sum() < truth["bought"].sum()
    bought = truth.filter(bought=1)
    delay = (bought["bought_at"] - bought["time"]).to_numpy() / 3600
    assert delay.min() > 0 and 20 < delay.mean() < 70 and np.quantile(delay, 0.95) > 72
