"""What every model is to the rest of the project: its options, two halves, and what may be done with it.

A model is one file, with a class of its options and a subclass of `Model`, and a line in ctr.models.registry.

B candidates, R requests, K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ctr.batch import Batch
from ctr.models.config import ModelConfig
from ctr.models.head import Head, NormOf
from ctr.models.heads.config import TasksConfig
from ctr.models.request_state import RequestState
from ctr.tokens.features import Tokenizer, UniqueRows
from features.dataset import Manifest, TaskInfo


class Model(nn.Module):
    """Scores candidates of requests.

    Args:
        manifest: features, token groups and domains of the data set.
        config: its options.
        dim: E, width of the embeddings.
        tasks: how the tasks of the manifest share the model; None for the one task of most runs.
    """

    Config: ClassVar[type[ModelConfig]]
    # Cases of ctr bench: name → options below `model`. Those named `kind` are always set, the others where
    # the base of the bench says nothing.
    BENCH: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    config: ModelConfig
    ns_tokenizer: Tokenizer
    head: Head
    # Set by a forward pass in training: a loss of the model's own, (B,). Its mean is added to the loss of the
    # tasks: over the rows that the first one's is over, with their weights.
    extra_loss: Tensor | None = None

    def __init__(
        self, manifest: Manifest, config: ModelConfig, *, dim: int, tasks: TasksConfig | None = None
    ) -> None:
        super().__init__()
        self.config, self.manifest, self.tasks = config, manifest, tasks

    @property
    def learned(self) -> list[TaskInfo]:
        """The tasks whose logits it gives, in this order."""
        return list(self.manifest.tasks if self.tasks else self.manifest.tasks[:1])

    def build_head(self, tokens: int, width: int, *, norm_of: NormOf = "token") -> Head:
        """A new head for so many tokens of a width: the last thing that a model builds."""
        return Head(tokens, width, self.config, self.manifest, self.tasks, norm_of)

    def encode(self, batch: Batch, rows: UniqueRows) -> RequestState:
        """The half that knows no candidate: the requests of a batch, given its unique IDs' embeddings."""
        raise NotImplementedError

    def score(self, state: RequestState, candidates: Batch, rows: UniqueRows) -> Tensor:
        """The half of the candidates: their logits, as `forward` gives them; no event is looked at."""
        raise NotImplementedError

    def forward(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """Logits (B,), or (B, K) of several tasks: both halves in one go."""
        return self.score(self.encode(batch, rows), batch, rows)

    def recomputed(self) -> list[nn.Module]:
        """Layers of which `train.recompute` keeps the inputs alone."""
        return []

    def why_not_append(self) -> str | None:
        """Why new events cannot be put behind those of a state; None if they can. See ctr.serving.append."""
        return f"model.kind is {self.config.kind}: it does not say how"

    def may_grow(self, *, before: int, after: int) -> bool:
        """Whether a history of `before` events may become one of `after` in a state."""
        return True

    def append(self, state: RequestState, batch: Batch, rows: UniqueRows) -> RequestState:
        """The state of R = 1 request with the events of `batch` behind those that it holds."""
        raise NotImplementedError
