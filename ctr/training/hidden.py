"""Does the model read an ID, or only the labels that its row has already seen?

A sample of training rows and one of validation rows is scored again with one ID column hidden at a time: its
IDs become the unknown value, in the candidate, the request or the events, and all else stays. What the AUC
loses is what the column tells. If it tells much in training and little in validation, the rows of its table
hold the labels of the impressions that they were trained on, one by one, and the dense weights have begun to
read them; in the epoch after that, validation falls.

B candidates, U unique IDs of a table, V IDs of a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ctr.batch import Batch, IdColumn
from ctr.compare.delong import delong
from ctr.distributed.world import World
from ctr.loader.collate import CANDIDATE, EVENT, REQUEST, ColumnKey, batch_columns
from ctr.training.outputs import Outputs, logit_of
from ctr.training.scoring import BatchSource, Scores, score_split
from ctr.training.state import TrainingState

MANY = 1_000  # impressions a row: columns of tables beyond are not looked at
UNKNOWN = 1  # the first row of unknown values; row 0 is for missing ones
_SIGMAS = 3.0  # by which training must gain more than validation
_SHARE = 0.5  # of the training's gain: a column that tells more of it in validation has been learned


@dataclass(frozen=True)
class Gain:
    """The AUC that a column adds in a part, and the standard error of that (DeLong)."""

    auc: float
    error: float


@dataclass(frozen=True)
class ColumnGain:
    """What a column tells in the sample of each part."""

    column: str
    table: str
    train: Gain
    valid: Gain

    @property
    def memorised(self) -> bool:
        """Whether training gains what validation does not, beyond chance."""
        excess = self.train.auc - self.valid.auc
        certain = excess > _SIGMAS * float(np.hypot(self.train.error, self.valid.error))
        return certain and self.train.auc > max(0.0, self.valid.auc / _SHARE)

    def __str__(self) -> str:
        return f"{self.column}: {self.train.auc:+.4f} on training, {self.valid.auc:+.4f} on validation"


@dataclass(frozen=True)
class ColumnHidden:
    """The batches of a source in memory, with some column hidden."""

    batches: Sequence[Batch]
    key: ColumnKey | None = None
    table: str = ""

    def iterate(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Those from a step on."""
        for batch in self.batches[start_step:]:
            yield batch if self.key is None else hide(batch, self.key, self.table)


@dataclass(frozen=True)
class HiddenColumns:
    """Scores samples with each of some columns hidden.

    Attributes:
        samples: `train` and `valid`: what gives a few rows of each part, always the same.
        columns: column → the vocabulary table that it is looked up in.
        bf16: whether the forward is computed in bfloat16.
        device: where.
        world: the ranks among which the batches of the samples are given out.
    """

    samples: Mapping[str, BatchSource]
    columns: Mapping[ColumnKey, str]
    bf16: bool
    device: torch.device
    world: World

    def measure(self, state: TrainingState) -> list[ColumnGain]:
        """What each column tells, largest gain on training first; the same on all ranks.

        A column without a defined AUC in both samples is left out.
        """
        found = {part: self._gains(state, source) for part, source in self.samples.items()}
        gains = [
            ColumnGain(name_of(key), table, found["train"][key], found["valid"][key])
            for key, table in self.columns.items()
            if key in found["train"] and key in found["valid"]
        ]
        return sorted(gains, key=lambda gain: -gain.train.auc)

    def _gains(self, state: TrainingState, source: BatchSource) -> dict[ColumnKey, Gain]:
        """The gain of each column in one part."""
        batches = list(source.iterate(0))

        def score(key: ColumnKey | None = None, table: str = "") -> Scores | None:
            held = ColumnHidden(batches, key, table)
            return score_split(state, held, bf16=self.bf16, device=self.device, world=self.world)

        whole = score()
        hidden = [score(key, table) for key, table in self.columns.items()]
        gains = None if whole is None else [_gain(whole, part) for part in hidden]
        told = self.world.broadcast_json(gains)
        return {key: Gain(*gain) for key, gain in zip(self.columns, told, strict=True) if gain is not None}


def _gain(whole: Scores, hidden: Scores | None) -> tuple[float, float] | None:
    """AUC with the column minus AUC without it, and the standard error; None where one is undefined.

    Of a run with several tasks it is that of the first.
    """
    assert hidden is not None  # rank 0 has all scores
    output = Outputs(whole.tasks).all[0]
    label, known, _ = whole.labels(output)
    if not output.binary or not known.any():
        return None
    without, with_it = (logit_of(output, scores.logit)[known] for scores in (hidden, whole))
    found = delong(label[known], without, with_it)
    gain, error = found.auc[1] - found.auc[0], found.se
    return (gain, error) if np.isfinite([gain, error]).all() else None


def hide(batch: Batch, key: ColumnKey, table: str) -> Batch:
    """A batch in which all values of a column are unknown; missing ones stay missing.

    The unknown row is asked for behind the others, if no other column does: nothing else moves.
    """
    ids, column = batch.unique_ids[table], batch_columns(batch)[key]
    known = torch.nonzero(ids == UNKNOWN).flatten()
    if not len(known):
        known, ids = known.new_tensor([len(ids)]), torch.cat([ids, ids.new_tensor([UNKNOWN])])
    missing = ids[column.inverse_indices] == 0
    inverse = torch.where(missing, column.inverse_indices, known)
    changed = _with_column(batch, key, replace(column, inverse_indices=inverse))
    return replace(changed, unique_ids={**batch.unique_ids, table: ids})


def _with_column(batch: Batch, key: ColumnKey, column: IdColumn) -> Batch:
    """A batch with another column in the place of one."""
    level, name = key
    if level == REQUEST:
        return replace(batch, request_ids={**batch.request_ids, name: column})
    if level == CANDIDATE:
        return replace(batch, candidate_ids={**batch.candidate_ids, name: column})
    domain = level.removeprefix(EVENT)
    events = batch.sequences[domain]
    events = replace(events, ids={**events.ids, name: column})
    return replace(batch, sequences={**batch.sequences, domain: events})


def name_of(key: ColumnKey) -> str:
    """A column as people call it.

    Example:
        >>> name_of(("candidate", "item")), name_of(("event.view", "item"))
        ('candidate item', 'view item')
    """
    level, name = key
    return f"{level.removeprefix(EVENT)} {name}"


def gain_rows(gains: Sequence[ColumnGain]) -> dict[str, Any]:
    """The values of the journal's row: AUC gained by each column in each part."""
    return {
        "split": "columns",
        "parts": [
            {
                "name": [gain.column],
                "figures": {
                    "train": gain.train.auc,
                    "train_error": gain.train.error,
                    "valid": gain.valid.auc,
                    "valid_error": gain.valid.error,
                    "memorised": int(gain.memorised),
                },
            }
            for gain in gains
        ],
    }


def describe_gains(gains: Sequence[ColumnGain], restarted: Sequence[str]) -> list[str]:
    """Sentences for a person: every column that is memorised, or that none is.

    Args:
        gains: of an evaluation.
        restarted: tables that are drawn anew before the next epoch.
    """
    if not gains:
        return []
    found = [gain for gain in gains if gain.memorised]
    if not found:
        return [f"no ID column is memorised; the most told {gains[0]}"]
    return [
        f"{gain}: memorised"
        + ("; drawn anew at the next epoch" if gain.table in restarted else "; see embedding.restart")
        for gain in found
    ]
