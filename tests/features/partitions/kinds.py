"""Logs of every kind that partitions prepare in a way of their own: name → spec and raw tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from tests.features.list_log import SPEC as LISTS
from tests.features.list_log import news_of, random_lines, topic_of
from tests.features.read import test_event_labels as event_labels
from tests.features.small_log import RATINGS_SPEC, SHOP_SPEC, Tables, changed, rating_tables, shop_tables

Kind = tuple[dict[str, Any], Tables]
HOUR = 3_600_000  # ms
RATES = ["count", "positives", "rate", "since_last"]


def _told(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """With outcomes that are told up to six hours later, some of them never."""
    told = pl.col("at") + pl.Series(rng.integers(0, 6 * HOUR, table.height))
    return table.with_columns(
        told=pl.when(pl.Series(rng.random(table.height) < 0.8)).then(told),
        bought=pl.Series(rng.integers(0, 2, table.height)),
        spent=pl.Series(rng.exponential(5.0, table.height)),
    )


def purchases() -> Kind:
    """Labels that are known later, with an hour at the end for which they are not mature."""
    rng, tables = np.random.default_rng(0), shop_tables(80)
    rule = {"known_at": "told", "delay": "3h"}
    labels = {
        "click": {"column": "click"},
        "buy": {"column": "bought", "given": "click", **rule, "mature": "4h"},
        "also": {"column": "click", **rule, "late": "importance", "weight": {"positives": 2}},
        "spent": {"column": "spent", "kind": "regression", "scale": "quantile"},
    }
    spec = changed(
        SHOP_SPEC,
        counters={
            "bought": {"by": ["item"], "value": "bought", "outputs": RATES},
            "lately": {"by": ["device"], "value": "bought", "outputs": RATES, "window": "5h"},
            "tags": {"by": ["tags"], "value": "spent", "outputs": ["rate"], "window": "9h"},
            "above": {
                "by": ["user"],
                "value": "bought",
                "against": "count.bought.rate",
                "outputs": ["residual"],
            },
        },
        impressions__outcomes={"spent": {"delay": "2h"}},
        features__counts={"columns": ["count.*"], "scale": "standard"},
        tokens__all=[*SHOP_SPEC["tokens"]["all"], "counts"],
    )
    del spec["impressions"]["label"]
    spec["impressions"]["labels"] = labels
    told = _told(tables["shown"], rng)
    row = pl.int_range(pl.len())
    shown = told.with_columns(  # the column that is read first is infinite only later
        pl.when(row > 120).then(np.inf).otherwise("spent").alias("spent"),
        pl.when(row < 9).then(np.inf).otherwise("price").alias("price"),
    )
    return spec, {**tables, "shown": shown}


def late_label() -> Kind:
    """A label that is known hours later, in a log that is ordered by more than its time."""
    spec = changed(
        RATINGS_SPEC,
        impressions__label={"column": "rating", "at_least": 4, "delay": "7h"},
        counters={
            "item": {"by": ["movie_id"], "outputs": [*RATES, "since_first"]},
            "above": {
                "by": ["user_id"],
                "value": "rating",
                "against": "count.item.rate",
                "outputs": ["residual"],
            },
            "genre": {"by": ["item.genres"], "separator": "|", "outputs": RATES, "window": "12h"},
        },
        domains__ratings__outcome={"column": "rating", "at_least": 4, "delay": "2h"},
        matches__genre__outputs=["count", "positive_share"],
    )
    return spec, rating_tables(200)


def events() -> Kind:
    """Counters over events, whose outcomes and fields are known later."""
    rng, tables = np.random.default_rng(0), shop_tables()
    rule = {"known_at": "told", "delay": "3h"}
    view = {"outcome": {"column": "bought", **rule}, "known_later": {"dwell": {"delay": "1h"}}}
    spec = changed(
        SHOP_SPEC,
        counters={
            "popular": {"by": ["item"], "over": "view", "outputs": [*RATES, "since_first"]},
            "lately": {
                "by": ["item"],
                "over": "view",
                "value": "dwell",
                "outputs": [*RATES, "since_first"],
                "window": "4h",
            },
            "own": {"by": ["user", "item"], "event": ["user", "item"], "over": "cart", "outputs": ["count"]},
            "slow": {"by": ["price"], "event": ["dwell"], "over": "view", "outputs": ["count", "rate"]},
        },
        matches={
            "item": {
                "domain": "view",
                "candidate": "item",
                "event": "item",
                "outputs": ["count", "positive_share"],
            }
        },
        features__counts={"columns": ["count.*", "match.*"], "scale": "quantile"},
        tokens__all=[*SHOP_SPEC["tokens"]["all"], "counts"],
    )
    spec["domains"]["view"] |= view
    whole = tables["events"].with_columns(pl.col("dwell").round(0))
    shown = tables["shown"].with_columns(pl.col("price").mul(10).round(0))
    return spec, {"shown": shown, "events": _told(whole, rng)}


def _packed() -> Kind:
    """Lines that hold several items, with what was clicked of them."""
    rng, lines = np.random.default_rng(0), 60
    shown = [rng.permutation(300)[: rng.integers(0, 5)].tolist() for _ in range(lines)]
    clicked = [own[: rng.integers(0, 2)] + [999] * int(rng.random() < 0.2) for own in shown]
    table = pl.DataFrame(
        {
            "user": rng.integers(0, 8, lines),
            "at": 1_700_000_000 + rng.integers(0, 20, lines) * 600,
            "device": rng.choice(["phone", "desk"], lines),
            "items": pl.Series(shown, dtype=pl.List(pl.Int64)),
            "clicked": pl.Series(clicked, dtype=pl.List(pl.Int64)),
        }
    )
    spec = changed(
        SHOP_SPEC,
        source={"tables": {"shown": {"path": "shown.parquet"}}},
        impressions={
            "table": "shown", "user": "user", "item": "item", "time": "at", "position": "slot",
            "label": {"column": "label"}, "explode": {"column": "items", "clicked": "clicked"},
        },
        counters={"item": {"by": ["item"], "outputs": RATES}, "slot": {"by": ["slot"]}},
        features={
            "item": {"column": "item", "table": "item"},
            "device": {"column": "device", "table": "device"},
            "counts": {"columns": ["count.*", "slot"]},
        },
        tables={"item": {}, "device": {}},
        domains={},
        tokens={"all": ["item", "device", "counts"]},
        split={"valid": 0.2, "test": 0.2},
    )  # fmt: skip
    return spec, {"shown": table}


def vectors() -> Kind:
    """Dense features that are lists, which only one user has."""
    tables = rating_tables(150)
    numbers = pl.concat_list(pl.col("rating").cast(pl.Float64), pl.col("movie_id") / 7)
    tables["ratings"] = tables["ratings"].with_columns(
        pl.when(pl.col("user_id") == 11).then(numbers).alias("mood"),
        pl.when(pl.col("user_id") == 12).then(pl.concat_list("movie_id", "rating", "rating")).alias("trace"),
    )
    tables["users"] = tables["users"].with_columns(
        pl.when(pl.col("user_id") == 3).then(pl.concat_list(pl.lit(1.5), pl.lit(2.5))).alias("place")
    )
    spec = changed(
        RATINGS_SPEC,
        impressions__known=["mood"],
        features__mood={"columns": ["mood", "user.place"], "scale": "standard"},
        domains__ratings__side__trace={"columns": ["trace"], "scale": "quantile"},
        tokens__mood=["mood"],
    )
    return spec, tables


def histories() -> Kind:
    """Packed lines that bring what their user did before, as texts; some of it twice."""
    spec, tables = _packed()
    rng, table, done = np.random.default_rng(1), tables["shown"].sort("at"), dict[int, list[int]]()
    texts = []
    for user in table["user"]:
        own = done.setdefault(user, [])
        own += rng.integers(0, 40, rng.integers(0, 3)).tolist()
        texts.append(None if rng.random() < 0.1 else " ".join(f"{n}" for n in reversed(own[-6:])))
    table = table.with_columns(history=pl.Series(texts, dtype=pl.String))
    spec = changed(
        spec,
        domains={
            "read": {
                "item": "item",
                "max_len": 4,
                "from_list": {"column": "history", "separator": " ", "order": "newest_first"},
                "side": {"item": {"column": "item", "table": "item"}},
            }
        },
        matches={
            "item": {"domain": "read", "candidate": "item", "event": "item", "outputs": ["count", "last"]}
        },
        features__match={"columns": ["match.*"]},
        tokens__match=["match"],
    )
    return spec, {"shown": table}


def pages() -> Kind:
    """Requests of several rows, each with the list of what its user had read."""
    rows = [
        {**one, "news": news, "clicked": (one["page"] + slot) % 2, "history": one["history"]}
        for one in random_lines(3)
        for slot, news in enumerate(news_of(one["page"]))
    ]
    shown = pl.DataFrame(rows, schema_overrides={"history": pl.List(pl.String)})
    news = [f"n{n}" for n in range(8)]
    topics = pl.DataFrame({"news": news, "topic": [topic_of(n) for n in news]})
    spec = changed(LISTS, impressions__dedup="keep_first")
    return spec, {"shown": pl.concat([shown, shown[::9]]), "news": topics}


def later_events() -> Kind:
    """A label made of what the user does later, where another label is 1, in a log with an order."""
    labels = {"touched": {**event_labels.spec()["impressions"]["labels"]["touched"], "given": "click"}}
    spec = event_labels.spec(order=["step"])
    spec["impressions"]["labels"] |= labels
    return spec, event_labels.tables()


KINDS: dict[str, Callable[[], Kind]] = {
    kind.__name__: kind for kind in (purchases, late_label, later_events, events, histories, pages, vectors)
}
