"""A model and a data set with the trainer's own step and batches of the trainer's own loader."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.build import build_model, build_tables, ngrams_of
from ctr.config import RunConfig, parse_config
from ctr.distributed.gradients import Reduce
from ctr.embedding import EmbeddingTables
from ctr.loader import Loader
from ctr.models.model import Model
from ctr.models.registry import MODELS, model_class
from ctr.options.overrides import change
from ctr.training.optim import make_optimizer
from ctr.training.step import Updates
from features.dataset import Dataset, Manifest

# The peer's setting: 64 wide everywhere, two layers, four heads, encoders four times as wide inside, two
# queries for each of four domains; 8 + 8 tokens.
BASE: dict[str, Any] = {
    "model": {
        "kind": "hyformer",
        "d_model": 64,
        "layers": 2,
        "heads": 4,
        "encoder": {"kind": "transformer", "expansion": 4},
        "default_queries": 2,
    },
    "embedding": {"dim": 64, "engine": "torch"},
    "train": {"device": "cpu"},
}


def models() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """The cases of all models: name → kind of model, options of the case (`Model.BENCH`)."""
    return {name: (kind, case) for kind in MODELS for name, case in model_class(kind).BENCH.items()}


def bench_config(
    dataset: Dataset,
    model: str | None,
    overrides: Sequence[str] = (),
    *,
    requests: int,
    base: dict[str, Any] | None = None,
) -> RunConfig:
    """The configuration of a case, or the base as it is, with batches of `requests` requests of average size.

    HyFormer's and RankMixer's tokens must divide d_model. Where the data set's own groups do not fit, its
    features are split automatically into as many tokens as fit.
    """
    split = dataset.manifest.splits["train"]
    rows = max(1, round(requests * split.impressions / max(1, split.requests)))
    whole = {**(base or BASE), "dataset": str(dataset.root), "run": "unused"}
    whole = _with_case(whole, model) if model else whole
    plain = change(RunConfig, whole, [*overrides, f"loader.batch_rows={rows}"])
    config = parse_config(plain, what="bench configuration")
    if (tokens := _tokens_to_make(config, dataset.manifest)) is None:
        return config
    split_up = ["model.tokenizer.kind=auto", f"model.tokenizer.tokens={tokens}"]
    return parse_config(change(RunConfig, plain, split_up))


def _with_case(base: dict[str, Any], model: str) -> dict[str, Any]:
    """The base with the choices of a case; its other options where the base, changed so, says nothing."""
    kind, case = models()[model]
    options = {f"model.{path}": value for path, value in {"kind": kind, **case}.items()}
    choices = [f"{path}={json.dumps(v)}" for path, v in options.items() if path.endswith("kind")]
    chosen = change(RunConfig, base, choices)
    missing = [path for path in options if _look_up(chosen, path.split(".")) is None]
    return change(RunConfig, chosen, [f"{path}={json.dumps(options[path])}" for path in missing])


def _look_up(data: Any, path: list[str]) -> Any:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _tokens_to_make(config: RunConfig, manifest: Manifest) -> int | None:
    """How many ns tokens an automatic split must make; None where the configured tokens fit."""
    model = config.model
    others = model.tokens_beside_ns(list(manifest.domains))
    if others is None or model.d_model % (others + model.ns_tokens(manifest)) == 0:
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
    model: Model
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
        self.updates.objective(logits, batch).backward()
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
