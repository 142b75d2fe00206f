"""What a score request gives reaches every feature that is made of it: an answer never mixes two values."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ctr.loader.columns import Columns
from ctr.serving.lookup import FeatureLookup
from ctr.serving.score_request import ScoreRequest
from features.errors import DataError
from features.past.pages import page_columns
from features.read.columns import computed_from
from features.spec import Spec
from tests.features.small_log import SHOP_SPEC, changed, logged_rows, prepared, shop_tables

SPEC = changed(
    SHOP_SPEC,
    source__tables__users={"path": "users.parquet"},
    source__tables__goods={"path": "goods.parquet"},
    user={"table": "users", "key": "user"},
    item={"table": "goods", "key": "item"},
    tables__text={},
    tables__days={"encode": "log", "rows": 40},
    crosses={"taste": ["user.seg", "item.sec"], "who": ["device", "user.seg"], "good": ["item", "item.sec"]},
    ages={"user": "user.joined", "item": "item.made"},
    counters={
        "both": {"by": ["device", "item.sec"], "outputs": ["count"]},
        "device": {"by": ["device"], "outputs": ["count"]},
    },
    matches={"sec": {"domain": "view", "candidate": "item.sec", "event": "item.sec", "outputs": ["count"]}},
    pages={"price": {"column": "price", "outputs": ["rank", "above", "size"]}},
    features={
        **SHOP_SPEC["features"],
        "seg": {"column": "user.seg", "table": "text"},
        "sec": {"column": "item.sec", "table": "text"},
        "taste": {"column": "cross.taste", "table": "text"},
        "who": {"column": "cross.who", "table": "text"},
        "good": {"column": "cross.good", "table": "text"},
        "ages": {"columns": ["age.user", "age.item"], "scale": "log"},
        "joined": {"column": "age.user", "table": "days"},
        "both": {"columns": ["count.both.count"]},
        "device_count": {"columns": ["count.device.count", "page.price.size"]},
        "match": {"columns": ["match.sec.count", "user.height"]},
        "page": {"columns": ["page.price.rank", "page.price.above"]},
    },
)
SPEC["tokens"] = {"all": [*SPEC["features"]]}


def tables() -> dict[str, pl.DataFrame]:
    found = shop_tables(40)
    users = {
        "user": [f"u{i}" for i in range(9)],
        "seg": ["a", "b", None] * 3,
        "height": [1.0 * i for i in range(9)],
    }
    goods = {"item": [f"i{i}" for i in range(40)], "sec": ["s", "t", None, "u"] * 10}
    joined = [1_690_000_000_000 + 10**8 * i for i in range(40)]
    return found | {
        "users": pl.DataFrame(users | {"joined": joined[:9]}),
        "goods": pl.DataFrame(goods | {"made": joined}),
    }


class Log:
    """A prepared log, and the raw values of the impressions of its requests of several rows."""

    def __init__(self, folder: Path) -> None:
        self.lookup = FeatureLookup(prepared(folder, SPEC, tables()))
        encoder = self.lookup.inline.encoder
        self.spec: Spec = encoder.spec
        rows = logged_rows(self.spec, folder / "raw")
        for name, page in self.spec.pages.items():
            rows = rows.hstack(page_columns(rows, name, page, position="position"))
        self.levels = {level: encoder.readable(level) for level in ("request", "candidate")}  # type: ignore[arg-type]
        rows = rows.with_row_index("row_id").with_columns(number=pl.col("__request"))
        self.requests = [part for part in rows.partition_by("number") if part.height > 1]

    def asked(self, rows: pl.DataFrame, columns: set[str] | None = None) -> dict[str, Any]:
        """The values of some columns, or of all, as a score request gives them."""
        of_request, own = (
            {n: rows[n].to_list() for n in names if columns is None or n in columns}
            for names in (self.levels["request"], self.levels["candidate"])
        )
        return {"request_columns": {n: v[0] for n, v in of_request.items()}, "columns": own}

    def features(self, asked: dict[str, Any]) -> dict[str, Any]:
        score_request = ScoreRequest.model_validate(asked)
        sides = (self.lookup.request(score_request).columns, self.lookup.candidates(score_request))
        return {name: values for side in sides for name, values in _plain(side).items()}

    def closed(self, columns: set[str]) -> set[str]:
        """With all that features need of which a part is given."""
        for feature in self.spec.features:
            reads = {*self.lookup.inline.encoder.columns_of([feature])}
            if (reads | {s for c in reads for s in self.sources(c)}) & columns:
                columns = columns | reads
        return columns

    def sources(self, column: str) -> set[str]:
        own = set(computed_from(self.spec, column))
        return own | {s for c in own for s in self.sources(c)}


def _plain(side: Columns) -> dict[str, Any]:
    ids = {
        n: [a.tolist() for a in (v.values, v.offsets, v.weights) if a is not None]
        for n, v in side.ids.items()
    }
    return ids | {name: values.tolist() for name, values in side.dense.items()}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return Log(tmp_path_factory.mktemp("given"))


def test_some_columns_give_what_all_columns_give_or_are_refused(log: Log) -> None:
    """Columns of another request, laid over prepared rows: one at a time, and many at random."""
    draw, accepted, refused = random.Random(3), list[set[str]](), list[set[str]]()
    every = [*log.levels["request"], *log.levels["candidate"]]
    some = [{n for n in every if draw.random() < draw.choice([0.1, 0.9])} for _ in range(60)]
    for trial in [{name} for name in every] + some + [log.closed(trial) for trial in some]:
        base = draw.choice(log.requests)
        other = draw.choice([r for r in log.requests if r.height >= base.height]).head(base.height)
        asked = {"request_id": base["number"][0], "row_ids": base["row_id"].to_list()}
        try:
            found = log.features(asked | log.asked(other, trial))
        except DataError as error:
            assert "must give all columns" in str(error) or "as the data set has it" in str(error)
            refused.append(trial)
            continue
        accepted.append(trial)
        stale = [c for c in every if c not in trial and log.sources(c) & trial]
        assert not stale, (trial, stale)
        whole, given = log.asked(base), log.asked(other, trial)
        both = {side: whole[side] | given[side] for side in whole}
        assert found == log.features({"request_id": base["number"][0], **both}), trial
    assert [trial for trial in accepted if len(trial) == 1] == [{"count.both.count"}]
    assert len({frozenset(trial) for trial in accepted}) > 10 and len(refused) > 40


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"request_columns": {"user.seg": "b", "device": "desk"}},
            r"feature 'device_count' of the request is made of \['device'\].*\['count.device.count', 'page",
        ),
        (
            {
                "request_columns": {
                    "user.seg": "b",
                    "device": "desk",
                    "count.device.count": 1,
                    "page.price.size": 3,
                }
            },
            r"feature 'taste' of the candidate is made of \['user.seg'\].* \['item.sec'\] too",
        ),
        ({"request_columns": {"age.user": 5}}, r"feature 'ages' .* \['age.item'\] too"),
        (
            {"columns": {"user.seg": ["b"]}},
            r"must not name \['user.seg'\], which belong to the request: give them once",
        ),
        ({"columns": {"age.user": [5]}, "request_columns": {"age.user": 5}}, "belong to the request"),
        ({"columns": {"position": [1]}}, r"must name columns of .*got \['position'\]$"),
        ({"columns": {"price": [1.0]}}, r"feature 'page' .* made of \['price'\].*'page.price.above'"),
    ],
)
def test_a_column_whose_other_features_would_stay_is_refused(
    log: Log, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        log.features({"request_id": 0, "row_ids": [0], **more})


def test_a_cross_of_item_columns_is_the_items_own(log: Log) -> None:
    """With `items` it is looked up; for a new item it is made of the key alone."""
    rows = log.requests[0]
    request, given = rows["number"][0], log.asked(rows)
    want = log.features({"request_id": request, "row_ids": rows["row_id"].to_list()})
    asked = {
        "request_id": request,
        "request_columns": {n: given["request_columns"][n] for n in ("age.user", "user.height")},
        "columns": {n: v for n, v in given["columns"].items() if n not in ("item", "item.sec")},
        "features": {"taste": want["taste"][0]},
    }
    assert log.features({**asked, "items": rows["item"].to_list()}) == want
    new = log.features({**asked, "items": [f"new{i}" for i in range(rows.height)]})
    assert new["good"] == [[1] * rows.height] and new["taste"] == want["taste"]
