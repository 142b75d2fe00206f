"""MMoE, multi-gate mixture of experts: the tasks share experts, and each weighs them by a gate of its own.

    e_i     = expert_i(x)                     i = 1 … n, MLPs
    g_k     = softmax(W_k x)                  (n,), a gate of each task
    logit_k = h_k(Σ_i g_k,i e_i)              h_k a tower, an MLP

Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts
(KDD 2018), equations 5 to 8. Differs: GELU, as in the rest of the model; `gate_dropout` is of Zhao et al.
2019.

B candidates, F inputs, K tasks, n experts, E width of an expert's output.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from ctr.models.heads.config import TasksConfig
from ctr.models.heads.towers import Gate, HeadSizes, logits_of, make_mlp
from ctr.options.knobs import Few, Positive, Share

ExpertHidden = Annotated[list[Positive], Field(min_length=1)]


class MmoeConfig(TasksConfig):
    """Experts and gates, before the towers of `model.head_hidden`."""

    kind: Literal["mmoe"] = "mmoe"
    experts: Few = 4
    expert_hidden: ExpertHidden = [64]  # widths of an expert's layers, E the last
    gate_dropout: Share = 0.0  # probability that a gate leaves out an expert, in training alone

    def build(self, sizes: HeadSizes) -> nn.Module:
        """A new head."""
        return Mmoe(self, sizes)


class Mmoe(nn.Module):
    """See the module."""

    def __init__(self, config: MmoeConfig, sizes: HeadSizes) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            make_mlp(sizes.inputs, config.expert_hidden, dropout=sizes.dropout) for _ in range(config.experts)
        )
        self.gates = nn.ModuleList(
            Gate(sizes.inputs, config.experts, dropout=config.gate_dropout) for _ in range(sizes.tasks)
        )
        self.towers = sizes.towers(config.expert_hidden[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) → logits (B, K)."""
        said = [expert(x) for expert in self.experts]
        return logits_of(self.towers, [gate(x, said) for gate in self.gates])
