"""LONGER as the first stage: its CLS tokens read the sequence, alone or with the ns tokens beside them.

    u = W LONGER([CLS; F], E) at CLS      with `global_tokens` the ns tokens F are global tokens too
    u = W LONGER([CLS], E) at CLS         else: no candidate takes part

Shared by the candidates of a request: the events' side of every layer; without global tokens everything.

Source: LONGER (arXiv 2505.04421), see ctr.models.longer; as a first stage in HyFormer (arXiv 2601.12681v2),
Table 1 and 2. Differs: as ctr.models.longer does; where `tower.merge` makes events K times as wide, a
linear map widens F to K·D, and that of the formula narrows what is read.

B candidates, R requests, M ns tokens, c CLS tokens, D width, W width of merged events.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ctr.blocks.linear import Linear
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from ctr.models.longer import LongerTower, TowerConfig
from ctr.models.sequence.side import Candidates, SequenceSide, SideConfig, SideEvents, SideSizes, SideState
from ctr.options.knobs import Few


class LongerSideConfig(SideConfig):
    """The tower, and who asks."""

    kind: Literal["longer"] = "longer"
    layers: Few = 2
    tower: TowerConfig = TowerConfig()
    global_tokens: bool = True

    def build(self, sizes: SideSizes) -> SequenceSide:
        """A new side."""
        return LongerSide(self, sizes)

    def tokens(self) -> int:
        """c."""
        return self.tower.cls_tokens


class LongerSide(SequenceSide):
    """See the module."""

    exports = True

    def __init__(self, config: LongerSideConfig, sizes: SideSizes) -> None:
        super().__init__()
        self.tokens, self.global_tokens = config.tower.cls_tokens, config.global_tokens
        around = ModelConfig(
            kind="longer", d_model=sizes.width, layers=config.layers, heads=sizes.heads,
            expansion=sizes.expansion, norm=sizes.norm, dropout=sizes.dropout,
        )  # fmt: skip
        self.tower = LongerTower(around, config.tower)
        wide = self.tower.width
        merged = config.tower.merge > 1
        self.widen = Linear(sizes.width, wide) if merged and config.global_tokens else nn.Identity()
        self.narrow = Linear(wide, sizes.width) if merged else nn.Identity()
        self.cls = nn.Parameter(torch.randn(self.tokens, wide) * 0.02)

    def encode(self, events: SideEvents) -> SideState:
        """K and V of every layer or, without global tokens, what the CLS tokens read."""
        kvs = self.tower.encode(events.tokens)
        if self.global_tokens:
            return SideState(kvs=tuple(kvs))
        each = torch.arange(events.tokens.requests, device=events.gaps.device)
        once = RequestMap.build(each, requests=each.shape[0])
        return SideState(
            summary=self.narrow(self.tower.read(self.cls.expand(each.shape[0], -1, -1), kvs, once))
        )

    def read(self, state: SideState, candidates: Candidates) -> Tensor:
        """(B, c, D)."""
        if state.summary is not None:
            return candidates.requests.to_rows(state.summary)
        cls = self.cls.expand(candidates.query.shape[0], -1, -1)
        globals_ = torch.cat([cls, self.widen(candidates.ns_tokens)], dim=1)
        read = self.tower.read(globals_, list(state.kvs), candidates.requests)
        return self.narrow(read[:, : self.tokens])
