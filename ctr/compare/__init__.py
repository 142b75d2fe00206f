"""Is one model better than another on the same test rows: paired differences, intervals, verdicts."""

from ctr.compare.combine import Cell, Difference, combine
from ctr.compare.comparison import DRAWS
from ctr.compare.paired import Paired, paired_sums
from ctr.compare.streams import compare_files
from ctr.compare.verdict import Judgement, judge

__all__ = [
    "DRAWS",
    "Cell",
    "Difference",
    "Judgement",
    "Paired",
    "combine",
    "compare_files",
    "judge",
    "paired_sums",
]
