"""The formulas of parameters and operations against the blocks themselves and the papers' figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ctr.bench.flops import count_flops
from ctr.blocks import attention
from ctr.blocks.encoders import AttentionEncoder
from ctr.blocks.jagged import Jagged
from ctr.blocks.longer import CrossCausalAttention, SelectQueries, SelfCausalAttention
from ctr.blocks.mixing import PerTokenFFN
from ctr.blocks.query import QueryDecoding, QueryGeneration
from ctr.blocks.request_map import RequestMap
from ctr.blocks.token_merge import TokenMerge
from ctr.models.longer import LongerConfig, LongerTower
from kernels.jagged_attention import available
from tests.ctr.reference import flops

D, L, K, GLOBALS, C = 32, 64, 8, 3, 4
ONE_REQUEST = RequestMap.build(torch.zeros(C, dtype=torch.int64), requests=1)


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def measured(call: Callable[[], Any]) -> int:
    # With gradients: without, candidates split their attention (ctr.blocks.split_attention). Padded: the
    # packed kernel is unknown to the counter of torch, and skips what the formulas count as masked.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "available", lambda *_: False)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
    return counter.get_total_flops()


def events(length: int = L, width: int = D) -> Jagged:
    return Jagged.from_lengths(torch.randn(length, width), torch.tensor([length]))


@pytest.mark.parametrize("width", [8, 32])
def test_plain_layer(width: int) -> None:
    layer = AttentionEncoder(width, 2)
    assert weights(layer) == flops.layer_parameters(width)
    assert measured(lambda: layer(events(L, width))) == flops.layer_flops(L, width)


@pytest.mark.skipif(not available(16, torch.device("cpu")), reason="no compiler here")
def test_packed_layer_counts_the_same() -> None:
    layer, asked = AttentionEncoder(D, 2), events()
    asked.values.requires_grad_()  # the backward of every product gives two
    assert count_flops(lambda: layer(asked)) == flops.layer_flops(L, D)
    assert count_flops(lambda: layer(asked).values.sum().backward()) == 3 * flops.layer_flops(L, D)


@pytest.mark.parametrize("group", [2, 4, 8])
def test_merged_layer(group: int) -> None:
    layer, merge = AttentionEncoder(group * D, 2), TokenMerge(D, group)
    assert weights(merge) == 0
    assert weights(layer) == flops.merged_layer_parameters(D, group)
    used = measured(lambda: layer(merge(events())))
    assert used == flops.merged_layer_flops(L, D, group)
    assert used / flops.layer_flops(L, D) == pytest.approx(flops.merge_ratio(L, D, group))


def test_the_papers_saving_at_its_shape() -> None:
    assert 1 - flops.merge_ratio(2048, 32, 4) == pytest.approx(0.428, abs=6e-4)


@pytest.mark.parametrize("kind", [CrossCausalAttention, SelfCausalAttention])
def test_causal_layers_pay_for_the_events_once(kind: Any) -> None:
    layer, tokens, globals_ = kind(D, 2), events(), torch.randn(C, GLOBALS, D)
    assert weights(layer) == flops.layer_parameters(D)
    cross = kind is CrossCausalAttention
    queries = SelectQueries(D, K)(tokens)
    args = (globals_, queries, tokens, ONE_REQUEST) if cross else (globals_, tokens, ONE_REQUEST)
    want = flops.causal_layer_flops(L, K if cross else L, GLOBALS, D, candidates=C)
    assert measured(lambda: layer(*args)) == want


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_last_layer_of_a_tower_pays_for_no_sequence_token(layers: int) -> None:
    config = LongerConfig(d_model=D, heads=2, layers=layers, expansion=4.0)
    tower = LongerTower(config, config.longer.model_copy(update={"num_queries": K}))
    lengths, asked = [L, *[K] * (layers - 1)], [*[K] * (layers - 1), 0]
    want = sum(
        flops.causal_layer_flops(length, queries, GLOBALS, D, candidates=C)
        for length, queries in zip(lengths, asked, strict=True)
    )
    assert measured(lambda: tower(torch.randn(C, GLOBALS, D), events(), ONE_REQUEST)) == want


def test_global_tokens_that_nobody_reads_are_keys_alone() -> None:
    """With n of m global tokens asked, the others need K and V: 4 d² each, and no attention of their own."""
    layer, tokens, asked = CrossCausalAttention(D, 2), events(), 1
    used = measured(lambda: layer(torch.randn(C, GLOBALS, D), None, tokens, ONE_REQUEST, asked=asked))
    whole = flops.causal_layer_flops(L, 0, GLOBALS, D, candidates=C)
    unread = C * (GLOBALS - asked)
    assert used == whole - unread * (20 * D**2 + 4 * (L + C * GLOBALS) * D)


def test_query_generation() -> None:
    block = QueryGeneration(D, 5, [2, 1], hidden=48)
    assert weights(block) == flops.query_generation_parameters(D, 5, 2, 3, 48)
    used = measured(lambda: block(torch.randn(C, 5, D), torch.randn(1, 2, D), ONE_REQUEST))
    assert used == flops.query_generation_flops(C, 1, D, 5, 2, 3, 48)


def test_query_decoding() -> None:
    block, queries = QueryDecoding(D, 2, [2]), torch.randn(C, 2, D)
    used = measured(lambda: block(queries, block.project_kv([events()]), ONE_REQUEST))
    assert used == flops.query_decoding_flops(L, 2, D, candidates=C)


def test_per_token_ffn_has_more_weights_but_not_more_operations() -> None:
    block = PerTokenFFN(4, D, hidden=48)
    assert weights(block) == flops.per_token_ffn_parameters(4, D, 48)
    assert measured(lambda: block(torch.randn(C, 4, D))) == flops.per_token_ffn_flops(C, 4, D, 48)
