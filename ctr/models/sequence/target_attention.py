"""Target attention: the candidate is the query, the events are keys and values, in several heads.

    u = W_o [softmax(q_h K_hᵀ / √d) V_h]_h        q = W_q c,  K = W_k E,  V = W_v E

With `encoder` a stack of layers, of the project or of the Transformer library, goes over the events first.

Shared by the candidates of a request: the encoder, K and V.

Source: Transformer (arXiv 1706.03762), with the candidate as the only query. Differs: the layers of
`encoder: transformer` are pre-norm, and no norm stands behind the last: K and V read the sum of all layers
as it is.

B candidates, R requests, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, SerializeAsAny
from torch import Tensor, nn

from ctr.blocks.attention import MultiHeadAttention
from ctr.blocks.encoders import AttentionEncoder
from ctr.library.architectures import FRONT_KEYS, BodySizes
from ctr.library.encoder import LibraryEncoder
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.kinds import OneOf
from ctr.options.knobs import Few, KindSection


class FrontConfig(KindSection):
    """What goes over the events before a candidate asks."""

    def build(self, sizes: SideSizes) -> nn.Module:
        """Packed events in, packed events out."""
        raise NotImplementedError


class NoFrontConfig(FrontConfig):
    """Nothing."""

    kind: Literal["none"] = "none"

    def build(self, sizes: SideSizes) -> nn.Module:
        """The events as they are."""
        return nn.Identity()


class TransformerFrontConfig(FrontConfig):
    """Layers in which every event sees every event."""

    kind: Literal["transformer"] = "transformer"
    layers: Few = 2

    def build(self, sizes: SideSizes) -> nn.Module:
        """The layers of ctr.blocks.encoders."""
        return nn.Sequential(
            *(
                AttentionEncoder(
                    sizes.width, sizes.heads, hidden=sizes.hidden, norm=sizes.norm, dropout=sizes.dropout
                )
                for _ in range(self.layers)
            )
        )


class LibraryFrontConfig(FrontConfig):
    """An architecture of the Transformer library, see docs/library-encoders.md."""

    kind: Literal["library"] = "library"
    architecture: str = "bert"  # longformer: a local window and global tokens
    options: dict[str, JsonValue] = Field(default={}, max_length=32)

    def build(self, sizes: SideSizes) -> nn.Module:
        """See ctr.library.encoder."""
        body = BodySizes(sizes.width, sizes.heads, sizes.hidden, sizes.longest, sizes.dropout, FRONT_KEYS)
        return LibraryEncoder(self.architecture, body, self.options)


FRONTS = OneOf(
    {"none": NoFrontConfig, "transformer": TransformerFrontConfig, "library": LibraryFrontConfig},
    default="none",
)


class TargetAttentionConfig(SideConfig):
    """Heads are those of the model."""

    kind: Literal["target_attention"] = "target_attention"
    encoder: Annotated[SerializeAsAny[FrontConfig], FRONTS] = NoFrontConfig()

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return TargetAttention(self, sizes)


class TargetAttention(SequenceSide):
    """See the module."""

    exports = True

    def __init__(self, config: TargetAttentionConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.encoder = config.encoder.build(sizes)
        self.attention = MultiHeadAttention(sizes.width, sizes.heads, dropout=sizes.dropout)

    def encode(self, events: SideEvents) -> SideState:
        """K and V."""
        return SideState(kvs=(self.attention.project_kv(self.encoder(events.tokens)),))

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, 1, D)."""
        requests = candidates.requests
        return requests.unpack(self.attention(requests.pack(candidates.query[:, None]), state.kvs[0]))
