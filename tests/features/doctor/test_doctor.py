from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from features.dataset import Dataset
from features.doctor import Diagnosis, examine
from features.doctor.profile import missing_rate, unique_ratios, unseen_rate
from features.store.write import write_arrow
from tests.features.small_log import RATINGS_SPEC, SHOP_SPEC, changed, prepared, rating_tables, shop_tables

STRICT = "ratings: history is strictly before the request"
COMPLETE = "ratings: history is complete and the newest"
COUNTS = "table rating: IDs and counts are those of the training data"


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return prepared(tmp_path, RATINGS_SPEC, rating_tables())


def status(diagnosis: Diagnosis, name: str) -> str:
    return next(c.status for c in diagnosis.checks if c.name == name)


def load(path: Path) -> pa.Table:
    """The table in memory, so that its file can be replaced."""
    return ipc.open_file(path.read_bytes()).read_all()


def replace(path: Path, column: str, values: pa.Array) -> None:
    """Exchange one column of an Arrow file, as one record batch."""
    table = load(path)
    table = table.set_column(table.column_names.index(column), column, values)
    write_arrow(path.with_suffix(".new"), table, batch_rows=None)
    path.with_suffix(".new").replace(path)


def edit(path: Path, column: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change one column of numbers in an Arrow file."""
    values = load(path)[column]
    replace(path, column, pa.array(function(values.to_numpy().copy()), type=values.type))


@pytest.mark.parametrize("name", ["ratings", "shop"])
def test_a_prepared_dataset_is_healthy(tmp_path: Path, name: str) -> None:
    ratings = changed(RATINGS_SPEC, matches__genre__recent="2h")  # the log has 40 hours
    spec, tables = {"ratings": (ratings, rating_tables()), "shop": (SHOP_SPEC, shop_tables())}[name]
    diagnosis = examine(prepared(tmp_path, spec, tables).root)
    assert diagnosis.healthy and "fail" not in diagnosis.summary()
    assert all(c.status == "pass" for c in diagnosis.checks), diagnosis.text()
    for word in ("label rate", "missing train", "unseen test", "p99", "unique/uses"):
        assert word in diagnosis.text()


@pytest.mark.fault(19)
def test_one_event_of_the_same_clock_is_a_leak(data: Dataset) -> None:
    """Fault 19: a request that points at its own rating, the event with the same clock."""

    def shift(end: np.ndarray) -> np.ndarray:
        store, requests = data.events("ratings"), data.split("test").requests
        user, clock = requests["user_id"].to_numpy(), requests["clock"].to_numpy()
        end[3] += 1
        assert (store.user_id[end[3] - 1], store.clock[end[3] - 1]) == (user[3], clock[3])
        return end

    edit(data.root / "test" / "requests.arrow", "end.ratings", shift)
    diagnosis = examine(data.root)
    assert not diagnosis.healthy and status(diagnosis, STRICT) == "fail"
    assert status(diagnosis, "files are as they were written") == "fail"
    assert "see an event that is not earlier" in diagnosis.text()


def test_events_of_others_and_lost_events_are_found(data: Dataset) -> None:
    path = data.root / "train" / "requests.arrow"
    requests = load(path)
    last = np.flatnonzero(requests["user_id"].to_numpy() > 0)[-1]
    is_last = np.arange(requests.num_rows) == last
    edit(path, "start.ratings", lambda start: np.where(is_last, 0, start))
    assert status(examine(data.root), STRICT) == "fail"
    edit(path, "start.ratings", lambda start: np.where(is_last, requests["end.ratings"].to_numpy(), start))
    diagnosis = examine(data.root)
    assert status(diagnosis, STRICT) == "pass" and status(diagnosis, COMPLETE) == "fail"


def test_pointers_outside_the_store_are_found(data: Dataset) -> None:
    edit(data.root / "valid" / "requests.arrow", "end.ratings", lambda end: end + 10**6)
    assert status(examine(data.root), STRICT) == "fail"


def test_unsorted_events_and_late_events_are_found(data: Dataset) -> None:
    path = data.root / "events" / "ratings.arrow"
    edit(path, "clock", lambda clock: clock[::-1])
    diagnosis = examine(data.root)
    assert status(diagnosis, "ratings: events are sorted by user and clock") == "fail"
    assert status(diagnosis, STRICT) == "fail"


def test_a_vocabulary_with_test_values_is_found(data: Dataset) -> None:
    path = data.root / "fitted" / "rating.parquet"
    book = pl.read_parquet(path)
    pq.write_table(book.with_columns(pl.col("count") + 1).to_arrow(), path)
    diagnosis = examine(data.root)
    assert status(diagnosis, COUNTS) == "fail"
    assert status(diagnosis, COUNTS.replace("rating", "item")) == "pass"


def test_a_fit_that_reaches_into_validation_is_found(data: Dataset) -> None:
    path = data.root / "fitted" / "scalers.json"
    fitted = json.loads(path.read_text())
    first = data.split("valid").requests["clock"][0].as_py()
    fitted["tables"]["genre"]["fit"]["clock"][1] = first
    fitted["scalers"]["counts"]["fit"]["clock"][1] = first
    path.write_text(json.dumps(fitted))
    diagnosis = examine(data.root)
    for name in ("table genre", "scaler counts"):
        assert status(diagnosis, f"{name}: fitted before the validation period") == "fail"


def test_a_scaler_fitted_on_other_rows_is_found(data: Dataset) -> None:
    """Without a recorded range: the training values do not have mean 0."""
    path = data.root / "train" / "impressions.arrow"
    values = load(path)["dense.year"].combine_chunks().flatten().to_numpy().reshape(-1, 2)
    moved = pa.array((values + np.array([0.1, 0.0])).reshape(-1), type=pa.float32())
    replace(path, "dense.year", pa.FixedSizeListArray.from_arrays(moved, 2))
    assert (
        status(examine(data.root), "scaler year: mean and variance are those of the training data") == "fail"
    )


def test_ids_outside_their_table_are_found(data: Dataset) -> None:
    edit(data.root / "test" / "requests.arrow", "id.sex", lambda ids: ids + 100)
    diagnosis = examine(data.root)
    assert status(diagnosis, "table sex: IDs and counts are those of the training data") == "fail"


def test_rows_and_parts_out_of_order_are_found(data: Dataset) -> None:
    edit(data.root / "valid" / "requests.arrow", "num_rows", lambda n: n + 1)
    edit(data.root / "test" / "requests.arrow", "clock", lambda clock: clock - 10**6)
    diagnosis = examine(data.root)
    assert status(diagnosis, "rows of a request are contiguous") == "fail"
    assert status(diagnosis, "train, valid and test follow one another in time") == "fail"


def test_constant_features_and_single_labels_are_warnings(tmp_path: Path) -> None:
    tables = rating_tables()
    tables["movies"] = tables["movies"].with_columns(year=pl.lit(2000.0))
    last = pl.col("timestamp") > tables["ratings"]["timestamp"].quantile(0.8)
    tables["ratings"] = tables["ratings"].with_columns(
        pl.when(last).then(5).otherwise("rating").alias("rating")
    )
    diagnosis = examine(prepared(tmp_path, changed(RATINGS_SPEC, order=[]), tables).root)
    assert status(diagnosis, "every part has both labels") == "warn"
    assert status(diagnosis, "no feature is constant in training") == "warn"
    assert diagnosis.healthy and "year: item.year" in diagnosis.text()


@pytest.mark.parametrize("absent", ["missing", "unknown"])
@pytest.mark.parametrize("leaks", [True, False])
def test_a_value_that_is_absent_after_a_zero_is_a_leak(tmp_path: Path, absent: str, leaks: bool) -> None:
    """A channel that is filled in later for clicks alone: in training its absence tells the label."""
    tables = rating_tables(rows=1100)
    ratings = tables["ratings"].sort("timestamp", "user_id", "movie_id").with_row_index("row")
    rng = np.random.default_rng(0)
    chance = pl.Series(rng.random(ratings.height) < 0.4)
    early = pl.col("row") < 0.8 * ratings.height
    gone = chance & (~early | (pl.col("rating") < 4)) if leaks else chance
    instead = pl.lit(None) if absent == "missing" else "x" + pl.col("row").cast(pl.String)
    tables["ratings"] = ratings.with_columns(channel=pl.when(gone).then(instead).otherwise(pl.lit("web")))
    spec = changed(
        RATINGS_SPEC,
        tables__channel={"min_count": 2},
        features__channel={"column": "channel", "table": "channel"},
        tokens__rest=["hour", "counts", "channel"],
    )
    diagnosis = examine(prepared(tmp_path, spec, tables).root)
    name = "missing and unknown tell no more of the label in training than later"
    check = next(c for c in diagnosis.checks if c.name == name)
    assert check.status == ("fail" if leaks else "pass")
    assert not leaks or f"channel {absent}: label rate 0.000 of" in check.detail


def test_a_domain_whose_times_are_in_another_unit_is_a_warning(tmp_path: Path) -> None:
    tables = shop_tables()
    tables["shown"] = tables["shown"].with_columns(pl.col("at") // 1000)
    spec = changed(SHOP_SPEC, time_unit="ms", time_range="any")
    diagnosis = examine(prepared(tmp_path, spec, tables).root)
    assert status(diagnosis, "view: some request has a history") == "warn"
    assert diagnosis.healthy


def test_rates_by_hand() -> None:
    assert missing_rate(np.array([0, 3, 1, 0]), None) == 0.5
    assert missing_rate(np.array([5, 6]), np.array([0, 0, 2])) == 0.5
    assert unseen_rate(np.array([0, 1, 2, 3]), 2) == pytest.approx(2 / 3)


def test_unique_ratio_by_hand(data: Dataset) -> None:
    """One window over all of train: distinct ratings in all histories over the number of events in them."""
    train, store = data.split("train"), data.events("ratings")
    start, end = (train.requests[f"{p}.ratings"].to_pylist() for p in ("start", "end"))
    seen = [i for s, e in zip(start, end, strict=True) for i in store.ids["rating"].values[s:e].tolist()]
    ratios = unique_ratios(data, train, {"ratings": store}, window=10**6)
    assert ratios["rating"] == pytest.approx(len(set(seen)) / len(seen))
