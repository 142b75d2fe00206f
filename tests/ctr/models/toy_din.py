"""DIN in small, as a stranger would add it: this file, and one line in ctr.models.registry.

    a_j = MLP([q; e_j; q − e_j; q ⊙ e_j])     q the candidate's token, e_j an event; no softmax
    u   = Σ a_j e_j
    logit = MLP(F, u)

Source: DIN (arXiv 1706.06978).

B candidates, L events of a request, M ns tokens, D width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import Jagged
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from ctr.models.heads.config import TasksConfig
from ctr.models.model import Model
from ctr.models.request_state import RequestState
from ctr.options.knobs import Positive
from ctr.tokens.events import SequenceTokenizers
from ctr.tokens.features import UniqueRows, make_tokenizer
from features.dataset import Manifest


class DinConfig(ModelConfig):
    """DIN."""

    kind: Literal["din"] = "din"
    attention_hidden: Positive = 8


class Din(Model):
    """The whole model."""

    Config = DinConfig
    BENCH: ClassVar = {"DIN": {"attention_hidden": 5}}
    config: DinConfig

    def __init__(
        self, manifest: Manifest, config: DinConfig, *, dim: int, tasks: TasksConfig | None = None
    ) -> None:
        super().__init__(manifest, config, dim=dim, tasks=tasks)
        width, hidden = config.d_model, config.attention_hidden
        self.ns_tokenizer = make_tokenizer(manifest, config, dim=dim)
        self.sequence_tokenizers = SequenceTokenizers(manifest, config, dim=dim, merge=True)
        self.attention = nn.Sequential(nn.Linear(4 * width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.head = self.build_head(self.ns_tokenizer.num_tokens + 1, width)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """The events' tokens, once per request."""
        events = self.sequence_tokenizers(batch, rows)
        return RequestState(self.ns_tokenizer.encode(batch, rows), self.head.encode(batch), events=events)

    def score(self, state: RequestState, candidates: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,)."""
        requests = RequestMap.build(candidates.request_index, requests=candidates.num_requests)
        tokens = self.ns_tokenizer.score(state.features, candidates, rows, requests)
        asked = tokens[:, self.ns_tokenizer.candidate_tokens()[0]]
        (events,) = state.events
        interest = self.interest(asked, events, requests)
        top = torch.cat([tokens, interest[:, None]], dim=1)
        return self.head(top, state.beside(candidates), requests)

    def interest(self, asked: Tensor, events: Jagged, requests: RequestMap) -> Tensor:
        """u (B, D): the events of each candidate's request, weighted by what the candidate asks."""
        lengths = requests.to_rows(events.lengths)
        owner = torch.arange(len(asked)).repeat_interleave(lengths)
        begin = requests.to_rows(events.offsets[:-1]) - (lengths.cumsum(0) - lengths)
        event = events.values[torch.arange(len(owner)) + begin[owner]]
        query = asked[owner]
        weight = self.attention(torch.cat([query, event, query - event, query * event], dim=-1))
        return torch.zeros_like(asked).index_add(0, owner, weight * event)
