"""What the tasks of a partitioned `ctr prepare` share: the spec and the facts of the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.errors import DataError, first_line
from features.partitions.tasks import plain_json
from features.read.clock import ClockScale
from features.read.fraction import per_second_of
from features.read.ids import key_values
from features.read.locate import ROW
from features.read.log import Tables
from features.read.scan import already_verified
from features.read.where import holds
from features.sources.of_spec import open_spec
from features.spec import DenseFeature, Domain, Impressions, PlainDense, Spec, parse_spec

BATCH = 2**17  # rows of a raw table that are read at a time
SHARE = 2**22  # rows of a raw table that one task reads
KEY = "__key"  # the raw user, as an ID


@dataclass(frozen=True)
class Preparation:
    """One log on its way.

    Attributes:
        spec: without patterns.
        raw_spec: as written.
        base: what its source's path is relative to.
        parts: partitions of the users, and as many ranges of time.
        facts: what the survey found: `clock`, `users`, `times`, `widths`; then what the stages did.
    """

    spec: Spec
    raw_spec: Spec
    base: Path
    parts: int
    facts: dict[str, Any]

    def plain(self, **facts: Any) -> dict[str, Any]:
        """Plain data to make the job of, with further facts."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "raw_spec": self.raw_spec.model_dump(mode="json"),
            "base": str(self.base),
            "parts": self.parts,
            "facts": {**self.facts, **facts},
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Preparation:
        """The job of plain data."""
        return _job(plain_json(plain))

    def tables(self) -> Tables:
        """The raw tables, whose files the process that began the job has checked."""
        raw_spec = plain_json(self.raw_spec.model_dump(mode="json"))
        return _tables(raw_spec, self.base, self.facts["digest"], tuple(self.facts["left_out"]))

    def role(self, domain: str | None) -> Impressions | Domain:
        """What the spec says of a domain's events, or, for None, of the impressions."""
        return self.spec.impressions if domain is None else self.spec.domains[domain]

    def user_part(self, keys: pl.Series) -> np.ndarray:
        """The partition (N,) of each user key: ranges, so that codes in order are contiguous in one."""
        bounds = pl.Series(self.facts["users"]["bounds"], dtype=keys.dtype)
        return _rank(bounds, keys)

    @property
    def per_second(self) -> int:
        """How many of the units in which windows are counted are a second."""
        clock = self.facts["clock"]
        return per_second_of(per_second=clock["per_second"], shortest=clock["shortest"])

    def time_part(self, seconds: pl.Series) -> np.ndarray:
        """The range of time (N,) of each time in seconds."""
        return _rank(pl.Series(self.facts["times"], dtype=pl.Int64), seconds)

    def clock_part(self, clock: np.ndarray) -> np.ndarray:
        """The range of time (N,) of each clock; `parts` where no impression can come after it."""
        if self.spec.order:
            # A range without ranks begins where the next one does, which the rank belongs to.
            part = np.searchsorted(self.facts["ranks"], clock, side="right") - 1
            never = clock >= self.facts["last_rank"]
        else:
            seconds = clock // self.facts["clock"]["per_second"]
            part = self.time_part(pl.Series(seconds, dtype=pl.Int64))
            never = seconds > self.facts["clock"]["last"]
        return np.where(never, self.parts, part)

    def ticks(self) -> dict[str | None, float]:
        """Seconds that one logged time stands for, of each domain and (None) of the impressions."""
        clock = self.facts["clock"]
        found = {n: t["length"] * t["scale"] / clock["per_second"] for n, t in clock["tables"].items()}
        return {name or None: seconds for name, seconds in found.items()}

    def scale(self) -> ClockScale:
        """What clocks without an order are counted in."""
        return ClockScale(self.facts["clock"]["per_second"], self.facts["clock"]["shortest"])

    def user_key(self, values: pl.Series, *, what: str) -> pl.Series:
        """User keys in the one type that they have in all tables."""
        return key_values(values, what=what).cast(getattr(pl, self.facts["users"]["type"])).alias(KEY)

    def batches(self, domain: str | None, offset: int, length: int | None) -> Iterator[pl.DataFrame]:
        """A share of the raw rows of a domain, or of the impressions, in pieces.

        Only rows under the spec's `where`, with `__row`, their number in the table.
        """
        role, table = self.role(domain), self.tables()[self.role(domain).table]
        what, schema, row = f"table {role.table!r}", table.collect_schema(), offset
        kept = [holds(c, schema[c], values, what=what) for c, values in role.where.items()]
        for batch in _collect(table.slice(offset, length), what):
            numbered = batch.with_columns(pl.int_range(row, row + batch.height, dtype=pl.Int64).alias(ROW))
            row += batch.height
            yield numbered.filter(*kept) if kept else numbered


def _collect(table: pl.LazyFrame, what: str) -> Iterator[pl.DataFrame]:
    try:
        yield from table.collect_batches(chunk_size=BATCH, maintain_order=True, engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{what} cannot be read: {first_line(error)}; repair the file") from None


def _rank(bounds: pl.Series, values: pl.Series) -> np.ndarray:
    if not len(bounds) or not len(values):
        return np.zeros(len(values), dtype=np.int64)
    return bounds.search_sorted(values, side="right").to_numpy().astype(np.int64)


@lru_cache(maxsize=4)
def _job(plain: bytes) -> Preparation:
    data = json.loads(plain)
    spec = _without_patterns(parse_spec(data["spec"]))
    return Preparation(spec, parse_spec(data["raw_spec"]), Path(data["base"]), data["parts"], data["facts"])


@lru_cache(maxsize=1)
def _tables(raw_spec: bytes, base: Path, digest: str, left_out: tuple[str, ...]) -> Tables:
    with already_verified(left_out):
        return open_spec(parse_spec(json.loads(raw_spec)), base, {})[1]


def _without_patterns(spec: Spec) -> Spec:
    """The columns of dense features are names, whatever characters they hold."""

    def plain(feature: Any) -> Any:
        if not isinstance(feature, DenseFeature):
            return feature
        return PlainDense.model_validate(feature.model_dump())

    domains = {
        n: d.model_copy(update={"side": {s: plain(f) for s, f in d.side.items()}})
        for n, d in spec.domains.items()
    }
    features = {n: plain(f) for n, f in spec.features.items()}
    return spec.model_copy(update={"features": features, "domains": domains})
