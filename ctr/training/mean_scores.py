"""Several runs as one model: the mean of their logits, row by row and task by task.

    a_k = 1/M Σ_m a_m,k          M runs, task k; of a regression the mean of the scaled values

Probabilities, joint chances of tasks and values are made of a as of the logits of one run. So the odds are
the geometric mean of the members' odds. Calibrators are not averaged: they are fitted to a anew.

Source: Genest and Zidek, Combining Probability Distributions (Statistical Science 1986), section 3.3, the
logarithmic opinion pool with equal weights.

N rows, K tasks, M runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ctr.predictions import SplitRows, write_predictions
from ctr.predictions.write import GROUP_ROWS, Scored
from ctr.training.calibration import Calibrators
from ctr.training.outputs import Outputs
from ctr.training.scoring import Scores, scored_rows
from features.dataset import Dataset
from features.errors import DataError

_OF_ROWS = ("request_id", "user_id", "known", "label", "weight")


class MeanScores:
    """The scores of a split by runs that are added one at a time; memory holds those of two runs.

    Logits are summed in float64, so the mean of equal runs is theirs, bit by bit.
    """

    def __init__(self) -> None:
        self._first: tuple[str, Scores] | None = None
        self._sum = np.zeros(0)
        self._runs = 0

    def add(self, run: str, scores: Scores) -> None:
        """Take the scores of a run.

        Args:
            run: what messages call it.
            scores: of the whole split, in file order.

        Raises:
            DataError: it has other rows or labels than the first one.
        """
        if self._first is None:
            self._first, self._sum = (run, scores), np.zeros(scores.logit.shape)
        _check_same_rows(self._first, (run, scores))
        self._sum += scores.logit
        self._runs += 1

    def mean(self) -> Scores:
        """The scores of the ensemble."""
        if self._first is None:
            raise ValueError("the scores of a run must be added first")
        return replace(self._first[1], logit=(self._sum / self._runs).astype(np.float32))


def _check_same_rows(first: tuple[str, Scores], other: tuple[str, Scores]) -> None:
    (base, wanted), (run, found) = first, other
    if wanted.logit.shape != found.logit.shape or list(wanted.tasks) != list(found.tasks):
        raise DataError(
            f"{run} must score the rows and tasks of {base}, got logits of shape {found.logit.shape} instead "
            f"of {wanted.logit.shape}; take runs of one data set, `period` and `tasks`"
        )
    for name in _OF_ROWS:
        one, two = (getattr(scores, name).reshape(len(scores.logit), -1) for scores in (wanted, found))
        if (differ := (one != two).any(axis=1)).any():
            row = int(differ.argmax())
            raise DataError(
                f"{run} must score the rows of {base}, but {name} of row {row} is {two[row].tolist()}, not "
                f"{one[row].tolist()}; take runs of one data set, `period` and `tasks`"
            )


def write_scores(
    path: Path, scores: Scores, calibration: Calibrators | None, dataset: Dataset, split: str
) -> int:
    """Write scores as a table of `ctr.predictions`; returns the number of rows.

    Args:
        path: the Parquet file.
        scores: of the whole split, in file order.
        calibration: what makes probabilities of the logits; None: σ(logit).
        dataset: as the runs see it.
        split: of the data set.
    """
    rows, outputs = SplitRows(dataset, split), Outputs(scores.tasks, calibration)
    row_id = rows.data.impressions["row_id"].to_numpy()

    def parts() -> Iterator[Scored]:
        for start in range(0, len(row_id), GROUP_ROWS):
            part = slice(start, start + GROUP_ROWS)
            yield scored_rows(outputs, row_id[part], scores.logit[part])

    return write_predictions(path, rows, parts())
