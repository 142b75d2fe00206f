"""EB-NeRD (RecSys Challenge 2024): pages of Ekstra Bladet, and what their users read in the weeks before.

impressions   behaviors.parquet of train and validation: a line is a page with the articles in view
reads         history.parquet of both, one row per article read: user_id, article_id, time, read_time,
              scroll_percentage, hours_before
articles      articles.parquet

The owner's histories are fixed: those of a part hold 21 days and end where its week begins, whatever is
clicked in that week. So that pointers strictly before a request find just these events, `time` is when the
weekly history shows an event, and `hours_before` says how much earlier it was:

    part's week    begins B, a full hour
    event at t     time = the first of B, B − 7 days, B − 14 days … that is after t, less one second, in order
                   hours_before = from t to there

An event that both parts' histories hold is one event, of the earlier part; what only the earlier part's
tells, the seven days before the later one's 21, stays in the history of the later part.
"""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from features.errors import DataError
from features.read.locate import FILE
from features.source import RawTable
from features.sources.raw import KEEP_FILE, open_known

_log = logging.getLogger(__name__)
_PARTS = ("train", "validation")
_EVENT = {
    "impression_time_fixed": "at",
    "article_id_fixed": "article_id",
    "read_time_fixed": "read_time",
    "scroll_percentage_fixed": "scroll_percentage",
}
_BEHAVIORS = ["user_id", "impression_time", "article_id", "article_ids_inview", "article_ids_clicked"]
_HOUR, _WEEK, _SECOND = 3_600_000_000, 7 * 86_400_000_000, 1_000_000  # microseconds


def read(root: Path) -> dict[str, pl.LazyFrame]:
    """Read a bundle (demo, small or large) in `root`.

    Returns:
        impressions, reads, articles; the article that a page is about is `page_article`.

    Raises:
        DataError: a file is missing, damaged, lacks a column or has one of another type, a history does not
            end before its week, or a user has several that differ.
    """
    parts = [part for part in _PARTS if (root / part).is_dir()]
    if not parts:
        raise DataError(
            f"{root} must hold the folders {list(_PARTS)} of a bundle of EB-NeRD, but has neither; get "
            "ebnerd_small.zip from its owner (https://recsys.eb.dk), unpack it and give --source DIR"
        )
    tables = {"articles": RawTable(path="articles.parquet")}
    columns = {"articles": ["article_id", "category"]}
    for part in parts:
        tables |= {
            f"{kind} {part}": RawTable(path=f"{part}/{kind}.parquet") for kind in ("behaviors", "history")
        }
        columns |= {f"behaviors {part}": _BEHAVIORS, f"history {part}": ["user_id", *_EVENT]}
    raw = open_known(root, tables, columns)
    behaviors, users = ([raw[f"{kind} {part}"] for part in parts] for kind in ("behaviors", "history"))
    for part, pages, history in zip(parts, behaviors, users, strict=True):
        _check_times(root / part / "behaviors.parquet", pages, "impression_time", pl.Datetime)
        _check_times(root / part / "history.parquet", history, "impression_time_fixed", pl.List(pl.Datetime))
    begins = [_begin(rows) for rows in behaviors]
    once = [_once(root / p / "history.parquet", rows) for p, rows in zip(parts, users, strict=True)]
    histories = [_events(history) for history in once]
    for history, begin in zip(histories, begins, strict=True):
        _check_past(history, begin)
    return {
        "impressions": pl.concat(behaviors, how="diagonal_relaxed").rename({"article_id": "page_article"}),
        "reads": _shown(histories, begins),
        "articles": raw["articles"],
    }


def _check_times(
    file: Path, rows: pl.LazyFrame, column: str, wanted: pl.DataType | type[pl.DataType]
) -> None:
    """Refuse times of another type, such as numbers, whose unit nothing tells."""
    found = rows.collect_schema()[column]
    if found != wanted:
        must = "datetimes" if wanted == pl.Datetime else "lists of datetimes"
        raise DataError(f"{file}: column {column!r} must hold {must}, got {found}; fetch the bundle again")


def _once(file: Path, history: pl.LazyFrame) -> pl.LazyFrame:
    """One row a user: rows that say the same are one, with a warning; others would make up what was read."""
    users = history.select("user_id").collect().to_series()
    if not (several := users.is_duplicated()).any():
        return history
    at = pl.Series("row", range(len(users))).filter(several)
    rows = history.with_row_index("row").filter(pl.col("row").is_in(at.implode())).select("user_id", *_EVENT)
    different = rows.unique().collect()["user_id"]
    if (wrong := different.filter(different.is_duplicated()).unique().sort()).len():
        raise DataError(
            f"{file} must have one row per user, but {wrong.len()} users have several that differ, such as "
            f"{wrong.head(5).to_list()}; fetch the bundle again, or keep one row each"
        )
    again = len(at) - different.len()
    _log.warning("%s: %s rows repeat the whole row of their user; each is read once", file, f"{again:,}")
    return history.unique("user_id", keep="first", maintain_order=True)


def _begin(behaviors: pl.LazyFrame) -> int:
    """The full hour at which the week of a part begins, in microseconds since 1970."""
    first = behaviors.select(pl.col("impression_time").dt.timestamp("us").min()).collect().item()
    return int(first or 0) // _HOUR * _HOUR


def _events(history: pl.LazyFrame) -> pl.LazyFrame:
    """One row per article read, from lists side by side."""
    lengths = history.select(pl.col(c).list.len() for c in _EVENT)
    first, *others = _EVENT
    uneven = pl.any_horizontal(pl.col(c) != pl.col(first) for c in others)
    if (wrong := lengths.with_row_index("row").filter(uneven).head(1).collect()).height:
        file = history.select(FILE).head(1).collect().item()
        raise DataError(
            f"{file}: the lists of a user must have one length, but row {wrong['row'][0]} has "
            f"{wrong.drop('row').row(0, named=True)}; fetch the bundle again"
        )
    events = history.select("user_id", *_EVENT, KEEP_FILE).explode(*_EVENT).rename(dict(_EVENT))
    return events.filter(pl.col("at").is_not_null()).with_columns(pl.col("at").dt.timestamp("us"))


def _check_past(events: pl.LazyFrame, begin: int) -> None:
    """Refuse a history that goes on in the week that it is for."""
    late = events.filter(pl.col("at") >= begin).select(FILE, pl.from_epoch("at", time_unit="us")).collect()
    if late.height:
        week = pl.select(pl.from_epoch(pl.lit(begin), time_unit="us")).item()
        raise DataError(
            f"{late[FILE][0]}: a history must end before its part begins, {week}, but holds {late.height} "
            f"later events, such as at {late['at'][0]}; fetch the bundle again"
        )


def _shown(histories: list[pl.LazyFrame], begins: list[int]) -> pl.LazyFrame:
    """The events of all histories, each once, with the time at which a weekly history shows them."""
    parts: list[pl.LazyFrame] = []
    for history, begin in zip(histories, begins, strict=True):
        for earlier in parts:
            history = history.join(earlier, on=["user_id", "at", "article_id"], how="anti")
        weeks = (begin - 1 - pl.col("at")) // _WEEK
        parts.append(history.with_columns(week=begin - weeks * _WEEK))
    events = pl.concat(parts).sort("user_id", "at", maintain_order=True)
    place = pl.int_range(pl.len()).over("user_id", "week")
    return events.with_columns(
        time=pl.from_epoch(pl.col("week") - _SECOND + place, time_unit="us"),
        hours_before=(pl.col("week") - pl.col("at")) / _HOUR,
    ).drop("at", "week")
