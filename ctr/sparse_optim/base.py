"""What an optimizer of embedding rows is.

It updates the looked-up rows of a table and no others, so that its cost follows them and not the table.

U touched rows, E embedding width; w, g (E,) one row and its gradient; lr the learning rate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

PerRow = Literal["scalar", "vector"]  # one number for a row, or one for each of its E values


class OptimizerOptions(BaseModel):
    """The options of an optimizer besides its learning rate; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Fbgemm(NamedTuple):
    """The same optimizer in FBGEMM's kernels, which TorchRec uses too.

    Options go to it under their own names, `betas` as `beta1` and `beta2`; its state comes in the order of
    `SparseOptimizer.STATE`.
    """

    optimizer: str  # of EmbOptimType
    devices: tuple[str, ...]


class SparseOptimizer(ABC):
    """The update rule of embedding rows, with its state: zeros at the start.

    A subclass says what it is by its class variables; the engines and configurations read them.

    Args:
        rows: of all tables that it updates.
        width: E.
        options: of the class `Options`.
        device: where the tables live.
    """

    RULE: ClassVar[str]  # the formula, for the documentation
    STATE: ClassVar[dict[str, PerRow]] = {}
    FBGEMM: ClassVar[Fbgemm | None] = None
    Options: ClassVar[type[OptimizerOptions]] = OptimizerOptions

    def __init__(self, rows: int, width: int, options: OptimizerOptions, device: torch.device) -> None:
        self._state = {
            name: torch.zeros(self.state_shape(name, rows, width), device=device) for name in self.STATE
        }

    @classmethod
    def engines(cls) -> dict[str, tuple[str, ...]]:
        """Engine → the devices on which it has this optimizer; engines without it are left out."""
        everywhere = ("cpu", "cuda")
        fused = {} if cls.FBGEMM is None else dict.fromkeys(("fbgemm", "torchrec"), cls.FBGEMM.devices)
        return {"torch": everywhere, **fused}

    @classmethod
    def state_shape(cls, name: str, rows: int, width: int) -> tuple[int, ...]:
        """The shape of a tensor of the state for so many rows."""
        return (rows,) if cls.STATE[name] == "scalar" else (rows, width)

    @classmethod
    def splits_by_column(cls) -> bool:
        """Whether columns of a row can be updated apart: nothing is kept for a row as a whole."""
        return "scalar" not in cls.STATE.values()

    def state(self) -> dict[str, Tensor]:
        """Return the state by name, one row of each tensor per table row; the live tensors."""
        return dict(self._state)

    @abstractmethod
    def update(
        self, weight: Tensor, ids: Tensor, gradients: Sequence[Tensor], *, lr: float, step: int
    ) -> None:
        """Change rows in place.

        Args:
            weight: (rows, E).
            ids: (U,) int64, the rows to change, each at most once.
            gradients: (U, E) in pieces, one after the other.
            lr: the learning rate.
            step: how many updates there have been with this one, counted from 1.
        """
