"""Counters and histories in SQL: windows over ranges of the clock, in DuckDB.

It shares nothing with `features/` but the spec. "Strictly before" is a frame of the window, over a clock of
whole numbers, so that rows of one clock do not see each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import polars as pl

from features.computed import Counter
from tests.features.past.real_logs import RealLog

BEFORE = "RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"


class Oracle:
    """A log in a database of its own.

    Args:
        log: which.
        data: the folder of real data.
    """

    def __init__(self, log: RealLog, data: Path) -> None:
        self.log = log
        self.db = duckdb.connect(config={"threads": 1})
        root = str(data / log.folder).replace("'", "''")
        for name, query in (log.views | {"rows": log.rows}).items():
            self.db.execute(f"CREATE TABLE {name} AS {query.replace('{root}', root)}")

    def add_counter(self, name: str, counter: Counter) -> None:
        """Add the columns of a counter to the table of rows."""
        value = "label" if counter.value is None else f'"{counter.value}"'
        self._make_pairs(counter, value)
        prior = counter.prior
        outputs = {
            "count": "sum(n)",
            "positives": "coalesce(sum(total), 0)",
            "rate": f"(coalesce(sum(total), 0) + {prior} * any_value(running)) / (sum(known) + {prior})",
            "residual": f"coalesce(sum(excess), 0) / (sum(known_excess) + {prior})",
            "since_last": "min(pairs.time - last)",
            "since_first": "max(pairs.time - first)",
        }
        found = ", ".join(f'{outputs[o]} AS "count.{name}.{o}"' for o in counter.outputs)
        self.db.execute(f"""
            CREATE OR REPLACE TABLE rows AS
            WITH average AS (
                SELECT row, coalesce(avg({value}) OVER (ORDER BY clock {BEFORE}), 0.5) AS running FROM rows),
            found AS (SELECT row, {found} FROM pairs JOIN average USING (row) GROUP BY row)
            SELECT rows.*, found.* EXCLUDE (row) FROM rows LEFT JOIN found USING (row)""")

    def _make_pairs(self, counter: Counter, value: str) -> None:
        """The table of (row, distinct value of its key), with what each key was strictly before."""
        names = [f"k{i}" for i in range(len(counter.by))]
        keys = ", ".join(f"{self._each(c)} AS {n}" for c, n in zip(counter.by, names, strict=True))
        against = "NULL" if counter.against is None else f'{value} - "{counter.against}"'
        frame = BEFORE
        if counter.window is not None:
            frame = f"RANGE BETWEEN {int(counter.window)} PRECEDING AND 1 PRECEDING"
        self.db.execute(f"""
            CREATE OR REPLACE TABLE pairs AS
            WITH keyed AS (
                SELECT row, clock, time, {value}::DOUBLE AS v, ({against})::DOUBLE AS d, {keys} FROM rows)
            SELECT row, time, count(*) OVER past AS n, sum(v) OVER past AS total, count(v) OVER past AS known,
                sum(d) OVER past AS excess, count(d) OVER past AS known_excess,
                min(time) OVER past AS first, max(time) OVER past AS last
            FROM keyed WHERE {" AND ".join(f"{n} IS NOT NULL" for n in names)}
            WINDOW past AS (PARTITION BY {", ".join(names)} ORDER BY clock {frame})""")

    def _each(self, column: str) -> str:
        """A column of the rows; of a list, each of its distinct values."""
        (kind,) = self.db.sql(f'SELECT "{column}" FROM rows LIMIT 0').types
        return f'unnest(list_distinct("{column}"))' if str(kind).endswith("[]") else f'"{column}"'

    def rows(self) -> pl.DataFrame:
        """The impressions with all counters that were added."""
        return self.db.sql("FROM rows").pl()

    def events(self, domain: str) -> pl.DataFrame:
        """The events of a domain, `turn` being the rank of the clock among those of the user."""
        return self.db.sql(f"""
            SELECT *, dense_rank() OVER (PARTITION BY user ORDER BY clock) AS turn
            FROM ({self.log.events[domain]})""").pl()

    def before(self, domain: str) -> pl.DataFrame:
        """How many events of a domain the user of each impression has strictly before it."""
        return self.db.sql(f"""
            WITH moments AS (
                SELECT user, clock, 1 AS event FROM ({self.log.events[domain]})
                UNION ALL SELECT DISTINCT user, clock, 0 FROM rows),
            counted AS (
                SELECT *, coalesce(sum(event) OVER (PARTITION BY user ORDER BY clock {BEFORE}), 0) AS n
                FROM moments)
            SELECT row, n::BIGINT AS before
            FROM rows JOIN (FROM counted WHERE event = 0) USING (user, clock)""").pl()


def encoded(events: pl.DataFrame, vocabularies: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Events with the IDs of their side columns: row 0 for a missing value, row 1 for an unknown one."""
    for column, book in vocabularies.items():
        ids = book.select(pl.col("value").alias(column), pl.col("id").cast(pl.Int64))
        found = events.join(ids, on=column, how="left", maintain_order="left")
        unknown = pl.when(pl.col(column).is_null()).then(0).otherwise(1)
        events = found.with_columns(pl.col("id").fill_null(unknown).alias(column)).drop("id")
    return events
