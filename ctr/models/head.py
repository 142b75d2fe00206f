"""From the top layer's tokens to a logit, or to one for each task.

B candidates, T tokens, D width, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.layers import build_norm
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from ctr.models.heads.config import TasksConfig
from ctr.models.heads.towers import HeadSizes, make_mlp
from features.dataset import Column, Manifest

NormOf = Literal["token", "all"]


class Head(nn.Module):
    """MLP(norm(tokens)) → logit, optionally plus a linear map of the dense features.

    Where a run learns several tasks, a way to share between them (ctr.models.heads) takes the MLP's place.

    Args:
        tokens: T, how many tokens the head is given.
        width: their width.
        config: `head_reads` (`mean` averages the tokens, otherwise they stand side by side), `head_hidden`,
            `linear_shortcut`, `norm`, `dropout`.
        manifest: names the dense features of the shortcut, and the K tasks.
        tasks: how they share the model; None for the one task of a model that knows of none.
        norm_of: `token`, each token for itself, so that its length tells nothing; `all`, one norm of all
            tokens side by side, which keeps how long each is beside the others.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        config: ModelConfig,
        manifest: Manifest,
        tasks: TasksConfig | None = None,
        norm_of: NormOf = "token",
    ) -> None:
        super().__init__()
        self.mean, self.norm_of = config.head_reads == "mean", norm_of
        self.norm = build_norm(config.norm, width if norm_of == "token" else tokens * width)
        inputs, outputs = width if self.mean else tokens * width, len(manifest.tasks)
        hidden, dropout = config.head_hidden, config.dropout
        self.mlp = (
            make_mlp(inputs, hidden, dropout=dropout, outputs=1)
            if tasks is None
            else tasks.build(HeadSizes(inputs, outputs, tuple(hidden), dropout))
        )
        shortcut = config.linear_shortcut
        self.shortcut = DenseShortcut(manifest.features, outputs if tasks else 1) if shortcut else None
        # log σ² of each task, whose loss counts 1 / σ² times; see ctr.training.objective.
        learned = tasks is not None and tasks.weights == "learned" and outputs > 1
        self.task_log_variance = nn.Parameter(torch.zeros(outputs)) if learned else None

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """The request-level dense features (R, dim) that it reads."""
        return {} if self.shortcut is None else {n: batch.request_dense[n] for n in self.shortcut.of_request}

    def forward(self, tokens: Tensor, batch: Batch, requests: RequestMap) -> Tensor:
        """(B, T, D) → logits (B,), or (B, K) of several tasks."""
        normed = self.norm(tokens if self.norm_of == "token" else tokens.flatten(1))
        logits: Tensor = self.mlp(normed.mean(dim=1) if self.mean else normed.flatten(1)).squeeze(-1)
        return logits if self.shortcut is None else logits + self.shortcut(batch, requests)


class DenseShortcut(nn.Module):
    """A logistic regression on all dense features, from zero weights, beside the deep part; one a task."""

    MAPS = ("weight",)

    def __init__(self, columns: Sequence[Column], tasks: int = 1) -> None:
        super().__init__()
        self.of_request = [c.name for c in columns if c.kind == "dense" and c.level == "request"]
        self.of_candidate = [c.name for c in columns if c.kind == "dense" and c.level == "candidate"]
        width = sum(c.dim for c in columns if c.kind == "dense")
        self.weight = nn.Parameter(torch.zeros(width, tasks))

    def forward(self, batch: Batch, requests: RequestMap) -> Tensor:
        """(B,), or (B, K) of several tasks."""
        parts = [requests.to_rows(batch.request_dense[n]) for n in self.of_request]
        parts += [batch.candidate_dense[n] for n in self.of_candidate]
        if not parts:
            return batch.label.new_zeros(batch.num_rows, self.weight.shape[1]).squeeze(-1)
        return (torch.cat(parts, dim=-1) @ self.weight).squeeze(-1)
