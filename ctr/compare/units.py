"""The trainings of one variant as units that vary at random, and the variance of their mean difference.

R: units. D: bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctr.compare.student import Error
from ctr.metrics.records import Floats, Ints


@dataclass(frozen=True, kw_only=True)
class Units:
    """One metric of a variant's trainings.

    Args:
        names: (window, seed) of each unit.
        base, variant: (R,) the metric of each.
        drawn: (D, R) difference in every bootstrap draw of the users, the same draw in every unit.
        strata: (R,) number of the stratum, from 0; units vary at random within a stratum, and strata are
        fixed.
    """

    names: tuple[tuple[str, int], ...]
    base: Floats
    variant: Floats
    drawn: Floats
    strata: Ints

    @property
    def delta(self) -> Floats:
        """Variant − base of each unit, (R,)."""
        return self.variant - self.base

    @property
    def weights(self) -> Floats:
        """What each unit counts in the mean, (R,): strata count alike, and units alike within one."""
        sizes = np.bincount(self.strata)
        return 1.0 / (len(sizes) * sizes[self.strata])

    @property
    def df(self) -> int:
        """Degrees of freedom of the spread within strata."""
        return len(self.strata) - int(self.strata.max()) - 1

    def by_window(self) -> Units:
        """One unit per window, the mean of its seeds, all in one stratum."""
        windows = sorted({window for window, _ in self.names})
        mean = np.array([[w == window for w, _ in self.names] for window in windows], dtype=np.float64)
        mean /= mean.sum(axis=1, keepdims=True)
        return Units(
            names=tuple((window, 0) for window in windows),
            base=mean @ self.base,
            variant=mean @ self.variant,
            drawn=self.drawn @ mean.T,
            strata=np.zeros(len(windows), dtype=np.int64),
        )


def error_of(units: Units, *, clusters: int, pooled: tuple[float, int] | None = None) -> Error:
    """The squared standard error of the mean difference.

    With d_k the difference of unit k, u_k its weight, s² the variance of d within strata, and C the
    covariance of the units over draws of the users: Var = Σ_{k≠l} u_k u_l C_kl + s² Σ u_k².
    s² holds the noise of training and how a training's errors fall on these users; C holds what is common to
    all units, the users that the variant itself serves better or worse. Without degrees of freedom for s²,
    Var = Σ u_k u_l C_kl over all k and l, and the noise of training is not covered.

    Args:
        units: of one variant.
        clusters: users that are resampled.
        pooled: s² and its degrees of freedom where they come from all variants together.
    """
    u = units.weights
    # Poisson draws give the variance with n in its denominator, which is short by (n − 1) / n.
    covariance = np.atleast_2d(np.cov(units.drawn, rowvar=False)) * clusters / (clusters - 1)
    if units.df == 0:
        return Error(users=max(0.0, float(u @ covariance @ u)), df_users=clusters - 1)
    spread, df = pooled or (_spread(units.delta, units.strata) / units.df, units.df)
    common = 0.0
    for k, same in enumerate(units.strata[:, None] == units.strata):
        # Within a stratum of n units the mean of C off the diagonal stands for its common part.
        others = same & (np.arange(len(same)) != k)
        within = covariance[k, others].mean() if others.any() else covariance[k, k]
        common += u[k] * (within * u[same].sum() + covariance[k, ~same] @ u[~same])
    return Error(
        users=max(0.0, float(common)),
        df_users=clusters - 1,
        training=float(spread * (u @ u)),
        df_training=df,
    )


def pooled_variance(variants: Sequence[Units]) -> tuple[float, int]:
    """One s² for all variants, from what remains of models × units after the mean of each model and each
    unit.

    Every model, base and variants, is taken to have the same noise of training σ²; a difference has 2 σ².
    With V variants in strata of n units it has V Σ (n − 1) degrees of freedom, and with V = 1 it is the
    variant's own s².

    Args:
        variants: units of every variant, the same ones in the same order, with the same base.

    Returns:
        s² and its degrees of freedom.
    """
    first = variants[0]
    models = np.stack([first.base, *(units.variant for units in variants)])
    residual = models - models.mean(axis=0)
    df = len(variants) * first.df
    return 2.0 * _spread(residual, first.strata) / df, df


def _spread(values: NDArray[np.float64], strata: Ints) -> float:
    """Σ (value − mean of its stratum)², values (…, R)."""
    total = 0.0
    for stratum in range(int(strata.max()) + 1):
        part = values[..., strata == stratum]
        total += float(np.square(part - part.mean(axis=-1, keepdims=True)).sum())
    return total
