"""Score requests: what is refused, and that what they name is what the data set holds."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.serving.lookup import FeatureLookup
from ctr.serving.requests import split_requests
from ctr.serving.score_request import ScoreRequest, parse_score_request
from features.dataset import Dataset
from features.errors import DataError
from features.read.dataset_times import Moment
from features.read.moment import SECOND
from features.safe_yaml import dump_yaml
from tests.ctr.dataset_fixture import Sizes, write_dataset

SPEC: dict[str, Any] = {
    "name": "fixture",
    "source": {"kind": "files"},
    "impressions": {"table": "shown", "user": "u", "item": "i", "time": "t", "label": {"column": "c"}},
    "tables": {"item": {}, "tag": {}},
    "features": {
        "item": {"column": "i", "table": "item"},
        "tags": {"column": "item.tags", "table": "tag"},
        "price": {"columns": ["count.item.count"]},
    },
    "tokens": {"all": ["item", "tags", "price"]},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """With keys and a spec, in which the price is not the item's own."""
    root = write_dataset(tmp_path_factory.mktemp("requests") / "dataset", Sizes(requests=40))
    (root / "keys").mkdir()
    for what in ("users", "items"):
        codes = np.arange(100)[::-1]
        keys = [f"{what[0]}{code}" for code in codes]
        pq.write_table(pa.table({"code": codes, "key": keys}), root / "keys" / f"{what}.parquet")
    (root / "spec.yaml").write_text(dump_yaml(SPEC))
    return Dataset(root)


@pytest.fixture(scope="module")
def lookup(dataset: Dataset) -> FeatureLookup:
    return FeatureLookup(dataset)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"row_ids": [1]}, "either request_id, or user and time"),
        ({"request_id": 1, "user": "u1", "time": 3, "row_ids": [1]}, "either request_id"),
        ({"user": "u1", "row_ids": [1]}, "user and time"),
        ({"request_id": 1}, "at least one candidate"),
        ({"request_id": 1, "row_ids": []}, "at least one candidate"),
        ({"request_id": 1, "row_ids": [1], "items": ["a"]}, "not both"),
        ({"request_id": 1, "row_ids": [1, 2], "features": {"price": [1.0]}}, "as many"),
        ({"request_id": 1, "row_ids": [1, 2, 3, 4]}, "at most 3 candidates, got 4"),
        ({"request_id": -1, "row_ids": [1]}, "request_id"),
        ({"request_id": 1, "row_ids": [2**63]}, "row_ids"),
        ({"request_id": "1", "row_ids": [1]}, "request_id"),
        ({"request_id": True, "row_ids": [1]}, "request_id"),
        ({"request_id": 1, "rows": [1]}, "rows"),
        ({"request_id": 1, "features": {"price": [float("nan")]}}, "features.price"),
        ({"request_id": 1, "items": ["\ud800"]}, "items.0"),
        ({"user": "\ud800", "time": 5, "row_ids": [1]}, "user"),
        ({"request_id": 1, "columns": {"tags": [["a", "\ud800"]]}}, "columns.tags"),
        ({"request_id": 1, "columns": {"price": [1e400]}}, "a number must be finite.*got inf"),
        ({"request_id": 1, "row_ids": [1], "request_columns": {"age": [-1e400]}}, "a number must be finite"),
        ([], "valid"),
    ],
)
def test_what_is_no_score_request_is_refused(data: object, says: str) -> None:
    with pytest.raises(DataError, match=f"(?s)the score request.*{says}"):
        parse_score_request(data, what="the score request", most=3)


def test_rows_and_requests_are_those_of_the_data_set(dataset: Dataset, lookup: FeatureLookup) -> None:
    for split in ("valid", "test"):
        want_request, want = list(split_requests(dataset, split))[7]
        rows = want.plain["row_id"].tolist()
        score_request = ScoreRequest(request_id=want_request.name[0], row_ids=rows)
        request, found = lookup.request(score_request), lookup.candidates(score_request)
        assert request.columns.plain == want_request.columns.plain and request.name == want_request.name
        for name in ("item", "tags"):
            np.testing.assert_array_equal(found.ids[name].values, want.ids[name].values)
        np.testing.assert_array_equal(found.ids["tags"].offsets, want.ids["tags"].offsets)
        np.testing.assert_array_equal(found.dense["price"], want.dense["price"])


def test_rows_of_several_splits_keep_their_order(dataset: Dataset, lookup: FeatureLookup) -> None:
    shown = [rows for split in ("test", "train", "valid") for _, rows in split_requests(dataset, split)]
    picked = [shown[50], shown[3], shown[100], shown[4]]
    score_request = ScoreRequest(request_id=0, row_ids=[int(rows.plain["row_id"][0]) for rows in picked])
    found = lookup.candidates(score_request)
    assert found.ids["item"].values.tolist() == [int(rows.ids["item"].values[0]) for rows in picked]
    tags = [rows.take(np.array([0])).ids["tags"].values.tolist() for rows in picked]
    offsets = found.ids["tags"].offsets
    assert offsets is not None
    assert [p.tolist() for p in np.split(found.ids["tags"].values, offsets[1:-1])] == tags


