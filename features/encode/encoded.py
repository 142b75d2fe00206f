"""The encoded columns of a log, and what was fitted for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from features.encode.tables import FittedTable
from features.encode.uses import Level
from features.spec import Spec
from features.store.columns import Column
from features.store.manifest import TableInfo

_KINDS = ("id", "weight", "dense")


@dataclass
class Encoded:
    """Encoded columns (one value per impression or event), and what was fitted for them."""

    spec: Spec
    columns: dict[str | None, dict[str, pa.Array]]  # domain (None: impressions) → Arrow column → values
    described: dict[str, Column] = field(default_factory=dict)  # key of the use → its description
    tables: dict[str, FittedTable] = field(default_factory=dict)
    known: dict[str, dict[str, np.ndarray]] = field(
        default_factory=dict
    )  # domain → field known later → clock
    implicit: dict[str, TableInfo] = field(default_factory=dict)
    fitted: dict[str, Any] = field(default_factory=lambda: {"tables": {}, "scalers": {}})  # for scalers.json
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def table_infos(self) -> dict[str, TableInfo]:
        """Every table for the manifest, in the spec's order."""
        return {n: self.tables[n].info for n in self.spec.tables if n in self.tables} | self.implicit

    @property
    def features(self) -> list[Column]:
        """The features, in the spec's order."""
        return [self.described[name] for name in self.spec.features]

    def side(self, domain: str) -> list[Column]:
        """The side info of a domain, in the spec's order."""
        return [self.described[f"{domain}/{name}"] for name in self.spec.domains[domain].side]

    def of_level(self, level: Level) -> dict[str, pa.Array]:
        """The Arrow columns of the features of one level, a value per impression, in the spec's order."""
        return self._arrays(None, [c for c in self.features if c.level == level])

    def of_domain(self, domain: str) -> dict[str, pa.Array]:
        """The Arrow columns of a domain's side info, by ID table, in the order of the tables."""
        rank = {name: i for i, name in enumerate(self.spec.tables)}
        return self._arrays(
            domain, sorted(self.side(domain), key=lambda c: rank.get(c.table or "", len(rank)))
        )

    def _arrays(self, domain: str | None, columns: list[Column]) -> dict[str, pa.Array]:
        every = self.columns[domain]
        return {n: every[n] for c in columns for kind in _KINDS if (n := f"{kind}.{c.name}") in every}
