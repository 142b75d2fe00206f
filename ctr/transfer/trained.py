"""A checkpoint of a run, and how the data set that it was trained on encodes values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ctr.build import open_dataset
from ctr.checkpoint.load import Checkpoint
from ctr.errors import CheckpointError
from ctr.runs.identity import completed
from ctr.runs.saved_config import load_saved_config
from features.dataset import Dataset
from features.encode.encoding import Encoding, encoding_of, read_encoding
from features.errors import DataError


@dataclass(frozen=True)
class Trained:
    """What a run has learned, and of which rows.

    Args:
        run: its directory.
        checkpoint: one of its checkpoints.
        dataset_at: where its data set is now; None: where its configuration says.
        remedy: how a user says where it is, for messages.
    """

    run: Path
    checkpoint: Checkpoint
    dataset_at: Path | None
    remedy: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """What decided its course, with the options of this version."""
        found: dict[str, Any] = completed(self.checkpoint.state["identity"])["config"]
        return found

    @property
    def dataset_digest(self) -> str:
        """Of the manifest of its data set."""
        return str(self.checkpoint.state["identity"]["dataset"])

    @cached_property
    def encoding(self) -> Encoding | None:
        """How its data set encodes; from the data set itself where an older version saved the checkpoint.

        Raises:
            CheckpointError: neither tells it.
        """
        if (kept := self.checkpoint.state.get("encoding")) is not None:
            return read_encoding(kept, what=str(self.checkpoint.path))
        return encoding_of(self.dataset)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set that it was trained on, as it saw it.

        Raises:
            CheckpointError: it is not where it should be, or another one is.
        """
        config = load_saved_config(self.run / "config.yaml")
        place = self.dataset_at or Path(config.dataset)
        needed = f"the vocabularies that {self.run} was trained with must be known, from its data set"
        try:
            found = open_dataset(config, at=place)
        except DataError as error:
            raise CheckpointError(f"{needed}: {error}; {self.remedy}") from error
        if (digest := found.manifest.digest()) != self.dataset_digest:
            raise CheckpointError(
                f"{needed} {self.dataset_digest[:12]}…, but {place} holds {digest[:12]}…; {self.remedy}"
            )
        return found


def check_known(encoding: Encoding | None, what: str) -> Encoding:
    """The encoding, which must be known where two data sets meet.

    Raises:
        DataError: the data set was written without `fitted/`.
    """
    if encoding is None:
        raise DataError(
            f"{what} must say which row is which value, but no fitted/ tells it; prepare the data set again"
        )
    return encoding
