"""Match features over lists without times: how a field of the candidate occurs in the request's own list.

Letters: N rows, P pairs (event, value of the field), Q pairs (row, value of the candidate's field).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from features.past.keys import encode_keys, nullable
from features.past.past import Past
from features.spec import Match


def list_match_columns(rows: pl.DataFrame, events: pl.DataFrame, name: str, match: Match) -> pl.DataFrame:
    """Compute one match feature for every impression from all events of its list, wherever `max_len` cuts.

        count = matches in the list        share = count / events of the list (0 without events)
        last = whether the newest event matches

    Args:
        rows: impressions with `__start.DOMAIN`, `__end.DOMAIN` and the candidate's field.
        events: the domain's events in the order of their store, with the event's field.
        name: the match's name in the spec.
        match: which fields, and which outputs.

    Returns:
        Columns `match.<name>.<output>` in the order of `rows`, missing where the candidate has no value:
        count int64, last int8, share float64.
    """
    fields = [[match.candidate], [match.event]]
    asked, known = encode_keys(rows, events, by=fields, separator=match.separator, what=f"match {name!r}")
    at = known.row.astype(np.int64)  # the place in the store stands for the clock
    past = Past(known.code, clock=at, time=at)
    start, end = (rows[f"__{part}.{match.domain}"].to_numpy() for part in ("start", "end"))

    def among(low: np.ndarray) -> np.ndarray:
        """How many events (N,) from `low` to the end of the list match."""
        below = [past.before(asked.code, bound[asked.row])[1] for bound in (low, end)]
        return asked.per_row(np.add, below[1] - below[0], len(rows))

    count = among(start)
    columns = {
        "count": count,
        "share": np.where(end > start, count / np.maximum(end - start, 1), 0.0),
        "last": (among(np.maximum(end - 1, start)) > 0).astype(np.int8),
    }
    present = asked.present(len(rows))
    return pl.DataFrame([nullable(f"match.{name}.{o}", columns[o], present) for o in match.outputs])
