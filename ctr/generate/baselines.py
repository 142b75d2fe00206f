"""What a generator must beat: the most popular items, and those that go with the items of the history.

R requests, I items (rows of the item table).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from ctr.generate.ordering import Ranked


class Popularity:
    """The items by how often they were a target in training.

    Args:
        counts: (I,).
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.order = np.argsort(-counts, kind="stable")
        self.counts = counts

    def rank(self, seen: Sequence[np.ndarray], *, items: int) -> list[Ranked]:
        """For each request the most popular items that it has not seen."""
        return [self._of(set(own.tolist()), items) for own in seen]

    def _of(self, seen: set[int], items: int) -> Ranked:
        top = self.order[: items + len(seen)].tolist()
        return [(item, float(self.counts[item])) for item in top if item not in seen][:items]


class ItemNeighbours:
    """Item-kNN: items liked by the users who liked those of the history.

        score(i) = Σ_{j in the history} cos(i, j) where i is among the k nearest of j

    cos(i, j) = users of both / √(users of i · users of j), in the training split.

    Source: Sarwar et al., Item-based collaborative filtering (WWW 2001), sections 3.1 and 3.2.

    Args:
        users: (interactions,) of the training split.
        items: (interactions,) rows of the item table.
        rows: I.
        neighbours: k, of each item in a history.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, *, rows: int, neighbours: int) -> None:
        seen = sparse.csr_matrix((np.ones(len(users)), (users, items)), shape=(int(users.max()) + 1, rows))
        seen.data[:] = 1.0  # once per user, however often
        norms = np.sqrt(np.asarray(seen.sum(axis=0)).ravel())
        unit = seen @ sparse.diags(1.0 / np.maximum(norms, 1.0))
        likeness = (unit.T @ unit).tolil()
        likeness.setdiag(0.0)
        self.likeness = _strongest(likeness.tocsr(), neighbours)

    def rank(
        self, histories: Sequence[np.ndarray], seen: Sequence[np.ndarray], *, items: int
    ) -> list[Ranked]:
        """For each request the items most alike to its history, without those it has seen."""
        return [self._of(own, gone, items) for own, gone in zip(histories, seen, strict=True)]

    def _of(self, history: np.ndarray, seen: np.ndarray, items: int) -> Ranked:
        scores = np.asarray(self.likeness[history].sum(axis=0)).ravel()
        scores[seen] = 0.0
        order = np.argsort(-scores, kind="stable")[:items]
        return [(int(item), float(scores[item])) for item in order if scores[item] > 0]


def _strongest(matrix: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """The largest `count` values of each row, the others dropped."""
    rows, kept = [], []
    for row in range(matrix.shape[0]):
        low, high = matrix.indptr[row : row + 2]
        best = np.argsort(-matrix.data[low:high], kind="stable")[:count] + low
        kept.append(best)
        rows.append(np.full(len(best), row))
    entries = np.concatenate(kept)
    indices = np.concatenate(rows), matrix.indices[entries]
    return sparse.csr_matrix((matrix.data[entries], indices), shape=matrix.shape)
