"""Retrieve, then rank: what a trained click model says of items that were generated.

R requests, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ctr.build import scoring_loader
from ctr.config import RunConfig
from ctr.generate.views import Donors
from ctr.loader.view import DatasetView
from ctr.training.scoring import outputs_of_run, score_batches
from ctr.training.state import TrainingState
from features.dataset import Dataset


@dataclass(frozen=True)
class Ranker:
    """A trained run that scores any pair of request and item.

    Args:
        config: of the run.
        dataset: as the run sees it.
        state: its weights.
        device: where they are.
        donors: where the features of items come from.
    """

    config: RunConfig
    dataset: Dataset
    state: TrainingState
    device: torch.device
    donors: Donors

    def score(self, split: str, positions: np.ndarray, items: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The click probability of each item for its request; 0 where the item was never shown before it.

        Args:
            split: where the requests are.
            positions: (R,) which.
            items: for each request, rows of the item table.
        """
        data = self.dataset.split(split)
        clock = np.repeat(data.requests["clock"].to_numpy()[positions], [len(own) for own in items])
        rows = self.donors.find(np.concatenate([*items, np.empty(0, np.int64)]).astype(np.int64), clock)
        cuts = np.cumsum([len(own) for own in items])
        counts = np.array([(part >= 0).sum() for part in np.split(rows, cuts)[:-1]], dtype=np.int64)
        scores = np.zeros(len(rows))
        some = counts > 0
        if some.any():
            shown = self.donors.split(data, positions[some], counts[some], rows[rows >= 0])
            scores[rows >= 0] = self._probabilities(split, DatasetView(self.dataset, {split: shown}))
        return np.split(scores, cuts)[:-1]

    def _probabilities(self, split: str, view: Dataset) -> np.ndarray:
        loader = scoring_loader(self.config, view, split)
        bf16 = self.config.train.precision == "bf16"
        parts = score_batches(self.state, loader.iterate(0), bf16=bf16, device=self.device)
        logits = np.concatenate([logits for _, logits in parts])
        return outputs_of_run(self.state).scores(logits)[0]
