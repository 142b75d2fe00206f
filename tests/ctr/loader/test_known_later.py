"""Fields of events that are known only later: a history shows them as missing until then."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ctr.batch import Batch, IdColumn
from ctr.config import LoaderConfig
from ctr.loader import Loader
from ctr.serving.requests import RequestCollator
from features.dataset import SPLITS, Dataset
from features.doctor import examine
from features.errors import DataError
from tests.features.small_log import SHOP_SPEC, changed, prepared, shop_tables

LATE = ("kind", "tags", "dwell")
RULES = {"told": {"known_at": "told"}, "delay": {"delay": "3h"}}


def spec_of(rule: dict[str, Any] | None) -> dict[str, Any]:
    side = {
        "number": {"columns": ["number"], "scale": "none"},
        "kind": {"column": "kind", "table": "kind"},
        "tags": {"column": "tags", "table": "tag_of_event", "weights": "weights"},
        "dwell": {"columns": ["dwell"], "scale": "none"},
    }
    later = {} if rule is None else {"domains__view__known_later": dict.fromkeys([*LATE, "weights"], rule)}
    hashed = {"encode": "hash", "rows": 40}  # nothing is fitted, so that only what is hidden differs
    tables = {"tables__kind": hashed, "tables__tag_of_event": hashed}
    return changed(SHOP_SPEC, domains__view__side=side, domains__view__where={}, **tables, **later)


def tables_of() -> dict[str, pl.DataFrame]:
    tables = shop_tables()
    events, rng = tables["events"], np.random.default_rng(5)
    lists = [[f"t{i % 3}", f"u{i % 5}"][: i % 3] for i in range(events.height)]
    weights = [[1.0 + j for j in range(len(own))] for own in lists]
    tables["events"] = events.with_columns(
        number=pl.int_range(pl.len()).cast(pl.Float64),
        told=pl.col("at") + rng.integers(0, 6 * 3_600_000, events.height),
        tags=pl.Series(lists, dtype=pl.List(pl.String)),
        weights=pl.Series(weights, dtype=pl.List(pl.Float64)),
    )
    return tables


def batches(data: Dataset, split: str) -> list[Batch]:
    return list(Loader(data, split, LoaderConfig(batch_rows=16, window=50), seed=1).iterate(0))


def bags(column: IdColumn, unique: Any) -> list[list[tuple[int, float]]]:
    """The IDs of every event, with their weights."""
    values = unique[column.inverse_indices].tolist()
    weights = [1.0] * len(values) if column.weights is None else column.weights.tolist()
    ends = list(range(len(values) + 1)) if column.offsets is None else column.offsets.tolist()
    pairs = list(zip(values, weights, strict=True))
    return [pairs[low:high] for low, high in pairwise(ends)]


@pytest.mark.parametrize("name", RULES)
def test_a_field_is_missing_until_it_is_known(tmp_path: Path, name: str) -> None:
    tables = tables_of()
    plain, late = (
        prepared(tmp_path / str(i), spec_of(rule), tables) for i, rule in enumerate((None, RULES[name]))
    )
    assert examine(late.root).healthy
    told = {  # ms; events are logged in whole seconds
        r["number"]: r["at"] + 1000 + 3 * 3_600_000 if name == "delay" else max(r["told"] + 1, r["at"] + 1000)
        for r in tables["events"].to_dicts()
    }
    hidden_of, shown_of = 0, 0
    for split in SPLITS:
        requests = late.split(split).requests
        clock = dict(zip(requests["request_id"].to_pylist(), requests["clock"].to_pylist(), strict=True))
        for one, other in zip(batches(plain, split), batches(late, split), strict=True):
            all_seen, seen = one.sequences["view"], other.sequences["view"]
            assert all_seen.offsets.equal(seen.offsets) and all_seen.time_gap.equal(seen.time_gap)
            at = np.repeat([clock[i] for i in other.request_id.tolist()], np.diff(seen.offsets.numpy()))
            numbers = seen.dense["number"][:, 0].tolist()
            hidden = [told[number] > now for number, now in zip(numbers, at, strict=True)]
            for field, nothing in (("kind", [(0, 1.0)]), ("tags", [])):
                table = {"kind": "kind", "tags": "tag_of_event"}[field]
                before = bags(all_seen.ids[field], one.unique_ids[table])
                after = bags(seen.ids[field], other.unique_ids[table])
                assert after == [nothing if h else own for h, own in zip(hidden, before, strict=True)]
            dwell = all_seen.dense["dwell"][:, 0].tolist()
            wanted = [[0.0, 1.0] if h else [own, 0.0] for h, own in zip(hidden, dwell, strict=True)]
            assert seen.dense["dwell"].tolist() == wanted
            hidden_of, shown_of = hidden_of + sum(hidden), shown_of + hidden.count(False)
    assert hidden_of > 100 and shown_of > 100


def test_a_vocabulary_is_fitted_on_what_was_known_in_training(tmp_path: Path) -> None:
    """A kind that is told after the training part has no row of its own."""
    tables = tables_of()
    valid = tables["shown"]["at"].sort()[int(0.8 * tables["shown"].height)]
    first = pl.int_range(pl.len()) == pl.col("at").arg_min()
    tables["events"] = tables["events"].with_columns(
        kind=pl.when(first).then(pl.lit("early bird")).otherwise("kind"),
        told=pl.when(first).then(valid + 10**7).otherwise("told"),
    )
    for rule, known in ((None, True), (RULES["told"], False)):
        spec = changed(spec_of(rule), tables__kind={})
        data = prepared(tmp_path / str(known), spec, tables)
        values = pl.read_parquet(data.root / "fitted" / "kind.parquet")["value"].to_list()
        assert ("early bird" in values) == known
        assert examine(data.root).healthy


def test_a_run_that_is_served_must_not_read_them(tmp_path: Path) -> None:
    data = prepared(tmp_path, spec_of(RULES["delay"]), tables_of())
    with pytest.raises(DataError, match=r"known later than their events, got \['view.kind', 'view.tags'"):
        RequestCollator(data, max_len={})
    assert RequestCollator(data.without([f"view.{name}" for name in LATE]), max_len={}).max_len
