"""Which tables are drawn anew at each epoch, chosen by the impressions that their rows see."""

from __future__ import annotations

from typing import Any

import pytest

from ctr.config import RunConfig, parse_config
from ctr.embedding.restart import FEW, impressions_per_row, restart_of
from features.dataset import SplitInfo, TableInfo
from tests.ctr import batches

IMPRESSIONS = 10_000
TABLES = {
    "item": TableInfo(rows=1_000, encode="vocabulary"),  # 10 impressions a row
    "user": TableInfo(rows=IMPRESSIONS // FEW, encode="vocabulary"),  # as many as are enough
    "price": TableInfo(rows=5_000, encode="quantile"),
    "tag": TableInfo(rows=5_000, encode="hash"),
}


def manifest(**changes: Any) -> Any:
    counts = {"train": IMPRESSIONS, "valid": 90_000, "test": 10}
    splits = {
        name: SplitInfo(requests=1, impressions=rows, positives=1, time_range=None, clock_range=None)
        for name, rows in counts.items()
    }
    return batches.manifest(**{"tables": TABLES, "splits": splits, **changes})


def config(**changes: Any) -> RunConfig:
    return parse_config({"dataset": "d", "run": "r", "train": {"epochs": 2}, **changes})


def test_auto_takes_vocabularies_with_few_training_impressions_a_row() -> None:
    assert impressions_per_row(manifest(), ["train"]) == {"item": 10.0, "user": float(FEW)}
    found = restart_of(config(), manifest())
    assert found.tables == ("item",)
    assert found.reason == (
        "embedding.restart auto: drawn anew at each epoch but the first: "
        f"item (10 training impressions a row); few are below {FEW}"
    )
    assert found.to_json() == {
        "impressions_per_row": {"item": 10.0, "user": float(FEW)},
        "drawn_anew": {"item": 1, "user": 0},
    }


def test_the_rows_that_are_trained_on_count() -> None:
    both = {"epochs": 2, "data": "train+valid"}
    found = restart_of(config(train=both), manifest(tables={**TABLES, "item": TABLES["user"]}))
    assert found.tables == ()
    assert "no table is drawn anew; item has the fewest training impressions a row, 1e+03" in found.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"epochs": 1}},
        {"init": {"run": "other"}},
        {"lora": {"base": "other"}},
        {"embedding": {"pmi_start": {}}},
    ],
    ids=["one epoch", "rows of another run", "adapters", "a start from co-occurrence"],
)
def test_auto_leaves_alone_what_a_new_draw_would_not_help(changes: dict[str, Any]) -> None:
    found = restart_of(config(**changes), manifest())
    assert (found.tables, found.reason, found.to_json()["drawn_anew"]) == ((), "", {})


@pytest.mark.parametrize("named", [[], ["tag"], ["user", "tag"]])
def test_a_list_is_taken_at_its_word(named: list[str]) -> None:
    found = restart_of(config(embedding={"restart": named}, init={"run": "other"}), manifest())
    assert (list(found.tables), found.reason) == (named, "")
