"""Buckets of dense gradients: when they leave, when they are waited for, and that they hold the gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ctr.distributed.gradients import DenseGradients, GradientBuckets, GradientExchange, cut_buckets


@dataclass
class Recorder:
    """A network that sums nothing and tells what happened when; `log` is shared with the model's hooks."""

    log: list[str]

    def __call__(self, tensor: Tensor) -> Recorder.Sum:
        self.log.append(f"send {tensor.numel()}")
        return Recorder.Sum(self.log)

    @dataclass
    class Sum:
        log: list[str]

        def wait(self) -> None:
            self.log.append("wait")


def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))


def loss_of(net: nn.Module, *, seed: int = 2) -> Tensor:
    return net(torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))).square().mean()


def backward(
    exchange: GradientExchange, *losses: Callable[[], Tensor], parts: int | None = None
) -> DenseGradients:
    """A step as in `ctr.training.step`; with fewer losses than `parts` it is dropped before its last."""
    expected = len(losses) if parts is None else parts
    exchange.begin()
    for number, loss in enumerate(losses, start=1):
        value = loss()
        with exchange.filling(last=number == expected):
            value.backward()
    return exchange.finish(drop=len(losses) < expected)


@pytest.mark.parametrize("limit", [1, 100, 10_000])
def test_bucketed_gradients_are_the_gradients(limit: int) -> None:
    """Over several steps that use the buffers again, with a weight that no loss reaches."""
    net, plain = model(), model()
    for one in (net, plain):
        one.register_parameter("unused", nn.Parameter(torch.ones(7)))
    exchange = GradientExchange(net.parameters(), reduce=Recorder([]), bucket_bytes=limit)
    direct = GradientExchange(plain.parameters(), reduce=None, bucket_bytes=limit)
    for seed in range(3):
        found = backward(exchange, partial(loss_of, net, seed=seed))
        expected = backward(direct, partial(loss_of, plain, seed=seed))
        assert isinstance(found, GradientBuckets) and type(expected) is DenseGradients
        for one, other in zip(found.wait(), expected.wait(), strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other)
        assert torch.equal(found.global_norm(), expected.global_norm()) and found.nbytes > expected.nbytes
        found.release()
    assert len(exchange._free) == 1


def test_buckets_leave_in_order_while_backward_runs_and_nobody_waits() -> None:
    net, log = model(), list[str]()
    exchange = GradientExchange(net.parameters(), reduce=Recorder(log), bucket_bytes=1)
    net[0].weight.register_hook(lambda gradient: log.append("gradient of the first layer"))
    found = backward(exchange, partial(loss_of, net))
    sizes = [p.numel() + 1 for p in reversed(list(net.parameters()))]  # each with its mark
    assert [entry for entry in log if entry.startswith("send")] == [f"send {size}" for size in sizes]
    assert log.index("gradient of the first layer") >= 4 and "wait" not in log
    assert all(p.grad is None for p in net.parameters())
    found.wait()
    found.wait()
    assert log.count("wait") == len(sizes)


@pytest.mark.parametrize("reduce", [None, Recorder([])])
def test_gradients_of_parts_add_up(reduce: Recorder | None) -> None:
    """Of a step that is dropped before its last part nothing is kept, and nothing enters the next step."""
    net = model()
    exchange = GradientExchange(net.parameters(), reduce=reduce, bucket_bytes=1)
    (loss_of(net, seed=1) + loss_of(net, seed=2)).backward()
    expected = [p.grad for p in net.parameters()]
    found = backward(exchange, partial(loss_of, net, seed=1), partial(loss_of, net, seed=2)).wait()
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other)
    assert backward(exchange, partial(loss_of, net), parts=2).wait() == [None] * 6


def test_buckets_leave_in_the_backward_of_the_last_part() -> None:
    net, log = model(), list[str]()
    exchange = GradientExchange(net.parameters(), reduce=Recorder(log), bucket_bytes=1)
    net[0].weight.register_hook(lambda gradient: log.append("gradient of the first layer"))
    backward(exchange, *(partial(loss_of, net, seed=seed) for seed in range(3)))
    places = [place for place, entry in enumerate(log) if entry.startswith("gradient")]
    assert places[:2] == [0, 1] and places[2] >= 2 + 4 and len(log) == 3 + 6


def test_a_backward_that_fails_fills_nothing_afterwards() -> None:
    """Another backward of the same weights, outside a step's part, sends no bucket."""
    net, log = model(), list[str]()
    exchange = GradientExchange(net.parameters(), reduce=Recorder(log), bucket_bytes=1)
    exchange.begin()
    with pytest.raises(ZeroDivisionError), exchange.filling(last=True):
        raise ZeroDivisionError
    loss_of(net).backward()
    assert not log


def test_a_rank_with_nothing_to_learn_sends_the_same_buckets() -> None:
    log = list[str]()
    exchange = GradientExchange(model().parameters(), reduce=Recorder(log), bucket_bytes=60)
    backward(exchange, partial(loss_of, model())).release()  # another model's: nothing of it is taken
    first, log[:] = list(log), []
    found = backward(exchange)
    assert log == first[: len(log)] and len(log) == 2
    assert found.wait() == [None] * 6 and float(found.local_norm) == 0


def test_a_bad_gradient_is_known_before_the_sum() -> None:
    net = model()
    exchange = GradientExchange(net.parameters(), reduce=Recorder([]), bucket_bytes=1)
    net[2].bias.register_hook(lambda gradient: gradient * float("inf"))
    assert not backward(exchange, partial(loss_of, net)).local_norm.isfinite()


def test_buckets_are_cut_at_their_size() -> None:
    assert cut_buckets([], 10) == [] and cut_buckets([5], 1) == [[0]]
    assert cut_buckets([3, 3, 3, 3, 3], 6) == [[4, 3], [2, 1], [0]]
