"""Three real logs in SQL, read from their files without anything of `features/`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RealLog:
    """A log in the SQL of DuckDB.

    Attributes:
        folder: where its files lie in the folder of real data.
        views: name → query that later ones may read; `{root}` is the folder.
        rows: query of the impressions: `row`, `user`, `item`, `clock`, `time` (s), `label`, the columns that
            counters read under their names in the spec, and those of `place`.
        place: columns of a dense feature that, with user, time and item, tell the impressions apart.
        events: domain → query of all its events: `user`, `clock`, `time`, and side columns as in the spec.
    """

    folder: str
    views: dict[str, str]
    rows: str
    place: tuple[str, ...]
    events: dict[str, str]


def _movielens(folder: str, views: dict[str, str], joins: str, columns: str) -> RealLog:
    rows = f"""
        SELECT row_number() OVER () AS row, user_id AS user, item_id AS item, timestamp AS clock,
            timestamp AS time, (rating >= 4)::INT AS label, rating::DOUBLE AS rating, user_id, item_id,
            {columns}
        FROM ratings LEFT JOIN items USING (item_id) {joins}"""
    events = "SELECT user_id AS user, timestamp AS clock, timestamp AS time, item_id AS item FROM ratings"
    return RealLog(folder, views, rows, (), {"rated": events})


def _parts(text: str, separator: str) -> str:
    """The parts of a text that are not empty; null without any."""
    return f"nullif(list_filter(string_split({text}, '{separator}'), lambda x: x <> ''), [])"


_ML_100K = _movielens(
    "ml-100k",
    {
        "ratings": "FROM '{root}/interactions.parquet'",
        "items": rf"""
            SELECT item_id, {_parts("class", " ")} AS genres,
                nullif(regexp_extract(release_year, '^\d\d\d\d$'), '')::INT // 10 * 10 AS decade
            FROM '{{root}}/items.parquet'""",
        "users": """
            SELECT *, list_max(list_filter([1, 18, 25, 35, 45, 50, 56], lambda x: x <= age)) AS age_band
            FROM '{root}/users.parquet'""",
    },
    "LEFT JOIN users USING (user_id)",
    'genres AS "item.genres", decade AS "item.decade", age_band AS "user.age_band", gender AS "user.gender"',
)

_ML_LATEST_SMALL = _movielens(
    "ml-latest-small",
    {
        "ratings": """
            SELECT userId AS user_id, movieId AS item_id, rating, timestamp FROM '{root}/ratings.parquet'""",
        "items": rf"""
            SELECT movieId AS item_id, {_parts("replace(genres, '(no genres listed)', '')", "|")} AS genres,
                nullif(regexp_extract(title, '\((\d\d\d\d)\)\s*$', 1), '')::INT // 10 * 10 AS decade
            FROM '{{root}}/movies.parquet'""",
    },
    "",
    'genres AS "item.genres", decade AS "item.decade"',
)

_EVENT = "SELECT user_id AS user, clock, time, hotel AS item, action FROM steps WHERE hotel IS NOT NULL"
_TRIVAGO = RealLog(
    "trivago-100k",
    {
        # A step that is logged twice is one; the clock is (timestamp, step): no session has 2^20 steps.
        "steps": """
            WITH numbered AS (
                SELECT *, row_number() OVER (PARTITION BY user_id, session_id, timestamp, step
                    ORDER BY file_row_number) AS n
                FROM read_parquet('{root}/events.parquet', file_row_number = true))
            SELECT *, action_type AS action, timestamp AS time, timestamp * 1048576 + step AS clock,
                CASE WHEN action_type LIKE '%item%' THEN TRY_CAST(reference AS BIGINT) END AS hotel
            FROM numbered WHERE n = 1""",
        "clickouts": """
            SELECT *, string_split(impressions, '|')::BIGINT[] AS page
            FROM steps WHERE action = 'clickout item'""",
        "shown": "SELECT *, unnest(page) AS item, unnest(range(1, len(page) + 1)) AS position FROM clickouts",
    },
    """
        SELECT row_number() OVER () AS row, user_id AS user, item, clock, time, (item = hotel)::INT AS label,
            user_id, item AS item_id, position, platform, device, step
        FROM shown""",
    ("position", "step"),
    {
        "touch": _EVENT,
        "clickout": f"{_EVENT} AND action = 'clickout item'",
        "search": """
            SELECT user_id AS user, clock, time, reference AS term, action FROM steps WHERE hotel IS NULL""",
    },
)

REAL_LOGS = {"ml-100k": _ML_100K, "ml-latest-small": _ML_LATEST_SMALL, "trivago": _TRIVAGO}
