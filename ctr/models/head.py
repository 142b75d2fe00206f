"""From the top layer's tokens to the logit. B candidates, T tokens, D width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.layers import build_norm
from ctr.blocks.linear import Linear
from ctr.blocks.request_map import RequestMap
from ctr.models.config import ModelConfig
from features.dataset import Column, Manifest


class Head(nn.Module):
    """MLP(norm(tokens)) → logit, optionally plus a linear map of the dense features.

    Args:
        tokens: T, how many tokens the head is given.
        width: their width.
        config: `head_reads` (`mean` averages the tokens, otherwise they stand side by side), `head_hidden`,
            `linear_shortcut`, `norm`, `dropout`.
        manifest: names the dense features of the shortcut.
    """

    def __init__(self, tokens: int, width: int, config: ModelConfig, manifest: Manifest) -> None:
        super().__init__()
        self.mean = config.head_reads == "mean"
        self.norm = build_norm(config.norm, width)
        layers: list[nn.Module] = []
        fan_in = width if self.mean else tokens * width
        for hidden in config.head_hidden:
            layers += [Linear(fan_in, hidden), nn.GELU(), nn.Dropout(config.dropout)]
            fan_in = hidden
        self.mlp = nn.Sequential(*layers, Linear(fan_in, 1))
        self.shortcut = DenseShortcut(manifest.features) if config.linear_shortcut else None

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """The request-level dense features (R, dim) that it reads."""
        return {} if self.shortcut is None else {n: batch.request_dense[n] for n in self.shortcut.of_request}

    def forward(self, tokens: Tensor, batch: Batch, requests: RequestMap) -> Tensor:
        """(B, T, D) → logits (B,)."""
        normed = self.norm(tokens)
        logits: Tensor = self.mlp(normed.mean(dim=1) if self.mean else normed.flatten(1)).squeeze(-1)
        return logits if self.shortcut is None else logits + self.shortcut(batch, requests)


class DenseShortcut(nn.Module):
    """A logistic regression on all dense features, from zero weights, beside the deep part."""

    MAPS = ("weight",)

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.of_request = [c.name for c in columns if c.kind == "dense" and c.level == "request"]
        self.of_candidate = [c.name for c in columns if c.kind == "dense" and c.level == "candidate"]
        width = sum(c.dim for c in columns if c.kind == "dense")
        self.weight = nn.Parameter(torch.zeros(width, 1))

    def forward(self, batch: Batch, requests: RequestMap) -> Tensor:
        """(B,)."""
        parts = [requests.to_rows(batch.request_dense[n]) for n in self.of_request]
        parts += [batch.candidate_dense[n] for n in self.of_candidate]
        return (
            (torch.cat(parts, dim=-1) @ self.weight).squeeze(-1)
            if parts
            else batch.label.new_zeros(batch.num_rows)
        )
