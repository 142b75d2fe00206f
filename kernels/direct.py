"""A faster call, outside compiled graphs, of registered operators that have a gradient.

A call of an operator with a gradient registered at `torch.library` takes 100 to 160 µs, since it enters
Python more than once; an `autograd.Function` around the same operator takes 40 to 60. A training step makes
a hundred such calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """An operator that computes gradients and has none itself: a second derivative is an error, not 0.

    Returns:
        A function of the operator's inputs, by position.
    """

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            return backward(*inputs)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise NotImplementedError(
                f"{backward} has no gradient of its own; for second derivatives set CTR_NATIVE=0 in the "
                "environment, then torch's operators stand in"
            )

    def call(*inputs: Any) -> Any:
        return Once.apply(*inputs) if torch.is_grad_enabled() else backward(*inputs)

    return call


def direct(
    operator: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None],
    gradient: Callable[..., tuple[Tensor | None, ...]],
) -> Callable[..., Any]:
    """`operator` with the gradient that is registered for it; the arguments are those of `register_autograd`.

    Returns:
        A function of the operator's inputs, by position. In compiled graphs it is the operator itself.
    """

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = operator(*inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradient(ctx, *gradients)

    def call(*inputs: Any) -> Any:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return operator(*inputs)
        return Direct.apply(*inputs)

    return call
