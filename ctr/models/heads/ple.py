"""PLE, progressive layered extraction: experts of each task beside shared ones, in levels.

A level reads x_k for each task and x_s, all of them x at the first level:

    e_k,i   = expert_k,i(x_k)                 i = 1 … m, of task k alone
    e_s,i   = expert_s,i(x_s)                 i = 1 … s, shared
    x_k  ←  Σ softmax(W_k x_k) · [e_k,1 … e_k,m, e_s,1 … e_s,s]
    x_s  ←  Σ softmax(W_s x_s) · [e of all tasks, e_s,1 … e_s,s]        not at the last level

    logit_k = h_k(x_k)                        h_k a tower, an MLP

One level is CGC (customized gate control). No gate of a task reads another task's experts: what tasks learn
of each other passes through the shared ones.

Source: Tang et al., Progressive Layered Extraction (RecSys 2020), section 4. Differs: GELU, as in the rest of
the model; `gate_dropout` is of Zhao et al. 2019.

B candidates, F inputs, K tasks, E width of an expert's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from torch import Tensor, nn

from ctr.models.heads.config import TasksConfig
from ctr.models.heads.mmoe import ExpertHidden
from ctr.models.heads.towers import Gate, HeadSizes, logits_of, make_mlp
from ctr.options.knobs import Few, Share


class PleConfig(TasksConfig):
    """Levels of experts and gates, before the towers of `model.head_hidden`."""

    kind: Literal["ple"] = "ple"
    levels: Few = 1
    task_experts: Few = 2  # m, of each task
    shared_experts: Few = 2  # s
    expert_hidden: ExpertHidden = [64]  # widths of an expert's layers, E the last
    gate_dropout: Share = 0.0  # probability that a gate leaves out an expert, in training alone

    def build(self, sizes: HeadSizes) -> nn.Module:
        """A new head."""
        return Ple(self, sizes)


class Ple(nn.Module):
    """See the module."""

    def __init__(self, config: PleConfig, sizes: HeadSizes) -> None:
        super().__init__()
        widths = [sizes.inputs] + [config.expert_hidden[-1]] * (config.levels - 1)
        self.levels = nn.ModuleList(
            PleLevel(config, sizes, width, last=number == config.levels)
            for number, width in enumerate(widths, start=1)
        )
        self.towers = sizes.towers(config.expert_hidden[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) → logits (B, K)."""
        own, shared = [x] * len(self.towers), x
        for level in self.levels:
            own, shared = level(own, shared)
        return logits_of(self.towers, own)


class PleLevel(nn.Module):
    """Experts and gates of one level; the last one has no shared gate."""

    def __init__(self, config: PleConfig, sizes: HeadSizes, inputs: int, *, last: bool) -> None:
        super().__init__()

        def experts(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                make_mlp(inputs, config.expert_hidden, dropout=sizes.dropout) for _ in range(count)
            )

        own, shared = config.task_experts, config.shared_experts
        self.task_experts = nn.ModuleList(experts(own) for _ in range(sizes.tasks))
        self.shared_experts = experts(shared)
        self.gates = nn.ModuleList(
            Gate(inputs, own + shared, dropout=config.gate_dropout) for _ in range(sizes.tasks)
        )
        everyone = sizes.tasks * own + shared
        self.shared_gate = None if last else Gate(inputs, everyone, dropout=config.gate_dropout)

    def forward(self, own: Sequence[Tensor], shared: Tensor) -> tuple[list[Tensor], Tensor]:
        """K times (B, ·) and (B, ·), one level further; what is shared stays as it is at the last level."""
        everyone = cast("Sequence[nn.ModuleList]", self.task_experts)
        of_tasks = [[expert(x) for expert in experts] for experts, x in zip(everyone, own, strict=True)]
        of_all = [expert(shared) for expert in self.shared_experts]
        mixed = [gate(x, [*said, *of_all]) for gate, x, said in zip(self.gates, own, of_tasks, strict=True)]
        if self.shared_gate is None:
            return mixed, shared
        return mixed, self.shared_gate(shared, [e for said in of_tasks for e in said] + of_all)
