"""A log whose histories are lists in the impressions: what each user had read, as far as the log tells it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from features.dataset import SPLITS, Dataset
from features.prepare import check, prepare
from features.spec import parse_spec

SPEC: dict[str, Any] = {
    "name": "lists",
    "source": {"tables": {"shown": {"path": "shown.parquet"}, "news": {"path": "news.parquet"}}},
    "impressions": {
        "table": "shown", "user": "user", "item": "news", "time": "at", "request": "page",
        "label": {"column": "clicked"},
    },
    "item": {"table": "news", "key": "news"},
    "tables": {"news": {}, "topic": {}},
    "features": {
        "news": {"column": "news", "table": "news"},
        "topic": {"column": "item.topic", "table": "topic", "separator": "|"},
        "fit": {"columns": ["match.*"]},
    },
    "domains": {"read": {
        "item": "news", "max_len": 4, "from_list": {"column": "history", "order": "oldest_first"},
        "side": {
            "news": {"column": "news", "table": "news"},
            "topic": {"column": "item.topic", "table": "topic", "separator": "|"},
        },
    }},
    "matches": {"topic": {
        "domain": "read", "candidate": "item.topic", "event": "item.topic", "separator": "|",
        "outputs": ["count", "last", "share"],
    }},
    "tokens": {"news": ["news", "topic"], "fit": ["fit"]},
    "split": {"valid": 0, "test": 0},
}  # fmt: skip

Line = dict[str, Any]  # page, user, at, and history: a list, a text or nothing


def domain(**keys: Any) -> dict[str, Any]:
    """The spec with other keys in its domain."""
    return SPEC | {"domains": {"read": SPEC["domains"]["read"] | keys}}


def from_list(**keys: Any) -> dict[str, Any]:
    """The spec with other keys under `from_list`."""
    return domain(from_list=SPEC["domains"]["read"]["from_list"] | keys)


def line(page: int, user: str, history: list[str] | None) -> Line:
    """A page with two news; pages are numbered in order of time."""
    return {"page": page, "user": user, "at": 1_600_000_000 + 60 * page, "history": history}


def random_lines(seed: int, pages: int = 60, cap: int = 6) -> list[Line]:
    """Lists that repeat, grow, lose old values at `cap`, are empty or missing, and sometimes contradict."""
    draw, lines = random.Random(seed), []
    read: dict[str, list[str]] = {f"u{n}": [] for n in range(4)}
    for page in range(pages):
        user, kind = draw.choice(sorted(read)), draw.random()
        read[user] += [f"n{draw.randrange(8)}" for _ in range(draw.choice([0, 0, 1, 2]))]
        if kind < 0.1:
            draw.shuffle(read[user])
        shown: list[str] | None = read[user][-cap:]
        if kind > 0.85:
            shown = draw.choice([None, []])
        lines.append(line(page, user, shown))
    return lines


def news_of(page: int) -> list[str]:
    """What a page shows."""
    return [f"n{page % 8}", f"n{(page + 3) % 8}"]


def topic_of(news: str) -> str | None:
    """The topics of a news; one of them has none, another several."""
    return {"n7": None, "n6": "t0|t1"}.get(news, f"t{int(news[1:]) % 3}")


def write_log(folder: Path, lines: list[Line]) -> None:
    """Both tables, with a row per news shown."""
    rows = [
        {**one, "news": news, "clicked": (one["page"] + slot) % 2}
        for one in lines
        for slot, news in enumerate(news_of(one["page"]))
    ]
    texts = any(isinstance(one["history"], str) for one in lines)
    history = pl.String() if texts else pl.List(pl.String)
    pl.DataFrame(rows, schema_overrides={"history": history}).write_parquet(folder / "shown.parquet")
    news = [f"n{n}" for n in range(8)]
    topics = {"news": news, "topic": [topic_of(n) for n in news]}
    pl.DataFrame(topics).write_parquet(folder / "news.parquet")


def prepared(folder: Path, spec: dict[str, Any], lines: list[Line]) -> Dataset:
    """The data set of a log, with what `--dry-run` checks."""
    write_log(folder, lines)
    check(parse_spec(spec), base=folder)
    prepare(parse_spec(spec), folder / "out", base=folder, overwrite=True)
    return Dataset(folder / "out")


def histories(data: Dataset) -> list[list[str]]:
    """The raw news in the history of every request, in order of time."""
    book = pq.read_table(data.root / "fitted" / "news.parquet")
    raw = dict(zip(book["id"].to_pylist(), book["value"].to_pylist(), strict=True))
    store, found = data.events("read"), []
    ids, offsets = store.ids["news"].values, store.ids["news"].offsets
    assert offsets is None  # one value per event
    for name in SPLITS:
        requests = data.split(name).requests
        bounds = (requests[f"{part}.read"].to_pylist() for part in ("start", "end"))
        found += [[raw[int(i)] for i in ids[a:b]] for a, b in zip(*bounds, strict=True)]
    return found
