from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.dataset import SPLITS, Dataset
from features.doctor import examine
from features.errors import ConfigError, DataError
from features.past.history import pointers
from features.prepare import prepare
from features.sources import read_source
from features.sources.history_columns import event_hashes, list_sums
from features.spec import Source, parse_spec
from tests.features.sources.competition_log import COLUMNS, NEEDED, SCHEMA, SPEC, Rows, make_rows, make_spec


def read(root: Path, **options: Any) -> dict[str, pl.DataFrame]:
    source = Source(kind="competition", path=str(root), options={"order": "newest_first", **options})
    return {n: t.collect() for n, t in read_source(source, base=Path("/"), needed=NEEDED).items()}


def lists_of(rows: Rows, domain: str, *, newest_first: bool) -> list[list[tuple[int, ...]]]:
    """The given list of every row, oldest first."""
    columns = [rows.columns[name] for name in COLUMNS[domain]]
    lists = [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]
    return [row[::-1] for row in lists] if newest_first else lists


def stored_lists(events: pl.DataFrame, rows: Rows, domain: str, cap: int) -> list[list[tuple[int, ...]]]:
    """The history of every row, oldest first, through pointers into the store."""
    users, columns = np.array(rows.columns["user_id"]), COLUMNS[domain]
    start, end = pointers(
        events["user_id"].to_numpy(),
        events[columns[0]].to_numpy(),
        at_user=users,
        at_clock=np.array(rows.columns["timestamp"]),
        max_len=cap,
    )
    every = events.select(columns).rows()
    return [every[low:high] for low, high in zip(start, end, strict=True)]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    newest_first=st.booleans(),
    caps=st.none() | st.tuples(st.integers(1, 6), st.integers(1, 6)),
    span=st.sampled_from([6, 60, 900]),
)
def test_the_stored_histories_are_the_given_lists(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    newest_first: bool,
    caps: tuple[int, int] | None,
    span: int,
) -> None:
    cap = {"seq_a": caps[0], "seq_b": caps[1]} if caps else {}
    rows = make_rows(seed, newest_first=newest_first, cap=cap, span=span)
    root = rows.write(tmp_path_factory.mktemp("log"), files=1 + seed % 3)
    tables = read(root, order="newest_first" if newest_first else "oldest_first", cap=cap)
    for domain in ("seq_a", "seq_b"):
        given_lists = lists_of(rows, domain, newest_first=newest_first)
        assert stored_lists(tables[domain], rows, domain, cap.get(domain, 1000)) == given_lists
        # Each event once: as many as the user's lists tell of together.
        told = {(u, e) for u, row in zip(rows.columns["user_id"], given_lists, strict=True) for e in row}
        stored = tables[domain].select("user_id", *COLUMNS[domain]).rows()
        assert {(u, tuple(e)) for u, *e in stored} == told


def test_a_dataset_gives_the_lists_back(tmp_path: Path) -> None:
    rows = make_rows(3, span=900, users=12)
    root = rows.write(tmp_path / "log")
    prepare(make_spec(root), tmp_path / "out", base=tmp_path)
    data = Dataset(tmp_path / "out")
    diagnosis = examine(tmp_path / "out")
    assert diagnosis.healthy, diagnosis.text()
    book = pq.read_table(tmp_path / "out" / "fitted" / "coarse.parquet")
    value = dict(zip(book["id"].to_pylist(), book["value"].to_pylist(), strict=True))
    known = set(value.values())
    for domain in ("seq_a", "seq_b"):
        store, got = data.events(domain), []
        assert store.ids["coarse"].values.dtype == np.uint8  # its table has few rows
        for request in (r for s in SPLITS for r in data.split(s).requests.to_pylist()):
            at = slice(request[f"start.{domain}"], request[f"end.{domain}"])
            pairs = zip(store.time[at], store.ids["coarse"].values[at], strict=True)
            events = sorted((int(time), value.get(int(i), -1)) for time, i in pairs)
            got += [(request["time"], events)] * request["num_rows"]
        lists = lists_of(rows, domain, newest_first=True)
        expected = [sorted((time, v if v in known else -1) for time, v, *_ in row) for row in lists]
        assert sorted(got) == sorted(zip(rows.columns["timestamp"], expected, strict=True))


def test_what_a_short_dense_list_lacks_is_missing(tmp_path: Path) -> None:
    rows = make_rows(1)
    rows.columns["user_dense_feats_61"][:2] = [[0.5], [0.25, -1.0]]
    dense = read(rows.write(tmp_path))["impressions"]["user_dense_feats_61"]
    assert dense.dtype == pl.Array(pl.Float32, 2)
    assert dense.to_list()[:2] == [[0.5, None], [0.25, -1.0]]


def test_columns_that_nobody_reads_are_not_read(tmp_path: Path) -> None:
    root = make_rows(1).write(tmp_path)
    needed = {"seq_a": {"domain_a_seq_40": "the test"}}
    source = Source(kind="competition", path=str(root), options={"order": "newest_first"})
    tables = read_source(source, base=Path("/"), needed=needed)
    assert tables["seq_a"].collect_schema().names() == ["user_id", "domain_a_seq_39", "domain_a_seq_40"]
    assert tables["seq_b"].collect().height == 0


