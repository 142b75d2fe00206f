"""The operator under `linear` and `feed_forward`, registered with torch: forward and backward on a CPU.

N rows, I inputs, H hidden values, O outputs. W_1 has O rows without an activation, H before GELU, 2 H before
SwiGLU.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.library import define, impl, register_autograd, register_fake

from kernels.direct import direct, once
from kernels.native import load

NORMS = ("none", "layer", "rms")
ACTIVATIONS = ("none", "gelu", "swiglu")
LANES = 16  # inputs and outputs come in multiples of it
_SOURCE = Path(__file__).parent / "position_wise.cpp"
_WEIGHTS = ("gain", "shift", "w1", "b1", "w2", "b2")

_FORWARD, _BACKWARD = "position_wise::forward", "position_wise::backward"
_TENSORS = "Tensor x, " + ", ".join(f"Tensor{'' if name == 'w1' else '?'} {name}" for name in _WEIGHTS)
_INPUTS = f"{_TENSORS}, str norm, float eps, str activation, bool residual"
_GRADIENTS = ", ".join(["Tensor?"] * 7)

_TAGS = torch.Tag.pt2_compliant_tag
define(_FORWARD, f"({_INPUTS}) -> Tensor", tags=_TAGS)
define(_BACKWARD, f"({_INPUTS}, Tensor dy, bool[] needed) -> ({_GRADIENTS})", tags=_TAGS)
forward = torch.ops.position_wise.forward.default
backward = torch.ops.position_wise.backward.default


class _PositionWiseProblem(ctypes.Structure):
    """The `Problem` of position_wise.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", *_WEIGHTS, "dy", "y", "dx")),
        *((f"d_{name}", ctypes.c_void_p) for name in _WEIGHTS),
        *((name, ctypes.c_int64) for name in ("rows", "inputs", "hidden", "outputs")),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("norm", "act", "residual")),
    )


def library() -> ctypes.CDLL | None:
    """The compiled kernel; None where there is none."""
    return load(_SOURCE)


def _outputs(w1: Tensor, w2: Tensor | None) -> int:
    return len(w1) if w2 is None else len(w2)


def _run(given: dict[str, Tensor | None], made: dict[str, Tensor | None], *settings: Any) -> None:
    """Run the kernel on tensors named as in `_PositionWiseProblem`: the backward if `given` has `dy`."""
    norm, eps, activation, residual = settings
    kernel = library()
    if kernel is None:
        raise NotImplementedError("there are no compiled position-wise networks on this machine")
    held = {name: tensor.contiguous() for name, tensor in given.items() if tensor is not None}
    x, w1, w2 = held["x"], held["w1"], held.get("w2")
    problem = _PositionWiseProblem(
        rows=len(x),
        inputs=x.shape[1],
        hidden=0 if w2 is None else w2.shape[1],
        outputs=_outputs(w1, w2),
        eps=eps,
        norm=NORMS.index(norm),
        act=ACTIVATIONS.index(activation),
        residual=residual,
    )
    for name, tensor in (held | made).items():
        setattr(problem, name, None if tensor is None else tensor.data_ptr())
    kernel.position_wise(ctypes.byref(problem), int("dy" in held), torch.get_num_threads())


def _tensors(x: Tensor, weights: tuple[Tensor | None, ...]) -> dict[str, Tensor | None]:
    return dict(zip(("x", *_WEIGHTS), (x, *weights), strict=True))


def _forward(x: Tensor, *rest: Any) -> Tensor:
    weights, settings = rest[:6], rest[6:]
    y = x.new_empty(len(x), _outputs(weights[2], weights[4]))
    _run(_tensors(x, weights), {"y": y}, *settings)
    return y


def _backward(x: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    weights, settings, (dy, needed) = rest[:6], rest[6:-2], rest[-2:]
    made = _like(x, weights, needed)
    names = ("dx", *(f"d_{name}" for name in _WEIGHTS))
    _run(_tensors(x, weights) | {"dy": dy}, dict(zip(names, made, strict=True)), *settings)
    return made


def _like(x: Tensor, weights: tuple[Tensor | None, ...], needed: list[bool]) -> tuple[Tensor | None, ...]:
    """Memory of the gradients; of the weights' whether they are needed or not."""
    of_weights = (
        None if w is None else torch.empty_like(w, memory_format=torch.contiguous_format) for w in weights
    )
    of_x = torch.empty_like(x, memory_format=torch.contiguous_format) if needed[0] else None
    return of_x, *of_weights


@register_fake(_FORWARD)
def _(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(len(x), _outputs(rest[2], rest[4]))


@register_fake(_BACKWARD)
def _(x: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    return _like(x, rest[:6], rest[-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.settings = inputs[7:]


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:7])
    made = _once(*ctx.saved_tensors, *ctx.settings, dy, needed)
    gradients = [found if need else None for found, need in zip(made, needed, strict=True)]
    return *gradients, None, None, None, None


_once = once(backward)
impl(_FORWARD, "cpu", _forward)
impl(_BACKWARD, "cpu", _backward)
register_autograd(_FORWARD, _gradient, setup_context=_save)
position_wise = direct(forward, _save, _gradient)
