"""What a data set does not know is read as its unknown row, and named; the rest is scored as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctr.serving.files import write_scores
from tests.ctr.serving.test_raw_columns import Case, ask
from tests.features.small_log import RATINGS_SPEC, changed, rating_tables

# Five unknown rows, so that equal rows are no accident.
SPEC = changed(
    RATINGS_SPEC,
    tables__item={"oov_rows": 5},
    features__counts={"columns": ["count.*"]},
    matches={},
    counters={"item": {"by": ["movie_id"], "outputs": ["count"]}},
)
NEW = (777, "777", "today-1", 2**70, "9" * 40, "007", "", "a\x1b[2J")


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("ratings"), SPEC, rating_tables(rows=120))


def columns(count: int, **more: list[Any]) -> dict[str, Any]:
    return {"columns": {"count.item.count": [3] * count, **more}}


def test_an_unknown_item_is_one_without_a_row_in_the_item_table(ratings: Case) -> None:
    request = {"request_id": ratings.of(0, "request_id")}
    known = ratings.rows["movie_id"][0]
    nothing: dict[str, list[Any]] = {"item.genres": [None], "item.year": [None]}
    (alone,) = ratings.service(ask({**request, "items": [known], **columns(1)})).logit
    for key in NEW:
        response = ratings.service(ask({**request, "items": [key, known], **columns(2)}))
        assert response.logit[1] == pytest.approx(alone, abs=1e-6)  # the others are what they were
        assert response.unknown.plain() == {"request": [], "candidates": {"0": ["item_key", "item"]}}
        assert response.item_id is not None and response.item_id[0] == -1 != response.item_id[1]
        if isinstance(key, int) and key < 2**63:
            raw = ratings.service(ask({**request, **columns(1, movie_id=[key], **nothing)}))
            assert response.logit[0] == pytest.approx(raw.logit[0], abs=1e-6)
    every = ratings.service(ask({**request, "items": list(NEW), **columns(len(NEW))}))
    assert every.unknown.candidates["item_key"].all() and len(set(every.logit.tolist())) > 1


def test_a_number_is_its_own_digits_and_no_others(ratings: Case) -> None:
    request, known = {"request_id": ratings.of(0, "request_id")}, ratings.rows["movie_id"][0]
    keys = [known, str(known), f"0{known}", f" {known}", f"{known}.0"]
    response = ratings.service(ask({**request, "items": keys, **columns(5)}))
    assert response.item_id is not None and (response.item_id >= 0).tolist() == [True, True, *[False] * 3]
    assert response.logit[0] == response.logit[1]


def test_an_unknown_user_has_nothing_but_the_key(ratings: Case) -> None:
    asked = {"time": ratings.of(0, "time"), "row_ids": [0, 1]}
    whole = {"request_columns": {"user.sex": None, "user.age": None}}
    for key in NEW:
        response = ratings.service(ask({"user": key, **asked}))
        assert response.unknown.request == ("user_key", "sex", "age") and response.request.user == -1
        want = ratings.service(ask({"user": key, **asked, **whole}))
        np.testing.assert_allclose(response.logit, want.logit, atol=1e-6)
        assert want.unknown.request == ("user_key",)


def test_a_user_before_the_first_request_has_no_features_of_a_later_one(ratings: Case) -> None:
    keys, times = ratings.lookup._keys._keys("users"), ratings.lookup.times.range
    assert times is not None
    asked = {"user": keys[0].as_py(), "time": times.first - 1, "row_ids": [0]}
    response = ratings.service(ask(asked))
    assert response.unknown.request == ("sex", "age") and response.request.user == 0


def test_unknown_categories_are_named(ratings: Case) -> None:
    given = {"request_columns": {"user.sex": "x\ny", "user.age": 3}}
    given |= columns(
        3, **{"movie_id": [1] * 3, "item.genres": ["a|zz", "a", None], "item.year": [1990, 1991, None]}
    )
    response = ratings.service(ask({"request_id": ratings.of(0, "request_id"), **given}))
    assert response.unknown.plain() == {"request": ["sex"], "candidates": {"0": ["genres"]}}


def test_tables_of_scores_hold_what_was_unknown(ratings: Case, tmp_path: Path) -> None:
    asked = {"user": 999, "time": ratings.of(0, "time"), "items": [777, 1], **columns(2)}
    assert write_scores(tmp_path / "scores.parquet", [(ratings.service(ask(asked)), None)]) == 2
    found = pq.read_table(tmp_path / "scores.parquet")
    of_request = ["user_key", "sex", "age"]
    assert found["unknown"].to_pylist() == [[*of_request, "item_key", "item"], of_request]
    assert [code is None for code in found["item_id"].to_pylist()] == [True, False]
