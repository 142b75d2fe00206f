"""HyFormer's query blocks and token mixing against their formulas, one candidate at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctr.blocks.jagged import Jagged
from ctr.blocks.mixing import PerTokenFFN, RankMixerBlock, mix_tokens
from ctr.blocks.query import QueryBoosting, QueryDecoding, QueryGeneration, SequenceDecoding
from ctr.blocks.request_map import RequestMap
from tests.ctr.reference import formulas
from tests.ctr.reference.parity import (
    CANDIDATES,
    LENGTHS,
    assert_parity,
    rand,
    request_index,
    scrambled,
    split,
)

D, M, B = 8, 3, sum(CANDIDATES)
QUERIES = [2, 1, 1]
SEQUENCES = [LENGTHS, LENGTHS[::-1], [0] * len(LENGTHS)]
INDEX = request_index(CANDIDATES)
REQUESTS = RequestMap.build(INDEX, requests=len(CANDIDATES))


def events_of_all() -> tuple[list[Tensor], list[Jagged]]:
    values = [rand(sum(lengths), D, seed=s) for s, lengths in enumerate(SEQUENCES)]
    pairs = zip(values, SEQUENCES, strict=True)
    return values, [Jagged.from_lengths(v, torch.tensor(lengths)) for v, lengths in pairs]


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("pools", ["all", "own", "none"])
def test_query_generation(pools: Any, target: int | None) -> None:
    block = scrambled(QueryGeneration(D, M, QUERIES, hidden=5, pools=pools, target=target))
    tokens, (values, sequences) = rand(B, M, D), events_of_all()
    got = block(tokens, torch.stack([s.mean_pool() for s in sequences], dim=1), REQUESTS)
    parts = [split(v, lengths) for v, lengths in zip(values, SEQUENCES, strict=True)]
    want = [
        formulas.query_generation(block, own, [formulas.pool(p[r]) for p in parts], [0, 0, 1, 2])
        for own, r in zip(tokens, INDEX.tolist(), strict=True)
    ]
    assert_parity([got], [torch.stack(want)], block, [tokens, *(values if pools != "none" else [])])


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize(
    ("residual", "placement"),
    [(True, "pre"), (True, "post"), (True, "none"), (False, "pre"), (False, "none")],
)
def test_query_decoding(residual: bool, placement: Any, norm: Any) -> None:
    block = scrambled(QueryDecoding(D, 2, QUERIES, residual=residual, placement=placement, norm=norm))
    queries, (values, sequences) = rand(B, sum(QUERIES), D), events_of_all()
    got = block(queries, block.project_kv(sequences), REQUESTS)
    want = []
    for own, r in zip(queries, INDEX.tolist(), strict=True):
        asked = zip(block.layers, own.split(QUERIES), values, SEQUENCES, strict=True)
        want.append(
            torch.cat([formulas.query_decoding(x, q, split(v, lengths)[r]) for x, q, v, lengths in asked])
        )
    assert_parity([got], [torch.stack(want)], block, [queries, *values])


def test_without_history_and_residual_norms_the_query_stays() -> None:
    layer = SequenceDecoding(D, 2).double()
    with torch.no_grad():
        layer.attention.output.bias.zero_()
    none = Jagged.from_lengths(rand(0, D), torch.zeros(len(CANDIDATES), dtype=torch.int64))
    queries = rand(B, 2, D)
    assert torch.equal(layer(queries, layer.project_kv(none), REQUESTS), queries)


def test_a_candidate_sees_neither_other_candidates_nor_other_requests() -> None:
    block = scrambled(QueryDecoding(D, 2, QUERIES))
    queries, (values, sequences) = rand(B, sum(QUERIES), D).detach(), events_of_all()
    plain = block(queries, block.project_kv(sequences), REQUESTS)
    queries[4] *= -1.5
    with torch.no_grad():
        values[0][:4] *= -1.5  # the events of request 0, which has candidates 0 and 1
    changed = block(queries, block.project_kv(sequences), REQUESTS)
    rows = (changed != plain).flatten(1).any(1)
    assert rows.tolist() == [row in (0, 1, 4) for row in range(B)]


@pytest.mark.parametrize("placement", ["pre", "post", "none"])
@pytest.mark.parametrize("kind", [QueryBoosting, RankMixerBlock])
def test_boosting_and_rank_mixer(kind: Any, placement: Any) -> None:
    block = scrambled(kind(4, D, hidden=5, placement=placement))
    plain = formulas.query_boosting if kind is QueryBoosting else formulas.rank_mixer
    x = rand(3, 4, D)
    assert_parity([block(x)], [torch.stack([plain(block, own) for own in x])], block, [x])


@pytest.mark.parametrize("tokens", [1, 2, 4, 8])
def test_mixing_is_a_transpose_of_pieces_and_its_own_inverse(tokens: int) -> None:
    x = rand(3, tokens, D)
    mixed = mix_tokens(x)
    assert torch.equal(mixed, torch.stack([formulas.mix(own) for own in x]))
    assert torch.equal(mix_tokens(mixed), x)


def test_every_token_has_weights_of_its_own() -> None:
    block = PerTokenFFN(4, D, hidden=5).double()
    out = block(rand(1, 1, D).expand(1, 4, D))
    assert len({tuple(token.tolist()) for token in out[0]}) == 4


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got D=10, T=4; change d_model \(to 8, say\)"):
        QueryBoosting(4, 10)
    with pytest.raises(ValueError, match="got D=6, T=5"):
        mix_tokens(torch.zeros(1, 5, 6))
    with pytest.raises(ValueError, match="at least one query for each sequence"):
        QueryDecoding(D, 2, [1, 0])
    with pytest.raises(ValueError, match="index of one of the 3 ns tokens, got 3"):
        QueryGeneration(D, M, QUERIES, target=3)
    with pytest.raises(ValueError, match="needs residual=True"):
        QueryDecoding(D, 2, QUERIES, residual=False, placement="post")
