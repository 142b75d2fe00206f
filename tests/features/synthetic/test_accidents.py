"""Accidental clicks: planted beside an untouched log; without them the log is what it always was."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.errors import ConfigError
from features.synthetic import simulate
from tests.features.synthetic.logs import Log, read
from tests.features.synthetic.test_log import hashes

SIZES = {"users": 60, "items": 200, "categories": 5, "requests_per_user": 3, "events_per_user": 30}
# sha256 of view and impressions as CSV, from before there were accidents
VIEWS = "0d56fe41620ce156d3952f230d34de29cc97332302f1ac1027db7b57e88759aa"
IMPRESSIONS = "425f0d66b3c7a0fd271191b7ba77b9a98348908d3d6d20f5474157245dd25eb0"


def digest(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.write_csv().encode()).hexdigest()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, Log]:
    """The same log without and with accidents."""
    folder = tmp_path_factory.mktemp("accidents")
    return tuple(
        (folder / name, simulate(folder / name, **SIZES, accidental=share))
        for name, share in (("plain", 0), ("planted", 0.4))
    )  # type: ignore[return-value]


def test_without_accidents_the_log_is_as_it_always_was(logs: tuple[Log, Log]) -> None:
    (plain, meta), _ = logs
    assert "accidental" not in meta and "accidental" not in read(plain, "view").columns
    assert digest(read(plain, "view")) == VIEWS
    assert digest(read(plain, "impressions")) == IMPRESSIONS


def test_nothing_but_views_is_added(logs: tuple[Log, Log]) -> None:
    (plain, before), (planted, after) = logs
    ours, others = hashes(plain), hashes(planted)
    assert {name for name in ours if ours[name] != others[name]} == {
        "view/part-00000.parquet",
        "truth/meta.json",
    }
    assert ours.keys() == others.keys()
    true = read(planted, "view").filter(pl.col("accidental") == 0).drop("accidental")
    assert true.equals(read(plain, "view"))
    more = after["rows"]["view"] - before["rows"]["view"]
    rows = {**before["rows"], "view": before["rows"]["view"] + more}
    assert after == {**before, "rows": rows, "accidental": 0.4}


def test_accidents_are_clicks_of_users_who_were_there(logs: tuple[Log, Log]) -> None:
    """The share; users and times follow true clicks; items exist; the dwell tells most of them apart."""
    planted, _ = logs[1]
    clicked = read(planted, "view").filter(pl.col("outcome") == "clicked")
    accidents, true = (clicked.filter(pl.col("accidental") == flag) for flag in (1, 0))
    assert accidents.height / clicked.height == pytest.approx(0.4, abs=1e-3)
    near = accidents.join(true.select("user_id", source="time"), on="user_id").filter(
        (pl.col("time") - pl.col("source")).is_between(1, 600)
    )
    keys = ["user_id", "item_id", "time"]
    assert near.unique(keys).height == accidents.unique(keys).height
    created = accidents.join(read(planted, "items").select("item_id", "created"), on="item_id")
    assert (created["created"] < created["time"]).all()
    assert accidents["dwell"].is_between(0.3, 3.0).all()
    assert true.filter(pl.col("dwell") < 3.0).height < 0.03 * true.height


def test_a_user_without_clicks_has_no_accidents(tmp_path: Path) -> None:
    simulate(tmp_path / "log", users=60, events_per_user=1, requests_per_user=1, accidental=0.5)
    view = read(tmp_path / "log", "view")
    clicked = view.filter(pl.col("outcome") == "clicked")
    accidents, true = (set(clicked.filter(accidental=flag)["user_id"]) for flag in (1, 0))
    assert accidents and accidents <= true < set(view["user_id"])


@pytest.mark.parametrize("share", [-0.1, 0.95, True, "half", float("nan")])
def test_a_share_outside_its_range_is_refused(tmp_path: Path, share: Any) -> None:
    with pytest.raises(ConfigError, match=r"accidental must be a share in \[0, 0.9\], got .*; choose"):
        simulate(tmp_path / "log", **SIZES, accidental=share)
    assert list(tmp_path.iterdir()) == []
