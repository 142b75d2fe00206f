"""The ways to share a model between tasks, one row and one task at a time, and the loss written out.

Each function reads the weights of the head under test, and nothing else of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ctr.batch import Target
from features.dataset import TaskInfo
from tests.ctr.reference.formulas import gelu, linear


def mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    """GELU behind each linear map but the last one of a tower; an expert has one behind all."""
    for layer in layers:
        x = linear(layer, x) if isinstance(layer, nn.Linear) else gelu(x) if isinstance(layer, nn.GELU) else x
    return x


def gate(block: nn.Module, x: Tensor, experts: Sequence[Tensor]) -> Tensor:
    scores = [math.e ** (block.map.weight[i] @ x) for i in range(len(experts))]
    return sum(score / sum(scores) * expert for score, expert in zip(scores, experts, strict=True))


def shared_bottom(head: nn.Module, x: Tensor, task: int) -> Tensor:
    """Caruana 1997."""
    return mlp(head.towers[task], mlp(head.bottom, x))


def mmoe(head: nn.Module, x: Tensor, task: int) -> Tensor:
    """Ma et al. 2018, equations 5 to 8."""
    return mlp(head.towers[task], gate(head.gates[task], x, [mlp(expert, x) for expert in head.experts]))


def ple(head: nn.Module, x: Tensor, task: int) -> Tensor:
    """Tang et al. 2020, section 4."""
    tasks = range(len(head.towers))
    own, shared = [x for _ in tasks], x
    for level in head.levels:
        of_task = [[mlp(expert, own[k]) for expert in level.task_experts[k]] for k in tasks]
        of_all = [mlp(expert, shared) for expert in level.shared_experts]
        following = [gate(level.gates[k], own[k], of_task[k] + of_all) for k in tasks]
        if level.shared_gate is not None:
            shared = gate(level.shared_gate, shared, [e for said in of_task for e in said] + of_all)
        own = following
    return mlp(head.towers[task], own[task])


LOGITS: dict[str, Callable[[nn.Module, Tensor, int], Tensor]] = {
    "shared_bottom": shared_bottom,
    "mmoe": mmoe,
    "ple": ple,
    "esmm": shared_bottom,
}


def cross_entropy(p: Tensor, y: float) -> Tensor:
    return -torch.log(p) if y else -torch.log(1 - p)


def sigmoid(a: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-a))


def task_loss(task: TaskInfo, logits: Tensor, target: Target) -> Tensor:
    """Over the known rows, one at a time."""
    total, loss = 0.0, 0 * logits.sum()
    for row in range(len(logits)):
        if not target.known[row]:
            continue
        weight = 1.0 if target.weight is None else float(target.weight[row])
        y = float(target.label[row])
        squared = (logits[row] - y) ** 2
        loss = loss + weight * (
            squared if task.kind == "regression" else cross_entropy(sigmoid(logits[row]), y)
        )
        total += weight
    return loss / total if total else loss


def esmm_loss(logits: Tensor, targets: Mapping[str, Target]) -> Tensor:
    """Ma et al. 2018, equation 4, over all impressions; what becomes of some clicks is not known yet."""
    click, buy = targets["click"], targets["buy"]
    loss = 0 * logits.sum()
    for row in range(len(logits)):
        ctr, cvr = sigmoid(logits[row, 0]), sigmoid(logits[row, 1])
        clicked = float(click.label[row])
        loss = loss + cross_entropy(ctr, clicked)
        if not clicked or buy.known[row]:
            loss = loss + cross_entropy(ctr * cvr, clicked * float(buy.label[row]))
    return loss / len(logits)
