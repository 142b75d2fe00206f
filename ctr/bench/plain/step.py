"""A training step as a script of plain torch makes it: nn.Embedding, autograd, Adam over whole tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.bench.plain.data import PlainBatch
from ctr.bench.plain.stacks import STACKS
from ctr.config import RunConfig
from ctr.models.model import Model
from ctr.training.optim import make_optimizer
from features.dataset import Manifest


class PlainTraining:
    """A model of this project, read by plain functions, with embeddings and optimizers of torch.

    The dense weights have the AdamW of the configuration, and the same clipping. Tables are nn.Embedding with
    dense gradients, as in FuxiCTR, and torch's fused Adam: at the sizes of public logs that is both usual and
    fast. Each has a row more, for lists to be padded with.
    """

    def __init__(self, model: Model, config: RunConfig, manifest: Manifest) -> None:
        self.model, self.clip = model.train(), config.optimizer.clip_norm
        self.score = STACKS[model.config.kind]
        sizes = {name: table.rows + 1 for name, table in manifest.tables.items()}
        self.tables = {name: nn.Embedding(rows, config.embedding.dim) for name, rows in sizes.items()}
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=config.embedding.init_std)
        self.dense = make_optimizer(model, config.optimizer)
        self.sparse = torch.optim.Adam(self.weights().values(), lr=config.embedding.lr, fused=True)

    def loss(self, batch: PlainBatch) -> Tensor:
        """Mean log loss, and the model's own loss."""
        logits, own = self.score(self.model, batch, self.weights())
        loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        return loss if own is None else loss + own.mean()

    def weights(self) -> dict[str, Tensor]:
        """Of the tables."""
        return {name: table.weight for name, table in self.tables.items()}

    def step(self, batch: PlainBatch) -> float:
        """Forward, backward, update; the loss."""
        self.dense.zero_grad()
        self.sparse.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.dense.step()
        self.sparse.step()
        return loss.item()