def test_hashes_tell_columns_and_events_apart() -> None:
    one, two = np.array([1, 2, 3]), np.array([2, 1, 3])
    assert (event_hashes([one, two]) != event_hashes([two, one])).tolist() == [True, True, False]
    assert len(set(event_hashes([np.arange(1000), np.arange(1000) * 7]).tolist())) == 1000
    assert list_sums(np.array([1, 2, 4, 8]), np.array([0, 3, 0, 1])).tolist() == [0, 7, 0, 8]


def longest(rows: Rows, column: str) -> int:
    """The row with the longest list, of a user who asks again later."""
    users = rows.columns["user_id"]
    last = {user: i for i, user in enumerate(users)}
    lists = zip(users, rows.columns[column], strict=True)
    lengths = [len(values) if last[user] > i else 0 for i, (user, values) in enumerate(lists)]
    assert max(lengths) >= 2
    return int(np.argmax(lengths))


def change(column: str, do: Callable[[list[int]], list[int | None]]) -> Callable[[Rows], None]:
    def corrupt(rows: Rows) -> None:
        at = longest(rows, column)
        rows.columns[column][at] = do(list(rows.columns[column][at]))

    return corrupt


def drop_event(rows: Rows) -> None:
    """One row of a user lacks its oldest event."""
    at = longest(rows, "domain_a_seq_39")
    for fid in (39, 40, 41):
        rows.columns[f"domain_a_seq_{fid}"][at] = rows.columns[f"domain_a_seq_{fid}"][at][:-1]


TIME, COARSE = "domain_a_seq_39", "domain_a_seq_40"
ROW = r"row \d+ of part-\d\.parquet"
WRONG = {
    "order": (change(TIME, lambda v: [0, *v[1:-1], v[-1] + 1]), f"{ROW}: lists must be newest first"),
    "lengths": (change(COARSE, lambda v: v[:-1]), f"{ROW}: .* must be of one length, but {TIME}"),
    "late": (change(TIME, lambda v: [10_000, *v[1:]]), f"{ROW}: .* strictly before its row.*drop these"),
    "range": (change(COARSE, lambda v: [6, *v[1:]]), rf"{ROW}: .*'{COARSE}' must lie in \[0, 6\).*got 6"),
    "missing": (change(COARSE, lambda v: [None, *v[1:]]), f"{ROW}: a list of '{COARSE}' holds a missing"),
    "values": (change(COARSE, lambda v: [(v[0] + 1) % 6, *v[1:]]), f"{ROW}, domain 'seq_a': .*other values"),
    "fewer": (drop_event, rf"{ROW}, domain 'seq_a': a list must hold all events .* has \d+ events"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_lists_name_the_row_and_the_remedy(tmp_path: Path, kind: str) -> None:
    corrupt, message = WRONG[kind]
    rows = make_rows(3, span=900)
    corrupt(rows)
    with pytest.raises(DataError, match=message):
        read(rows.write(tmp_path))


def test_the_other_order_and_a_cap_that_is_too_small_are_named(tmp_path: Path) -> None:
    root = make_rows(3, newest_first=False, span=900).write(tmp_path)
    with pytest.raises(DataError, match=r"if they are oldest first, set order: oldest_first"):
        read(root)
    with pytest.raises(
        DataError, match=r"cap says that lists of domain 'seq_a' hold at most 2 events, got \d"
    ):
        read(root, order="oldest_first", cap={"seq_a": 2})


def test_a_log_that_is_not_whole_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with its schema\.json, but has none"):
        read(tmp_path)
    root = make_rows(1).write(tmp_path)
    rows = make_rows(1)
    del rows.columns["domain_b_seq_75"]
    rows.write(root)
    with pytest.raises(
        DataError, match=r"part-0\.parquet must have every column .* lacks \['domain_b_seq_75'\]"
    ):
        read(root)
    (root / "part-0.parquet").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"part-0\.parquet cannot be read"):
        read(root)
    for file in root.glob("*.parquet"):
        file.unlink()
    with pytest.raises(DataError, match=r"must hold Parquet files beside its schema\.json"):
        read(root)
    (root / "schema.json").write_text(json.dumps({"seq": {}}))
    with pytest.raises(DataError, match=r"schema\.json must hold user_int"):
        read(root)


def test_wrong_kinds_of_columns_are_named(tmp_path: Path) -> None:
    narrow = deepcopy(SCHEMA)
    narrow["user_dense"] = [[61, 1]]
    with pytest.raises(DataError, match=r"'user_dense_feats_61' must hold at most 1 values"):
        read(make_rows(1).write(tmp_path / "dense", schema=narrow))
    rows = make_rows(1)
    rows.columns["timestamp"][0] = None
    with pytest.raises(DataError, match=r"'timestamp' .* must hold integers, none missing"):
        read(rows.write(tmp_path / "time"))


def test_wrong_options_are_named(tmp_path: Path) -> None:
    root = make_rows(1).write(tmp_path)
    with pytest.raises(ConfigError, match=r"must be \{order: newest_first or oldest_first"):
        read(root, order="sideways")
    with pytest.raises(ConfigError, match=r"cap names domains \['seq_x'\]"):
        read(root, cap={"seq_x": 3})
    wrong = deepcopy(SPEC)
    wrong["source"]["path"] = str(root)
    wrong["domains"]["seq_a"]["side"]["shop"]["column"] = "domain_a_seq_99"
    with pytest.raises(DataError, match=r"table 'seq_a' must have column 'domain_a_seq_99'"):
        prepare(parse_spec(wrong), tmp_path / "out", base=tmp_path)
    assert not (tmp_path / "out").exists()
