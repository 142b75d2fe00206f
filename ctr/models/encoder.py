"""The encoder of a sequence that a model's configuration names: the papers', or one of the library."""

from __future__ import annotations

from torch import nn

from ctr.blocks.encoders import build_encoder
from ctr.config import ModelConfig
from ctr.library.architectures import BodySizes
from ctr.library.encoder import LibraryEncoder
from features.dataset import Manifest


def longest_sequences(manifest: Manifest, *, merge: bool) -> list[int]:
    """The most events of a request in each domain or, merged, in all together."""
    longest = [domain.max_len for domain in manifest.domains.values()]
    return [sum(longest)] if merge else longest


def sequence_encoder(config: ModelConfig, longest: int) -> nn.Module:
    """A new encoder for sequences of at most `longest` events: packed events in, packed events out."""
    encoder, hidden = config.encoder, int(config.encoder.expansion * config.d_model)
    if encoder.kind == "library":
        sizes = BodySizes(config.d_model, config.heads, hidden, longest, config.dropout)
        return LibraryEncoder(encoder.architecture or "", sizes, encoder.options)
    return build_encoder(
        encoder.kind,
        config.d_model,
        config.heads,
        recent=encoder.recent,
        hidden=hidden,
        norm=config.norm,
        dropout=config.dropout,
    )
