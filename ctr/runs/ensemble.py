"""The directory of an ensemble: what it is made of, beside predictions, report and journal as a run has them.

out/
  ensemble.json   journal.jsonl   lock   tracking.json
  predictions/<split>.parquet, and <split>-<number>.parquet of each member   report/

`ensemble.json` is written when all predictions are there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ctr.runs.record import read_record
from features.durable import replace_file
from features.errors import ConfigError

ENSEMBLE = "ensemble.json"


class Member(BaseModel):
    """One of the runs.

    Args:
        run: its directory, as it was named.
        model: its kind.
        seed, step: of the weights.
        trained_on: `train.data` of the run.
        value: of the validation metric; None where the validation part is none for this run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    model: str
    seed: int
    step: int
    trained_on: str
    value: float | None = None


class EnsembleRecord(BaseModel):
    """What an ensemble is made of.

    Args:
        dataset, digest, place: name of the data set, SHA-256 of its manifest, and where it was.
        calibration: how probabilities are made of the mean logits.
        metric: of the validation part, by which the best member is named.
        members: in the order of their numbers, which count from 1.
        best: number of the member with the best value; None where no member has one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    dataset: str
    digest: str
    place: str
    calibration: Literal["none", "platt", "isotonic"]
    metric: str
    members: list[Member]
    best: int | None = None

    def write(self, directory: Path) -> None:
        """Put it into the directory of the ensemble."""
        replace_file(directory / ENSEMBLE, self.model_dump_json(indent=2).encode() + b"\n")


def is_ensemble(directory: Path) -> bool:
    """Whether a directory holds a finished ensemble."""
    return (directory / ENSEMBLE).is_file()


def read_ensemble(directory: Path) -> EnsembleRecord:
    """What the ensemble of a directory is made of.

    Raises:
        DataError: the file is damaged, or of another version.
    """
    remedy = "make it again: ctr ensemble"
    return read_record(
        directory / ENSEMBLE, EnsembleRecord, tells="what the ensemble is made of", remedy=remedy
    )


def member_file(directory: Path, split: str, number: int) -> Path:
    """The predictions of a member, whose numbers count from 1."""
    return directory / "predictions" / f"{split}-{number}.parquet"


def refuse_ensemble(directory: Path) -> None:
    """For commands that need weights.

    Raises:
        ConfigError: the directory holds an ensemble.
    """
    if is_ensemble(directory):
        raise ConfigError(
            f"{directory} must be the directory of one run, and holds an ensemble, which has predictions and "
            "no weights; name another directory, or one of the runs that it is made of"
        )
