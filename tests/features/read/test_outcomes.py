"""Columns that are known only after the impression are refused as features, and read as history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.errors import ConfigError, DataError
from features.read.needed import needed_columns
from features.spec import parse_spec
from tests.features.small_log import RATINGS_SPEC, SHOP_SPEC, changed, prepared, rating_tables, shop_tables

DWELL = {
    "features__dwell": {"columns": ["dwell"]},
    "tokens__all": ["item", "device", "tags", "price", "dwell"],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {**DWELL, "impressions__outcomes": ["dwell"]},
            "feature 'dwell' reads 'dwell', an outcome by impressions.outcomes, unknown at the request; drop",
        ),
        (
            {**DWELL, "impressions__outcomes": {"stay": {"known_at": "dwell"}}},
            "'dwell', the time when outcome 'stay' is known",
        ),
        (
            {**DWELL, "impressions__label__known_at": "dwell"},
            "feature 'dwell' reads 'dwell', the time when the label is known",
        ),
        (
            {**DWELL, "counters": {"stay": {"by": ["item"], "value": "dwell"}}},
            "reads 'dwell', an outcome, since counter 'stay' adds it up as one, .*impressions.known",
        ),
        (
            {**DWELL, "domains__view__table": "shown", "domains__view__where": {}},
            "feature 'dwell' reads 'dwell', an outcome, since domain 'view' reads it of the same table",
        ),
        (
            {**DWELL, "domains__view__table": "again", "source__tables__again": {"path": "shown.parquet"}},
            "feature 'dwell' reads 'dwell', an outcome, since domain 'view' reads it of the same table",
        ),
        (
            {
                "features__dwell": {"columns": ["ratio"]},
                "source__tables__shown__derive": {"ratio": "dwell / price"},
                "impressions__outcomes": ["dwell"],
                "features__price": None,
            },
            "feature 'dwell' reads 'ratio', derived from 'dwell', an outcome by impressions.outcomes",
        ),
        (
            {
                **DWELL,
                "source__tables__shown__derive": {"long": "dwell / 60 > 0.5"},
                "impressions__label": {"column": "long"},
            },
            "feature 'dwell' reads 'dwell', an outcome, since 'long' is derived from it, the label column",
        ),
        (
            {"impressions__outcomes": ["tags"], "pages": {"t": {"column": "tags"}}, "features__tags": None},
            "page 't' reads 'tags', an outcome",
        ),
        (
            {"impressions__outcomes": ["device"], "impressions__known": ["device"]},
            "impressions.known names 'device', an outcome by impressions.outcomes; say one of both",
        ),
    ],
)
def test_outcomes_are_refused_with_the_reason(change: dict[str, Any], message: str) -> None:
    spec = changed(SHOP_SPEC, **change)
    spec["features"] = {name: feature for name, feature in spec["features"].items() if feature is not None}
    spec["tokens"] = {"all": list(spec["features"])}
    with pytest.raises(ConfigError, match=message):
        needed_columns(parse_spec(spec))


def test_what_is_known_at_the_request_is_a_feature_although_it_is_counted() -> None:
    known = {"counters": {"paid": {"by": ["user"], "value": "price", "outputs": ["rate"]}}}
    spec = changed(SHOP_SPEC, **known)
    with pytest.raises(ConfigError, match="feature 'price' reads 'price', an outcome"):
        needed_columns(parse_spec(spec))
    assert needed_columns(parse_spec(changed(spec, impressions__known=["price"])))


def test_what_a_label_is_derived_from_may_be_known(tmp_path: Path) -> None:
    """Whether half of an article was read: how long it takes is known, how long it took is not."""
    tables = shop_tables()
    tables["shown"] = tables["shown"].with_columns(took=pl.col("click") * 30.0, takes=pl.lit(40.0))
    spec = changed(
        SHOP_SPEC,
        source__tables__shown__derive={"read": "took / takes"},
        impressions__label={"column": "read", "at_least": 0.5},
        features__takes={"columns": ["takes"]},
        tokens__all=["item", "device", "tags", "price", "takes"],
    )
    with pytest.raises(ConfigError, match=r"'takes', an outcome, since 'read' is derived from it.*known"):
        needed_columns(parse_spec(spec))
    assert prepared(tmp_path, changed(spec, impressions__known=["takes"]), tables).manifest.users
    spec = changed(spec, impressions__known=["takes"], features__takes={"columns": ["took"]})
    with pytest.raises(ConfigError, match="reads 'took', an outcome, since 'read' is derived"):
        needed_columns(parse_spec(spec))


def test_keys_and_context_are_no_outcomes_although_a_domain_reads_them() -> None:
    """The item, the user and the time of the ratings are also side info of the ratings as events."""
    who = {"features__who": {"column": "user_id", "table": "item"}, "tokens__user": ["sex", "age", "who"]}
    assert needed_columns(parse_spec(changed(RATINGS_SPEC, **who)))


def test_patterns_leave_outcomes_out(tmp_path: Path) -> None:
    tables = shop_tables()
    tables["shown"] = tables["shown"].with_columns(price_paid=tables["shown"]["click"] * 3.0)
    spec = changed(SHOP_SPEC, features__price={"columns": ["price*"]})
    assert prepared(tmp_path / "a", spec, tables).manifest.column("price").fields[:2] == [
        "price",
        "price_paid",
    ]
    spec = changed(spec, impressions__outcomes=["price_paid"])
    assert prepared(tmp_path / "b", spec, tables).manifest.column("price").fields == [
        "price",
        "price.missing",
    ]


def test_an_outcome_that_no_table_has_is_named(tmp_path: Path) -> None:
    spec = changed(SHOP_SPEC, impressions__outcomes=["dwel"])
    with pytest.raises(DataError, match=r"must have column 'dwel', which impressions\.outcomes reads"):
        prepared(tmp_path, spec, shop_tables())


def test_an_outcome_is_history(tmp_path: Path) -> None:
    """The mean of earlier ratings may be seen, the rating of the row itself not."""
    spec = changed(
        RATINGS_SPEC,
        impressions__outcomes=["rating"],
        counters__stars={"by": ["user_id"], "value": "rating", "outputs": ["rate"]},
    )
    assert prepared(tmp_path, spec, rating_tables()).manifest.users == 12
