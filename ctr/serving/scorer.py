"""A trained model that scores the candidates of one request after the other, with a cache of request states.

B candidates of a micro-batch, C candidates of a request.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from torch import nn

from ctr.batch import Batch, take_candidates
from ctr.embedding import EmbeddingTables
from ctr.loader.columns import Columns
from ctr.models.model import Model
from ctr.models.request_state import RequestState
from ctr.serving.append import extend_state, why_not
from ctr.serving.cache import Entry, StateCache, StateKey
from ctr.serving.requests import Request, RequestCollator
from ctr.training.outputs import Outputs
from ctr.training.scoring import tasks_of
from ctr.training.state import TrainingState
from features.errors import ConfigError

MICRO_BATCH = 256


class Scorer:
    """Scores candidates against request states.

    Args:
        model: in evaluation mode.
        tables: its embeddings.
        collator: makes the batches of a request and of its candidates.
        cache: keeps states; None computes every request anew.
        digest: identifies weights, configuration and data set, see `model_digest`.
        micro_batch: candidates scored at a time.
        append: whether an older state of the user is extended by the events since.
        bf16: whether matrix products are computed in bfloat16.
        device: where model and tables are.
        outputs: what is said of a row; None: what the model's tasks are, without calibration.

    Raises:
        ConfigError: `append` with a model that does not allow it; the message says why.
    """

    def __init__(
        self,
        model: Model,
        tables: EmbeddingTables,
        collator: RequestCollator,
        *,
        cache: StateCache | None = None,
        digest: str = "",
        micro_batch: int = MICRO_BATCH,
        append: bool = False,
        bf16: bool = False,
        device: torch.device | str = "cpu",
        outputs: Outputs | None = None,
    ) -> None:
        if micro_batch < 1:
            raise ConfigError(f"the micro-batch must hold at least 1 candidate, got {micro_batch}")
        if append and (reason := why_not(model)) is not None:
            raise ConfigError(f"states of this model cannot be extended by new events: {reason}")
        self.model, self.tables, self.collator = model, tables, collator
        self.outputs = outputs or Outputs(tasks_of(model))
        self.cache, self.digest, self.append = cache, digest, append
        self.micro_batch, self.bf16, self.device = micro_batch, bf16, torch.device(device)

    @torch.inference_mode()
    def score(self, request: Request, candidates: Columns) -> np.ndarray:
        """Logits of the candidates, in their order: float32 (C,), or (C, K) of a run with tasks."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self._score(self.state(request), self.collator.candidate_batch(request, candidates))

    def _score(self, state: RequestState, candidates: Batch) -> np.ndarray:
        batch = candidates.to(self.device)
        rows = self.tables.lookup(batch.unique_ids)
        if batch.num_rows <= self.micro_batch:
            parts = [batch] if batch.num_rows else []
        else:
            rows_of_parts = torch.arange(batch.num_rows, device=self.device).split(self.micro_batch)
            parts = [take_candidates(batch, picked) for picked in rows_of_parts]
        logits = [self.model.score(state, part, rows).float().cpu().numpy() for part in parts]
        shape = (-1, len(self.outputs.tasks)) if self.outputs.tasks else (-1,)
        return np.concatenate([np.empty(0, np.float32), *(part.reshape(-1) for part in logits)]).reshape(
            shape
        )

    def state(self, request: Request) -> RequestState:
        """The request's side, from the cache if it is there."""
        if self.cache is None:
            return self._encode(request)
        time = request.time if self.model.config.time_gaps else None
        key = StateKey(self.digest, request.user, self.collator.spans(request), time)
        found = self.cache.find(key)
        if found is not None and found.request == request.name:
            self.cache.count(hits=1)
            return found.state
        state = self._extended(key, request) if self.append else None
        self.cache.count(appended=state is not None, misses=state is None)
        state = self._encode(request) if state is None else state
        self.cache.put(key, Entry(state, request.name))
        return state

    def _extended(self, key: StateKey, request: Request) -> RequestState | None:
        """The user's newest state with the events since; None where that would not be exact."""
        assert self.cache is not None
        older = self.cache.newest(key.model, key.user)
        if older is None or not self.collator.appended_later(older[0].spans, key.spans):
            return None
        if not self.model.may_grow(before=_events(older[0]), after=_events(key)):
            return None
        batch = self.collator.request_batch(request, after=older[0].spans).to(self.device)
        rows = self.tables.lookup(batch.unique_ids)
        return extend_state(self.model, older[1].state, batch, rows)

    def _encode(self, request: Request) -> RequestState:
        batch = self.collator.request_batch(request).to(self.device)
        return self.model.encode(batch, self.tables.lookup(batch.unique_ids))


def model_digest(state: TrainingState, model: nn.Module) -> str:
    """sha256 of what a run is (configuration, data set, step) and of its dense weights."""
    found = hashlib.sha256(json.dumps([state.identity, state.progress.step], sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _events(key: StateKey) -> int:
    return sum(stop - start for start, stop in key.spans)
