"""What the dense weights of a model take, told before any of them is allocated.

They are counted by building the model on torch's meta device, which keeps shapes alone; the build stops as
soon as it is certain that they do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from ctr.embedding.memory import memory_of
from features.errors import ConfigError
from features.memory.sizes import shown

MOST_TENSORS = 10_000  # of one model; a stack of a hundred layers has a few thousand
_BYTES = 4  # of a float32
_TRAINED = 4  # a weight that is trained has a gradient and two moments beside it


class _TooLarge(Exception):
    """The build need not go on."""


class _WithoutValues(TorchFunctionMode):
    """Leaves out what only fills tensors, such as initial weights: there is nothing to be filled."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.startswith("_"):
            return args[0] if args else next(iter(kwargs.values()))
        return func(*args, **kwargs)


def check_dense(build: Callable[[], nn.Module], *, device: torch.device | str = "cpu", what: str) -> None:
    """Check that the weights of a model fit into memory, without allocating them.

    Args:
        build: makes the model.
        device: where it is to be.
        what: names the section of the configuration in messages.

    Raises:
        ConfigError: they do not, with the figures; or there are more tensors than a model can have.
    """
    limit = memory_of(torch.device(device))
    try:
        with _counting(limit.left // _BYTES), torch.device("meta"), _WithoutValues():
            build()
        return
    except _TooLarge as error:
        found = str(error)
    except Exception as error:
        if not isinstance(error, OverflowError) and "overflow" not in str(error).lower():
            return  # what is wrong will be told when it is built, and what the meta device cannot do works
        found = "more than any memory"
    raise ConfigError(
        f"{what} must have weights that fit into the {limit}, but they are {found}; make {what}.d_model, "
        "layers or other sizes of it smaller"
    )


@contextmanager
def _counting(most: int) -> Iterator[None]:
    """Count the weights of all modules that are made in the block, and end it when they are too many."""
    count = tensors = 0

    def note(module: nn.Module, name: str, tensor: Any) -> None:
        nonlocal count, tensors
        if tensor is None:
            return
        tensors += 1
        count += tensor.numel() * (_TRAINED if isinstance(tensor, nn.Parameter) else 1)
        if count > most:
            raise _TooLarge(f"at least {shown(count * _BYTES)} with their gradients and two moments")
        if tensors > MOST_TENSORS:
            raise _TooLarge(f"more than {MOST_TENSORS:,} tensors")

    hooks = [
        register_module_parameter_registration_hook(note),
        register_module_buffer_registration_hook(note),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
