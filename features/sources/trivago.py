"""trivago sessions (RecSys Challenge 2019): a clickout is a request of up to 25 hotels, one of them clicked.

impressions   one row per shown hotel: the page, the session strictly before it, and `clicked`
actions       every event on a hotel, clickouts included: user_id, session_id, item_id, action_type, clock
searches      every other event: the place, filter or sort order as `term`

Strictly before means a smaller (timestamp, step), the spec's clock with `order: [step]`. Only `item_touches`,
which counts what all users did, goes by the second: events of the same second do not count.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.errors import DataError
from features.source import RawTable
from features.sources.raw import KEEP_FILE, open_known

CLICKOUT = "clickout item"
_FILES = ("events.parquet", "train.csv")
_SESSION = ["user_id", "session_id"]
_ORDER = ["timestamp", "step"]
_COLUMNS = [
    *_SESSION,
    *_ORDER,
    "action_type",
    "reference",
    "platform",
    "city",
    "device",
    "current_filters",
    "impressions",
    "prices",
]


def read(root: Path) -> dict[str, pl.LazyFrame]:
    """Read the log in `root`.

    Returns:
        impressions, actions, searches.

    Raises:
        DataError: no log there, or one that is damaged or lacks a column.
    """
    file = next((name for name in _FILES if (root / name).is_file()), None)
    if file is None:
        raise DataError(
            f"{root} must hold one of {list(_FILES)}, but has neither; get the log of the RecSys "
            "Challenge 2019 from its owner and give --source DIR"
        )
    kind = "csv" if file.endswith(".csv") else "parquet"
    types = {"timestamp": "int", "step": "int"} if kind == "csv" else {}
    table = RawTable.model_validate({"path": file, "format": kind, "types": types})
    events = _events(open_known(root, {"events": table}, {"events": _COLUMNS})["events"])
    on_hotel = pl.col("item_id").is_not_null()
    kept = events.select("item_id", "reference", *_SESSION, *_ORDER, "action_type", KEEP_FILE)
    return {
        "impressions": _impressions(events),
        "actions": kept.filter(on_hotel).drop("reference"),
        "searches": kept.filter(~on_hotel).drop("item_id").rename({"reference": "term"}),
    }


def _events(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Events with the hotel they are about, sorted by session and time; a step logged twice is one."""
    on_hotel = pl.col("action_type").str.contains("item", literal=True)
    hotel = pl.when(on_hotel).then(pl.col("reference").cast(pl.String).cast(pl.Int64, strict=False))
    events = raw.with_columns(pl.col("reference").cast(pl.String), item_id=hotel)
    return events.unique([*_SESSION, *_ORDER], keep="first", maintain_order=True).sort(*_SESSION, *_ORDER)


def _impressions(events: pl.LazyFrame) -> pl.LazyFrame:
    """The clickouts with what preceded them in the session, one row per shown hotel."""
    clickouts = _with_session(events).filter(pl.col("action_type") == CLICKOUT)
    requests = (
        clickouts.sort(*_ORDER, *_SESSION)
        .with_row_index("request_id")
        .with_columns(
            pl.col("request_id").cast(pl.Int64),
            pl.col("current_filters").str.split("|").alias("filters"),
            pl.col("impressions").cast(pl.String).str.split("|").alias("shown"),
            pl.col("prices").cast(pl.String).str.split("|").alias("price"),
            pl.col("item_id").alias("clicked_item"),
        )
    )
    rows = requests.drop("item_id", "impressions", "prices", "current_filters").explode("shown", "price")
    rows = rows.with_columns(
        pl.col("price").cast(pl.Float64, strict=False),
        item_id=pl.col("shown").cast(pl.Int64, strict=False),
        position=pl.int_range(1, pl.len() + 1).over("request_id"),
    )
    rows = rows.with_columns(clicked=(pl.col("item_id") == pl.col("clicked_item")).cast(pl.Int8))
    rows = rows.drop("shown", "clicked_item", "reference", "action_type")
    return _with_touches(_with_last(rows), events)


def _with_session(events: pl.LazyFrame) -> pl.LazyFrame:
    """What the session holds strictly before each of its events, which are sorted."""
    clickout = (pl.col("action_type") == CLICKOUT).cast(pl.Int64)
    item = pl.col("item_id")
    before = {
        "session_seconds": pl.col("timestamp") - pl.col("timestamp").first(),
        "session_actions": pl.int_range(pl.len()),
        "session_clickouts": clickout.cum_sum() - clickout,
        "seconds_since_action": pl.col("timestamp").diff(),
        "last_action": pl.col("action_type").shift(1),
        "last_item": item.shift(1).forward_fill(),
        "last_clicked": pl.when(clickout == 1).then(item).shift(1).forward_fill(),
    }
    return events.with_columns(value.over(_SESSION).alias(name) for name, value in before.items())


def _with_last(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Where each hotel stands on the page relative to those last touched and last clicked before."""

    def of(column: str, hotel: str) -> pl.Expr:
        return pl.when(pl.col("item_id") == pl.col(hotel)).then(column).max().over("request_id")

    return rows.with_columns(
        places_below_last=pl.col("position") - of("position", "last_item"),
        price_to_last=pl.col("price") / of("price", "last_item"),
        places_below_clicked=pl.col("position") - of("position", "last_clicked"),
    ).drop("last_item", "last_clicked")


def _with_touches(rows: pl.LazyFrame, events: pl.LazyFrame) -> pl.LazyFrame:
    """How many events of any user were on the hotel in earlier seconds."""
    touches = (
        events.drop_nulls("item_id")
        .sort("timestamp")
        .select("item_id", "timestamp", item_touches=pl.int_range(1, pl.len() + 1).over("item_id"))
    )
    asof = rows.sort("timestamp").join_asof(
        touches,
        on="timestamp",
        by="item_id",
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    return asof.with_columns(pl.col("item_touches").fill_null(0)).sort("request_id", "position")
