"""Two raw logs: ratings that are impressions and events at once, and a shop with requests of several rows."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.dataset import Dataset, Manifest
from features.encode.crosses import with_crosses
from features.past.ages import with_ages
from features.past.counters import counter_columns
from features.past.matches import match_columns
from features.past.pairs import pair_columns
from features.prepare import prepare
from features.read.log import read_log
from features.read.needed import expand_patterns, needed_columns
from features.sources import open_tables
from features.spec import Spec, parse_spec

Tables = dict[str, pl.DataFrame]

RATINGS_SPEC: dict[str, Any] = {
    "name": "ratings",
    "source": {
        "tables": {t: {"path": f"{t}.parquet"} for t in ("ratings", "users", "movies")},
    },
    "order": ["user_id", "movie_id"],
    "impressions": {
        "table": "ratings",
        "user": "user_id",
        "item": "movie_id",
        "time": "timestamp",
        "label": {"column": "rating", "at_least": 4},
    },
    "user": {"table": "users", "key": "user_id"},
    "item": {"table": "movies", "key": "movie_id"},
    "tables": {
        "item": {"min_count": 2, "oov_rows": 3},
        "genre": {},
        "sex": {},
        "rating": {},
        "age": {"encode": "quantile", "rows": 4},
    },
    "features": {
        "sex": {"column": "user.sex", "table": "sex"},
        "age": {"column": "user.age", "table": "age"},
        "item": {"column": "movie_id", "table": "item"},
        "genres": {"column": "item.genres", "table": "genre", "separator": "|", "max_values": 2},
        "hour": {"calendar": "hour"},
        "year": {"columns": ["item.year"]},
        "counts": {"columns": ["count.*", "match.*"], "scale": "log"},
    },
    "domains": {
        "ratings": {
            "table": "ratings",
            "user": "user_id",
            "time": "timestamp",
            "item": "movie_id",
            "max_len": 5,
            "side": {
                "item": {"column": "movie_id", "table": "item"},
                "genres": {"column": "item.genres", "table": "genre", "separator": "|"},
                "rating": {"column": "rating", "table": "rating"},
                "gap": {"since_previous": True},
            },
        },
    },
    "counters": {"item": {"by": ["movie_id"]}},
    "matches": {
        "genre": {
            "domain": "ratings",
            "candidate": "item.genres",
            "event": "item.genres",
            "separator": "|",
            "old": 7200,
        }
    },
    "tokens": {"user": ["sex", "age"], "item": ["item", "genres", "year"], "rest": ["hour", "counts"]},
    "slices": {"sex": "user.sex"},
}

SHOP_SPEC: dict[str, Any] = {
    "name": "shop",
    "source": {"tables": {t: {"path": f"{t}.parquet"} for t in ("shown", "events")}},
    "impressions": {
        "table": "shown",
        "user": "user",
        "item": "item",
        "time": "at",
        "label": {"column": "click"},
        "request": "request",
        "context": ["device"],
        "position": "position",
    },
    "tables": {"item": {}, "device": {}, "tag": {}},
    "features": {
        "item": {"column": "item", "table": "item"},
        "device": {"column": "device", "table": "device"},
        "tags": {"column": "tags", "table": "tag", "weights": "weights"},
        "price": {"columns": ["price"]},
    },
    "domains": {
        kind: {
            "table": "events",
            "user": "user",
            "time": "at",
            "item": "item",
            "where": {"kind": [kind]},
            "side": {
                "item": {"column": "item", "table": "item"},
                "dwell": {"columns": ["dwell"], "scale": "quantile"},
            },
        }
        for kind in ("view", "cart")
    },
    "tokens": {"all": ["item", "device", "tags", "price"]},
}


def rating_tables(rows: int = 300, seed: int = 0) -> Tables:
    """Ratings of 12 users for 20 movies, two of them without a row in movies, with many equal times."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(12 * 100)[:rows]
    ratings = pl.DataFrame(
        {
            "user_id": pairs % 12 + 1,
            "movie_id": pairs // 12 % 20 + 1,
            "rating": rng.integers(1, 6, rows).astype(np.int8),
            "timestamp": 880_000_000 + rng.integers(0, 40, rows) * 3600,
        }
    ).unique(["user_id", "movie_id", "timestamp"], maintain_order=True)
    users = pl.DataFrame(
        {
            "user_id": range(1, 13),
            "sex": ["f", "m", None] * 4,
            "age": [*range(20, 31), None],
            "joined": [*(f"1997-11-{day:02}T20:53:20" for day in range(10, 21)), None],
        }
    )
    genres = rng.choice(["a", "b", "c", "a|b", "b|c|d", "", None], 18).tolist()
    movies = pl.DataFrame(
        {
            "movie_id": range(1, 19),
            "genres": genres,
            "year": [1990.0 + i for i in range(18)],
            "added": [880_000_000_000 + 7_200_000 * i for i in range(18)],  # ms, some after ratings
        }
    )
    return {"ratings": ratings, "users": users, "movies": movies}


