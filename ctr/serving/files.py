"""Score requests in JSON and Parquet files, and tables of scores.

A JSON file is a list of score requests. A Parquet file has a row per score request and a column per field of
`ScoreRequest`; values of the candidates are lists, in columns named `columns.<name>` and `features.<name>`,
those of the request in columns named `request_columns.<name>` and `request_features.<name>`.

A table of scores has a row per candidate, with these columns: question (position of the score request in the
file, from 0), candidate (its position in the score request, from 0), request_id and user_id (dense codes),
time (whole seconds), row_id and item_id (null where the score request names no row, or no row or known item),
logit, score, `score_<name>` of each further output of a run with `tasks`, unknown (the names of what was not
known, `ctr.serving.unknown`), and the raw keys and places in the log as in a table of predictions
(`ctr.predictions`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.predictions import RowKeys, write_rows
from ctr.predictions.write import GROUP_ROWS
from ctr.serving.score_request import ScoreRequest, parse_score_request
from ctr.serving.service import ScoreResponse
from features.errors import DataError

_MAPPINGS = ("columns", "features", "request_columns", "request_features")


def read_score_requests(path: Path, *, most: int) -> Iterator[ScoreRequest]:
    """The score requests of a file, in its order; JSON if the name ends in .json, Parquet otherwise.

    Raises:
        DataError: no such file, or a row that is no score request.
    """
    rows = _json_rows(path) if path.suffix == ".json" else _parquet_rows(path)
    for row, plain in enumerate(rows):
        yield parse_score_request(plain, what=f"{path}, row {row}", most=most)


def _json_rows(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path} must be a JSON list of score requests: {error}") from None
    if not isinstance(found, list):
        raise DataError(
            f"{path} must be a JSON list of score requests, got {type(found).__name__}; put it in [ ]"
        )
    return found


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} must be a Parquet file of score requests: {error}") from None
    for batch in file.iter_batches(batch_size=1024):
        yield from (_nested(plain) for plain in batch.to_pylist())


def _nested(plain: dict[str, Any]) -> dict[str, Any]:
    """`features.price: [1]` as `features: {price: [1]}`.

    A null means that the field is left out; in a raw column of the request it is a missing value. A timestamp
    is a text in ISO 8601.

    Example:
        >>> _nested({"request_id": 1, "user": None, "features.price": [2], "request_columns.age": None})
        {'request_id': 1, 'features': {'price': [2]}, 'request_columns': {'age': None}}
    """
    result: dict[str, Any] = {}
    for name, value in plain.items():
        head, dot, rest = name.partition(".")
        if value is None and head != "request_columns":
            continue
        value = value.isoformat() if isinstance(value, datetime) else value
        if dot and head in _MAPPINGS:
            result.setdefault(head, {})[rest] = value
        else:
            result[name] = value
    return result


def write_scores(
    path: Path, responses: Iterable[tuple[ScoreResponse, np.ndarray | None]], *, keys: RowKeys | None = None
) -> int:
    """Write the scores of score requests in turn; the file appears whole or not at all.

    Args:
        path: the Parquet file.
        responses: each with the row IDs of its candidates, where they have some.
        keys: raw keys and places in the log.

    Returns:
        The number of candidates.

    Raises:
        DataError: there is no score request.
    """
    written = write_rows(path, (_with_keys(table, keys) for table in _tables(responses)), point="scores")
    if not written:
        raise DataError(
            "there must be something to score, but there is no score request: name another file or split"
        )
    return written


def _tables(responses: Iterable[tuple[ScoreResponse, np.ndarray | None]]) -> Iterator[pa.Table]:
    """Tables of about `GROUP_ROWS` rows."""
    waiting: list[pa.Table] = []
    rows = 0
    for position, (response, row_ids) in enumerate(responses):
        waiting.append(_table(position, response, row_ids))
        rows += waiting[-1].num_rows
        if rows >= GROUP_ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _table(position: int, response: ScoreResponse, row_ids: np.ndarray | None) -> pa.Table:
    count = len(response.logit)
    keys = {
        "question": position,
        **{n: response.request.columns.plain[n][0] for n in ("request_id", "user_id", "time")},
    }
    columns: dict[str, np.ndarray] = {name: np.full(count, value, np.int64) for name, value in keys.items()}
    columns["candidate"] = np.arange(count)
    known = {"row_id": row_ids, "item_id": response.item_id}
    ids = {
        name: pa.nulls(count, pa.int64()) if found is None else pa.array(found, pa.int64(), mask=found < 0)
        for name, found in known.items()
    }
    unknown = pa.array(response.unknown.of_each(count), pa.list_(pa.string()))
    scores = {"logit": response.logit, "score": response.score}
    scores |= {f"score_{name}": found for name, found in response.others.items()}
    return pa.table({**columns, **ids, **scores, "unknown": unknown})


def _with_keys(table: pa.Table, keys: RowKeys | None) -> pa.Table:
    if keys is None:
        return table
    codes = {name: table[name].fill_null(-1).to_numpy() for name in ("user_id", "item_id", "row_id")}
    return pa.table({**{name: table[name] for name in table.column_names}, **keys.columns(**codes)})
