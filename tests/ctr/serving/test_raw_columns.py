"""Score requests in raw columns: logged rows get the logits of `ctr predict`; values that no log has yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ctr.serving.lookup import FeatureLookup
from ctr.serving.score_request import ScoreRequest, parse_score_request
from ctr.serving.service import ScoreService
from features.errors import DataError
from tests.ctr.serving.runs import LONGER, Built, cache
from tests.features.small_log import (
    RATINGS_SPEC,
    SHOP_SPEC,
    changed,
    logged_rows,
    prepared,
    rating_tables,
    shop_tables,
)

# With a feature of request and candidate together, which reads request_columns too.
MIXED = changed(RATINGS_SPEC, features__year={"columns": ["item.year", "user.age"], "scale": "quantile"})


class Case:
    """A prepared log, its raw rows of the test part, and a model with random weights on it."""

    def __init__(self, folder: Path, spec: dict[str, Any], tables: dict[str, pl.DataFrame]) -> None:
        dataset = prepared(folder, spec, tables)
        self.built = Built(dataset.root, *LONGER)
        self.lookup = FeatureLookup(dataset)
        self.service = ScoreService(self.built.scorer(cache=cache()), self.lookup)
        encoder = self.lookup.inline.encoder
        self.of_request = encoder.readable("request")
        self.of_candidates = sorted(set(encoder.readable("candidate")) - set(self.of_request))
        self.data = dataset.split("test")
        self.rows = logged_rows(encoder.spec, folder / "raw").tail(self.data.impressions.num_rows)

    def raw(self, request: int) -> dict[str, Any]:
        """The columns of a request of the test part and of its candidates, as they were logged."""
        low, high = self.data.row_offsets[request : request + 2].tolist()
        rows = self.rows[low:high]
        return {
            "request_columns": {name: rows[name][0] for name in self.of_request},
            "columns": {name: rows[name].to_list() for name in self.of_candidates},
        }

    def of(self, request: int, column: str) -> int:
        return int(self.data.requests[column][request].as_py())


def ask(data: dict[str, Any]) -> ScoreRequest:
    return parse_score_request(data, what="the score request", most=10)


@pytest.fixture(scope="module", params=["ratings", "shop"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    which = (MIXED, rating_tables(rows=120)) if request.param == "ratings" else (SHOP_SPEC, shop_tables(40))
    return Case(tmp_path_factory.mktemp(request.param), *which)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("ratings"), MIXED, rating_tables(rows=120))


def test_raw_columns_score_as_predict_scores_the_logged_rows(case: Case) -> None:
    want = np.split(case.built.expected().numpy(), case.data.row_offsets[1:-1])
    for request, logits in enumerate(want):
        asked = case.of(request, "request_id")
        found = case.service(ask({"request_id": asked, **case.raw(request)})).logit
        np.testing.assert_allclose(found, logits, atol=1e-5, rtol=1e-4)
    spread = np.concatenate(want)
    assert np.ptp(spread) > 0.1  # else all would be equal


def test_a_new_user_and_a_new_item_have_scores(ratings: Case) -> None:
    raw = ratings.raw(0)
    new = {"user": 999, "time": 880_200_000, **raw}
    new["columns"] |= {"movie_id": [777], "item.year": [None]}
    response = ratings.service(ask(new))
    assert (response.request.user, response.request.name[0]) == (-1, -1)
    assert response.request.columns.plain["start.ratings"] == response.request.columns.plain["end.ratings"]
    assert np.isfinite(response.logit).all()
    assert response.unknown.plain() == {"request": ["user_key"], "candidates": {"0": ["item"]}}


def test_calendar_features_follow_the_time_asked_for(ratings: Case) -> None:
    """Those of the newest earlier request would be as old as it is."""
    last = ratings.data.info.requests - 1
    user = ratings.lookup._keys._keys("users")[ratings.of(last, "user_id")].as_py()
    time = ratings.of(last, "time") + 5 * 3600
    asked = {"user": user, "row_ids": [0]}
    requests = [ratings.lookup.request(ask({**asked, "time": t})) for t in (time, time + 3600, time + 1)]
    hours = [int(request.columns.ids["hour"].values[0]) for request in requests]
    assert hours[0] == time // 3600 % 24 + 1 and hours[1] == (hours[0] % 24) + 1
    assert requests[0].name != requests[1].name and requests[0].name == requests[2].name


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"features": {"item": [3]}, "columns": {"movie_id": [3]}}, r"both hold \['item'\]; drop one"),
        ({"columns": {"rating": [5]}}, r"columns must name columns of \["),
        ({"columns": {"movie_id": [3, 4]}, "row_ids": [1]}, "as many row_ids"),
        ({"columns": {"movie_id": [3]}}, r"candidate features \['genres', 'year', 'counts'\] \(there are no"),
        ({"columns": {"movie_id": [{"a": 1}]}}, "columns.movie_id"),
        ({"request_columns": {"movie_id": 3}, "row_ids": [1]}, "request_columns must name columns of"),
    ],
)
def test_what_does_not_fit_is_refused(ratings: Case, more: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"(?s){says}"):
        ratings.service(ask({"request_id": ratings.of(0, "request_id"), **more}))
