"""Files of counter states: a row per counter and key, as Parquet (which `ctr score` reads) or CSV.

    counter   name in the spec
    key       JSON list of the key's values, such as ["a12"] or [7,"drama"]; null: what a new key has
    count     rows strictly before; known: those whose label or value was known; positives: sum of these
    excess    sum of label − against over the rows that have both; compared: how many they are
    first     time (s) of the first row that counts; last: of the last
    value.*   the counter's outputs for this key alone, at the time of the export

The file says in its metadata (Parquet) of which moment and which spec it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from features.durable import replacing
from features.errors import ConfigError, DataError
from features.past.counter_state import NUMBERS, CounterState
from features.spec import Spec

FORMAT = 1
_META = b"ctr.counters"
_OUTPUTS = ("count", "positives", "rate", "residual", "since_last", "since_first")
_FLOATS = ("positives", "excess", "rate", "residual")
_SCHEMA = pa.schema(
    [("counter", pa.string()), ("key", pa.string())]
    + [(n, pa.float64() if n in _FLOATS else pa.int64()) for n in NUMBERS]
    + [(f"value.{n}", pa.float64() if n in _FLOATS else pa.int64()) for n in _OUTPUTS]
)


def write_counters(
    path: Path, states: Iterable[tuple[str, CounterState]], *, moment: int, time: int, spec_sha256: str
) -> dict[str, int]:
    """Write the states of counters; the file appears whole or not at all.

    Args:
        path: ends in .parquet or .csv.
        states: by name.
        moment: nanoseconds, as asked for.
        time: of an impression then, s.
        spec_sha256: digest of the spec whose counters they are.

    Returns:
        The number of keys of each counter.

    Raises:
        ConfigError: another ending.
    """
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise ConfigError(f"--out must end in .parquet or .csv, got {path.name}; name the file so")
    kept: dict[str, CounterState] = {}
    tables = []
    for name, state in states:
        kept[name] = state
        tables.append(_table(name, state, time))
    meta = {
        "format": FORMAT,
        "moment": moment,
        "time": time,
        "spec_sha256": spec_sha256,
        "counters": {
            n: {"running": s.running, "types": s.types, "by": s.counter.by} for n, s in kept.items()
        },
    }
    table = pa.concat_tables([_SCHEMA.empty_table(), *tables])
    table = table.replace_schema_metadata({_META: json.dumps(meta, allow_nan=False)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, point="counters") as partial:
        if path.suffix.lower() == ".csv":
            pa_csv.write_csv(table, partial)
        else:
            pq.write_table(table, partial, write_page_checksum=True)
    return {name: state.table.height for name, state in kept.items()}


def _table(name: str, state: CounterState, time: int) -> pa.Table:
    """The rows of one counter: that of a new key, then a row per key."""
    new = state.table.clear(1).with_columns(pl.lit(0).cast(state.table.schema[n]).alias(n) for n in NUMBERS)
    every = CounterState(state.counter, state.running, state.types, pl.concat([new, state.table]))
    parts = state.table.select(str(i) for i in range(len(state.types)))
    keys = pl.concat([pl.Series("key", [None], dtype=pl.String), _texts(parts)])
    columns: dict[str, Any] = {
        "counter": pl.repeat(name, len(keys), eager=True).to_arrow(),
        "key": keys.to_arrow(),
    }
    columns |= {n: every.table[n].to_numpy() for n in NUMBERS}
    found, old = every.at(time), np.arange(len(keys)) > 0
    for output in _OUTPUTS:
        missing = output not in found
        values = np.zeros(len(keys), dtype=np.int64) if missing else found[output]
        mask = np.full(len(keys), missing) | (~old if output.startswith("since_") else False)
        columns[f"value.{output}"] = pa.array(values, _SCHEMA.field(f"value.{output}").type, mask=mask)
    return pa.table(columns).cast(_SCHEMA)


def key_part(value: int | str) -> str:
    """One value of a key as it stands in a file."""
    return json.dumps(value)


def key_text(parts: Iterable[str]) -> str:
    """A key from its parts.

    Example:
        >>> key_text([key_part("a12"), key_part(7)])
        '["a12",7]'
    """
    return f"[{','.join(parts)}]"


def _texts(keys: pl.DataFrame) -> pl.Series:
    """Keys, a column per part, as the texts that stand in a file: JSON in ASCII."""
    parts = [_part(keys[name]) for name in keys.columns]
    commas = [part for one in parts for part in (pl.lit(","), one)][1:]
    return keys.select(pl.concat_str(pl.lit("["), *commas, pl.lit("]")).alias("key")).to_series()


def _part(values: pl.Series) -> pl.Series:
    """Integers as their digits, texts in quotes; each text once through the encoder."""
    if values.dtype != pl.String:
        return values.cast(pl.String)
    distinct = values.unique()
    quoted = pl.Series([key_part(text) for text in distinct], dtype=pl.String)
    return values.replace_strict(distinct, quoted, return_dtype=pl.String)


@dataclass(frozen=True)
class CounterFile:
    """States of counters, read from a file.

    Attributes:
        moment: nanoseconds since 1970, of the export.
        books: counter → its rows.
    """

    moment: int
    books: dict[str, CounterBook]


@dataclass(frozen=True)
class CounterBook:
    """One counter's rows, to be looked up.

    Attributes:
        running: mean of all labels or values.
        types: Int64 or String of each column of the key.
        keys: texts in rising order.
        numbers: the sums and times of each key.
    """

    running: float
    types: tuple[str, ...]
    keys: pl.Series
    numbers: dict[str, np.ndarray]

    def find(self, keys: Sequence[str]) -> np.ndarray:
        """The row (Q,) of each key as a text, −1 where there is none."""
        asked = pl.Series(keys, dtype=pl.String)
        if not len(self.keys):
            return np.full(len(asked), -1)
        at = self.keys.search_sorted(asked).clip(0, len(self.keys) - 1)
        return np.where((self.keys.gather(at) == asked).to_numpy(), at.to_numpy().astype(np.int64), -1)


def read_counters(path: Path, spec: Spec, *, spec_sha256: str) -> CounterFile:
    """Read a Parquet file of counter states.

    Args:
        path: the file.
        spec: whose counters they must be.
        spec_sha256: its digest.

    Raises:
        DataError: no such file, another format, or the counters of another spec.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} must be a Parquet file of ctr counters: {error}") from None
    meta = _meta(table, path)
    if meta["spec_sha256"] != spec_sha256:
        raise DataError(
            f"{path} must hold the counters of this data set's spec ({spec_sha256[:12]}), got those of "
            f"another ({str(meta['spec_sha256'])[:12]}); export them with ctr counters and this run"
        )
    frame = pl.DataFrame(table.select(["counter", "key", *NUMBERS])).drop_nulls("key")
    books = {}
    for name in spec.counters:
        about, rows = meta["counters"][name], frame.filter(pl.col("counter") == name).sort("key")
        numbers = {n: rows[n].to_numpy() for n in NUMBERS}
        books[name] = CounterBook(float(about["running"]), tuple(about["types"]), rows["key"], numbers)
    return CounterFile(int(meta["moment"]), books)


def _meta(table: pa.Table, path: Path) -> Mapping[str, Any]:
    try:
        found: dict[str, Any] = json.loads((table.schema.metadata or {})[_META])
        if found["format"] == FORMAT and table.schema.equals(_SCHEMA):
            return found
    except (KeyError, ValueError, TypeError):
        pass
    raise DataError(f"{path} must be a file of ctr counters of format {FORMAT}; export it anew")
