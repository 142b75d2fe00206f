"""One difference from several trainings: users by bootstrap, seeds and windows by Student's t.

K: clusters. D: bootstrap draws. R: units at the top (trainings or windows).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctr.compare.paired import Paired
from ctr.compare.student import Error
from ctr.compare.units import Units, error_of, pooled_variance
from ctr.metrics.bootstrap import MIN_CLUSTERS
from ctr.metrics.table import METRICS
from features.errors import ConfigError

Noise: TypeAlias = Literal["own", "pooled"]
Windows: TypeAlias = Literal["fixed", "random"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of a variant beside one of the base, on the same test rows.

    Args:
        pair: from `paired_sums` or `compare_files`.
        seed: of both trainings; every cell has a base that was trained for its seed and window.
        window: name of the test window.
    """

    pair: Paired
    seed: int = 0
    window: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean difference in one metric with its standard error.

    Args:
        base, variant: mean of the metric over the trainings; NaN where undefined.
        error: of variant − base; None where `reason` says why.
        clusters: users (or requests, or rows) that count in this metric.
        reason: why there is no difference or no standard error, or None.
    """

    base: float
    variant: float
    error: Error | None
    clusters: int
    reason: str | None = None

    @property
    def delta(self) -> float:
        """Variant − base: the mean over windows of the mean over seeds."""
        return self.variant - self.base


def combine(
    variants: Mapping[str, Sequence[Cell]],
    *,
    noise: Noise = "own",
    windows: Windows = "fixed",
) -> dict[str, dict[str, Difference]]:
    """Mean difference and its error for each metric and variant.

    Args:
        variants: name → its cells.
        noise: "own": a variant's noise of training from its own seeds; "pooled": one noise for all of them,
            which gives far more degrees of freedom with few seeds and takes the variants' noise as equal.
        windows: "fixed": the difference in these windows; "random": in further windows of their kind, so that
            the spread between windows counts (two at least; with fewer than four it can tell little).

    Raises:
        ConfigError: no cells, cells that are repeated, or too few windows, or missing cells under "pooled";
            cells whose users were drawn differently.
    """
    _check(variants, noise=noise, windows=windows)
    results: dict[str, dict[str, Difference]] = {}
    for metric, units in units_of(variants).items():
        if windows == "random":
            units = {name: each.by_window() for name, each in units.items()}
        pooled = _pooled(list(units.values())) if noise == "pooled" else None
        results[metric] = {
            name: _difference(each, metric, _clusters(variants[name], metric), pooled)
            for name, each in units.items()
        }
    return results


def units_of(variants: Mapping[str, Sequence[Cell]]) -> dict[str, dict[str, Units]]:
    """The trainings of each variant as units, for each metric; users are drawn alike in all of them."""
    return {
        metric: {name: _units(cells, metric) for name, cells in variants.items()}
        for metric in _metrics(variants)
    }


def _metrics(variants: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Those that the sums of every training were made for."""
    tables = [cell.pair.base for cells in variants.values() for cell in cells]
    return [m.name for m in tables[0].metrics if all(m in table.metrics for table in tables)]


def _check(variants: Mapping[str, Sequence[Cell]], *, noise: Noise, windows: Windows) -> None:
    tables = [table for cells in variants.values() for c in cells for table in (c.pair.base, c.pair.variant)]
    drawn = sorted({(len(table.auc_draws), table.seed) for table in tables})
    if len(drawn) > 1:
        raise ConfigError(f"all cells must have the same bootstrap, got (draws, seed) {drawn}; compare alike")
    names = {name: [(cell.window, cell.seed) for cell in cells] for name, cells in variants.items()}
    for name, found in names.items():
        repeated = [cell for cell, count in Counter(found).items() if count > 1]
        if repeated or not found:
            what = f"(window, seed) {repeated[0]} twice" if repeated else "none"
            raise ConfigError(
                f"a variant must have one training for each window and seed, got {what} for {name}"
            )
        if windows == "random" and len({window for window, _ in found}) < 2:
            raise ConfigError(
                f"windows taken as random must be two or more, got {found} for {name}; use fixed"
            )
    if noise == "pooled" and len({tuple(sorted(found)) for found in names.values()}) > 1:
        raise ConfigError(f"pooled noise must have every variant in the same windows and seeds, got {names}")


def _units(cells: Sequence[Cell], metric: str) -> Units:
    """Every training as a unit, sorted by window and seed, windows as strata."""
    order = sorted(range(len(cells)), key=lambda k: (cells[k].window, cells[k].seed))
    values = np.array([cells[k].pair.values(metric) for k in order])
    names = [(cells[k].window, cells[k].seed) for k in order]
    return Units(
        names=tuple(names),
        base=values[:, 0],
        variant=values[:, 1],
        drawn=np.stack([cells[k].pair.drawn(metric) for k in order], axis=1),
        strata=np.unique([window for window, _ in names], return_inverse=True)[1],
    )


def _clusters(cells: Sequence[Cell], metric: str) -> int:
    """How many clusters have rows that count in the metric, in any cell."""
    return len(np.unique(np.concatenate([cell.pair.base.counted(metric) for cell in cells])))


def _pooled(variants: list[Units]) -> tuple[float, int] | None:
    defined = [units for units in variants if np.isfinite(units.delta).all()]
    return pooled_variance(defined) if defined and defined[0].df else None


def _difference(units: Units, metric: str, clusters: int, pooled: tuple[float, int] | None) -> Difference:
    weights = units.weights
    base, variant = float(weights @ units.base), float(weights @ units.variant)
    finite: NDArray[np.bool_] = np.all(np.isfinite(units.drawn), axis=1)
    reason, entry = None, METRICS[metric]
    if not np.isfinite(units.delta).all():
        reason = f"undefined: {entry.computation.undefined(entry)}"
    elif clusters < MIN_CLUSTERS:
        reason = f"no interval: {clusters} are too few to resample (at least {MIN_CLUSTERS})"
    elif 2 * finite.sum() < len(finite) or finite.sum() < 2:
        reason = f"no interval: undefined in {int((~finite).sum())} of {len(finite)} draws"
    if reason:
        return Difference(base=base, variant=variant, error=None, clusters=clusters, reason=reason)
    kept = Units(
        names=units.names,
        base=units.base,
        variant=units.variant,
        drawn=units.drawn[finite],
        strata=units.strata,
    )
    error = error_of(kept, clusters=clusters, pooled=pooled)
    return Difference(base=base, variant=variant, error=error, clusters=clusters)
