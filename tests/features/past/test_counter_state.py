"""The exported state of counters gives any row what `ctr prepare` computes for an impression at its time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.past.counter_files import read_counters, write_counters
from features.past.counter_state import CounterState, counter_state, outputs_of
from features.past.counters import counter_columns
from features.read.known_clock import LABEL, known_column
from features.spec import Counter, parse_spec
from tests.features.small_log import SHOP_SPEC, changed
from tests.features.tables import Row, events, impressions, table, values_of

KEYS = [["item"], ["__user"], ["item.genres"], ["__user", "item.genres"], ["item", "sex"]]
OUTPUTS = ["count", "positives", "rate", "residual", "since_last", "since_first"]


def asked(state: CounterState, row: Row) -> dict[str, float | None]:
    """The outputs for a row by the rule that the documentation gives to services."""
    parts = [sorted(values_of(row[column]), key=str) for column in state.counter.by]
    keys = [(a, b) for a in parts[0] for b in parts[1]] if len(parts) == 2 else [(a,) for a in parts[0]]
    names = [str(i) for i in range(len(parts))]
    mine = pl.DataFrame(keys, schema={n: state.table.schema[n] for n in names}, orient="row")
    found = state.table.join(mine, on=names, how="semi")
    sums = {n: np.array([found[n].sum()]) for n in ("count", "known", "positives", "excess", "compared")}
    times = {"first": np.array([found["first"].min() or 0]), "last": np.array([found["last"].max() or 0])}
    values = outputs_of(state.counter, state.running, sums | times, int(str(row["__time"])))
    seen = bool(keys) and found.height > 0
    present = {"since_last": seen, "since_first": seen}
    return {n: float(v[0]) if present.get(n, bool(keys)) else None for n, v in values.items()}


def compare(rows: pl.DataFrame, plain: list[Row], counter: Counter, past: pl.DataFrame | None) -> None:
    columns = counter_columns(rows, "n", counter, past)
    want = columns.rename(lambda name: name.removeprefix("count.n.")).to_dicts()
    for row, outputs in list(zip(plain, want, strict=True))[:3]:
        clock, time = int(str(row["__clock"])), int(str(row["__time"]))
        state = counter_state(rows if past is None else past, "n", counter, clock=clock, time=time)
        got = asked(state, row)
        assert got.keys() == outputs.keys()
        for name, value in outputs.items():
            assert got[name] == (None if value is None else pytest.approx(value, abs=1e-12)), (name, row)


@settings(deadline=None, max_examples=25)
@given(impressions, st.sampled_from(KEYS), st.sampled_from([None, 1.0, 2.5]))
def test_states_over_impressions(rows: list[Row], by: list[str], window: float | None) -> None:
    counter = Counter(by=by, outputs=OUTPUTS, value="worth", against="hope", prior=3.0, window=window)
    numbers = pl.DataFrame(
        [(0.5 * (i % 3), 0.25 * (i % 4)) for i in range(len(rows))],
        schema={"worth": pl.Float64, "hope": pl.Float64},
        orient="row",
    )
    compare(table(rows).hstack(numbers), rows, counter, None)


@settings(deadline=None, max_examples=20)
@given(impressions, st.sampled_from(KEYS), st.data())
def test_labels_that_are_known_later(rows: list[Row], by: list[str], data: st.DataObject) -> None:
    counter = Counter(by=by, outputs=["count", "positives", "rate"], prior=3.0)
    late = data.draw(st.lists(st.integers(0, 5), min_size=len(rows), max_size=len(rows)))
    known = [int(str(r["__clock"])) + d for r, d in zip(rows, late, strict=True)]
    frame = table(rows).with_columns(pl.Series(known_column(LABEL), known, dtype=pl.Int64))
    compare(frame, rows, counter, None)


@settings(deadline=None, max_examples=20)
@given(impressions, events, st.sampled_from(KEYS), st.sampled_from([None, 1.0]))
def test_states_over_events(rows: list[Row], past: list[Row], by: list[str], window: float | None) -> None:
    outputs = ["count", "positives", "rate", "since_last", "since_first"]
    compare(table(rows), rows, Counter(by=by, outputs=outputs, over="d", window=window), table(past))


def test_the_file_says_what_a_new_key_has_and_reads_back(tmp_path: Path) -> None:
    by = {"by": ["item", "device"], "outputs": ["count", "rate", "since_last"], "prior": 2.0}
    spec = parse_spec(changed(SHOP_SPEC, counters={"pair": by}))
    past = pl.DataFrame({"item": ['=1+1\x1b"', "b", None], "device": [7, 7, 8], "__clock": [0, 1, 1]})
    past = past.with_columns(pl.Series("__label", [1, 0, 1]), pl.col("__clock").alias("__time"))
    for name in ("counters.parquet", "counters.csv"):
        state = counter_state(past, "pair", spec.counters["pair"], clock=5, time=5)
        about = {"moment": 5 * 10**9, "time": 5, "spec_sha256": "a" * 64}
        assert write_counters(tmp_path / name, [("pair", state)], **about) == {"pair": 2}
    rows = pq.read_table(tmp_path / "counters.parquet").to_pylist()
    assert (
        rows
        == pa_csv.read_csv(
            tmp_path / "counters.csv",
            convert_options=pa_csv.ConvertOptions(
                strings_can_be_null=True, column_types=pq.read_schema(tmp_path / "counters.parquet")
            ),
        ).to_pylist()
    )
    new, first, second = rows
    assert new["key"] is None and new["count"] == 0 and new["value.rate"] == state.running == 2 / 3
    assert new["value.since_last"] is None and new["value.positives"] is None
    assert first["key"] == '["=1+1\\u001b\\"",7]' and json.loads(first["key"]) == ['=1+1\x1b"', 7]
    assert (first["count"], first["positives"], first["value.since_last"]) == (1, 1.0, 5)
    assert first["value.rate"] == (1 + 2 * 2 / 3) / 3 and second["value.rate"] == (0 + 2 * 2 / 3) / 3
    assert not set(map(chr, [*range(9), *range(11, 32), 127])) & set((tmp_path / "counters.csv").read_text())
    found = read_counters(tmp_path / "counters.parquet", spec, spec_sha256="a" * 64)
    book = found.books["pair"]
    at = book.find(['["b",7]', '["b",8]', first["key"]])
    assert at[1] == -1 and book.numbers["positives"][at[[0, 2]]].tolist() == [0.0, 1.0]
    assert found.moment == 5 * 10**9 and book.running == 2 / 3
    with pytest.raises(DataError, match="must hold the counters of this data set's spec"):
        read_counters(tmp_path / "counters.parquet", spec, spec_sha256="b" * 64)
    plain = pq.read_table(tmp_path / "counters.parquet").replace_schema_metadata(None)
    pq.write_table(plain, tmp_path / "x.parquet")
    wrong = {"x.parquet": "a file of ctr counters", "counters.csv": "a Parquet file", "no": "a Parquet file"}
    for name, says in wrong.items():
        with pytest.raises(DataError, match=says):
            read_counters(tmp_path / name, spec, spec_sha256="a" * 64)
    with pytest.raises(ConfigError, match=r"must end in \.parquet or \.csv"):
        write_counters(tmp_path / "counters.xls", [], **about)
