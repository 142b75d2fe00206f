from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.errors import ConfigError, DataError
from features.sources import READERS, read_source
from features.spec import Source

# user, item, rating, timestamp: user 2 rates two movies in one second
RATINGS = [(2, 20, 5, 978_300_002), (1, 10, 3, 978_300_009), (2, 10, 4, 978_300_002), (2, 30, 1, 978_300_001)]
USERS = [(1, 7, "F", "10", "48067"), (2, 57, "M", "16", "7007Q")]
ITEMS = [
    (10, "Amélie: la vie", 2001, ["Comedy", "Sci-Fi"]),
    (20, "Nowhere", None, []),
    (30, "Old (one)", 1932, ["Drama"]),
]


def read(root: Path) -> dict[str, pl.DataFrame]:
    tables = read_source(Source(kind="movielens", path=root.name), base=root.parent)
    return {name: table.collect().drop("__file", strict=False) for name, table in tables.items()}


def title(name: str, year: int | None) -> str:
    return name if year is None else f"{name} ({year})"


def original_1m(root: Path) -> None:
    lines = {
        "ratings.dat": ["::".join(map(str, row)) for row in RATINGS],
        "users.dat": [f"{u}::{sex}::{age}::{job}::{zip_code}" for u, age, sex, job, zip_code in USERS],
        "movies.dat": [f"{i}::{title(n, y)}::{'|'.join(g)}" for i, n, y, g in ITEMS],
    }
    for name, text in lines.items():
        (root / name).write_text("\n".join(text) + "\n", encoding="latin-1")


def original_100k(root: Path) -> None:
    from features.sources.movielens import _GENRES_100K as genres

    flags = {i: "|".join(str(int(name in g)) for name in genres) for i, _, _, g in ITEMS}
    lines = {
        "u.data": ["\t".join(map(str, row)) for row in RATINGS],
        "u.user": ["|".join(map(str, row)) for row in USERS],
        "u.item": [f"{i}|{title(n, y)}|01-Jan-2001||http://x|{flags[i]}" for i, n, y, _ in ITEMS],
    }
    for name, text in lines.items():
        (root / name).write_text("\r\n".join(text) + "\r\n", encoding="latin-1")


def original_small(root: Path) -> None:
    genres = ["|".join(g) or "(no genres listed)" for *_, g in ITEMS]
    frame(RATINGS, ["userId", "movieId", "rating", "timestamp"]).write_csv(root / "ratings.csv")
    movies = [(i, title(n, y), g) for (i, n, y, _), g in zip(ITEMS, genres, strict=True)]
    frame(movies, ["movieId", "title", "genres"]).write_csv(root / "movies.csv")


def parquet_1m(root: Path) -> None:
    order = [1, 0, 2, 0]
    ratings = [(*row, place) for row, place in zip(RATINGS, order, strict=True)]
    columns = ["UserID", "MovieID", "Rating", "Timestamp", "order_in_user"]
    frame(ratings, columns).write_parquet(root / "ratings.parquet")
    users = frame(USERS, ["UserID", "Age", "Gender", "Occupation", "Zip-code"])
    users.write_parquet(root / "users.parquet")
    movies = [(i, title(n, y), "|".join(g)) for i, n, y, g in ITEMS]
    frame(movies, ["MovieID", "Title", "Genres"]).write_parquet(root / "movies.parquet")


def parquet_100k(root: Path) -> None:
    frame(RATINGS, ["user_id", "item_id", "rating", "timestamp"]).write_parquet(root / "interactions.parquet")
    users = frame(USERS, ["user_id", "age", "gender", "occupation", "zip_code"])
    users.write_parquet(root / "users.parquet")
    movies = [(i, n, str(y or "V"), " ".join(g)) for i, n, y, g in ITEMS]
    frame(movies, ["item_id", "movie_title", "release_year", "class"]).write_parquet(root / "items.parquet")


def frame(rows: list[tuple[object, ...]], columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=columns, orient="row")


@pytest.mark.parametrize("write", [original_1m, original_100k, original_small, parquet_1m, parquet_100k])
def test_every_layout_gives_the_same_tables(tmp_path: Path, write: object) -> None:
    write(tmp_path)
    tables = read(tmp_path)
    expected = frame(
        [
            (u, i, float(r), t, 2 * r, int(r >= 4), o)
            for (u, i, r, t), o in zip(RATINGS, [1, 0, 2, 0], strict=True)
        ],
        ["user_id", "item_id", "rating", "timestamp", "half_stars", "liked", "order_in_user"],
    )
    assert_frame_equal(tables["ratings"], expected, check_dtypes=False, check_column_order=False)
    items = frame(
        [(i, n, y, y and y // 10 * 10, g) for i, n, y, g in ITEMS],
        ["item_id", "title", "year", "decade", "genres"],
    )
    assert_frame_equal(tables["items"], items, check_dtypes=False)
    if write is original_small:
        assert set(tables) == {"ratings", "items"}
    else:
        assert tables["users"]["age_band"].to_list() == [1, 56]
        assert tables["users"]["zip_code"].to_list() == ["48067", "7007Q"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ratings.dat", "1::2::3\n", r"ratings\.dat must have 4 fields .* got '1::2::3' in line 1"),
        (
            "ratings.dat",
            "1::2::3::4\n1::2::x::4\n",
            r"ratings\.dat: rating must be a number, got 'x' in line 2",
        ),
        ("ratings.dat", "", r"ratings\.dat must have 4 fields .* got an empty file"),
        ("users.dat", None, r"users\.dat cannot be read \(No such file"),
    ],
)
def test_a_damaged_text_file_is_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    original_1m(tmp_path)
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_missing_column_file_or_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold MovieLens ratings .* ctr download ml-1m --out DIR"):
        read(tmp_path)
    parquet_1m(tmp_path)
    pl.read_parquet(tmp_path / "ratings.parquet").drop("Rating").write_parquet(tmp_path / "ratings.parquet")
    with pytest.raises(DataError, match=r"ratings\.parquet must have column 'rating'"):
        read(tmp_path)
    parquet_1m(tmp_path)
    (tmp_path / "movies.parquet").unlink()
    with pytest.raises(DataError, match=r"'movies\.parquet'"):
        read(tmp_path)


def test_an_unknown_source_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be one of \['files', 'movielens'.* got 'netflix'"):
        read_source(Source(kind="netflix"), base=tmp_path)
    for kind in READERS:
        with pytest.raises(ConfigError, match=rf"'{kind}' takes no options and no tables, got \['x'\]"):
            read_source(Source(kind=kind, options={"x": 1}), base=tmp_path)
