"""Which of several events at one moment is the newest, and in which order numbers are added up: no matter
what comes later, or of other users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.past.keys import stable_order
from features.past.pairs import pair_columns
from features.spec import Pair, parse_spec
from tests.features.small_log import SHOP_SPEC, changed, logged_rows, shop_tables, write_tables

AGGREGATES = ["mean", "max", "sum", "decayed"]
OUTPUTS = [f"{kind}_{how}" for kind in ("rate", "lift", "count", "ppmi") for how in AGGREGATES]


@pytest.mark.parametrize("size", [0, 1, 20, 5000])
@pytest.mark.parametrize("low, high", [(0, 3), (0, 2**61), (-(2**62), 2**62)])
def test_equal_keys_keep_their_order(size: int, low: int, high: int) -> None:
    """Also where key and position do not fit into one number."""
    key = np.random.default_rng(0).integers(low, high, size)
    key[: size // 2] = key[size - size // 2 :]
    assert stable_order(key).tolist() == sorted(range(size), key=lambda i: key[i])


WINDOWS: dict[str, dict[str, Any]] = {"all": {}, "newest": {"last": 3}, "old": {"last": 2, "older": "1h"}}
ALL_TIED: dict[str, Any] = {
    "pairs": {
        name: {"candidate": "item", "domain": "view", "event": "item", "outputs": OUTPUTS, **window}
        for name, window in WINDOWS.items()
    },
    "matches": {"mark": {"domain": "view", "candidate": "marks", "event": "mark", "outputs": ["decayed"]}},
    "features__past": {"columns": ["pair.*", "match.*"]},
    "tokens": {"all": ["item", "device", "tags", "price", "past"]},
    "slices": {"request": "request"},
}


def tied_tables(seed: int) -> dict[str, pl.DataFrame]:
    """The shop's log with ten events of a user at each of a few moments."""
    tables, rng = shop_tables(seed=seed), np.random.default_rng(seed)
    size, marks = 2000, list("abcdef")
    several = [rng.permutation(marks)[:5].tolist() for _ in range(tables["shown"].height)]
    shown = tables["shown"].with_columns(marks=pl.Series(several))
    events = pl.DataFrame(
        {
            "user": [f"u{i}" for i in rng.integers(0, 20, size)],
            "at": 1_700_000_000_000 + rng.integers(0, 10, size) * 10_000_000,
            "item": [f"i{i}" for i in rng.integers(0, 30, size)],
            "kind": ["view"] * size,
            "dwell": rng.exponential(10.0, size),
            "mark": rng.choice(marks, size),
        }
    )
    return {"shown": shown, "events": events}


def computed(root: Path, tables: dict[str, pl.DataFrame], of: pl.DataFrame, kinds: str) -> pl.DataFrame:
    """The computed columns of the requests that are in a table, made from a log of these tables."""
    write_tables(root, tables)
    rows = logged_rows(parse_spec(changed(SHOP_SPEC, **ALL_TIED)), root)
    asked = rows["request"].is_in(of["request"].implode())
    return rows.filter(asked).select("request", "item", f"^({kinds})\\..*$")


def test_what_comes_later_or_of_others_tells_nothing(tmp_path: Path) -> None:
    """Early rows, to the last bit, from the whole log and without later rows and users that had none yet.

    Matches are of one user alone, so for them all other users may go.
    """
    tables = tied_tables(0)
    middle = tables["shown"]["at"].median()
    early = {name: table.filter(pl.col("at") < middle) for name, table in tables.items()}
    met = early["shown"]["user"].implode()
    own = early | {"events": early["events"].filter(pl.col("user").is_in(met))}
    assert early["shown"].height > 50 and early["events"].height > own["events"].height
    whole = computed(tmp_path / "whole", tables, early["shown"], "pair|match")
    for name, log in {"early": early, "own": own}.items():
        assert_frame_equal(
            whole, computed(tmp_path / name, log, early["shown"], "pair|match"), check_exact=True
        )
    for user in ("u1", "u2", "u3"):
        alone = {name: table.filter(pl.col("user") == user) for name, table in early.items()}
        of_user = whole.filter(pl.col("request").is_in(alone["shown"]["request"].implode()))
        found = computed(tmp_path / user, alone, alone["shown"], "match")
        assert_frame_equal(of_user.select(found.columns), found, check_exact=True)


@pytest.mark.parametrize("kind", [str, int])
def test_values_that_come_later_do_not_decide_which_pairs_share_a_count(kind: type) -> None:
    """More pairs are possible than are counted, of the first half of the log and of all of it."""
    rng = np.random.default_rng(0)
    ad, tags = rng.integers(50, 60, 400), rng.integers(50, 70, 400)
    late = np.arange(400) >= 200
    rows = pl.DataFrame(
        {
            "ad": map(kind, np.where(late, rng.integers(0, 100, 400), ad).tolist()),
            "tags": map(kind, np.where(late, rng.integers(0, 100, 400), tags).tolist()),
            "__clock": range(400),
        }
    ).with_columns(__user=0, __time=pl.col("__clock"), __label=pl.col("__clock") % 2)
    pair = Pair(candidate="ad", column="tags", outputs=["count_sum", "rate_sum"], max_pairs=30)
    whole, early = (pair_columns(part, "n", pair, None) for part in (rows, rows.head(200)))
    assert early.counters["pair.n.shared_counts"] > 0
    assert_frame_equal(whole.columns.head(200), early.columns, check_exact=True)
