"""Compare a block with its plain reference: outputs, and the gradient of every leaf."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# k = 4: 0, 1, k-1, k, k+1 and longer, in an order that is not sorted
LENGTHS = [4, 0, 9, 1, 3, 5]
CANDIDATES = [2, 1, 4, 3, 1, 2]


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape) * 31)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def scrambled(module: nn.Module) -> nn.Module:
    """The module in float64 with all parameters random, so that no bias is 0 and no norm weight is 1."""
    module.double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(rand(*parameter.shape, seed=number) * 0.5)
    return module


def split(values: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """The packed events of each request as a list."""
    return list(values.split(list(lengths)))


def request_index(candidates: Sequence[int]) -> Tensor:
    return torch.arange(len(candidates)).repeat_interleave(torch.tensor(candidates, dtype=torch.int64))


def gradients(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Of a fixed random combination of the outputs; zeros for a leaf that no output depends on."""
    loss = sum((out * rand(*out.shape, seed=7).detach()).sum() for out in outputs)
    loss = loss + sum(0 * leaf.sum() for leaf in leaves)
    return list(torch.autograd.grad(loss, leaves))


def assert_parity(
    got: Sequence[Tensor],
    want: Sequence[Tensor],
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    tolerance: float = 1e-9,
) -> None:
    leaves = [*inputs, *module.parameters()]
    close = {"atol": tolerance, "rtol": tolerance}
    for mine, plain in zip(got, want, strict=True):
        torch.testing.assert_close(mine, plain, **close)
    names = [f"input {i}" for i in range(len(inputs))] + [name for name, _ in module.named_parameters()]
    ours, plains = gradients(got, leaves), gradients(want, leaves)
    for name, mine, plain in zip(names, ours, plains, strict=True):
        torch.testing.assert_close(mine, plain, msg=lambda text, name=name: f"{name}: {text}", **close)
    assert all(bool(leaf.numel() == 0 or grad.any()) for leaf, grad in zip(inputs, plains, strict=False))
