"""The trainer's own step, on batches of the trainer's own loader, for a model and a data set."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.build import build_model, build_tables, ngrams_of
from ctr.config import RunConfig, parse_config
from ctr.distributed.gradients import Reduce
from ctr.embedding import EmbeddingTables
from ctr.loader import Loader
from ctr.training.losses import click_loss
from ctr.training.optim import make_optimizer
from ctr.training.step import Updates
from features.dataset import Dataset, Manifest
from features.safe_yaml import apply_overrides

# The peer's setting: 64 wide everywhere, two layers, four heads, encoders four times as wide inside, two
# queries for each of four domains; 8 + 8 tokens.
BASE: dict[str, Any] = {
    "model": {
        "kind": "hyformer",
        "d_model": 64,
        "layers": 2,
        "heads": 4,
        "encoder": {"kind": "transformer", "recent": 50, "expansion": 4},
        "longer": {"num_queries": 50, "cls_tokens": 1},
        "default_queries": 2,
    },
    "embedding": {"dim": 64, "engine": "torch"},
    "train": {"device": "cpu"},
}
MODELS: dict[str, list[str]] = {
    "HyFormer, Transformer": ["model.encoder.kind=transformer"],
    "HyFormer, LONGER-style": ["model.encoder.kind=longer"],
    "HyFormer, SwiGLU": ["model.encoder.kind=swiglu"],
    "LONGER": ["model.kind=longer"],
    "two-stage": ["model.kind=two_stage", "model.longer.cls_tokens=8"],
}


def bench_config(
    dataset: Dataset, overrides: list[str], *, requests: int, base: dict[str, Any] | None = None
) -> RunConfig:
    """The configuration of a case, with batches of `requests` requests of average size.

    HyFormer's and RankMixer's tokens must divide d_model. Where the data set's own groups do not fit, its
    features are split automatically into as many tokens as fit.
    """
    split = dataset.manifest.splits["train"]
    rows = max(1, round(requests * split.impressions / max(1, split.requests)))
    whole = {**(base or BASE), "dataset": str(dataset.root), "run": "unused"}
    plain = apply_overrides(whole, [*overrides, f"loader.batch_rows={rows}"])
    config = parse_config(plain, what="bench configuration")
    return (
        config
        if (tokens := _tokens_to_make(config, dataset.manifest)) is None
        else parse_config(
            apply_overrides(plain, ["model.tokenizer.kind=auto", f"model.tokenizer.tokens={tokens}"])
        )
    )


def _tokens_to_make(config: RunConfig, manifest: Manifest) -> int | None:
    """How many ns tokens an automatic split must make; None where the configured tokens fit."""
    model = config.model
    if model.kind == "longer":
        return None
    queries = sum(model.queries.get(name, model.default_queries) for name in manifest.domains)
    others = queries if model.kind == "hyformer" else model.longer.cls_tokens
    own = len(manifest.tokens) if model.tokenizer.kind == "semantic" else model.tokenizer.tokens
    if model.d_model % (others + own) == 0:
        return None
    fitting = [t for t in range(others + 1, model.d_model + 1) if model.d_model % t == 0]
    return fitting[0] - others if fitting else None


def new_tables(config: RunConfig, manifest: Manifest) -> EmbeddingTables:
    """Fresh embedding tables; cases that are timed side by side may share one set."""
    return build_tables(config, manifest)


@dataclass
class Workload:
    """A model, its tables and its optimizer, ready for training steps."""

    config: RunConfig
    model: nn.Module
    tables: EmbeddingTables
    updates: Updates
    optimizer: torch.optim.Optimizer  # of the dense weights
    done: int = 0

    @classmethod
    def build(
        cls,
        config: RunConfig,
        manifest: Manifest,
        tables: EmbeddingTables | None = None,
        *,
        reduce: Reduce | None = None,
    ) -> Workload:
        """Everything fresh, but for shared tables; `reduce` stands for the network."""
        model = build_model(manifest, config.model, dim=config.embedding.dim, seed=config.seed)
        tables = new_tables(config, manifest) if tables is None else tables
        optimizer = make_optimizer(model, config.optimizer)
        updates = Updates(
            model, tables, optimizer, averaged=None, config=config, total_steps=10_000, reduce=reduce
        )
        torch.manual_seed(config.seed)
        return cls(config, model, tables, updates, optimizer)

    def step(self, batch: Batch) -> float:
        """One whole training step; the loss."""
        result = self.updates.step(batch, self.done)
        self.done += 1
        assert result.loss is not None
        return result.loss

    def probe(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B,) and the gradient of all dense weights in one vector; nothing is updated."""
        with self.updates.autocast(batch.label.device):
            logits = self.model(batch, self.tables.lookup(batch.unique_ids)).float()
        self.model.zero_grad()
        click_loss(logits, batch.label).backward()
        self.tables.discard()
        gradients = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        return logits.detach(), torch.cat(gradients)


def endless(loader: Loader) -> Generator[Batch]:
    """The batches of epoch after epoch."""
    for epoch in count():
        yield from loader.iterate(epoch)


def first_batches(dataset: Dataset, config: RunConfig, number: int) -> list[Batch]:
    """The first training batches."""
    with closing(endless(training_batches(dataset, config))) as batches:
        return list(islice(batches, number))


def training_batches(dataset: Dataset, config: RunConfig) -> Loader:
    """The loader of the training split."""
    ngrams = ngrams_of(config, dataset.manifest)
    return Loader(dataset, "train", config.loader, seed=config.seed, ngrams=ngrams)
