"""LONGER's token merge: K adjacent events become one token by concatenation.

    7 events, K = 3, the oldest first:     - - a | b c d | e f g      (-: zero padding)

L → ⌈L / K⌉ tokens of width K d. Groups are counted from the newest event, so that only the oldest group of a
request may be padded, in front.

Source: LONGER (arXiv 2505.04421), token merge and InnerTrans.
Differs from the paper: it assumes K divides L.

R requests, L events of one, d event width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ctr.blocks.encoders import AttentionEncoder
from ctr.blocks.jagged import Jagged, offsets_of
from ctr.blocks.layers import NormName
from ctr.blocks.padded import Padded


class TokenMerge(nn.Module):
    """Concatenate K adjacent events, after an optional small Transformer inside each group (InnerTrans).

    Args:
        width: d.
        group: K.
        inner_layers: Transformer layers inside each group; 0 merges by concatenation alone.
        heads: heads of those layers.
        norm: of those layers, `layer` or `rms`.

    Example:
        >>> import torch
        >>> events = Jagged.from_lengths(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([3]))
        >>> TokenMerge(1, 2)(events).values
        tensor([[0., 1.],
                [2., 3.]])
    """

    def __init__(
        self, width: int, group: int, *, inner_layers: int = 0, heads: int = 1, norm: NormName = "layer"
    ) -> None:
        super().__init__()
        if group < 1:
            raise ValueError(f"group must be at least 1 event, got {group}")
        self.group = group
        self.inner = nn.Sequential(*(AttentionEncoder(width, heads, norm=norm) for _ in range(inner_layers)))

    def forward(self, events: Jagged) -> Jagged:
        """Events (ΣL, d) to tokens (Σ⌈L / K⌉, K d), the oldest first."""
        if isinstance(events, Padded):
            return events.grouped(self.group, self.inner)
        offsets = offsets_of((events.lengths + self.group - 1) // self.group)
        tokens = int(offsets[-1])
        inside = self.inner(self._groups(events, offsets, tokens)).values
        slots = offsets[events.segment_ids() + 1] * self.group - 1 - events.ages()
        merged = inside.new_zeros(tokens * self.group, *inside.shape[1:]).index_copy(0, slots, inside)
        longest = -(-events.max_length // self.group)
        return Jagged(merged.view(tokens, self.group * inside.shape[-1]), offsets, longest)

    def _groups(self, events: Jagged, offsets: Tensor, tokens: int) -> Jagged:
        """The same events, with every group as a sequence of its own."""
        if not len(self.inner):
            return events
        merged = Jagged(events.offsets.new_empty(tokens), offsets, events.max_length)
        ends = events.offsets[merged.segment_ids() + 1] - self.group * merged.ages()
        return Jagged(events.values, F.pad(ends, (1, 0)), self.group)
