"""`ctr prepare` with several labels: where they exist, when they are mature, what their rows weigh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.dataset import SPLITS, Dataset, TargetScale, TaskInfo
from features.doctor import examine
from features.errors import ConfigError, DataError
from features.partitions.workers import Resources
from features.prepare import check, prepare
from features.spec import parse_spec
from tests.features.small_log import SHOP_SPEC, Tables, changed, prepared, shop_tables, write_tables

HOUR = 3_600
CLICK = {"column": "click"}
BUY = {"column": "bought", "given": "click", "mature": "4h", "weight": "price"}
LATE = {"column": "bought", "known_at": "bought_at", "delay": "14d", "late": "importance"}
SECONDS = {"column": "watched", "kind": "regression", "scale": "log"}


def tables(seed: int = 0) -> Tables:
    """The shop, with purchases of some clicked rows, seconds watched of some, and a price of all."""
    found, random = shop_tables(seed=seed), np.random.default_rng(seed)
    shown = found["shown"]
    rows = shown.height
    bought = pl.when((pl.col("click") == 1) & (pl.lit(random.random(rows)) < 0.8)).then(
        pl.lit(random.integers(0, 2, rows))
    )
    watched = pl.when(pl.lit(random.random(rows)) < 0.5).then(pl.lit(random.exponential(30, rows)))
    found["shown"] = shown.with_columns(
        bought=bought, watched=watched, price=pl.lit(random.integers(1, 9, rows).astype(np.float64))
    )
    return found


def spec(**labels: Any) -> dict[str, Any]:
    copy = changed(SHOP_SPEC)
    del copy["impressions"]["label"]
    return changed(copy, impressions__labels=labels, slices={"request": "request", "item": "item"})


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    """All prepared rows, with the request and item as text."""
    return [row for name in SPLITS for row in dataset.split(name).impressions.to_pylist()]


def log_of(found: Tables) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["request"], r["item"]): r for r in found["shown"].to_dicts()}


def test_labels_by_the_words_of_the_spec(tmp_path: Path) -> None:
    found = tables()
    data = prepared(tmp_path, spec(click=CLICK, buy=BUY, seconds=SECONDS), found)
    log, end = log_of(found), found["shown"]["at"].max() // 1000  # type: ignore[operator]
    young = 0
    for row in rows_of(data):
        raw = log[row["slice.request"], row["slice.item"]]
        assert row["label"] == row["target.click"] == raw["click"]
        exists = raw["click"] == 1 and raw["bought"] is not None
        mature = raw["at"] // 1000 <= end - 4 * HOUR
        assert row["target.buy"] == (raw["bought"] if exists and mature else None)
        assert row["target_weight.buy"] == (raw["price"] if exists else 0)
        assert row["target.seconds"] == (None if raw["watched"] is None else np.float32(raw["watched"]))
        young += exists and not mature
    counts = [split.tasks for split in data.manifest.splits.values()]
    assert sum(c["buy"].young for c in counts) == young > 0
    targets = [row["target.buy"] for row in rows_of(data)]
    assert sum(c["buy"].known for c in counts) == len(targets) - targets.count(None)
    assert sum(c["buy"].positives or 0 for c in counts) == targets.count(1.0) > 0
    assert data.manifest.tasks == [
        TaskInfo(name="click"),
        TaskInfo(name="buy", given="click", weighted=True, mature=4 * HOUR),
        TaskInfo(name="seconds", kind="regression", scale=TargetScale(kind="log")),
    ]


def test_one_label_is_written_as_ever(tmp_path: Path) -> None:
    one = prepared(tmp_path, SHOP_SPEC, shop_tables(), out="one")
    same = changed(SHOP_SPEC, impressions__labels={"label": {"column": "click"}})
    del same["impressions"]["label"]
    again = prepared(tmp_path, same, shop_tables(), out="same").manifest.files
    assert again.keys() == one.manifest.files.keys()
    assert {n for n in again if again[n] != one.manifest.files[n]} == {"spec.yaml"}
    assert not any(name.startswith("target") for name in one.split("train").impressions.column_names)
    assert "tasks" not in one.manifest.model_dump() and "labels" not in (one.root / "spec.yaml").read_text()
    assert all("tasks" not in split for split in one.manifest.model_dump()["splits"].values())


def test_a_single_label_may_be_mature_and_weighted(tmp_path: Path) -> None:
    label = {"column": "click", "mature": "4h", "weight": {"positives": 3}}
    data = prepared(tmp_path, changed(SHOP_SPEC, impressions__label=label), shop_tables())
    rows = rows_of(data)
    assert {row["target_weight.label"] for row in rows if row["label"]} == {3}
    assert {row["target_weight.label"] for row in rows if not row["label"]} == {1}
    assert {row["target.label"] for row in rows} == {0, 1, None}
    assert all(row["target.label"] in (row["label"], None) for row in rows)


def test_the_written_spec_is_read_again(tmp_path: Path) -> None:
    data = prepared(tmp_path, spec(click=CLICK, buy=BUY), tables())
    assert "FAIL" not in (text := examine(data.root).text())
    assert "buy" in text and "labels are younger than 0.16" in text


def test_weights_are_scaled_and_bounded(tmp_path: Path) -> None:
    weight = {"column": "price", "scale": "log", "at_most": 1.5, "positives": 2}
    found = tables()
    data = prepared(tmp_path, spec(click={**CLICK, "weight": weight}), found)
    log = log_of(found)
    for row in rows_of(data):
        raw = log[row["slice.request"], row["slice.item"]]
        expected = min(np.log1p(raw["price"]), 1.5) * (2 if raw["click"] else 1)
        assert row["target_weight.click"] == pytest.approx(expected, rel=1e-6)


def test_quantiles_are_those_of_the_train_part(tmp_path: Path) -> None:
    data = prepared(tmp_path, spec(click=CLICK, seconds={**SECONDS, "scale": "quantile"}), tables())
    scale = data.manifest.tasks[1].scale
    values = data.split("train").impressions["target.seconds"].drop_null().to_numpy()
    assert scale is not None and scale.quantiles[0] == values.min() and scale.quantiles[-1] == values.max()
    shares = scale.forward(values.astype(np.float64))
    assert np.quantile(shares, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
    assert scale.inverse(shares) == pytest.approx(values)


def test_the_doctor_names_labels_that_may_still_change(tmp_path: Path) -> None:
    late = {"column": "click", "delay": "4h"}
    for label, status in ((late, "warn"), ({**late, "mature": "4h"}, "pass")):
        diagnosis = examine(prepared(tmp_path, spec(click=label), tables(), out=status).root)
        (found,) = [c for c in diagnosis.checks if c.name == "labels are fixed when the log ends"]
        assert found.status == status and ("set mature: 0.16" in found.detail) == (status == "warn")


@pytest.mark.parametrize("parts", [2, 3])
def test_partitions_have_the_same_bytes(tmp_path: Path, parts: int) -> None:
    own = parse_spec(spec(click=CLICK, buy={**BUY, "mature": None}, seconds=SECONDS))
    write_tables(tmp_path / "raw", tables())
    whole = prepare(own, tmp_path / "whole", base=tmp_path / "raw")
    steps: list[str] = []
    cut = prepare(
        own,
        tmp_path / "cut",
        base=tmp_path / "raw",
        resources=Resources(partitions=parts),
        progress=steps.append,
    )
    assert f"{parts} partitions" in " ".join(steps) and cut.files == whole.files and cut == whole


def test_late_labels_weigh_what_will_have_come(tmp_path: Path) -> None:
    """Delays are exponential: the law is found from what the log could see of them, and the rate with it."""
    random, rows, day = np.random.default_rng(0), 6000, 86_400_000
    at = 1_700_000_000_000 + np.sort(random.integers(0, 14 * day, rows))
    told = at + (random.exponential(1.5 * day, rows)).astype(np.int64) + 1
    buys = (random.random(rows) < 0.2) & (told < at.max())
    shown = pl.DataFrame(
        {"request": np.arange(rows), "user": np.arange(rows) % 500, "item": 1, "at": at, "click": 1}
    )
    shown = shown.with_columns(
        bought=pl.Series(buys).cast(pl.Int8), bought_at=pl.Series(told).set(pl.Series(~buys), None)
    )
    own = spec(click=CLICK, buy={**LATE, "mature": "12h"})
    own = changed(
        own, tables={"item": {}}, features={"item": {"column": "item", "table": "item"}}, domains={}
    )
    own = changed(own, tokens={"all": ["item"]}, impressions__context=[], slices={})
    del own["impressions"]["position"]
    data = prepared(tmp_path, own, {"shown": shown, "events": shop_tables()["events"]})
    columns = [data.split(name).impressions for name in SPLITS]
    label = np.concatenate([c["target.buy"].to_numpy() for c in columns])
    weight = np.concatenate([c["target_weight.buy"].to_numpy() for c in columns])
    age, known = (at.max() - at) / day, ~np.isnan(label)
    for low, high in ((0.5, 2), (2, 5), (5, 14)):
        own_rows = known & (age >= low) & (age < high)
        expected = 1 / (1 - np.exp(-age[own_rows & (label == 1)] / 1.5))
        assert weight[own_rows & (label == 1)] == pytest.approx(expected, rel=0.15)
        rate = np.average(label[own_rows], weights=weight[own_rows])
        assert rate == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / own_rows.sum()))
    assert (weight[~known] == 0).all() and label[known].mean() < 0.18


WRONG_SPECS = [
    ({"click": CLICK, "buy": {**BUY, "late": "importance"}}, "late needs a binary label with known_at"),
    ({"click": {"column": "click", "given": "buy"}}, "first label must be binary and exist in every row"),
    ({"seconds": SECONDS}, "first label must be binary"),
    ({"click": CLICK, "buy": {**BUY, "given": "seconds"}}, r"above it, \['click'\], got 'seconds'"),
    ({"click": CLICK, "s": SECONDS, "buy": {**BUY, "given": "s"}}, r"above it, \['click'\], got 's'"),
    ({"click": CLICK, "buy": {**BUY, "scale": "log"}}, "scale is for kind: regression, got 'log'"),
    ({"click": CLICK, "s": {**SECONDS, "at_least": 3}}, "drop at_least and equals"),
    (
        {"click": CLICK, "s": {**SECONDS, "weight": {"positives": 2}}},
        "positives and negatives are for binary",
    ),
    ({"click": CLICK, "buy.late": BUY}, "letters, digits and _, got 'buy.late'"),
    ({"click": CLICK, "buy": {**BUY, "weight": {"at_most": 0}}}, "greater than 0"),
]


@pytest.mark.parametrize(("labels", "told"), WRONG_SPECS, ids=lambda v: v[:20] if isinstance(v, str) else "")
def test_labels_that_do_not_fit_are_refused(labels: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_spec(spec(**labels))


def test_both_ways_to_say_a_label_are_refused() -> None:
    with pytest.raises(ConfigError, match="give label or labels, not both"):
        parse_spec(changed(spec(click=CLICK), impressions__label={"column": "other"}))


def wrong_row(column: str, value: float) -> Tables:
    found = tables()
    values = found["shown"][column].to_list()
    values[7] = value
    found["shown"] = found["shown"].with_columns(pl.Series(column, values, strict=False), click=pl.lit(1))
    return found


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("bought", 2, r"label 'buy': label 'bought' must be 0 or 1, but 1 rows \(rows 7"),
        (
            "watched",
            -1.0,
            r"must be finite and at least 0 for scale: log, but 1 rows \(rows 7.*\[-1",
        ),
        ("price", -2.0, r"weight of label 'buy', 'price', must be a finite number ≥ 0, but 1 rows \(rows 7"),
    ],
)
def test_values_that_no_rule_can_use_are_located(
    tmp_path: Path, column: str, value: float, told: str
) -> None:
    found = wrong_row(column, value)
    if column == "price":
        found["shown"] = found["shown"].with_columns(bought=pl.lit(1))
    with pytest.raises(DataError, match=told):
        prepared(tmp_path, spec(click=CLICK, buy=BUY, seconds=SECONDS), found)


def test_a_purchase_without_a_click_is_counted(tmp_path: Path) -> None:
    found = tables()
    found["shown"] = found["shown"].with_columns(bought=pl.lit(1))
    data = prepared(tmp_path, spec(click=CLICK, buy=BUY), found)
    without = int((found["shown"]["click"] == 0).sum())
    assert data.manifest.counters["labels.buy.without_click"] == without > 0


def test_no_label_is_a_feature_of_its_own_row() -> None:
    reads = changed(spec(click=CLICK, buy=BUY), features__price={"columns": ["bought"]})
    with pytest.raises(
        ConfigError, match="reads 'bought', the column of label 'buy', unknown at the request"
    ):
        from features.read.needed import needed_columns

        needed_columns(parse_spec(reads))


def test_a_dry_run_tells_columns_that_are_missing_or_of_the_wrong_type(tmp_path: Path) -> None:
    write_tables(tmp_path, tables())
    with pytest.raises(DataError, match="label 'seconds': column 'request' must hold numbers, got String"):
        check(parse_spec(spec(click=CLICK, seconds={**SECONDS, "column": "request"})), base=tmp_path)
    with pytest.raises((ConfigError, DataError), match="gone"):
        check(parse_spec(spec(click=CLICK, buy={**BUY, "weight": "gone"})), base=tmp_path)