def shop_tables(requests: int = 60, seed: int = 0) -> Tables:
    """Requests of one to four rows with string IDs, times in milliseconds, and events of two kinds."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 5, requests)
    at, user = 1_700_000_000_000 + np.sort(rng.integers(0, 10**8, requests)), rng.integers(0, 8, requests)
    request = np.repeat(np.arange(requests), size)
    count = len(request)
    position = np.arange(count) - np.repeat(np.cumsum(size) - size, size)
    tags = [rng.choice(["x", "y", "z"], rng.integers(0, 4)).tolist() for _ in range(count)]
    shown = pl.DataFrame(
        {
            "request": [f"r{i:03}" for i in request],
            "user": [f"u{i}" for i in user[request]],
            "item": [f"i{i}" for i in position * 10 + rng.integers(0, 10, count)],
            "at": at[request],
            "click": rng.integers(0, 2, count),
            "position": position,
            "device": rng.choice(["phone", "desk"], requests)[request],
            "tags": pl.Series(tags, dtype=pl.List(pl.String)),
            "weights": pl.Series([[1.0 + i for i in range(len(t))] for t in tags], dtype=pl.List(pl.Float64)),
            "price": np.where(rng.random(count) < 0.2, np.nan, rng.random(count)),
        }
    )
    events = pl.DataFrame(
        {
            "user": [f"u{i}" for i in rng.integers(0, 9, 300)],
            "at": 1_700_000_000_000 + rng.integers(0, 50, 300) * 2_000_000,  # with ties
            "item": [f"i{i}" for i in rng.integers(0, 30, 300)],
            "kind": rng.choice(["view", "cart", "other"], 300),
            "dwell": rng.exponential(10.0, 300),
        }
    )
    return {"shown": shown, "events": events}


def write_tables(root: Path, tables: Tables) -> None:
    """Write every table as one Parquet file."""
    root.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_parquet(root / f"{name}.parquet")


def changed(spec: dict[str, Any], **paths: Any) -> dict[str, Any]:
    """A copy of a spec in which `a__b=v` sets spec["a"]["b"]."""
    copy = deepcopy(spec)
    for path, value in paths.items():
        *parents, last = path.split("__")
        node = copy
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return copy


def prepared(root: Path, spec: dict[str, Any], tables: Tables, *, out: str = "dataset") -> Dataset:
    """Write the tables, prepare the dataset and open it with its hashes checked."""
    run(root, spec, tables, out=out)
    return Dataset(root / out, verify=True)


def run(root: Path, spec: dict[str, Any], tables: Tables, *, out: str = "dataset") -> Manifest:
    """Write the tables and prepare the dataset."""
    write_tables(root / "raw", tables)
    return prepare(parse_spec(spec), root / out, base=root / "raw")


def logged_rows(spec: Spec, base: Path) -> pl.DataFrame:
    """All rows of the log in the data set's order, with the computed columns, as `ctr prepare` holds them."""
    tables = open_tables(spec.source, base=base, needed=needed_columns(spec))
    full = expand_patterns(spec, {name: table.collect_schema().names() for name, table in tables.items()})
    log = read_log(full, tables)
    rows = log.rows
    for name, counter in full.counters.items():
        rows = rows.hstack(counter_columns(rows, name, counter, log.events.get(counter.over or "")))
    for name, match in full.matches.items():
        rows = rows.hstack(match_columns(rows, log.events[match.domain], name, match))
    for name, pair in full.pairs.items():
        rows = rows.hstack(pair_columns(rows, name, pair, log.events.get(pair.domain or "")).columns)
    return with_crosses(with_ages(rows, full.ages, {}), full.crosses)
