"""MovieLens 100k, 1M and latest-small, as their owner packs them or as Parquet, in one shape.

ratings   user_id, item_id, rating, half_stars, liked (rating ≥ 4), timestamp (s), order_in_user (0, 1, …)
users     user_id, age, age_band, gender, occupation, zip_code        (not in latest-small)
items     item_id, title (without year), year, decade, genres (list)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from features.errors import DataError
from features.source import ColumnType, RawTable
from features.sources.raw import KEEP_FILE, cast_numbers, open_known, read_fields

Tables = dict[str, pl.LazyFrame]

_NAMES = {
    "user_id": ("UserID", "userId"),
    "item_id": ("MovieID", "movieId"),
    "rating": ("Rating",),
    "timestamp": ("Timestamp",),
    "title": ("Title", "movie_title"),
    "genres": ("Genres", "class"),
    "age": ("Age",),
    "gender": ("Gender",),
    "occupation": ("Occupation",),
    "zip_code": ("Zip-code",),
}
_RENAME = {old: new for new, names in _NAMES.items() for old in names}
# Of the editions that come as CSV; a Parquet file knows its own types.
_TYPES: dict[str, dict[str, ColumnType]] = {
    "ratings": {"user_id": "int", "item_id": "int", "rating": "float", "timestamp": "int"},
    "items": {"item_id": "int"},
    "users": {"user_id": "int", "age": "int"},
}
_RATINGS = ["user_id", "item_id", "rating", "timestamp"]
_USERS = ["user_id", "age", "gender", "occupation", "zip_code"]
_AGE_BANDS = (1, 18, 25, 35, 45, 50, 56)
_ITEMS = ["item_id", "title", "genres"]
_GENRES_100K = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """A way the data comes: the file that gives it away, and how it is opened."""

    ratings: str
    open: Callable[[Path], Tables]
    genre_separator: str = "|"


def read(root: Path) -> Tables:
    """Read whichever MovieLens lies in `root`.

    Returns:
        ratings, items and, if there are any, users.

    Raises:
        DataError: no known layout, or a file that is missing, damaged or lacks a column.
    """
    layout = next((layout for layout in _LAYOUTS if (root / layout.ratings).is_file()), None)
    if layout is None:
        known = ", ".join(layout.ratings for layout in _LAYOUTS)
        raise DataError(
            f"{root} must hold MovieLens ratings ({known}), but has none of them; "
            "fetch them, for example with: ctr download ml-1m --out DIR, and give --source DIR"
        )
    raw = layout.open(root)
    tables = {"ratings": _ratings(raw["ratings"]), "items": _items(raw["items"], layout.genre_separator)}
    if "users" in raw:
        tables["users"] = _users(raw["users"])
    return tables


def _ratings(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Ratings with their order: as logged, else by time and, in one second, by row of the file."""
    ratings = raw.with_columns(
        pl.col("rating").cast(pl.Float64),
        half_stars=(pl.col("rating") * 2).cast(pl.Int64),
        liked=(pl.col("rating") >= 4).cast(pl.Int8),
    )
    if "order_in_user" not in raw.collect_schema():
        order = pl.col("timestamp").rank("ordinal").over("user_id").cast(pl.Int64) - 1
        ratings = ratings.with_columns(order.alias("order_in_user"))
    return ratings.select(*_RATINGS, "half_stars", "liked", "order_in_user", KEEP_FILE)


def _users(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Users with the age band of the 1M edition, which logs only bands."""
    band = pl.max_horizontal(pl.when(pl.col("age") >= low).then(low) for low in _AGE_BANDS)
    return raw.select(*_USERS, band.cast(pl.Int64).alias("age_band"), KEEP_FILE)


def _items(raw: pl.LazyFrame, separator: str) -> pl.LazyFrame:
    """Items with the year, which is a column or the end of the title, and genres as a list."""
    in_title = r"\s*\((\d{4})\)\s*$"
    year = pl.col("title").str.extract(in_title)
    if "release_year" in raw.collect_schema():
        year = pl.col("release_year").str.extract(r"^(\d{4})$")
    genres = pl.col("genres").str.replace("(no genres listed)", "", literal=True).str.split(separator)
    items = raw.with_columns(
        title=pl.col("title").str.replace(in_title, ""),
        year=year.cast(pl.Int64),
        genres=genres.list.eval(pl.element().filter(pl.element() != "")),
    )
    return items.select(
        "item_id", "title", "year", (pl.col("year") // 10 * 10).alias("decade"), "genres", KEEP_FILE
    )


def _tabular(ratings: str, items: str, users: str | None = None) -> Callable[[Path], Tables]:
    """Opens Parquet or CSV files with a header, whichever edition's names it has."""

    def open_files(root: Path) -> Tables:
        files, columns = {"ratings": ratings, "items": items}, {"ratings": _RATINGS, "items": _ITEMS}
        if users is not None and (root / users).is_file():
            files["users"], columns["users"] = users, _USERS
        kinds = {name: "csv" if path.endswith(".csv") else "parquet" for name, path in files.items()}
        tables = {
            n: RawTable.model_validate(
                {
                    "path": p,
                    "format": kinds[n],
                    "rename": _RENAME,
                    "types": _TYPES[n] if kinds[n] == "csv" else {},
                }
            )
            for n, p in files.items()
        }
        return open_known(root, tables, columns)

    return open_files


def _original_1m(root: Path) -> Tables:
    """ratings.dat, users.dat and movies.dat, as in ml-1m.zip."""
    ratings = _numbers(root / "ratings.dat", "::", _RATINGS, _RATINGS)
    users = _numbers(
        root / "users.dat", "::", ["user_id", "gender", "age", "occupation", "zip_code"], ["user_id", "age"]
    )
    items = _numbers(root / "movies.dat", "::", _ITEMS, ["item_id"])
    return {"ratings": ratings, "users": users, "items": items}


def _original_100k(root: Path) -> Tables:
    """u.data, u.user and u.item, as in ml-100k.zip."""
    ratings = _numbers(root / "u.data", "\t", _RATINGS, _RATINGS)
    users = _numbers(
        root / "u.user", "|", ["user_id", "age", "gender", "occupation", "zip_code"], ["user_id", "age"]
    )
    columns = ["item_id", "title", "released", "video_released", "url", *_GENRES_100K]
    items = _numbers(root / "u.item", "|", columns, ["item_id"])
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES_100K]
    return {
        "ratings": ratings,
        "users": users,
        "items": items.with_columns(genres=pl.concat_str(flags, separator="|", ignore_nulls=True)),
    }


def _numbers(path: Path, separator: str, columns: list[str], numbers: list[str]) -> pl.LazyFrame:
    """A text file with some of its columns as integers."""
    return cast_numbers(read_fields(path, separator, columns), dict.fromkeys(numbers, pl.Int64), path).lazy()


_LAYOUTS = (
    _Layout("ratings.dat", _original_1m),
    _Layout("u.data", _original_100k),
    _Layout("ratings.csv", _tabular("ratings.csv", "movies.csv")),
    _Layout("interactions.parquet", _tabular("interactions.parquet", "items.parquet", "users.parquet"), " "),
    _Layout("ratings.parquet", _tabular("ratings.parquet", "movies.parquet", "users.parquet")),
)
