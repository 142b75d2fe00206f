"""Sparse attention: an event sees its neighbours in a window, and some global tokens that see everything.

    window 2      e1 e2 e3 e4 e5 e6        e3 sees e2 e3 e4 and all global tokens
    global        g1 g2                    each sees g1 g2 and all events

L events take L (w + g) scores instead of L². Blocks of half a window ask together, and see themselves and the
blocks beside them; a mask cuts what is out of reach. Short histories are asked all at once under such a mask.

Source: Longformer (arXiv 2004.05150), §3.1; the same projections for window and global attention, as in
BigBird (arXiv 2007.14062).

R requests, L events of one, g global tokens of a request, w events in the window, D width, H heads.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.blocks.attention import LayerOptions, TransformerLayer, attend
from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.padded import OneBucket

# Up to so many events, and a window more, L² scores cost less than the blocks' copies: half as much at 50.
SHORT = 256


class WindowLayer(TransformerLayer):
    """A Transformer layer whose attention is sparse.

    Args:
        width: D.
        heads: H.
        window: w, an even number: w / 2 events to each side, beside the event itself.
        options: see `TransformerLayer`.
    """

    def __init__(self, width: int, heads: int, *, window: int, **options: Unpack[LayerOptions]) -> None:
        super().__init__(width, heads, **options)
        if window < 2 or window % 2:
            raise ValueError(f"window must be an even number of events, at least 2, got {window}")
        self.reach = window // 2

    def forward(self, globals_: Tensor, events: Jagged) -> tuple[Tensor, Jagged]:
        """Global tokens (R, g, D), at least one, and events (ΣL, D), each one layer further."""
        buckets = LengthBuckets.of(events)
        parts = zip(
            buckets.to_buckets(self._qkv(globals_)),
            buckets.pad(events.with_values(self._qkv(events.values))),
            buckets.valid(events),
            strict=True,
        )
        fixed = isinstance(buckets, OneBucket)  # no step may depend on L
        front, local = zip(
            *(self._attend(*part, dense=fixed or self._short(part[1])) for part in parts), strict=True
        )
        read = buckets.unpad(list(local), events).values
        return (
            self.after_attention(globals_, self.attention.finish(buckets.from_buckets(list(front)))),
            events.with_values(self.after_attention(events.values, self.attention.finish(read))),
        )

    def _short(self, events: Tensor) -> bool:
        """Whether the events (R, L, ·) of a bucket are too few for blocks."""
        return events.shape[1] <= SHORT + 2 * self.reach

    def _qkv(self, x: Tensor) -> Tensor:
        """(…, 3 D)."""
        seen = self.around_attention.pre(x)
        return torch.cat([self.attention.query(seen), self.attention.key_value(seen)], dim=-1)

    def _attend(
        self, globals_: Tensor, events: Tensor, valid: Tensor | None, *, dense: bool
    ) -> tuple[Tensor, Tensor]:
        """What global tokens (R, g, 3 D) and events (R, L, 3 D) of a bucket read, (R, g, D) and (R, L, D)."""
        there = events.new_ones(events.shape[:2], dtype=torch.bool) if valid is None else valid
        tokens, heads = torch.cat([globals_, events], dim=1), self.attention.heads
        query, key, value = tokens.chunk(3, dim=-1)
        count = globals_.shape[1]
        mask = torch.cat([there.new_ones(globals_.shape[:2]), there], dim=1)[:, None, None]
        front = attend(query[:, :count], key, value, heads=heads, mask=mask)
        if not dense:
            return front, self._attend_blocks(globals_, events, there)
        place = torch.arange(events.shape[1], device=events.device)
        near = (place[:, None] - place).abs() <= self.reach
        near = torch.cat([near.new_ones(near.shape[0], count), near], dim=1)
        return front, attend(query[:, count:], key, value, heads=heads, mask=mask & near)

    def _attend_blocks(self, globals_: Tensor, events: Tensor, there: Tensor) -> Tensor:
        """What the events read, block by block."""
        (requests, length), reach = there.shape, self.reach
        blocks, block = -(-length // reach), torch.arange(reach, device=events.device)
        behind = blocks * reach - length
        query, key_value = events.tensor_split([events.shape[2] // 3], dim=2)
        query = F.pad(query, (0, 0, 0, behind)).view(requests * blocks, reach, -1)
        beside = F.pad(key_value, (0, 0, reach, behind + reach)).unfold(1, 3 * reach, reach).transpose(2, 3)
        of_globals = globals_[:, None, :, events.shape[2] // 3 :].expand(-1, blocks, -1, -1)
        key, value = torch.cat([of_globals, beside], dim=2).flatten(0, 1).chunk(2, dim=-1)
        # Of the 3 · reach keys the first is `reach` places before the block.
        near = (torch.arange(3 * reach, device=events.device) - reach - block[:, None]).abs() <= reach
        seen = F.pad(there, (reach, behind + reach)).unfold(1, 3 * reach, reach).flatten(0, 1)[:, None] & near
        mask = torch.cat([seen.new_ones(*seen.shape[:2], globals_.shape[1]), seen], dim=2)[:, None]
        read = attend(query, key, value, heads=self.attention.heads, mask=mask)
        return read.reshape(requests, blocks * reach, -1)[:, :length]
