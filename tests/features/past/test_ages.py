"""Ages against a definition of one line, with the moments in every form that a time may have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.dataset import Dataset
from features.encode.encoding import encoding_of
from features.errors import ConfigError, DataError
from features.prepare import check
from features.safe_yaml import dump_yaml
from features.spec import parse_spec
from pipelines.cli import main
from tests.features.small_log import (
    RATINGS_SPEC,
    changed,
    logged_rows,
    prepared,
    rating_tables,
    run,
    write_tables,
)

SPEC = changed(
    RATINGS_SPEC,
    ages={"movie": "item.added", "account": "user.joined"},
    features__ages={"columns": ["age.*"], "scale": "none"},
    tokens__rest=["hour", "counts", "ages"],
)
EAST = timezone(timedelta(hours=2))
FORMS: dict[str, tuple[Callable[[float], Any], dict[str, Any]]] = {
    "seconds": (int, {}),
    "milliseconds": (lambda s: int(s * 1000), {}),
    "with a fraction": (float, {}),
    "declared microseconds": (lambda s: int(s * 10**6), {"time_format": "us"}),
    "datetimes": (lambda s: datetime.fromtimestamp(s, UTC).replace(tzinfo=None), {}),
    "texts with a zone": (lambda s: datetime.fromtimestamp(s, EAST).isoformat(), {}),
    "texts in the zone of the table": (
        lambda s: f"{datetime.fromtimestamp(s, EAST):%d.%m.%Y %H:%M:%S.%f}",
        {"time_format": "%d.%m.%Y %H:%M:%S%.f", "time_zone": "Africa/Johannesburg"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [["user_id", "movie_id"], []])
def test_equals_the_definition(tmp_path: Path, form: str, order: list[str]) -> None:
    """Where an order replaces the clock by ranks, ages are still of times."""
    write, declared = FORMS[form]
    tables, rng = rating_tables(), np.random.default_rng(len(form))
    moments = (880_000_000 + rng.integers(-4 * 200_000, 4 * 144_000, 18) / 4).tolist()
    at = tables["ratings"].filter(pl.col("movie_id") == 2)["timestamp"][0]
    moments[:2] = [None, float(at)]  # the very time of a request
    added = pl.Series("added", [None if m is None else write(m) for m in moments])
    tables["movies"] = tables["movies"].with_columns(added)
    write_tables(tmp_path, tables)
    spec = changed(SPEC, order=order)
    spec["source"]["tables"]["movies"] |= declared
    rows = logged_rows(parse_spec(spec), tmp_path)
    of_movie = dict(zip(tables["movies"]["movie_id"], moments, strict=True))
    pairs = [(of_movie.get(movie), time) for movie, time in rows.select("movie_id", "__time").rows()]
    want = [None if m is None or int(m) > time else float(time - int(m)) for m, time in pairs]
    assert rows["age.movie"].to_list() == want
    assert 0.0 in want and None in want and max(a for a in want if a is not None) > 100_000


def test_days_begin_at_midnight_and_may_stand_beside_moments(tmp_path: Path) -> None:
    write_tables(tmp_path, rating_tables())
    joined = ["1997-11-19", "1997-11-20T06:00:00", *["1997-11-20"] * 10]
    users = rating_tables()["users"].with_columns(joined=pl.Series(joined))
    users.write_parquet(tmp_path / "users.parquet")
    begin = [int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) for text in joined]
    rows = logged_rows(parse_spec(SPEC), tmp_path)
    for user, time, age in rows.select(pl.col("__user") + 1, "__time", "age.account").rows():
        assert age == (float(time - begin[user - 1]) if time >= begin[user - 1] else None)


def test_a_column_of_the_impressions_with_the_name_of_an_age_is_another(tmp_path: Path) -> None:
    tables = rating_tables()
    at = pl.from_epoch("timestamp")  # no number, as a dense feature's own column has to be
    write_tables(tmp_path, {**tables, "ratings": tables["ratings"].with_columns(at)})
    spec = changed(SPEC, ages={"timestamp": "item.added"})
    check(parse_spec(spec), base=tmp_path)


def test_what_is_later_is_counted_and_the_encoding_says_what_an_age_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tables(tmp_path / "raw", rating_tables())
    rows = logged_rows(parse_spec(SPEC), tmp_path / "raw")
    (tmp_path / "raw" / "spec.yaml").write_text(dump_yaml(SPEC))
    command = ["prepare", "--spec", str(tmp_path / "raw" / "spec.yaml"), "--out", str(tmp_path / "dataset")]
    assert main(command) == 0
    data, told = Dataset(tmp_path / "dataset"), capsys.readouterr().out
    for name, there in (("movie", pl.col("movie_id") < 19), ("account", pl.col("__user") < 11)):
        later = rows.filter(there)[f"age.{name}"].null_count()
        assert 0 < later == data.manifest.counters[f"age.{name}.later_than_request"] < rows.height
        assert f"age.{name}: missing in {later} impressions, whose moment is later than the request" in told
    tables = rating_tables()
    tables["movies"] = tables["movies"].with_columns(made=pl.col("added"))
    other = prepared(tmp_path, changed(SPEC, ages__movie="item.made"), tables, out="other")
    one, two = (encoding_of(d) for d in (data, other))
    assert one is not None and two is not None
    assert {k for k, v in one.definitions.items() if v != two.definitions[k]} == {"ages"}


WRONG = pl.Series([880_000_000_000] * 17 + [880_000_000])  # ms, but for one in seconds


@pytest.mark.parametrize(
    ("added", "changes", "message"),
    [
        (
            WRONG,
            {},
            r"'movies'.*column 'added': times must be in one unit, but 1 rows .* hold s \(880000000\)",
        ),
        (WRONG, {"time_unit": "s"}, r"column 'added': time_unit is s, but 17 rows .* hold ms"),
        (WRONG * 0, {}, r"column 'added': times must lie from 1990.* hold \[0, 0, 0\], .*time_range"),
        (pl.Series([float("inf"), *[8.8e8] * 17]), {}, r"'added': time must be finite and exact"),
        (pl.Series(["soon", *["1997-11-20"] * 17]), {}, r"'added': a time must read as ISO 8601.*'soon'"),
    ],
)
def test_what_is_no_time_is_refused_by_the_reader_of_all_times(
    tmp_path: Path, added: pl.Series, changes: dict[str, Any], message: str
) -> None:
    tables = rating_tables()
    tables["movies"] = tables["movies"].with_columns(added=added)
    with pytest.raises(DataError, match=message):
        run(tmp_path, changed(SPEC, **changes), tables)


def test_a_wrong_moment_in_a_text_file_is_named_by_its_line(tmp_path: Path) -> None:
    write_tables(tmp_path / "raw", tables := rating_tables())
    added = ["", "1997-11-20", *["1997-11-20"] * 15, "20.11.1997"]
    movies = tables["movies"].with_columns(added=pl.Series(added))
    movies.write_csv(tmp_path / "raw" / "movies.csv")
    spec = changed(SPEC, source__tables__movies={"path": "movies.csv", "format": "csv"})
    with pytest.raises(
        DataError, match=r"\(movies.csv\), column 'added': .*line 19 of movies.csv.*time_format"
    ):
        logged_rows(parse_spec(spec), tmp_path / "raw")


def test_an_age_is_of_a_table_that_the_spec_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ages.movie: an age must name a column of the user or item table"):
        parse_spec(changed(SPEC, ages={"movie": "timestamp"}))
    for spec, remedy in (
        (changed(SPEC, ages__movie="item.gone"), "must have column 'gone', which age 'movie' reads"),
        (changed(SPEC, features__ages={"columns": ["age.book"]}), r"reads 'age.book'.*'age.movie'"),
    ):
        with pytest.raises((ConfigError, DataError), match=remedy):
            run(tmp_path, spec, rating_tables())
