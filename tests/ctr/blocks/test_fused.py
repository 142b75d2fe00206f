"""Blocks whose norm, networks and residual are one compiled pass: the same as with torch's operators."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from ctr.blocks import fused, linear
from ctr.blocks.attention import MultiHeadAttention
from ctr.blocks.encoders import AttentionEncoder, SwiGLUEncoder
from ctr.blocks.jagged import Jagged
from ctr.blocks.layers import FeedForward, NormName, Placement, PositionWise, Residual, SwiGLU, build_norm
from ctr.blocks.linear import Linear, normed_linear
from kernels.position_wise import available, ops

if not available(torch.empty(1, 16), 16):
    pytest.skip("this machine has no GCC", allow_module_level=True)

D, ROWS = 32, 1300
Run = Callable[[Tensor], Tensor]


def scrambled(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def results(module: nn.Module, run: Run, x: Tensor) -> list[Tensor]:
    """Output and every gradient."""
    leaf = x.clone().requires_grad_()
    module.zero_grad(set_to_none=True)
    out = run(leaf)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weights.to(out.dtype)).sum().backward()
    gradients = [p.grad.double() for p in module.parameters() if p.grad is not None]
    assert leaf.grad is not None
    return [out.detach(), leaf.grad, *gradients]


def same(module: nn.Module, run: Run, x: Tensor, *, calls: int) -> None:
    """In so many compiled passes, and by torch's operators in float64: one result."""
    with patch.object(ops, "_run", wraps=ops._run) as passes:
        found = results(module, run, x)
    assert passes.call_count == 2 * calls  # forward and backward
    wanted = results(module.double(), run, x.double())
    module.float()
    for a, b in zip(found, wanted, strict=True):
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.double(), b.double(), atol=1e-5 * scale, rtol=0)


def rows(*shape: int) -> Tensor:
    return torch.randn(*(shape or (ROWS, D)), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("placement", ["pre", "post", "none"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("kind", [FeedForward, SwiGLU])
def test_networks_in_their_residual(kind: type[PositionWise], norm: NormName, placement: Placement) -> None:
    network = kind(D)  # type: ignore[arg-type]
    around = Residual(D, norm=norm, placement=placement)
    both = scrambled(nn.ModuleList([network, around]))
    same(both, lambda x: around(x, network), rows(), calls=1)
    same(network, network, rows(13, 100, D), calls=1)


@pytest.mark.parametrize("kind", [FeedForward, SwiGLU])
def test_dropout_acts_on_the_network_alone(kind: type[PositionWise]) -> None:
    network = kind(D, dropout=0.4)  # type: ignore[call-arg, arg-type, misc]
    around = Residual(D)
    both = scrambled(nn.ModuleList([network, around]))

    def run(x: Tensor) -> Tensor:
        torch.manual_seed(7)
        return around(x, network)

    same(both, run, rows(), calls=1)
    x = rows()
    assert int((around(x, network) == x).sum()) > 0.3 * x.numel()
    both.eval()
    assert not bool((around(x, network) == x).any())


@pytest.mark.parametrize("norm", ["layer", "rms", None])
def test_linear_maps_behind_a_norm(norm: NormName | None) -> None:
    layer = Linear(D, 48)
    ahead = None if norm is None else build_norm(norm, D)
    both = scrambled(nn.ModuleList([layer, *([] if ahead is None else [ahead])]))
    same(both, lambda x: normed_linear(layer, x, ahead), rows(), calls=1)
    layer.bias = None  # type: ignore[assignment]
    same(both, lambda x: normed_linear(layer, x, ahead), rows(26, 50, D), calls=1)


def test_a_norm_that_is_not_known_stands_before_the_pass() -> None:
    odd = nn.LayerNorm(D, elementwise_affine=False)
    layer, network = Linear(D, D), FeedForward(D)
    same(layer, lambda x: normed_linear(layer, x, odd), rows(), calls=1)
    same(network, lambda x: network(x, odd, residual=True), rows(), calls=2)  # its two maps


@pytest.mark.parametrize(
    ("encoder", "calls"),
    [(AttentionEncoder(D, 2), 3), (AttentionEncoder(D, 2, recent=600), 4), (SwiGLUEncoder(D), 1)],
    ids=["transformer", "longer", "swiglu"],
)
def test_encoders(encoder: nn.Module, calls: int) -> None:
    lengths = torch.tensor([700, 0, 550, 50])
    scrambled(encoder)
    same(encoder, lambda x: encoder(Jagged.from_lengths(x, lengths)).values, rows(), calls=calls)


def test_few_rows_other_types_and_autocast_take_torch() -> None:
    network = scrambled(FeedForward(D))
    odd = scrambled(FeedForward(24))
    with patch.object(ops, "_run", side_effect=AssertionError):
        network(rows(fused.ROWS - 1, D))
        odd(rows(ROWS, 24))
        network.double()(rows().double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network.float()(rows())


def test_an_adapter_inside_is_called() -> None:
    class Adapted(Linear):
        def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
            return 2 * super().forward(x, norm)

    network, attention = FeedForward(D), MultiHeadAttention(D, 2)
    plain = network(rows())
    adapted = Adapted(4 * D, D)
    adapted.load_state_dict(network.down.state_dict())
    network.down = adapted
    torch.testing.assert_close(network(rows()), 2 * plain, atol=1e-4, rtol=0)
    key_value = Adapted(D, 2 * D)
    key_value.load_state_dict(attention.key_value.state_dict())
    events = Jagged.from_lengths(rows(), torch.tensor([ROWS]))
    before = next(attention.project_kv(events).tensors())
    attention.key_value = key_value
    torch.testing.assert_close(next(attention.project_kv(events).tensors()), 2 * before, atol=1e-4, rtol=0)


def test_hooks_of_a_linear_layer_are_called() -> None:
    layer, seen = Linear(D, D), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    normed_linear(layer, rows(), nn.LayerNorm(D))
    linear.linear(rows(), layer.weight)
    assert seen == [1]


@pytest.mark.parametrize("place", ["norm", "up", "down"])
def test_hooks_inside_a_network_are_called(place: str) -> None:
    network, ahead, seen = FeedForward(D), nn.LayerNorm(D), []
    module = {"norm": ahead, "up": network.up, "down": network.down}[place]
    module.register_forward_hook(lambda *_: seen.append(1))
    network(rows(), ahead, residual=True)
    assert seen == [1]


def test_hooks_of_maps_into_one_tensor_are_called() -> None:
    layer, seen = Linear(D, D, bias=False), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    linear.join_mapped([rows()], [rows()], [layer])
    assert seen == [1]


def test_a_pruned_weight_is_not_an_old_one() -> None:
    network, x = FeedForward(D), rows()
    prune.l1_unstructured(network.up, "weight", amount=0.5)
    before = network(x)
    with torch.no_grad():
        network.up.weight_orig.mul_(2)
    assert not torch.equal(network(x), before)
