"""The encoder of a sequence and its options: one of HyFormer's three, or one of the Transformer library."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, SerializeAsAny, model_validator
from torch import nn

from ctr.blocks.attention import LayerOptions
from ctr.blocks.encoders import AttentionEncoder, SwiGLUEncoder
from ctr.library.architectures import BodySizes
from ctr.library.encoder import LibraryEncoder
from ctr.models.config import ModelConfig
from ctr.options.kinds import OneOf
from ctr.options.knobs import KindSection, Positive
from features.dataset import Manifest


class EncoderConfig(KindSection):
    """How a sequence is represented (HyFormer §3.4.1)."""

    expansion: float = Field(default=2.0, gt=0)  # hidden width of its feed-forward over d_model

    def build(self, model: ModelConfig, longest: int) -> nn.Module:
        """A new encoder for sequences of at most `longest` events: packed events in, packed events out."""
        raise NotImplementedError

    def layer(self, model: ModelConfig) -> LayerOptions:
        """The options of its layers."""
        return {"hidden": self.hidden(model), "norm": model.norm, "dropout": model.dropout}

    def hidden(self, model: ModelConfig) -> int:
        """Hidden width of its feed-forward."""
        return int(self.expansion * model.d_model)


class TransformerEncoderConfig(EncoderConfig):
    """Every event sees every event."""

    kind: Literal["transformer"] = "transformer"

    def build(self, model: ModelConfig, longest: int) -> nn.Module:
        """Strategy (i)."""
        return AttentionEncoder(model.d_model, model.heads, **self.layer(model))


class LongerEncoderConfig(EncoderConfig):
    """The newest events are queries, all events answer."""

    kind: Literal["longer"] = "longer"
    recent: Positive = 50  # how many are queries

    def build(self, model: ModelConfig, longest: int) -> nn.Module:
        """Strategy (ii)."""
        return AttentionEncoder(model.d_model, model.heads, recent=self.recent, **self.layer(model))


class SwiGLUEncoderConfig(EncoderConfig):
    """No attention: each event by itself."""

    kind: Literal["swiglu"] = "swiglu"

    def build(self, model: ModelConfig, longest: int) -> nn.Module:
        """Strategy (iii)."""
        return SwiGLUEncoder(model.d_model, **self.layer(model))


class LibraryEncoderConfig(EncoderConfig):
    """An architecture of the Transformer library."""

    kind: Literal["library"] = "library"
    architecture: str | None = None  # bert, llama, …, see docs/library-encoders.md
    options: dict[str, JsonValue] = Field(default={}, max_length=32)  # fields of its configuration

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.architecture is None:
            raise ValueError("kind library needs an architecture, bert say; see docs/library-encoders.md")
        return self

    def build(self, model: ModelConfig, longest: int) -> nn.Module:
        """See ctr.library.encoder."""
        sizes = BodySizes(model.d_model, model.heads, self.hidden(model), longest, model.dropout)
        return LibraryEncoder(self.architecture or "", sizes, self.options)


ENCODERS = OneOf(
    {
        "transformer": TransformerEncoderConfig,
        "longer": LongerEncoderConfig,
        "swiglu": SwiGLUEncoderConfig,
        "library": LibraryEncoderConfig,
    },
    default="longer",
)
AnyEncoderConfig = Annotated[SerializeAsAny[EncoderConfig], ENCODERS]


def longest_sequences(manifest: Manifest, *, merge: bool) -> list[int]:
    """The most events of a request in each domain or, merged, in all together."""
    longest = [domain.max_len for domain in manifest.domains.values()]
    return [sum(longest)] if merge else longest
