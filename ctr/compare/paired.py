"""Two models on the same rows, reduced to what a comparison needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.typing import ArrayLike

from ctr.compare.sums import ClusterSums, MetricName


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A base and a variant on the same test rows.

    Args:
        rows, positives: rows, and those with label 1.
        unit: what is resampled: "user", "request" or "row".
        base, variant: their sums over the same clusters.
        delong_se: DeLong's standard error of the difference in AUC, rows taken as independent; NaN where
        undefined.
    """

    rows: int
    positives: int
    unit: str
    base: ClusterSums
    variant: ClusterSums
    delong_se: float

    def values(self, metric: MetricName) -> tuple[float, float]:
        """The metric of base and variant; NaN where it is undefined."""
        return self.base.figure(metric), self.variant.figure(metric)

    def delta(self, metric: MetricName) -> float:
        """Variant minus base."""
        base, variant = self.values(metric)
        return variant - base


def paired_sums(
    label: ArrayLike,
    base: ArrayLike,
    variants: Mapping[str, ArrayLike],
    *,
    user: ArrayLike | None = None,
    request: ArrayLike | None = None,
) -> dict[str, Paired]:
    """Compare scores in memory: each variant with the base on the same rows.

    Args:
        label: (n,) 0 or 1.
        base: (n,) probabilities in [0, 1] of the base model.
        variants: name → (n,) probabilities.
        user, request: (n,) integers; users are resampled, or requests where there are no users, or rows.

    Returns:
        Variant name → `Paired`.

    Raises:
        DataError: wrong labels or scores, or lengths that differ.
    """
    raise NotImplementedError
