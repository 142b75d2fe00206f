"""Small tables of predictions for the tests of comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.compare import DRAWS, Paired, paired_sums


@dataclass(frozen=True)
class Table:
    """Rows of two models, with many equal scores."""

    label: np.ndarray
    base: np.ndarray
    variant: np.ndarray
    user: np.ndarray
    request: np.ndarray

    def take(self, rows: np.ndarray) -> Table:
        """Some of the rows, in some order."""
        return Table(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def pair(self, draws: int = DRAWS, seed: int = 0, weight: np.ndarray | None = None) -> Paired:
        """Base and variant compared."""
        keys = {"user": self.user, "request": self.request, "weight": weight}
        return paired_sums(self.label, self.base, {"v": self.variant}, **keys, draws=draws, seed=seed)["v"]


def table_of(seed: int, n: int = 400, *, users: int = 40, levels: int = 15) -> Table:
    """Two models that know something of the label and of each other's errors."""
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(0, users, n))
    label = (rng.random(n) < 0.35).astype(np.int8)
    shared = rng.normal(size=n) + label + rng.normal(size=users)[user]
    raw = [shared + 0.7 * rng.normal(size=n) for _ in range(2)]
    base, variant = (np.clip(np.round((x + 4) / 9 * levels) / levels, 0.01, 0.99) for x in raw)
    return Table(label, base, variant, user, user * 10 + rng.integers(0, 3, n))