def test_items_bring_what_is_their_own(dataset: Dataset, lookup: FeatureLookup) -> None:
    item = int(dataset.split("train").impressions["item_id"][0].as_py())
    with pytest.raises(DataError, match=r"candidate features \['price'\] \(they are not the item's own\)"):
        lookup.candidates(ScoreRequest(request_id=0, items=[f"i{item}"]))
    found = lookup.candidates(
        ScoreRequest(request_id=0, items=[f"i{item}"] * 2, features={"price": [1.5, 2]})
    )
    assert found.dense["price"].tolist() == [[1.5], [2.0]] and len(found.ids["item"].values) == 2


def test_inline_features_alone(lookup: FeatureLookup) -> None:
    features: dict[str, Any] = {"item": [3, 4], "tags": [[1, 2], []], "price": [[0.5], [1.0]]}
    found = lookup.candidates(ScoreRequest(request_id=0, features=features))
    assert found.ids["item"].values.tolist() == [3, 4] and found.dense["price"].tolist() == [[0.5], [1.0]]
    with pytest.raises(DataError, match=r"candidate features \['price'\]"):
        lookup.candidates(ScoreRequest(request_id=0, features={n: features[n] for n in ("item", "tags")}))


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("item", [200], "a row of table 'item'"),
        ("item", [-1], "a row of table"),
        ("item", [[1]], "a row of table"),
        ("item", [1.5], "a row of table"),
        ("tags", [[40]], "a list of rows"),
        ("price", [[1.0, 2.0]], "1 finite numbers"),
        ("price", [1e39], "1 finite numbers"),
        ("user", [1], "must name features of"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    name: str, values: list[Any], says: str, lookup: FeatureLookup
) -> None:
    with pytest.raises(DataError, match=says):
        lookup.candidates(ScoreRequest(request_id=0, row_ids=[0], features={name: values}))


def test_a_user_at_a_time_has_the_events_before_it(dataset: Dataset, lookup: FeatureLookup) -> None:
    for split in ("train", "test"):
        for want, rows in list(split_requests(dataset, split))[::9]:
            score_request = ScoreRequest(
                user=f"u{want.user}", time=want.time, row_ids=[int(rows.plain["row_id"][0])]
            )
            found = lookup.request(score_request)
            assert (found.user, found.time) == (want.user, want.time)
            for domain in dataset.manifest.domains:
                for side in ("start", "end"):
                    name = f"{side}.{domain}"
                    assert found.columns.plain[name] == want.columns.plain[name]


def test_an_event_is_past_when_its_tick_is_over(dataset: Dataset) -> None:
    """Events that are logged by the hour: the last one before a moment may have happened after it."""
    hourly = copy.copy(dataset)
    domain, info = next(iter(dataset.manifest.domains.items()))
    domains = dataset.manifest.domains | {domain: info.model_copy(update={"tick": 3600.0})}
    hourly.manifest = dataset.manifest.model_copy(update={"domains": domains})
    store = dataset.events(domain)
    late = replace(store, clock=store.clock + 3599)  # ends of ticks, as ctr prepare writes them
    user, time = int(store.user_id[-1]), int(store.time[-1])
    of_user = store.time[store.user_id == user]
    for moment in (time + 3599, time + 3600):
        lookup = FeatureLookup(hourly)
        lookup._stores[domain] = late
        found = lookup._history(user, Moment(moment * SECOND, moment))
        first = len(store.time) - len(of_user)
        assert found[f"end.{domain}"] == first + sum(1 for t in of_user if t + 3600 <= moment)


def test_what_is_not_there_is_named(lookup: FeatureLookup) -> None:
    with pytest.raises(DataError, match=r"row_ids must name .* got \[99999\]"):
        lookup.candidates(ScoreRequest(request_id=0, row_ids=[0, 99999]))
    with pytest.raises(DataError, match=r"request_id must name .* got \[5000\]"):
        lookup.request(ScoreRequest(request_id=5000, row_ids=[0]))


def test_request_features_may_be_given(lookup: FeatureLookup) -> None:
    plain = lookup.request(ScoreRequest(request_id=3, row_ids=[0]))
    other = lookup.request(
        ScoreRequest(request_id=3, row_ids=[0], request_features={"user": 9, "age": [1, 0]})
    )
    assert other.columns.ids["user"].values.tolist() == [9] and other.columns.dense["age"].tolist() == [
        [1, 0]
    ]
    assert other.columns.plain == plain.columns.plain and other.name != plain.name
