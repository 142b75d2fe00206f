"""From differences to verdicts: intervals, p-values, Holm over the variants, what could have been found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ctr.compare.combine import Cell, Noise, Windows
from ctr.compare.sums import MetricName

Verdict: TypeAlias = Literal["helps", "hurts", "no evidence"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One variant in one metric.

    Args:
        variant, metric: which; metric "auc_delong" is the AUC with DeLong's standard error (rows independent).
        base, value: the metric of the base and of the variant, mean over trainings.
        delta: value − base; None where undefined, `reason` then says why.
        low, high: ends of the 1 − alpha interval of delta, not corrected for the number of variants.
        se: standard error of delta.
        p, p_holm: two-sided p-value, and corrected over the variants of this metric.
        verdict: by p_holm < alpha and the metric's direction.
        detectable: smallest |delta| found with 80 % power at the level alpha / variants.
        seeds, windows: how many of each.
        rows, clusters: test rows (sum over windows) and clusters resampled.
        unit: what was resampled: "user", "request" or "row".
        caveats: what the interval does not cover, in plain words.
        reason: why there is no verdict, or None.
    """

    variant: str
    metric: str
    base: float | None
    value: float | None
    delta: float | None
    low: float | None
    high: float | None
    se: float | None
    p: float | None
    p_holm: float | None
    verdict: Verdict
    detectable: float | None
    seeds: int
    windows: int
    rows: int
    clusters: int
    unit: str
    caveats: tuple[str, ...] = ()
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data for JSON."""
        raise NotImplementedError


def judge(
    variants: Mapping[str, Sequence[Cell]],
    *,
    metrics: Sequence[MetricName] = ("auc", "gauc", "query_auc", "log_loss", "ne"),
    alpha: float = 0.05,
    noise: Noise = "own",
    windows: Windows = "fixed",
    draws: int = 1000,
    seed: int = 0,
) -> list[Judgement]:
    """A verdict for every variant and metric, Holm-corrected over the variants of a metric.

    Args:
        variants: name → its cells (one a seed and window).
        metrics: which; decide on one of them before looking.
        alpha: chance that any variant without effect gets a verdict, in each metric.
        noise, windows, draws, seed: see `combine`.

    Returns:
        Judgements, by metric and then in the order of `variants`.
    """
    raise NotImplementedError


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: sorted p_(i) → max over j ≤ i of min(1, (m − j + 1) p_(j)).

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    raise NotImplementedError
