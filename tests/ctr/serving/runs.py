"""A tiny data set, a model with random weights on it, and a scorer."""

from __future__ import annotations

from pathlib import Path

import torch

from ctr.build import build_state, ngrams_of, open_dataset, scoring_loader
from ctr.config import RunConfig
from ctr.serving.cache import StateCache
from ctr.serving.requests import RequestCollator
from ctr.serving.scorer import Scorer
from ctr.training.scoring import score_split
from ctr.training.state import TrainingState
from features.dataset import Dataset
from tests.ctr.tiny_run import tiny_config

CPU = torch.device("cpu")
# Two stages and LONGER need no width that their tokens divide; M = 1.
LONGER = ("model.kind=longer", "model.longer.num_queries=4", "model.layers=2")
TWO_STAGE = ("model.kind=two_stage", "model.longer.num_queries=4", "model.layers=2")
HYFORMER = ("model.layers=2",)


class Built:
    """A model in evaluation mode, and what it gives when a loader feeds it."""

    def __init__(self, dataset: Path, *overrides: str, stretch: float = 20.0) -> None:
        self.config: RunConfig = tiny_config(dataset, dataset / "run", *overrides)
        self.dataset: Dataset = open_dataset(self.config)
        self.state: TrainingState = build_state(self.config, self.dataset.manifest, CPU)
        with torch.no_grad():  # fresh weights give nearly equal logits: let the embeddings speak
            for name, weight in self.state.tables.state().items():
                if name.endswith(".weight") and isinstance(weight, torch.Tensor):
                    weight.mul_(stretch)
        self.state.model.eval()

    def scorer(self, **options: object) -> Scorer:
        """A scorer of this model."""
        collator = RequestCollator(
            self.dataset,
            max_len=self.config.loader.max_len,
            ngrams=ngrams_of(self.config, self.dataset.manifest),
        )
        return Scorer(
            self.state.model,
            self.state.tables,
            collator,
            **options,  # type: ignore[arg-type]
        )

    def expected(self, split: str = "test") -> torch.Tensor:
        """Logits of `ctr predict`, in file order."""
        found = score_split(
            self.state, scoring_loader(self.config, self.dataset, split), bf16=False, device=CPU
        )
        assert found is not None
        return torch.from_numpy(found.logit)


def cache(megabytes: float = 10.0) -> StateCache:
    """A cache of so many bytes."""
    return StateCache(int(megabytes * 2**20))
