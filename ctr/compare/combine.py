"""One difference from several trainings: users by bootstrap, seeds and windows by Student's t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ctr.compare.paired import Paired
from ctr.compare.sums import MetricName

Noise: TypeAlias = Literal["own", "pooled"]
Windows: TypeAlias = Literal["fixed", "random"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of a variant beside one of the base, on the same test rows.

    Args:
        pair: from `paired_sums` or `compare_files`.
        seed: of both trainings; every cell has a base trained for it alone.
        window: name of the test window.
    """

    pair: Paired
    seed: int = 0
    window: str = ""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The mean difference of one metric with its standard error.

    Args:
        base, variant: mean metric of each.
        delta: variant − base, mean over windows of the mean over seeds; NaN where undefined.
        var_users: variance from the sample of users.
        var_training: variance from seeds (and windows); None where one training says nothing of it.
        df_users, df_training: degrees of freedom of the two.
        reason: why there is no difference or no standard error, or None.
    """

    base: float
    variant: float
    delta: float
    var_users: float
    var_training: float | None
    df_users: int
    df_training: int
    reason: str | None = None


def combine(
    variants: Mapping[str, Sequence[Cell]],
    metric: MetricName,
    *,
    noise: Noise = "own",
    windows: Windows = "fixed",
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Mean difference and its variance for each variant.

    Args:
        variants: name → its cells; (window, seed) is unique in a variant.
        metric: which.
        noise: "own": training noise of a variant from its own seeds; "pooled": one training noise for all
            variants, which gives far more degrees of freedom with few seeds and assumes that they are alike.
        windows: "fixed": the verdict is about these windows; "random": about further windows of their kind
            (the spread between windows counts; three windows at least).
        draws, seed: of the bootstrap over users.

    Raises:
        ConfigError: cells that are repeated or missing.
    """
    raise NotImplementedError
