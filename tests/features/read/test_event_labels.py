"""Labels made of later events, against loops over all rows and events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.doctor import examine
from features.errors import ConfigError, DataError
from features.prepare import check
from features.read.known_clock import TARGET
from features.read.targets import YOUNG
from features.spec import parse_spec
from tests.features.small_log import Tables, changed, logged_rows, prepared, write_tables

BEGIN, WITHIN = 1_700_000_000, 60
KINDS = ["look", "save"]


def spec(**paths: Any) -> dict[str, Any]:
    shown = {"table": "shown", "user": "user", "item": "item", "time": "at", "request": "request"}
    later = {"domain": "act", "within": "60s", "where": {"kind": KINDS}}
    side = {"item": {"column": "item", "table": "item"}}
    domain = {"table": "acts", "user": "user", "item": "item", "time": "at", "side": side}
    plain = {
        "name": "later",
        "source": {"tables": {name: {"path": f"{name}.parquet"} for name in ("shown", "acts")}},
        "impressions": {
            **shown,
            "labels": {"click": {"column": "click"}, "touched": {"from_events": later}},
        },
        "tables": {"item": {}},
        "features": {"item": {"column": "item", "table": "item"}},
        "domains": {"act": domain},
        "tokens": {"all": ["item"]},
        "slices": {"row": "row"},
    }
    return changed(plain, **paths)


def tables(unit: int = 1, seed: int = 0) -> Tables:
    """Pages of three items over ten minutes, in units of 1 / `unit` s, and actions in whole seconds."""
    random, pages = np.random.default_rng(seed), 120
    at = np.sort(random.integers(0, 600 * unit, pages))
    shown = pl.DataFrame(
        {
            "row": range(3 * pages),
            "request": np.repeat(np.arange(pages), 3),
            "user": np.repeat(random.integers(0, 6, pages), 3),
            "item": random.permuted(np.tile(np.arange(5), (pages, 1)), axis=1)[:, :3].ravel(),
            "at": np.repeat(BEGIN * unit + at, 3),
            "step": np.repeat(random.integers(0, 3, pages), 3),
            "click": random.integers(0, 2, 3 * pages),
        }
    )
    actions = 400
    acts = pl.DataFrame(
        {
            "user": random.integers(0, 7, actions),
            "item": pl.Series(random.integers(0, 6, actions)).set(
                pl.Series(random.random(actions) < 0.1), None
            ),
            "at": BEGIN + random.integers(0, 600, actions),
            "step": random.integers(0, 3, actions),
            "kind": random.choice([*KINDS, "buy"], actions),
        }
    )
    return {"shown": shown, "acts": acts}


def by_loops(found: Tables, *, tick: float, event_tick: float, ordered: bool) -> list[int | None]:
    """The label of every row in the order of the log: begin and end of each logged time, spelt out."""
    scale = 1 if tick == 1 else 1000
    acts = found["acts"].to_dicts()
    newest = max(a["at"] // event_tick * event_tick for a in acts)
    labels: list[int | None] = []
    for row in found["shown"].to_dicts():
        begins = row["at"] / scale
        over = begins + tick
        if over + WITHIN > newest:
            labels.append(None)
            continue
        label = 0
        for act in acts:
            same = (act["user"], act["item"]) == (row["user"], row["item"]) and act["kind"] in KINDS
            start = act["at"] // event_tick * event_tick
            after = (start, act["step"]) > (begins, row["step"]) if ordered else start >= over
            label = max(label, int(same and after and start + event_tick <= over + WITHIN))
        labels.append(label)
    return labels


@pytest.mark.parametrize(
    ("tick", "event_tick", "ordered"),
    [(1, 1, False), (1, 1, True), (0.001, 1, False), (1, 5, False)],
    ids=["seconds", "order", "rows in ms", "events in 5 s"],
)
def test_labels_of_later_events_by_loops(tmp_path: Path, tick: float, event_tick: int, ordered: bool) -> None:
    found = tables(unit=1 if tick == 1 else 1000)
    found["acts"] = found["acts"].with_columns(pl.col("at") // event_tick * event_tick)
    own = spec(order=["step"] if ordered else [], domains__act__tick=event_tick)
    write_tables(tmp_path, found)
    rows = logged_rows(parse_spec(own), tmp_path).sort("row")
    expected = by_loops(found, tick=tick, event_tick=event_tick, ordered=ordered)
    assert rows[TARGET + "touched"].to_list() == expected
    assert min(expected.count(value) for value in (0, 1, None)) > 20
    assert rows[YOUNG + "touched"].to_list() == [label is None for label in expected]


def test_a_data_set_knows_such_labels(tmp_path: Path) -> None:
    later = {"from_events": {"domain": "act", "within": "60s"}, "given": "click", "weight": {"positives": 2}}
    found = tables()
    data = prepared(tmp_path, spec(impressions__labels__touched=later), found)
    rows = pl.concat(pl.DataFrame(data.split(name).impressions) for name in data.manifest.splits)
    target = rows["target.touched"]
    assert (target.is_null() | (rows["label"] == 1)).all() and {*target} == {0, 1, None}
    assert {*rows.filter(target == 1)["target_weight.touched"]} == {2}
    assert sum(s.tasks["touched"].young for s in data.manifest.splits.values()) > 0
    assert data.manifest.counters["labels.touched.without_click"] > 0
    (info,) = (task for task in data.manifest.tasks if task.name == "touched")
    assert info.mature == WITHIN and info.weighted
    assert "FAIL" not in (text := examine(data.root).text()) and "labels are younger than" in text


def test_what_such_a_label_cannot_be_made_of_is_refused(tmp_path: Path) -> None:
    write_tables(tmp_path, tables())
    own = {"domain": "act", "within": "60s"}
    labels = {"click": {"column": "click"}}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"impressions__labels": {"t": {"from_events": own}}}, "first label must be binary.*from_events"),
        ({"impressions__labels": {**labels, "t": {}}}, "from a column or from_events"),
        ({"impressions__labels__touched__mature": "1d"}, r"known after `within`; drop \['mature'\]"),
        ({"impressions__labels__touched__from_events__domain": "gone"}, "reads domain 'gone'"),
        ({"impressions__labels__b": {"column": "b", "given": "touched"}}, "cannot be given 'touched'"),
        ({"domains__act__item": None}, "'act' has no item"),
        (
            {"domains__act__known_later": {"kind": {"delay": "1d"}}},
            r"reads \['kind'\], which are known later",
        ),
        ({"impressions__labels__touched__from_events__where": {"item": ["x"]}}, "never holds 'x'"),
    ]
    for paths, told in wrong:
        with pytest.raises((ConfigError, DataError), match=told):
            check(parse_spec(spec(**paths)), base=tmp_path)
    with pytest.raises(DataError, match="with an order, from_events needs times of one tick"):
        logged_rows(parse_spec(spec(order=["step"], domains__act__tick=5)), tmp_path)
