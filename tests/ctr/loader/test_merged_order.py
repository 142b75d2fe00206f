"""Domains merged into one sequence keep the data set's clock: milliseconds apart, years ago, and ties."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl

from ctr.blocks.jagged import Jagged
from ctr.config import LoaderConfig
from ctr.loader import Loader
from ctr.tokens.events import MergedOrder
from features.dataset import SPLITS
from tests.features.small_log import SHOP_SPEC, changed, prepared, shop_tables

THREE_YEARS = 3 * 365 * 86_400_000  # in ms
SIDE = {"number": {"columns": ["number"], "scale": "none"}}
DOMAINS = ("view", "cart")


def test_a_log_of_three_years_in_milliseconds(tmp_path: Path) -> None:
    tables, rng = shop_tables(), np.random.default_rng(3)
    events = tables["events"]
    old = events["at"].min() - THREE_YEARS + rng.integers(0, 40, events.height)  # type: ignore[operator]
    tables["events"] = events.with_columns(at=pl.Series(old), number=pl.int_range(pl.len()).cast(pl.Float64))
    sides = {f"domains__{name}__side": SIDE for name in DOMAINS}
    data = prepared(tmp_path, changed(SHOP_SPEC, time_range="any", **sides), tables)
    at = dict(enumerate(tables["events"]["at"].to_list()))
    by_user: dict[int, list[tuple[int, int, int, float]]] = defaultdict(list)
    for d, store in enumerate(data.events(name) for name in DOMAINS):
        for place, (user, number) in enumerate(zip(store.user_id, store.dense["number"][:, 0], strict=True)):
            by_user[int(user)].append((at[int(number)], d, place, float(number)))
    seen = ties = 0
    for split in SPLITS:
        for batch in Loader(data, split, LoaderConfig(batch_rows=16, window=50), seed=1).iterate(0):
            parts = [batch.sequences[name] for name in DOMAINS]
            order = MergedOrder([Jagged(p.clock_gap, p.offsets, p.max_length) for p in parts])
            numbers = [Jagged(p.dense["number"][:, 0], p.offsets, p.max_length) for p in parts]
            merged = order.merge(numbers).check()
            for own, user in zip(
                merged.values.split(merged.lengths.tolist()), batch.user_id.tolist(), strict=True
            ):
                wanted = sorted(by_user[user])
                assert own.tolist() == [number for *_, number in wanted]
                seen += len(wanted)
                ties += len(wanted) - len({moment for moment, *_ in wanted})
    assert seen > 1000 and ties > 100
