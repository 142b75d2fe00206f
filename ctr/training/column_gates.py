"""Closing the gates of columns that tell too little: a proximal step of λ Σ |g_c| behind each step of AdamW.

    θ ← θ − clamp(θ, −s, s)            s = η · 16 λ / (√v̂ + ε), at most η;   g = 16 θ

η is the learning rate, v̂ the optimizer's second moment of the gradient of θ: the proximal operator in the
metric of its step. So a gate goes to 0 where scaling the column up by a share δ lowers the mean loss by less
than λ δ, and stays there exactly; it opens again if later the column tells more. A gate without any gradient
so far, of a column that no batch has had yet, stays.

Source: Yun, Lozano and Yang, Adaptive Proximal Gradient Methods for Structured Neural Networks (NeurIPS
2021), algorithm 1, with the soft threshold of the l1 norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ctr.tokens.gates import STRETCH, gates_in


class ClosingGates:
    """Takes the proximal step for all gates of a model.

    Args:
        model: with gates, or without: then nothing happens.
        optimizer: AdamW, of its weights.
        l1: λ, nats a row.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, l1: float) -> None:
        self.thetas = [gates.theta for gates in gates_in(model)]
        self.optimizer, self.l1 = optimizer, l1

    @torch.no_grad()
    def shrink(self) -> None:
        """Move each gate towards 0; called when the optimizer has stepped."""
        for theta in self.thetas:
            if state := self.optimizer.state.get(theta):
                group = self._group(theta)
                least = threshold(state, group, STRETCH * self.l1)
                theta.sub_(theta.clamp(-least, least))

    def _group(self, theta: Tensor) -> dict[str, Any]:
        """Looked for each time: a checkpoint brings groups of its own."""
        return next(g for g in self.optimizer.param_groups if any(p is theta for p in g["params"]))


def threshold(state: Mapping[str, Tensor], group: Mapping[str, Any], weight: float) -> Tensor:
    """s of each gate, from the optimizer's state of θ and its group; `weight` is λ in units of θ."""
    second = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"])
    step = group["lr"] * weight / (second.sqrt() + group["eps"])
    return torch.where(state["exp_avg_sq"] > 0, step.clamp(max=group["lr"]), 0.0)


def gate_values(model: nn.Module) -> dict[str, float]:
    """Column, as `drop` names it → its gate; empty for a model without gates."""
    return {
        name: value
        for gates in gates_in(model)
        for name, value in zip(gates.names, gates.values().tolist(), strict=True)
    }


def gate_rows(values: Mapping[str, float]) -> dict[str, Any]:
    """The values of the journal's row."""
    parts = [{"name": [name], "figures": {"gate": value}} for name, value in values.items()]
    return {"split": "columns", "parts": parts}


def describe_gates(values: Mapping[str, float]) -> list[str]:
    """Which columns are closed, in one line; none for a model without gates."""
    if not values:
        return []
    closed = [name for name, value in values.items() if value == 0]
    said = f"{len(closed)} of {len(values)} column gates are closed"
    return [f"{said}: {', '.join(closed)}" if closed else said]
