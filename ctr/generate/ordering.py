"""From the items that were generated for a request, some of them several times, to a ranked list.

n generated items, E width of item vectors.
"""

from __future__ import annotations

import numpy as np

Ranked = list[tuple[int, float]]  # item, score; best first


def as_generated(items: np.ndarray, scores: np.ndarray) -> Ranked:
    """Each item once, where it came first.

    Example:
        >>> as_generated(np.array([5, 3, 5]), np.array([-1.0, -2.0, -3.0]))
        [(5, -1.0), (3, -2.0)]
    """
    first = np.sort(np.unique(items, return_index=True)[1])
    return list(zip(items[first].tolist(), scores[first].tolist(), strict=True))


def by_likelihood(items: np.ndarray, likelihood: np.ndarray) -> Ranked:
    """Each item once, the most likely first."""
    return as_generated(*_sorted(items, likelihood))


def by_votes(items: np.ndarray) -> Ranked:
    """Self-consistency: the share of the draws that agree on an item; ties as they came.

    Source: Self-consistency (arXiv 2203.11171), section 2: the most frequent answer.

    Example:
        >>> by_votes(np.array([5, 3, 3, 7]))
        [(3, 0.5), (5, 0.25), (7, 0.25)]
    """
    kinds, first, count = np.unique(items, return_index=True, return_counts=True)
    order = np.lexsort((first, -count))
    return list(zip(kinds[order].tolist(), (count[order] / len(items)).tolist(), strict=True))


def by_expected_utility(items: np.ndarray, vectors: np.ndarray) -> Ranked:
    """Minimum Bayes risk: U(a) = Σ_b share(b) · cos(a, b), the expected likeness to what the user does.

    Source: Minimum Bayes-risk decoding by sampling (arXiv 2108.04718), equation 3; the utility is ours.

    Args:
        items: (n,) draws.
        vectors: (items, E) of all items.
    """
    kinds, first, count = np.unique(items, return_index=True, return_counts=True)
    unit = vectors[kinds] / np.maximum(np.linalg.norm(vectors[kinds], axis=1, keepdims=True), 1e-12)
    utility = unit @ (unit.T @ (count / len(items)))
    order = np.lexsort((first, -utility))
    return list(zip(kinds[order].tolist(), utility[order].tolist(), strict=True))


def with_rewards(ranked: Ranked, reward: dict[int, float], *, weight: float) -> Ranked:
    """Reward-augmented: log p + w log r(item); an item without reward goes last.

    Example:
        >>> with_rewards([(5, -1.0), (3, -1.5)], {5: 0.1, 3: 0.9}, weight=1.0)[0][0]
        3
    """
    found = [
        (item, score + weight * float(np.log(max(reward.get(item, 0.0), 1e-9)))) for item, score in ranked
    ]
    return sorted(found, key=lambda pair: -pair[1])


def _sorted(items: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-scores, kind="stable")
    return items[order], scores[order]
