"""Two models on the same rows, reduced to what a comparison needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.compare.comparison import DRAWS, Comparison, score_column
from ctr.compare.delong import DeLong
from ctr.compare.sums import ClusterSums
from ctr.metrics.clusters import Codes, clusters_of, codes_of
from ctr.metrics.external_sort import NamedColumns
from ctr.metrics.ranking import check_rows, check_weights
from ctr.metrics.records import Floats
from features.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A base and a variant on the same test rows.

    Args:
        rows, positives: rows, and those with label 1.
        unit: what is resampled: "user", "request" or "row".
        base, variant: their sums over the same clusters.
        delong: the AUCs with DeLong's errors, rows taken as independent; None where rows have weights.
    """

    rows: int
    positives: int
    unit: str
    base: ClusterSums
    variant: ClusterSums
    delong: DeLong | None

    @property
    def clusters(self) -> int:
        """Clusters that are resampled: users, or a few users together where they are more than 65,536."""
        return len(self.base.clusters)

    def values(self, metric: str) -> tuple[float, float]:
        """The metric of base and variant; NaN where it is undefined."""
        return self.base.figures[metric], self.variant.figures[metric]

    def delta(self, metric: str) -> float:
        """Variant minus base."""
        base, variant = self.values(metric)
        return variant - base

    def drawn(self, metric: str) -> Floats:
        """Variant minus base in each bootstrap draw, (D,): both on the same drawn users."""
        return self.variant.drawn[metric] - self.base.drawn[metric]


def paired_sums(
    label: ArrayLike,
    base: ArrayLike,
    variants: Mapping[str, ArrayLike],
    *,
    user: ArrayLike | None = None,
    request: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Paired]:
    """Compare scores in memory: each variant with the base on the same rows.

    Args:
        label: (n,) 0 or 1.
        base: (n,) probabilities in [0, 1] of the base model.
        variants: name → (n,) probabilities.
        user, request: (n,) integers; users are resampled, or requests where there are no users, or rows.
        weight: (n,) ≥ 0; a row of weight k is as k equal rows.
        draws, seed: of the bootstrap.

    Returns:
        Variant name → `Paired`.

    Raises:
        DataError: wrong labels or scores, or lengths that differ.

    Example:
        >>> pairs = paired_sums([0, 1, 1, 0], [0.2, 0.4, 0.3, 0.3], {"new": [0.1, 0.9, 0.6, 0.2]})
        >>> pairs["new"].values("auc")
        (0.875, 1.0)
    """
    labels = np.asarray(label, dtype=np.float64)
    scores = [np.asarray(score, dtype=np.float64) for score in (base, *variants.values())]
    for score in scores:
        check_rows(labels, score, probability=True)
    given = {"user": user, "request": request}
    keys = {name: _codes(values, len(labels)) for name, values in given.items() if values is not None}
    unit = next(iter(keys), "row")
    codes = keys[unit] if keys else np.arange(len(labels), dtype=np.uint64)
    rows = make_rows(labels, scores, unit=codes, keys=keys)
    if weight is not None:
        weights = check_weights(weight, labels)
        rows = {name: column[weights > 0] for name, column in {**rows, "weight": weights}.items()}
    options = {"chunk_rows": max(1, len(labels)), "draws": draws, "seed": seed}
    with Comparison(models=len(scores), keys=tuple(keys), **options) as comparison:
        comparison.add(rows)
        return pairs_of(comparison, list(variants), unit)


def _codes(values: ArrayLike, count: int) -> Codes:
    codes = np.asarray(values)
    if codes.shape != (count,) or codes.dtype.kind not in "iu":
        raise DataError(
            f"user and request must be {count} integers like label, got {codes.dtype} {codes.shape}"
        )
    return codes_of(codes)


def make_rows(
    label: NDArray[Any],
    scores: list[NDArray[np.float64]],
    *,
    unit: Codes,
    keys: Mapping[str, Codes],
) -> NamedColumns:
    """Columns for `Comparison.add`, (n,) each.

    Args:
        label: 0 or 1.
        scores: of each model, the base first.
        unit: codes of what is resampled together.
        keys: "user" and "request" where known → codes.
    """
    named = {score_column(m): score for m, score in enumerate(scores)}
    return {
        "label": label.astype(np.int8),
        "cluster": clusters_of(unit).astype(np.uint16),
        **keys,
        **named,
    }


def pairs_of(comparison: Comparison, variants: list[str], unit: str) -> dict[str, Paired]:
    """The finished comparison as pairs of base and variant."""
    (base, *others), delongs = comparison.finish()
    return {
        name: Paired(
            rows=comparison.rows,
            positives=comparison.positives,
            unit=unit,
            base=base,
            variant=sums,
            delong=delong,
        )
        for name, sums, delong in zip(variants, others, delongs, strict=True)
    }
