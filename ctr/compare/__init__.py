"""Is one model better than another on the same test rows: paired differences, intervals, verdicts."""

from ctr.compare.combine import Cell, Estimate, combine
from ctr.compare.paired import Paired, paired_sums
from ctr.compare.streams import compare_files
from ctr.compare.sums import METRICS, MetricName
from ctr.compare.verdict import Judgement, judge

__all__ = [
    "METRICS",
    "Cell",
    "Estimate",
    "Judgement",
    "MetricName",
    "Paired",
    "combine",
    "compare_files",
    "judge",
    "paired_sums",
]
