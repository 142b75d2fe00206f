"""Linear maps with filled rows equal autocast's own, outputs and gradients, whatever the number of rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ctr.blocks.linear import Linear, linear, padded_rows


def _run(layer: Linear, x: torch.Tensor, *, own: bool) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x) if own else F.linear(x, layer.weight, layer.bias)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    (out.float() * weights).sum().backward()
    return [out, x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("shape", [(1,), (64,), (65,), (1000,), (7, 3), (2, 3, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_autocast(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(1)
    layer, x = Linear(24, 40, bias=bias), torch.randn(*shape, 24)
    for got, wanted in zip(_run(layer, x, own=True), _run(layer, x, own=False), strict=True):
        assert got.shape == wanted.shape and got.dtype == wanted.dtype
        torch.testing.assert_close(
            got.detach().float(),
            wanted.detach().float(),
            rtol=2e-2,
            atol=2e-2 * float(wanted.detach().abs().max()),
        )


def test_filling_changes_no_bit_of_the_output() -> None:
    """A row does not depend on how many others there are."""
    torch.manual_seed(1)
    layer, x = Linear(24, 40), torch.randn(300, 24)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(layer(x)[:70], layer(x[:70]))


def test_float32_is_plain() -> None:
    layer, x = Linear(8, 4), torch.randn(5, 8)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_no_rows() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.zeros(0, 8), torch.zeros(4, 8)).shape == (0, 4)


def test_few_counts_and_little_waste() -> None:
    counts = {padded_rows(n) for n in range(1, 2**14)}
    assert len(counts) <= 8 * 8 + 8
    assert all(n <= padded_rows(n) <= max(64, n * 9 / 8 + 1) or n < 512 for n in range(1, 2**14))


def test_double_precision_gradients_without_autocast() -> None:
    layer = Linear(3, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
