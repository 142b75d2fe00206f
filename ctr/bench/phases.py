"""Where a training step goes: seconds of its phases and of the model's blocks, taken from outside.

The code of step and models has no switches for it: during a measurement the methods that begin and end a
phase are replaced on the objects themselves. Forward hooks would not do, since compiled kernels are not used
for a module that has hooks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ctr.bench.timing import Clock
from ctr.bench.workload import Workload

LOADER = "waiting for the loader"
LOOKUP = "lookup of the rows"
FORWARD = "forward: "  # followed by a block
BACKWARD = "backward of the network"
SCATTER = "backward of the lookup"
SPARSE = "update of the rows"
DENSE = "update of the dense weights"
REST = "rest (checks, clipping, losses, …)"


class Phases:
    """Seconds by phase; a phase inside another counts for itself alone, so that all of them add up.

    Example:
        >>> ticks = iter([0.0, 1.0, 4.0, 9.0])
        >>> phases = Phases(clock=lambda: next(ticks))
        >>> with phases.of("outer"), phases.of("inner"):
        ...     pass
        >>> phases.seconds
        {'inner': 3.0, 'outer': 6.0}
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self.clock = clock
        self._open: list[tuple[str, float, float]] = []  # name, when it began, seconds of those inside

    @contextmanager
    def of(self, name: str) -> Generator[None]:
        """Count what happens inside as `name`; within the backward pass no further phase is told apart."""
        if any(opened == BACKWARD for opened, _, _ in self._open):
            yield
            return
        self._open.append((name, self.clock(), 0.0))
        try:
            yield
        finally:
            _, began, inside = self._open.pop()
            taken = self.clock() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + taken - inside
            if self._open:
                outer, start, nested = self._open[-1]
                self._open[-1] = (outer, start, nested + taken)

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time counts as `name`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.of(name):
                return call(*args, **kwargs)

        return timed


def blocks_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The blocks of a model by name, equal blocks of several layers together.

    A list of modules, and a module that a model's own file defines (such as its layer), is entered; all else
    is a block. The model itself and its layers are blocks too: of what no block inside them does.

    Example:
        >>> list(blocks_of(nn.Sequential(nn.Linear(1, 1), nn.ModuleList([nn.Tanh(), nn.Tanh()]))))
        ['Sequential', '0 (Linear)', '1 (Tanh)']
    """
    found: dict[str, list[nn.Module]] = {type(model).__name__: [model]}

    def enter(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            place = f"{path}.{name}".lstrip(".")
            if not isinstance(child, nn.ModuleList):
                shown = re.sub(r"\.\d+", "", place)
                found.setdefault(f"{shown} ({type(child).__name__})", []).append(child)
            if isinstance(child, nn.ModuleList) or type(child).__module__.startswith("ctr.models."):
                enter(child, place)

    enter(model, "")
    return found


@contextmanager
def watched(workload: Workload, phases: Phases) -> Generator[None]:
    """Let every phase of the workload's steps be counted."""
    tables, optimizer = workload.tables, workload.optimizer
    with ExitStack() as stack:

        def watch(owner: Any, method: str, name: str) -> None:
            stack.enter_context(_replaced(owner, method, phases.wrap(name, getattr(owner, method))))

        for name, blocks in blocks_of(workload.model).items():
            for block in blocks:
                watch(block, "forward", FORWARD + name)
        watch(torch.Tensor, "backward", BACKWARD)
        watch(tables, "lookup", LOOKUP)
        watch(tables, "backward", SCATTER)
        watch(tables, "apply_gradients", SPARSE)
        watch(optimizer, "step", DENSE)
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Generator[None]:
    """Replace an attribute of an object within a block; afterwards the object has what it had."""
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
