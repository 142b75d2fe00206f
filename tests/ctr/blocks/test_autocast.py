"""The blocks together under bf16 autocast: finite, near float32, and every weight gets a gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctr.blocks.encoders import AttentionEncoder, SwiGLUEncoder
from ctr.blocks.jagged import Jagged
from ctr.blocks.longer import CrossCausalAttention, SelectQueries, SelfCausalAttention
from ctr.blocks.mixing import RankMixerBlock
from ctr.blocks.query import QueryBoosting, QueryDecoding, QueryGeneration
from ctr.blocks.request_map import RequestMap
from ctr.blocks.token_merge import TokenMerge
from tests.ctr.reference.parity import CANDIDATES, LENGTHS, rand, request_index

D, M = 16, 2
REQUESTS = RequestMap.build(request_index(CANDIDATES), requests=len(CANDIDATES))


class HyFormerLayer(nn.Module):
    """Encode (all three ways), generate, decode, boost."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            [AttentionEncoder(D, 2), AttentionEncoder(D, 2, recent=3), SwiGLUEncoder(D)]
        )
        self.generate = QueryGeneration(D, M, [1, 2, 3])
        self.decode = QueryDecoding(D, 2, [1, 2, 3])
        self.boost = QueryBoosting(8, D)

    def forward(self, ns_tokens: Tensor, events: Jagged) -> Tensor:
        encoded = [encoder(events) for encoder in self.encoders]
        pools = torch.stack([sequence.mean_pool() for sequence in encoded], dim=1)
        queries = self.decode(
            self.generate(ns_tokens, pools, REQUESTS), self.decode.project_kv(encoded), REQUESTS
        )
        return self.boost(torch.cat([queries, ns_tokens], dim=1))


class LongerThenMixer(nn.Module):
    """Merge, cross-causal, self-causal; then RankMixer on the global tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.merge = TokenMerge(D // 4, 4, inner_layers=1)
        self.select = SelectQueries(D, 2)
        self.cross, self.self_ = CrossCausalAttention(D, 2), SelfCausalAttention(D, 2)
        self.mixer = RankMixerBlock(M, D)

    def forward(self, ns_tokens: Tensor, events: Jagged) -> Tensor:
        merged = self.merge(events.with_values(events.values[:, : D // 4]))
        tokens = self.cross(ns_tokens, self.select(merged), merged, REQUESTS)
        return self.mixer(self.self_(*tokens, REQUESTS)[0])


def test_bf16_is_near_float32_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    events = Jagged.from_lengths(rand(sum(LENGTHS), D).detach().float(), torch.tensor(LENGTHS))
    ns_tokens = rand(sum(CANDIDATES), M, D).detach().float()
    for block in (HyFormerLayer(), LongerThenMixer()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = block(ns_tokens, events)
        torch.testing.assert_close(half.float(), block(ns_tokens, events), atol=0.1, rtol=0.1)
        half.float().square().sum().backward()
        without = [name for name, p in block.named_parameters() if p.grad is None or not bool(p.grad.any())]
        assert without == []
