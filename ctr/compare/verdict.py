"""From differences to verdicts: intervals, p-values, Holm over the variants, what could have been found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from ctr.compare.combine import Cell, Difference, Noise, Windows, combine
from ctr.compare.student import Error
from ctr.metrics.table import METRICS, check_compared, compared
from features.errors import ConfigError

Verdict: TypeAlias = Literal["helps", "hurts", "no evidence"]
DELONG = "auc_delong"
POWER = 0.8
SEEDS_NOT_COVERED = "noise of training is not covered: one seed"
# Sums of the same numbers in another order differ by less; two models that differ by less are equal.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One variant in one metric.

    Args:
        variant, metric: which; "auc_delong" is the AUC with DeLong's standard error, which takes rows as
            independent: a check of "auc", given for single trainings.
        base, value: the metric of the base and of the variant, mean over trainings.
        delta: value − base; None where undefined, `reason` then says why.
        low, high: ends of the 1 − alpha interval of delta, not corrected for the number of variants.
        se: standard error of delta.
        p, p_holm: two-sided p-value, and corrected over the variants of this metric.
        verdict: "helps" or "hurts" where p_holm < alpha, by the metric's direction.
        detectable: the |delta| that is found with 80 % power at the level alpha / variants.
        seeds, windows: how many of each.
        rows, clusters: test rows (over windows) and clusters that count.
        unit: what was resampled: "user", "request" or "row".
        caveats: what the interval does not cover, in plain words.
        reason: why there is no verdict, or None.
    """

    variant: str
    metric: str
    base: float | None
    value: float | None
    delta: float | None
    low: float | None = None
    high: float | None = None
    se: float | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: Verdict = "no evidence"
    detectable: float | None = None
    seeds: int
    windows: int
    rows: int
    clusters: int
    unit: str
    caveats: tuple[str, ...] = ()
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data for JSON."""
        return asdict(self)


def judge(
    variants: Mapping[str, Sequence[Cell]],
    *,
    metrics: Sequence[str] | None = None,
    alpha: float = 0.05,
    noise: Noise = "own",
    windows: Windows = "fixed",
) -> list[Judgement]:
    """A verdict for every variant and metric, Holm-corrected over the variants of a metric.

    Args:
        variants: name → its cells, one for each seed and window.
        metrics: which; decide on one of them before looking. None: all that models are compared by.
        alpha: chance that any variant without effect gets a verdict, in each metric.
        noise, windows: see `combine`.

    Returns:
        Judgements by metric, then in the order of `variants`; "auc" is followed by "auc_delong" where every
        variant has a single training and rows have no weights.

    Raises:
        ConfigError: see `combine`; an alpha outside (0, 1), or an unknown metric.
    """
    chosen = [metric.name for metric in compared()] if metrics is None else _checked(metrics)
    if not 0.0 < alpha < 1.0:
        raise ConfigError(f"alpha must lie in (0, 1), got {alpha}")
    differences = combine(variants, noise=noise, windows=windows) if variants else {}
    single = all(len(cells) == 1 for cells in variants.values())
    judgements = []
    for metric in chosen if variants else ():
        judgements += _judge_metric(variants, differences[metric], metric, alpha=alpha, windows=windows)
        delongs = {name: cells[0].pair.delong for name, cells in variants.items()}
        if metric == "auc" and single and None not in delongs.values():
            checks = {name: _delong(cells[0], differences["auc"][name]) for name, cells in variants.items()}
            judgements += _judge_metric(variants, checks, DELONG, alpha=alpha, windows=windows)
    return judgements


def _checked(metrics: Sequence[str]) -> list[str]:
    try:
        return [check_compared(metric) for metric in metrics]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _delong(cell: Cell, difference: Difference) -> Difference:
    """The AUC's difference with DeLong's standard error instead of the clusters'."""
    assert cell.pair.delong is not None
    if math.isnan(cell.pair.delong.se):
        reason = difference.reason or "no interval: DeLong needs two rows of each class"
        return replace(difference, error=None, clusters=0, reason=reason)
    error = Error(users=cell.pair.delong.se**2, df_users=max(1, cell.pair.rows - 2))
    return replace(difference, error=error, clusters=cell.pair.rows, reason=None)


def _judge_metric(
    variants: Mapping[str, Sequence[Cell]],
    differences: Mapping[str, Difference],
    metric: str,
    *,
    alpha: float,
    windows: Windows,
) -> list[Judgement]:
    tested = {name: e.error.p_value(_delta(e)) for name, e in differences.items() if e.error is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = []
    for name, difference in differences.items():
        about = _about(variants[name], difference, metric, windows=windows)
        if difference.error is None:
            found.append(Judgement(variant=name, metric=metric, **about))
            continue
        error, delta = difference.error, _delta(difference)
        half = error.critical(alpha) * error.se
        detectable = (error.critical(alpha / len(tested)) + error.quantile(1.0 - POWER)) * error.se
        judgement = Judgement(
            variant=name,
            metric=metric,
            low=delta - half,
            high=delta + half,
            se=error.se,
            p=tested[name],
            p_holm=corrected[name],
            verdict=_verdict(metric, delta, corrected[name] < alpha),
            detectable=detectable,
            **about,
        )
        found.append(judgement)
    return found


def _delta(difference: Difference) -> float:
    return 0.0 if abs(difference.delta) <= _ROUNDING else difference.delta


def _verdict(metric: str, delta: float, significant: bool) -> Verdict:
    if not significant:
        return "no evidence"
    return "helps" if delta * METRICS[metric].direction > 0 else "hurts"


def _about(cells: Sequence[Cell], difference: Difference, metric: str, *, windows: Windows) -> dict[str, Any]:
    """What a judgement says beside its test."""
    names = {cell.window: cell.pair for cell in cells}
    found = {"base": difference.base, "value": difference.variant, "delta": _delta(difference)}
    finite = {key: value if math.isfinite(value) else None for key, value in found.items()}
    unit = "row" if metric == DELONG else cells[0].pair.unit
    return {
        **finite,
        "seeds": len({cell.seed for cell in cells}),
        "windows": len(names),
        "rows": sum(pair.rows for pair in names.values()),
        "clusters": difference.clusters,
        "unit": unit,
        "caveats": tuple(_caveats(difference, unit, windows)),
        "reason": difference.reason,
    }


def _caveats(difference: Difference, unit: str, windows: Windows) -> list[str]:
    caveats = []
    if difference.error is not None and difference.error.df_training == 0:
        caveats.append(SEEDS_NOT_COVERED)
    if windows == "fixed":
        caveats.append("other periods are not covered")
    if unit == "row":
        caveats.append("rows are taken as independent")
    return caveats


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest of m becomes max over j ≤ i of min(1, (m − j + 1) p_j).

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), section 3.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[k]))
        corrected[k] = largest
    return corrected
