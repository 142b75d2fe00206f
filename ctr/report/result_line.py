"""A result as one line of JSON: what was measured, on what, and how somebody else measures it again.

The tables of docs/results.md are made from such lines (`pipelines/results_page.py`); `ctr evaluate --line`
appends one, and `ctr ablate` writes those of its variants. What was not kept is null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from features.durable import replace_file
from features.errors import DataError

# A number keeps the digits with which it stands in the file: 0.7200 is not 0.72.
Number = Decimal


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Plain):
    """One metric of a result.

    Args:
        value: the mean over the seeds; None where only the difference was kept.
        low, high: ends of the value's interval, of the kind that the line names.
        seed_values: the value of each seed, in the order of the line's seeds.
        seed_low, seed_high: the least and the largest of them.
        difference, difference_low, difference_high: from the base of the table, with its interval.
        verdict: of the comparison with the base: helps, hurts or no evidence.
        detectable: the difference that would have been found with a power of 80 %.
        predicted, predicted_low, predicted_high: written down before the training, with its interval.
        errors: value minus each prediction, by the prediction's name.
    """

    value: Number | None = None
    low: Number | None = None
    high: Number | None = None
    seed_values: list[Number] | None = None
    seed_low: Number | None = None
    seed_high: Number | None = None
    difference: Number | None = None
    difference_low: Number | None = None
    difference_high: Number | None = None
    verdict: str | None = None
    detectable: Number | None = None
    predicted: Number | None = None
    predicted_low: Number | None = None
    predicted_high: Number | None = None
    errors: dict[str, Number] | None = None


class ResultLine(_Plain):
    """One result.

    Args:
        dataset, dataset_digest: name of the data set and SHA-256 of its manifest.
        split: the part that was scored.
        model: what a table calls it.
        variant: what differs from the base of its table; None for the base, or where there is none.
        config, overrides: configuration file of the run or plan, and its `--set` options.
        settings: the whole resolved configuration; saved as a file it is one that `ctr train` takes.
        seeds: of the trainings that the figures are means of.
        metrics: by name, see `Figure`.
        interval: how the intervals were made.
        rows: scored rows.
        dense_parameters, embedding_parameters: of the model.
        mflop_per_row: millions of operations of a training row, forward and backward.
        rows_per_s: training speed.
        seconds: of the training, on the clock.
        hardware: that the training ran on.
        commit: of the code that trained.
        recorded_in: the commit that put the figures into docs/results.md, where `commit` was not kept.
        date: of the measurement, or of that commit.
        commands: in this order.
        note: a sentence.
    """

    dataset: str
    dataset_digest: str | None = None
    split: str
    model: str
    variant: str | None = None
    config: str | None = None
    overrides: list[str] | None = None
    settings: dict[str, Any] | None = None
    seeds: list[int] | None = None
    metrics: dict[str, Figure]
    interval: str | None = None
    rows: int | None = None
    dense_parameters: int | None = None
    embedding_parameters: int | None = None
    mflop_per_row: Number | None = None
    rows_per_s: Number | None = None
    seconds: Number | None = None
    hardware: str | None = None
    commit: str | None = None
    recorded_in: str | None = None
    date: str | None = None
    commands: list[str] | None = None
    note: str | None = None

    def to_json(self) -> str:
        """One line with every field, so that a reader sees what is null; no newline at its end."""
        plain = self.model_dump()
        plain["metrics"] = {
            name: figure.model_dump(exclude_none=True) for name, figure in self.metrics.items()
        }
        return json.dumps(plain, ensure_ascii=False, default=float)


def read_lines(path: Path) -> list[ResultLine]:
    """All results of a file.

    Raises:
        DataError: a line is no result; names the file, the line and what is wrong.
    """
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            plain, exact = json.loads(text), json.loads(text, parse_float=Decimal)
            if isinstance(plain, dict):
                exact["settings"] = plain.get("settings")  # a configuration's numbers are floats
            found.append(ResultLine.model_validate(exact))
        except (ValueError, ValidationError) as error:
            raise DataError(f"{path}, line {number} must be a result, got {text[:80]!r}: {error}") from error
    return found


def write_lines(path: Path, lines: Sequence[ResultLine]) -> None:
    """A file of these results alone; it appears whole, in the place of an older one."""
    replace_file(path, "".join(line.to_json() + "\n" for line in lines).encode())


def append_line(path: Path, line: ResultLine) -> None:
    """Add a result at the end of a file, which is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line.to_json() + "\n")
