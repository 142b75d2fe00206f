"""An entry of the table of metrics: everything that is said of one, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ctr.metrics.computation import Computation, GroupMean

Better: TypeAlias = Literal["higher", "lower", "nearest 1"]
Labels: TypeAlias = Literal["any", "both classes", "a positive"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric.

    Args:
        name: in configurations, journals, MLflow, JSON and on the command line.
        label: in tables and pictures.
        meaning: half a sentence for a reader who does not know it.
        better: which way is better; "nearest 1" chooses no step and judges no model.
        computation: how an evaluation and a comparison compute it.
        labels: what the labels must have so that it is defined.
        interval: how the 95 % interval is made of the bootstrap's spread: symmetric in log-odds for figures
            in [0, 1], symmetric in the figure itself, or None for none.
        headline: named where there is room for a few: validation while training, baselines, ablations.
        in_slices: a column of the terminal's table of slices.
        in_validation: computed when a split is scored while training, and so fit for `train.metric`.
        check_of: name of the metric of which this is a second opinion: beside it in JSON, journal and MLflow,
            nowhere else.
        not_compared: why no comparison of models judges it; empty for one that does.
    """

    name: str
    label: str
    meaning: str
    better: Better
    computation: Computation
    labels: Labels = "any"
    interval: Literal["log-odds", "symmetric"] | None = "symmetric"
    headline: bool = False
    in_slices: bool = False
    in_validation: bool = True
    check_of: str | None = None
    not_compared: str = ""

    @property
    def direction(self) -> int:
        """+1 where larger is better, −1 where smaller is, 0 where neither is."""
        return {"higher": 1, "lower": -1, "nearest 1": 0}[self.better]

    @property
    def needs(self) -> str:
        """What a table of predictions must have so that it is defined."""
        if isinstance(self.computation, GroupMean):
            return f"{self.computation.group} ids, a {self.computation.group} with {self.computation.having}"
        return {"any": "rows", "both classes": "rows of both classes", "a positive": "a row with label 1"}[
            self.labels
        ]

    @property
    def in_text(self) -> str:
        """The label within a sentence: words small, abbreviations as they are.

        Example:
            >>> from ctr.metrics.table import METRICS
            >>> METRICS["query_auc"].in_text, METRICS["ne"].in_text
            ('query AUC', 'NE')
        """
        return self.label if self.label[1:2].isupper() else self.label[:1].lower() + self.label[1:]

    def missing_labels(self, rows: int, positives: int) -> str | None:
        """Why a figure that is a function of sums is undefined, or None."""
        if rows == 0:
            return "no rows"
        if self.labels == "both classes" and not 0 < positives < rows:
            return f"only one class: {positives} of {rows} labels are 1"
        if self.labels == "a positive" and not positives:
            return f"none of the {rows} labels is 1"
        return None
