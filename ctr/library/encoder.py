"""Events through any architecture of the Transformer library: padded per bucket, encoded, packed again.

    request 0: a b c    inputs  a b c      positions  0 1 2     mask  1 1 1     ─►  a' b' c' d' e'
    request 2: d e              d e ·                 0 1 2           1 1 0

Positions count from the oldest event kept, as in the library, and padding stands behind the newest. So
neither the length of the padding nor the other requests of a bucket change anything, and the states of a
causal architecture stay right when events are appended. A causal architecture needs no mask either: no event
sees the padding behind it. (The age of an event is not in its position; its token holds the time gap.)

R requests, L events of one, D width, H heads.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets
from ctr.library.architectures import ARCHITECTURES, BodySizes
from ctr.library.transformers import build_body, find_architecture
from features.errors import ConfigError


class LibraryEncoder(nn.Module):
    """A body of the library on the events of each request, with its final norm.

    Args:
        architecture: see `ctr.library.transformers.find_architecture`.
        sizes: width, heads and what else the project decides.
        options: fields of the library's own configuration, such as `num_hidden_layers` (1 unless given).
    """

    def __init__(self, architecture: str, sizes: BodySizes, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.causal = find_architecture(architecture, sizes.keys).causal
        self.body = build_body(architecture, sizes, options)
        self.takes_positions = "position_ids" in inspect.signature(self.body.forward).parameters
        _probe(self, architecture, sizes)

    def forward(self, sequence: Jagged) -> Jagged:
        """Events (ΣL, D) to hidden states (ΣL, D)."""
        if not len(sequence.values):
            return sequence
        buckets = LengthBuckets.of(sequence)
        parts = zip(buckets.pad(sequence), buckets.valid(sequence), strict=True)
        return buckets.unpad([self._encode(events, valid) for events, valid in parts], sequence)

    def _encode(self, events: Tensor, valid: Tensor | None) -> Tensor:
        """(R_b, L_b, D) to the same; `valid` (R_b, L_b) bool, None where nothing is padded."""
        inputs: dict[str, Tensor] = {}
        positions = torch.arange(events.shape[1], device=events.device)
        if self.takes_positions:
            inputs["position_ids"] = positions[None]
        if not self.causal and valid is not None:
            # An empty request sees its first position, which is zero: no row may be masked wholly.
            inputs["attention_mask"] = (valid | (positions == 0)).long()
        # The library's norms keep the dtype of their input, which under autocast must be that of the weights.
        wide = events.to(next(self.body.parameters()).dtype)
        states: Tensor = self.body(inputs_embeds=wide, **inputs).last_hidden_state
        return states


@torch.no_grad()
def _probe(encoder: LibraryEncoder, architecture: str, sizes: BodySizes) -> None:
    """Check that an architecture encodes events, and that padding changes nothing."""
    if next(encoder.parameters()).is_meta:  # only counted
        return
    was_training = encoder.training
    encoder.eval()
    longer = min(3, sizes.longest)
    events = torch.linspace(-1, 1, (longer + 1) * sizes.width).view(-1, sizes.width).sin()
    try:
        both = encoder(Jagged.from_lengths(events, torch.tensor([longer, 1]))).values
        alone = encoder(Jagged.from_lengths(events[longer:], torch.tensor([1]))).values
        torch.testing.assert_close(both[longer:], alone, atol=1e-4, rtol=1e-4)
    except Exception as error:  # bodies that read images, or other arguments, fail in their own ways
        raise ConfigError(
            f"{sizes.keys.section}.architecture {architecture!r} of the library does not encode sequences of "
            f"vectors of width {sizes.width} here: {error}; choose one of {', '.join(ARCHITECTURES)}, "
            f"or set its sizes in {sizes.keys.section}.options"
        ) from None
    finally:
        encoder.train(was_training)
