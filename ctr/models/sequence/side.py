"""The sequence side of a two-stage model: what it is given, what it keeps of a request, what it gives.

    encode(events)             once per request          ─►  SideState     no candidate is looked at
    read(state, candidates)    once per candidate        ─►  (B, n, D)     no event but the state's

So a request's events are encoded once for all its candidates, in training and in serving, as far as the
mathematics of a side allow; each side's file says how far.

B candidates, R requests, L events of one request, M ns tokens, D width, S width of shared rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.key_values import KeyValues
from ctr.blocks.layers import NormName
from ctr.blocks.padded import Padded
from ctr.blocks.request_map import RequestMap
from ctr.options.knobs import KindSection


@dataclass(frozen=True)
class SideSizes:
    """What a side must know of the model around it.

    Args:
        width: D.
        heads: H, a divisor of D.
        expansion: hidden width of feed-forward parts over D.
        norm: of its layers.
        dropout: of its layers.
        longest: the most events of a request.
        ns_tokens: M.
        shared: S; 0 for a side that hashes nothing.
    """

    width: int
    heads: int
    expansion: float
    norm: NormName
    dropout: float
    longest: int
    ns_tokens: int
    shared: int = 0

    @property
    def hidden(self) -> int:
        """Hidden width of feed-forward parts."""
        return int(self.expansion * self.width)


class SideEvents(NamedTuple):
    """The events of one domain, the oldest of each request first.

    tokens: values (ΣL, D).  gaps: (ΣL,) seconds from the event to the request.
    ids: (ΣL,) int64, the rows of the table of the field that a hard search compares; None if none is named.
    contents: (ΣL, D), the tokens without time gap and position, in training, if `SideConfig.contents` asks.
    shared: (ΣL, S), embeddings of the tables that candidates have too (`ctr.tokens.shared`), without
    gradient; None for a side that hashes nothing.
    """

    tokens: Jagged
    gaps: Tensor
    ids: Tensor | None = None
    contents: Tensor | None = None
    shared: Tensor | None = None

    def newest(self, count: int) -> SideEvents:
        """The newest `count` events of each request."""
        if not isinstance(self.tokens, Padded) and count >= self.tokens.max_length:
            return self
        index = self.tokens.last_k_index(count)
        rest = (self.ids, self.contents, self.shared)
        ids, contents, shared = (None if x is None else x.index_select(0, index.values) for x in rest)
        return SideEvents(self.tokens.take(index), self.gaps[index.values], ids, contents, shared)


class Candidates(NamedTuple):
    """The candidates of the requests.

    query: (B, D), what a candidate asks of the events.  ns_tokens: (B, M, D).
    ids: (B,) int64 as `SideEvents.ids`.  requests: maps B to R.  shared: (B, S) as `SideEvents.shared`.
    """

    query: Tensor
    ns_tokens: Tensor
    ids: Tensor | None
    requests: RequestMap
    shared: Tensor | None = None


@dataclass(frozen=True)
class SideState:
    """What a side keeps of R requests: as much as it needs of these.

    Args:
        events: values a side reads for each candidate, (ΣL, ·).
        gaps, ids: as of `SideEvents`, where the side reads them.
        summary: (R, ·, ·), of a size that does not depend on L.
        kvs: K and V of each layer.
        loss: (R,), a loss of the side's own for each request, while training.
    """

    events: Jagged | None = None
    gaps: Tensor | None = None
    ids: Tensor | None = None
    summary: Tensor | None = None
    kvs: tuple[KeyValues, ...] = ()
    loss: Tensor | None = None

    def tensors(self) -> Iterator[Tensor]:
        """Everything it holds."""
        if self.events is not None:
            yield from (self.events.values, self.events.offsets)
        yield from (part for part in (self.gaps, self.ids, self.summary) if part is not None)
        for kv in self.kvs:
            yield from kv.tensors()


class SequenceSide(nn.Module):
    """Events of a request and what a candidate asks → n tokens of width D per candidate.

    Attributes:
        tokens: n.
        own_logits: set by `read` while training, by a side that learns to predict the label itself, (B,).
        own_weight: of the loss of these.
        read_by_weight: linear maps inside it whose weights it reads without calling them, so that an adapter
            beside them would never be read.
        exports: whether sizes inside it follow from those of its inputs, as `ctr.export` needs: no event is
            chosen by its value, and events are not gone through in turn.
    """

    tokens: int = 1
    own_logits: Tensor | None = None
    own_weight: float = 1.0
    read_by_weight: tuple[str, ...] = ()
    exports: ClassVar[bool] = False

    def encode(self, events: SideEvents) -> SideState:
        """What all candidates of a request share."""
        raise NotImplementedError

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, n, D)."""
        raise NotImplementedError


class SideConfig(KindSection):
    """The options of a side."""

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        raise NotImplementedError

    @property
    def field(self) -> str | None:
        """The field of the events whose IDs `SideEvents.ids` and `Candidates.ids` hold."""
        return None

    @property
    def contents(self) -> bool:
        """Whether the side learns from `SideEvents.contents` in training."""
        return False

    @property
    def hashes(self) -> bool:
        """Whether the side needs `SideEvents.shared` and `Candidates.shared`."""
        return False

    def tokens(self) -> int:
        """n."""
        return 1

    @classmethod
    def of(cls, **options: Any) -> Self:
        """The options by name."""
        return cls.model_validate(options)
