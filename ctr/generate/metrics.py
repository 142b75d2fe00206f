"""How good, how broad and how varied ranked lists are.

R requests, k items that count, I items.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def recall(ranked: Sequence[Sequence[int]], wanted: Sequence[Collection[int]], *, k: int) -> float:
    """Mean share of a request's targets among its first k items; of one target, the hit rate.

    Example:
        >>> recall([[5, 3], [7]], [{3}, {3}], k=2)
        0.5
    """
    return _mean(recalls(ranked, wanted, k=k))


def recalls(ranked: Sequence[Sequence[int]], wanted: Sequence[Collection[int]], *, k: int) -> np.ndarray:
    """Recall of each request, (R,) float64."""
    pairs = zip(ranked, wanted, strict=True)
    return np.array([len(set(own[:k]) & set(targets)) / len(targets) for own, targets in pairs])


def ndcg(ranked: Sequence[Sequence[int]], wanted: Sequence[Collection[int]], *, k: int) -> float:
    """Σ over hits of 1 / log₂(1 + rank), over the most it could be; mean over requests.

    Example:
        >>> ndcg([[5, 3]], [{5}], k=2), round(ndcg([[5, 3]], [{3}], k=2), 3)
        (1.0, 0.631)
    """

    def gain(own: Sequence[int], targets: Collection[int]) -> float:
        hits = np.array([item in targets for item in own[:k]], dtype=float)
        discount = 1 / np.log2(np.arange(k) + 2)
        return float((hits * discount[: len(hits)]).sum() / discount[: min(k, len(targets))].sum())

    return _mean(gain(own, targets) for own, targets in zip(ranked, wanted, strict=True))


def coverage(ranked: Sequence[Sequence[int]], *, items: int, k: int) -> float:
    """Share of the catalogue that some request is given.

    Example:
        >>> coverage([[5, 3], [3]], items=4, k=2)
        0.5
    """
    return len({item for own in ranked for item in own[:k]}) / items


def diversity(ranked: Sequence[Sequence[int]], vectors: np.ndarray, *, k: int) -> float:
    """1 − the mean cosine between two items of a list; mean over lists of at least two.

    Args:
        ranked: rows of `vectors`.
        vectors: (I, E).
        k: how many items of each list.

    Example:
        >>> diversity([[0, 1]], np.array([[1.0, 0.0], [0.0, 2.0]]), k=2)
        1.0
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def of(own: Sequence[int]) -> float:
        part = unit[list(own[:k])]
        total = part.sum(0)
        pairs = len(part) * (len(part) - 1)
        return float(1 - (total @ total - (part * part).sum()) / pairs)

    return _mean(of(own) for own in ranked if len(own[:k]) > 1)


def _mean(values: object) -> float:
    found = list(values)  # type: ignore[call-overload]
    return float(np.mean(found)) if found else float("nan")
