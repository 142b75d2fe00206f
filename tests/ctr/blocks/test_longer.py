"""LONGER's layers against the paper's words, one candidate at a time; who sees whom, by disturbing tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctr.blocks.jagged import Jagged
from ctr.blocks.longer import CrossCausalAttention, SelectQueries, SelfCausalAttention, show_to_events
from ctr.blocks.request_map import RequestMap
from tests.ctr.reference import longer
from tests.ctr.reference.parity import (
    CANDIDATES,
    LENGTHS,
    assert_parity,
    rand,
    request_index,
    scrambled,
    split,
)

D, K, GLOBALS = 6, 4, 3


class TwoLayers(nn.Module):
    """A cross-causal and a self-causal layer, as a model stacks them."""

    def __init__(self, select: Any = "recent", **options: Any) -> None:
        super().__init__()
        self.select = SelectQueries(D, K, select=select)
        self.cross = CrossCausalAttention(D, 2, **options)
        self.self_ = SelfCausalAttention(D, 2, **options)

    def forward(
        self, globals_: Tensor, prefix: Tensor, events: Jagged, requests: RequestMap
    ) -> tuple[Tensor, Jagged]:
        queries = self.select(events)
        if prefix.shape[1]:
            events, queries = show_to_events(prefix, events, queries)
        tokens = self.cross(globals_, queries, events, requests)
        return self.self_(*tokens, requests, prefix=prefix.shape[1])

    def plain(self, globals_: Tensor, prefix: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
        select, learned = self.select.select, self.select.learned
        options = {"select": select, "count": K, "learned": learned}
        return longer.two_layers(self.cross, self.self_, globals_, prefix, events, **options)


def inputs(prefix: int, lengths: list[int], candidates: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    return rand(sum(candidates), GLOBALS, D), rand(len(lengths), prefix, D, seed=1), rand(sum(lengths), D)


def run(block: nn.Module, tensors: tuple[Tensor, ...], lengths: list[int], candidates: list[int]) -> Any:
    globals_, prefix, values = tensors
    events = Jagged.from_lengths(values, torch.tensor(lengths, dtype=torch.int64))
    requests = RequestMap.build(request_index(candidates), requests=len(lengths))
    return block(globals_, prefix, events, requests)


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("select", ["recent", "uniform", "learnable"])
def test_shared_equals_per_candidate(select: str, prefix: int, placement: str) -> None:
    block = scrambled(TwoLayers(select, placement=placement))
    tensors = inputs(prefix, LENGTHS, CANDIDATES)
    got, tokens = run(block, tensors, LENGTHS, CANDIDATES)
    want, want_tokens, last = [], [], -1
    for own, request in zip(tensors[0], request_index(CANDIDATES).tolist(), strict=True):
        row, side = block.plain(own, tensors[1][request], split(tensors[2], LENGTHS)[request])
        want.append(row)
        if request == last:
            torch.testing.assert_close(side, want_tokens[-1])
        else:
            want_tokens.append(side)
        last = request
    used = [tensor for tensor in tensors if tensor.numel()]
    assert_parity([got, tokens.values], [torch.stack(want), torch.cat(want_tokens)], block, used)


@pytest.mark.parametrize(
    ("lengths", "candidates"),
    [([5, 5], [1, 1]), ([5, 5], [2, 2]), ([0, 0], [1, 3]), ([3, 2], [0, 2]), ([0], [0]), ([], [])],
    ids=str,
)
@pytest.mark.parametrize("select", ["recent", "learnable"])
def test_full_empty_and_single_batches(select: str, lengths: list[int], candidates: list[int]) -> None:
    block = scrambled(TwoLayers(select))
    tensors = inputs(0, lengths, candidates)
    got, _ = run(block, tensors, lengths, candidates)
    index = request_index(candidates).tolist()
    rows = [
        block.plain(own, tensors[1][r], split(tensors[2], lengths)[r])[0]
        for own, r in zip(tensors[0], index, strict=True)
    ]
    want = torch.stack(rows) if rows else torch.zeros(0, GLOBALS, D, dtype=torch.float64)
    torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-9)
    grads = torch.autograd.grad(got.sum(), [tensors[0], *block.cross.parameters()])
    assert all(bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("prefix", [0, 2])
def test_the_sequence_side_does_not_see_the_candidate(prefix: int) -> None:
    block = scrambled(TwoLayers("recent"))
    tensors = tuple(t.detach() for t in inputs(prefix, [6], [2]))
    rows, tokens = run(block, tensors, [6], [2])
    tensors[0][0] *= -1.5
    changed, same = run(block, tensors, [6], [2])
    assert torch.equal(same.values, tokens.values)
    assert torch.equal(changed[1], rows[1]) and not torch.equal(changed[0], rows[0])


def test_no_event_sees_a_later_one_and_global_tokens_see_all() -> None:
    block = scrambled(TwoLayers("recent"))
    tensors = tuple(t.detach() for t in inputs(0, [6], [2]))
    rows, tokens = run(block, tensors, [6], [2])
    tensors[2][4] *= -1.5  # events 2, 3, 4 and 5 are kept
    changed, moved = run(block, tensors, [6], [2])
    assert (moved.values != tokens.values).any(1).tolist() == [False, False, True, True]
    assert bool((changed != rows).any(2).all())


def test_events_see_request_globals_only_when_shown() -> None:
    block = scrambled(TwoLayers("recent"))
    tensors = tuple(t.detach() for t in inputs(2, [6], [2]))
    _, tokens = run(block, tensors, [6], [2])
    tensors[1][0, 0] *= -1.5
    _, moved = run(block, tensors, [6], [2])
    assert bool((moved.values != tokens.values).any(1).all())


def test_the_sequence_side_is_computed_once_per_request() -> None:
    block = scrambled(TwoLayers("recent"))
    seen: list[int] = []
    block.cross.attention.key_value.register_forward_hook(
        lambda _, args, out: seen.append(args[0].numel() // D)
    )
    run(block, inputs(0, [50], [4]), [50], [4])
    assert sorted(seen) == [4 * GLOBALS, 50]


def test_only_the_needed_queries_are_computed() -> None:
    block = scrambled(TwoLayers("recent"))
    seen: list[int] = []
    block.cross.attention.query.register_forward_hook(lambda _, args, out: seen.append(args[0].numel() // D))
    run(block, inputs(0, [50], [4]), [50], [4])
    assert sorted(seen) == [K, 4 * GLOBALS]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # packed in training, and padded
@pytest.mark.parametrize("training", [True, False])  # in inference the two attentions are split
@pytest.mark.parametrize("candidates", [CANDIDATES, [2] * len(LENGTHS)])
def test_global_tokens_that_nobody_reads_change_nothing(
    candidates: list[int], training: bool, dtype: torch.dtype
) -> None:
    layer = scrambled(CrossCausalAttention(32, 2)).to(dtype)
    globals_ = rand(sum(candidates), GLOBALS, 32).detach().to(dtype)
    events = Jagged.from_lengths(rand(sum(LENGTHS), 32).detach().to(dtype), torch.tensor(LENGTHS))
    requests = RequestMap.build(request_index(candidates), requests=len(LENGTHS))
    with torch.set_grad_enabled(training):
        kv = layer.project_kv(events)
        every, asked = layer.read(globals_, kv, requests), layer.read(globals_, kv, requests, asked=2)
    torch.testing.assert_close(asked, every[:, :2], atol=1e-4, rtol=1e-4)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="select must be 'recent', 'uniform' or 'learnable', got 'oldest'"):
        SelectQueries(D, K, select="oldest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count must be at least 1 query, got 0"):
        SelectQueries(D, 0)
