"""The time of a score request: what was past then is its history; what cannot be meant is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.serving.bodies import parse_body
from ctr.serving.files import read_score_requests
from ctr.serving.lookup import FeatureLookup
from ctr.serving.score_request import ScoreRequest
from features.dataset import Dataset
from features.errors import DataError
from tests.features.small_log import SHOP_SPEC, changed, prepared, shop_tables

ZONED = {"path": "shown.parquet", "time_zone": "Asia/Tokyo"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A log in milliseconds whose times without a zone are declared to be those of Tokyo."""
    spec = changed(SHOP_SPEC, source__tables__shown=ZONED)
    return prepared(tmp_path_factory.mktemp("times"), spec, shop_tables(60))


def history(lookup: FeatureLookup, user: Any, time: Any) -> dict[str, int]:
    plain = lookup.request(ScoreRequest(user=user, time=time, row_ids=[0])).columns.plain
    return {name: int(values[0]) for name, values in plain.items() if name.startswith(("start.", "end."))}


def test_the_time_of_a_logged_request_has_its_history(shop: Dataset) -> None:
    lookup, keys, compared = FeatureLookup(shop), shop.keys("users"), 0
    assert keys is not None
    for split in shop.manifest.splits:
        for request in shop.split(split).requests.to_pylist():
            want = {name: request[name] for name in request if name.startswith(("start.", "end."))}
            milliseconds, user = request["clock"], keys[request["user_id"]].as_py()
            moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
            utc = f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"
            tokyo = datetime.fromtimestamp(milliseconds // 1000 + 9 * 3600, UTC)
            local = f"{tokyo:%Y-%m-%d %H:%M:%S},{milliseconds % 1000:03}"
            for time in (milliseconds / 1000, utc, local):
                assert history(lookup, user, time) == want, time
            compared += len(want)
    assert compared > 100


def test_features_are_of_no_later_request(shop: Dataset) -> None:
    """Not even of one that came some milliseconds later, in the same second."""
    lookup, keys = FeatureLookup(shop), shop.keys("users")
    requests = pl.concat([pl.from_arrow(shop.split(s).requests) for s in shop.manifest.splits])
    assert keys is not None and isinstance(requests, pl.DataFrame)
    for user_id, clock, request_id in requests.select("user_id", "clock", "request_id").rows():
        user, asked = keys[user_id].as_py(), {"row_ids": [0]}
        request = lookup.request(ScoreRequest(user=user, time=clock / 1000, **asked))
        assert request.name[0] == request_id
        before = lookup.request(ScoreRequest(user=user, time=(clock - 1) / 1000, **asked))
        assert before.name[0] != request_id


@pytest.mark.parametrize(
    ("time", "says"),
    [
        ("1700000000000", "time: a time must be seconds.*got 1700000000000$|a time must lie near"),
        ("253402300799", "2023-11-14T22:13:20Z.*9999-12-31T23:59:59Z"),
        ("-1", "1969-12-31T23:59:59Z"),
        ("1e400", "time: a time must be seconds"),
        ("NaN", "time: a time must be seconds"),
        ("Infinity", "time: a time must be seconds"),
        ("true", "time: a time must be seconds.*got True"),
        ('"1700000000"', "time: a time must be seconds.*got '1700000000'"),
        ('" 2023-11-14T23:00:00"', "time: a time must be seconds"),
        ('"9999-12-31"', "must lie near those of the data set"),
        ("[1700000000]", "time: a time must be seconds"),
        ("null", "user and time"),
    ],
)
def test_hostile_times_are_refused(shop: Dataset, time: str, says: str) -> None:
    with pytest.raises(DataError, match=f"(?s){says}"):
        FeatureLookup(shop).request(
            parse_body(f'{{"user": "u1", "time": {time}, "row_ids": [0]}}'.encode(), most=9)
        )


def test_timestamps_of_a_parquet_file_are_moments(shop: Dataset, tmp_path: Path) -> None:
    """Those without a zone are in the declared one, like texts."""
    utc = datetime(2023, 11, 15, 1, 30, 0, 250_000, tzinfo=UTC)
    local = utc.replace(tzinfo=None) + timedelta(hours=9)
    for moment, kind in ((utc, pa.timestamp("ms", "UTC")), (local, pa.timestamp("us"))):
        columns = {"user": ["u1"], "time": pa.array([moment], kind), "row_ids": [[0]]}
        pq.write_table(pa.table(columns), tmp_path / "requests.parquet")
        (asked,) = read_score_requests(tmp_path / "requests.parquet", most=9)
        lookup = FeatureLookup(shop)
        assert lookup.times.read(asked.time or 0).nanoseconds == int(utc.timestamp() * 1000) * 10**6
        assert lookup.request(asked).time == int(utc.timestamp())
