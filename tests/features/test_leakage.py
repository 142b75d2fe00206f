"""Leaks that are planted in a log: each is refused by `ctr prepare`, or named by `ctr doctor`.

The table in docs/leakage.md names these tests, one a row.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.dataset import Dataset
from features.doctor import Check, examine
from features.encode.split import SplitRanges
from features.encode.uses import Use, all_uses
from features.errors import ConfigError, DataError
from features.read.log import Log
from features.spec import Spec
from tests.features.small_log import Tables, changed, prepared

DAY = 86_400_000
START = 1_700_000_000_000  # ms
ALONE = "no feature alone tells the label"
NEWS_SPEC: dict[str, Any] = {  # a whole spec of its own: each attack below changes one of its lines
    "name": "news",
    "source": {"tables": {t: {"path": f"{t}.parquet"} for t in ("shown", "clicks")}},
    "impressions": {
        "table": "shown",
        "user": "user",
        "item": "item",
        "time": "at",
        "label": {"column": "click"},
    },
    "tables": {"item": {}, "user": {}},
    "features": {
        "item": {"column": "item", "table": "item"},
        "counts": {"columns": ["count.*"], "scale": "quantile"},
    },
    "counters": {"item": {"by": ["item"]}},
    "domains": {
        "click": {
            "table": "clicks",
            "user": "user",
            "time": "at",
            "item": "item",
            "side": {"item": {"column": "item", "table": "item"}},
        }
    },
    "tokens": {"all": ["item", "counts"]},
}
MATCH = {
    "matches": {"again": {"domain": "click", "candidate": "item", "event": "item", "outputs": ["count"]}},
    "features__again": {"columns": ["match.again.count"], "scale": "none"},
    "tokens__all": ["item", "counts", "again"],
}


def news_log(rows: int = 4000, seed: int = 0, most: int = 900) -> Tables:
    """A month of impressions by the millisecond, 30 % of them clicked, after at most `most` ms."""
    rng = np.random.default_rng(seed)
    at = START + np.sort(rng.integers(0, 30 * DAY, rows))
    clicked = rng.random(rows) < 0.3
    shown = pl.DataFrame(
        {
            "user": rng.integers(0, 80, rows),
            "item": rng.integers(0, 60, rows),
            "at": at,
            "click": clicked.astype(np.int8),
            "play_time": np.where(clicked, rng.exponential(30.0, rows), 0.0),
        }
    )
    gap = rng.integers(1, most, rows)
    clicks = shown.with_columns(pl.col("at") + gap).filter(pl.col("click") == 1).select("user", "item", "at")
    return {"shown": shown, "clicks": clicks}


def check(data: Dataset, name: str) -> Check:
    return next(c for c in examine(data.root).checks if c.name == name)


@pytest.mark.fault(19)
def test_the_log_itself_has_no_leak(tmp_path: Path) -> None:
    diagnosis = examine(prepared(tmp_path, changed(NEWS_SPEC, **MATCH), news_log()).root)
    assert diagnosis.healthy and not [c for c in diagnosis.checks if c.status == "warn"], diagnosis.text()


def test_an_outcome_of_the_same_row(tmp_path: Path) -> None:
    """How long was played is known after the click: AUC 1 on its own."""
    spec = changed(
        NEWS_SPEC, features__play={"columns": ["play_time"]}, tokens__all=["item", "counts", "play"]
    )
    found = check(prepared(tmp_path, spec, news_log()), ALONE)
    assert found.status == "warn" and "play (play_time): AUC 1.000 in training" in found.detail
    with pytest.raises(ConfigError, match="feature 'play' reads 'play_time', an outcome"):
        prepared(tmp_path / "b", changed(spec, impressions__outcomes=["play_time"]), news_log())


def test_an_outcome_as_a_category(tmp_path: Path) -> None:
    tables = news_log()
    tables["shown"] = tables["shown"].with_columns(
        seen=pl.when(pl.col("play_time") > 0).then(pl.lit("viewed")).otherwise(pl.lit("skipped"))
    )
    feature = {"column": "seen", "table": "seen"}
    spec = changed(NEWS_SPEC, tables__seen={}, features__seen=feature, tokens__all=["item", "counts", "seen"])
    found = check(prepared(tmp_path, spec, tables), ALONE)
    assert found.status == "warn" and "seen: AUC 1.000 in training, 1.000 in validation" in found.detail


def test_an_outcome_that_a_domain_reads_of_the_same_table(tmp_path: Path) -> None:
    domain = NEWS_SPEC["domains"]["click"] | {"table": "shown", "side": {"play": {"columns": ["play_time"]}}}
    spec = changed(
        NEWS_SPEC,
        domains__shown=domain,
        features__play={"columns": ["play_time"]},
        tokens__all=["item", "counts", "play"],
    )
    with pytest.raises(ConfigError, match="since domain 'shown' reads it of the same table"):
        prepared(tmp_path, spec, news_log())


@pytest.mark.parametrize("as_text", [False, True])
def test_a_coarser_clock(tmp_path: Path, as_text: bool) -> None:
    """A click at 10.9 s, logged as 10, is not earlier than its own impression at 10.5 s."""
    tables = news_log()
    seconds = pl.col("at") // 1000
    seconds = pl.from_epoch(seconds, time_unit="s") if as_text else seconds
    tables["clicks"] = tables["clicks"].with_columns(seconds.alias("at"))
    data = prepared(tmp_path, changed(NEWS_SPEC, **MATCH), tables)
    found = check(data, "click: events beside an impression of the same")
    assert found.status == "warn"
    assert (
        "ticks of 1 s, the impressions' 0.001 s" in found.detail and "% of the events share" in found.detail
    )
    assert check(data, ALONE).status == "pass"


def test_a_coarser_clock_that_is_denied_is_named(tmp_path: Path) -> None:
    """Told that its whole seconds are exact, the log's own clicks are history of their impressions."""
    tables = news_log(most=50)
    tables["clicks"] = tables["clicks"].with_columns(pl.col("at") // 1000 * 1000)
    spec = changed(NEWS_SPEC, domains__click__tick=0.001, **MATCH)
    found = check(prepared(tmp_path, spec, tables), ALONE)
    assert found.status == "warn" and "again (match.again.count): AUC" in found.detail
    assert "the newest event of click is of the same item: AUC" in found.detail


def test_days_among_moments(tmp_path: Path) -> None:
    """A day's click, read at its midnight, would be history of the impression of that morning."""
    tables = news_log()
    moment = pl.from_epoch("at", time_unit="ms")
    old = pl.int_range(pl.len()) < pl.len() * 3 // 4
    day, exact = moment.dt.strftime("%Y-%m-%d"), moment.dt.strftime("%Y-%m-%dT%H:%M:%S%.3f")
    tables["clicks"] = tables["clicks"].with_columns(pl.when(old).then(day).otherwise(exact).alias("at"))
    with pytest.raises(DataError, match=r"column 'at': either all times are days or none.*tick: 1d"):
        prepared(tmp_path / "a", changed(NEWS_SPEC, **MATCH), tables)
    data = prepared(tmp_path / "b", changed(NEWS_SPEC, domains__click__tick="1d", **MATCH), tables)
    assert check(data, ALONE).status == "pass"


def late_labels(tables: Tables) -> Tables:
    """The label is that of a purchase up to seven days later: one for all of a user's rows until then."""
    week = pl.col("at") // (7 * DAY)
    bought = (pl.col("user") * 7919 + week * 104_729) % 10 < 3
    return tables | {"shown": tables["shown"].with_columns(click=bought.cast(pl.Int8))}


def test_a_label_that_is_known_late(tmp_path: Path) -> None:
    """Yesterday's rate must not know which of yesterday's rows are bought in a week."""
    spec = changed(NEWS_SPEC, counters={"user": {"by": ["user"], "window": "2d", "prior": 1.0}})
    tables = late_labels(news_log())
    found = check(prepared(tmp_path / "at_once", spec, tables), ALONE)
    assert found.status == "warn" and "counts (count.user.rate): AUC 0.9" in found.detail
    spec = changed(spec, impressions__label__delay="7d")
    found = check(prepared(tmp_path / "delayed", spec, tables), ALONE)
    assert found.status == "pass" and "AUC 0.5" in found.detail


def test_a_vocabulary_of_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if everything were fitted on all rows."""

    def all_rows(spec: Spec, log: Log, ranges: SplitRanges) -> list[Use]:
        return all_uses(spec, log, SplitRanges(ranges.rows, ranges.rows, ranges.rows, None))

    monkeypatch.setattr("features.encode.stages.all_uses", all_rows)
    data = prepared(tmp_path, NEWS_SPEC, news_log())
    assert check(data, "table item: fitted before the validation period").status == "fail"
    assert check(data, "table item: IDs and counts are those of the training data").status == "fail"


def test_a_value_that_is_unknown_when_not_clicked(tmp_path: Path) -> None:
    """A campaign that was joined from the clicks: in the archive, unclicked rows have another one."""
    tables = news_log()
    shown = tables["shown"].with_row_index("row")
    old = pl.col("row") < 0.8 * shown.height
    rare = "only-" + pl.col("row").cast(pl.String)
    campaign = pl.when((pl.col("click") == 0) & old).then(rare).otherwise(pl.lit("spring"))
    feature = {"column": "campaign", "table": "campaign"}
    spec = changed(
        NEWS_SPEC,
        tables__campaign={"min_count": 2},
        features__campaign=feature,
        tokens__all=["item", "counts", "campaign"],
    )
    tables["shown"] = shown.with_columns(campaign=campaign)
    data = prepared(tmp_path, spec, tables)
    found = check(data, "no feature alone tells more in training than in validation")
    assert found.status == "warn" and "campaign is unknown: AUC 1.000 in training, 0.500" in found.detail
    assert check(data, ALONE).status == "warn"


def test_a_value_that_is_missing_when_not_clicked(tmp_path: Path) -> None:
    tables = news_log()
    tables["shown"] = tables["shown"].with_columns(
        price=pl.when(pl.col("click") == 1).then(pl.col("item") * 1.5)
    )
    spec = changed(NEWS_SPEC, features__price={"columns": ["price"]}, tokens__all=["item", "counts", "price"])
    found = check(prepared(tmp_path, spec, tables), ALONE)
    assert found.status == "warn" and "price (price.missing): AUC 1.000 in training" in found.detail


def test_keys_that_do_not_meet(tmp_path: Path) -> None:
    """No leak, but the other silence: half of the items find no row in their table."""
    tables = news_log() | {"items": pl.DataFrame({"item": range(30), "length": range(30)})}
    spec = changed(
        NEWS_SPEC,
        source__tables__items={"path": "items.parquet"},
        item={"table": "items", "key": "item"},
        features__length={"columns": ["item.length"]},
        tokens__all=["item", "counts", "length"],
    )
    found = check(prepared(tmp_path, spec, tables), "users and items are found in their tables")
    assert found.status == "warn" and "% of impressions have no row in the table of items" in found.detail


def test_a_moment_that_is_written_anew(tmp_path: Path) -> None:
    """The last visit of each user tells at every request but that one that there will be more."""
    tables = news_log()
    last = tables["shown"].group_by("user").agg(pl.col("at").max().alias("seen_last"))
    tables["users"] = last.with_columns(joined=pl.col("seen_last") - 40 * DAY)
    spec = changed(
        NEWS_SPEC,
        source__tables__users={"path": "users.parquet"},
        user={"table": "users", "key": "user"},
        features__ages={"columns": ["age.visit"]},
        tokens__all=["item", "counts", "ages"],
    )
    for column, later in (("joined", 0), ("seen_last", 3920)):
        data = prepared(tmp_path / column, changed(spec, ages={"visit": f"user.{column}"}), tables)
        found = check(data, "age visit: its moments lie before the requests")
        assert found.status == ("warn" if later else "pass")
        assert data.manifest.counters["age.visit.later_than_request"] == later
    assert found.detail.startswith(
        "3,920 of 4,000 impressions are earlier than the moment, their age is missing"
    )


def test_items_that_are_new_after_training(tmp_path: Path) -> None:
    tables = news_log()
    new = pl.when(pl.int_range(pl.len()) > 0.8 * pl.len()).then(pl.col("item") + 1000).otherwise("item")
    tables["shown"] = tables["shown"].with_columns(new.alias("item"))
    found = check(prepared(tmp_path, NEWS_SPEC, tables), "values are as well known after training as in it")
    assert found.status == "warn" and "unknown in training item 0.0%, later 100.0%" in found.detail
    assert "let counts and matches carry what is new; on two logs" in found.detail


@pytest.mark.fault(19)
def test_an_event_of_the_same_clock_as_its_request(tmp_path: Path) -> None:
    """An impression and its own click in one table and one clock: never history of itself."""
    tables = news_log()
    tables["clicks"] = tables["shown"].filter(pl.col("click") == 1).select("user", "item", "at")
    data = prepared(tmp_path, changed(NEWS_SPEC, **MATCH), tables)
    assert check(data, "click: history is strictly before the request").status == "pass"
    assert check(data, ALONE).status == "pass"


def test_a_click_logged_before_its_impression_in_a_pair(tmp_path: Path) -> None:
    """An item's pair with itself tells the click if that is history; with the same clock it is none."""
    pair = {"candidate": "item", "domain": "click", "event": "item", "last": 1, "outputs": ["rate_mean"]}
    spec = changed(
        NEWS_SPEC,
        pairs={"item": pair},
        features__pairs={"columns": ["pair.*"], "missing": "indicator"},
        tokens__all=["item", "counts", "pairs"],
    )
    tables = news_log()
    for name, early in (("same", 0), ("before", 1)):
        clicks = tables["shown"].filter(pl.col("click") == 1).select("user", "item", pl.col("at") - early)
        found = check(prepared(tmp_path / name, spec, tables | {"clicks": clicks}), ALONE)
        assert found.status == ("warn" if early else "pass")
    assert "pairs (pair.item.rate_mean): AUC" in found.detail


def test_every_planted_leak_is_a_row_of_the_page(repo_root: Path) -> None:
    named = re.findall(r"`(test_\w+)`", (repo_root / "docs" / "leakage.md").read_text())
    here = [n for n in globals() if n.startswith("test_")]
    assert sorted(named) == sorted(set(here) - {"test_every_planted_leak_is_a_row_of_the_page"})
