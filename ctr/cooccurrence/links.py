"""How much a candidate's value and a history's value tell of each other, and the shifted PMI of their pairs.

    E(c, v) = n(c) · n(v) / n      by chance      PMI(c, v) = log((n(c, v) + prior) / (E(c, v) + prior))
    gain    = Σ n'(c, v) · PMI(c, v) / n'                nats a meeting

The PMI is taken from one half of the users and weighed with the counts n' of the other, and the other way
round: what is chance in one half gains nothing in the other, however many values there are.

Letters: C values of a candidate's table, V of a history's, K pairs that met.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.cooccurrence.meetings import Field, ShownValues

_DENSE = 2**22  # pairs that are counted in a plain array; more are sorted


@dataclass(frozen=True)
class MeetingCounts:
    """Counts of pairs.

    Attributes:
        shape: (C, V).
        code: int64 (K,) rising, c · V + v.
        count: int64 (K,).
    """

    shape: tuple[int, int]
    code: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, candidate: np.ndarray, value: np.ndarray, shape: tuple[int, int]) -> MeetingCounts:
        """Count the pairs of values (P,) of two tables."""
        code = candidate * shape[1] + value
        if shape[0] * shape[1] <= _DENSE:
            counts = np.bincount(code, minlength=1)
            known = np.flatnonzero(counts)
            return cls(shape, known, counts[known])
        return cls(shape, *np.unique(code, return_counts=True))

    @property
    def total(self) -> int:
        """n."""
        return int(self.count.sum())

    @property
    def row(self) -> np.ndarray:
        """c of each pair."""
        return self.code // self.shape[1]

    @property
    def column(self) -> np.ndarray:
        """v of each pair."""
        return self.code % self.shape[1]

    def margins(self) -> tuple[np.ndarray, np.ndarray]:
        """n(c) (C,) and n(v) (V,)."""
        rows = np.bincount(self.row, self.count, minlength=self.shape[0])
        return rows, np.bincount(self.column, self.count, minlength=self.shape[1])

    def counts_of(self, code: np.ndarray) -> np.ndarray:
        """n(c, v) of some pairs."""
        if not len(self.code):
            return np.zeros(len(code), dtype=np.int64)
        at = np.minimum(np.searchsorted(self.code, code), len(self.code) - 1)
        return np.where(self.code[at] == code, self.count[at], 0)

    def pmi(self, code: np.ndarray, prior: float) -> np.ndarray:
        """PMI of some pairs."""
        rows, columns = self.margins()
        chance = rows[code // self.shape[1]] * columns[code % self.shape[1]] / max(self.total, 1)
        return np.log((self.counts_of(code) + prior) / (chance + prior))


@dataclass(frozen=True)
class Link:
    """A candidate's feature and a field of histories.

    Attributes:
        candidate, history: their ID tables.
        field: the history's field, `domain.field`.
        gain: nats a meeting.
        pairs: of all users.
    """

    candidate: str
    history: str
    field: str
    gain: float
    pairs: MeetingCounts


def link_of(
    candidates: ShownValues,
    feature: str,
    field: Field,
    sizes: dict[str, int],
    first: dict[str, int],
    *,
    prior: float,
) -> Link:
    """How much a feature of the candidates and a field of histories tell of each other.

    Args:
        candidates: the impressions.
        feature: of theirs.
        field: of the histories before them.
        sizes: ID table → rows.
        first: ID table → the row of its first value: those before are missing or unknown.
        prior: meetings by chance that evidence has to outweigh.
    """
    table = candidates.tables[feature]
    value, shape = candidates.values[feature][field.row], (sizes[table], sizes[field.table])
    known = (value >= first[table]) & (field.value >= first[field.table])
    row, value, event = field.row[known], value[known], field.value[known]
    half = candidates.half[row]
    halves = [MeetingCounts.of(value[which], event[which], shape) for which in (half, ~half)]
    gains = [
        float((other.count * one.pmi(other.code, prior)).sum()) / max(other.total, 1)
        for one, other in (halves, halves[::-1])
    ]
    return Link(table, field.table, field.name, min(gains), MeetingCounts.of(value, event, shape))
