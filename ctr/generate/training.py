"""Training a generator: trainer, loader and checkpoints of click models, with the loss of the next event."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.checkpoint.load import Checkpoint, load_best
from ctr.config import LoaderConfig
from ctr.embedding import EmbeddingTables
from ctr.errors import CheckpointError
from ctr.footprint import check_dense
from ctr.generate.config import GenerateConfig
from ctr.generate.model import NextBehaviour
from ctr.generate.semantic_ids import SemanticIds, load_semantic_ids, make_semantic_ids
from ctr.generate.views import covering_requests, last_requests
from ctr.loader import Loader
from ctr.loader.view import DatasetView, pick_requests
from ctr.runs.identity import identity
from ctr.training.optim import averaged_weights, make_optimizer
from ctr.training.scoring import BatchSource
from ctr.training.state import Progress, TrainingState
from ctr.training.step import StepResult
from ctr.training.trainer import Trainer
from features.dataset import Dataset, Manifest
from features.errors import ConfigError

FOLDER = "semantic-ids"  # in the run directory


class NoTables(EmbeddingTables):
    """A generator's embeddings are weights of its language model: there is nothing to look up."""

    def lookup(self, unique_ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def apply_gradients(self) -> None:
        """Nothing."""

    def discard(self) -> None:
        """Nothing."""

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class GeneratorTrainer(Trainer):
    """The trainer, validated by the loss of the users' last behaviour in the validation split.

    NE = mean −log p of the item by the model / the same by popularity in the training split: below 1 it knows
    more than what is popular.
    """

    def __init__(self, *args: Any, popularity: np.ndarray, **kwargs: Any) -> None:
        """`popularity`: (I,), how often each item was a target in the training split; the rest as ever."""
        super().__init__(*args, **kwargs)
        self.popularity = popularity

    def _record(self, result: StepResult, at_end: bool) -> None:
        """Without clicks: their share says nothing of this loss."""
        super()._record(replace(result, positives=0.0), at_end)

    def validation_metrics(self, valid: BatchSource) -> dict[str, float | None]:
        """`loss`, nats per item, and `ne`."""
        total, base, count = 0.0, 0.0, 0
        share = np.log((self.popularity + 1) / (self.popularity + 1).sum())
        with torch.inference_mode(), self.state.for_scoring() as model:
            assert isinstance(model, NextBehaviour)
            for batch in valid.iterate(0):
                moved = batch.to(self.device)
                found = model.predictions(moved)
                total += found.losses[found.of_target].double().sum().item()
                items = model.target_items(moved).cpu().numpy()
                base -= share[items[items > 0]].sum()
                count += int((items > 0).sum())
        if not count:
            return {"loss": None, "ne": None}
        return {"loss": total / count, "ne": total / base}


def semantic_ids(config: GenerateConfig, manifest: Manifest, folder: Path) -> SemanticIds:
    """The IDs that a run directory holds, or new ones from the trained run that the configuration names.

    Raises:
        ConfigError: the run was trained on other data, or has no such table.
        CheckpointError: it has no checkpoint.
    """
    if (found := load_semantic_ids(folder)) is not None:
        return found
    checkpoint = best_checkpoint(Path(config.ids.run))
    if checkpoint.state["identity"]["dataset"] != manifest.digest():
        raise ConfigError(f"ids.run must be trained on {config.dataset} as it is, {config.ids.run} was not")
    name = f"tables/{config.ids.table}.weight"
    if name not in checkpoint.tensors:
        raise ConfigError(f"ids.table must be a table of {config.ids.run}, got {config.ids.table!r}")
    source = {"run": Path(config.ids.run).name, "step": checkpoint.step, "dataset": manifest.digest()}
    first = 1 + manifest.tables[config.ids.table].oov_rows
    # Of one seed: generators of different seeds over the same run share their IDs, and can be combined.
    return make_semantic_ids(checkpoint.tensors[name], config.ids.codes, first=first, seed=1, source=source)


def best_checkpoint(run: Path) -> Checkpoint:
    """The best step of a run, or its last where none was validated.

    Raises:
        CheckpointError: it has none.
    """
    found = load_best(run / "checkpoints")
    if found is None:
        raise CheckpointError(f"{run} must be the directory of a trained run, it has no checkpoint; train it")
    return found


def build_generator(
    config: GenerateConfig, manifest: Manifest, ids: SemanticIds, device: Any
) -> TrainingState:
    """Model and optimizer, fresh; the same seed gives the same weights. Also seeds torch for dropout."""
    build = partial(NextBehaviour, manifest, config, ids)
    with torch.random.fork_rng(devices=[]):
        check_dense(build, device=device, what="generator")
        torch.manual_seed(config.seed)
        model = build().to(device)
    torch.manual_seed(config.seed)
    return TrainingState(
        model,
        NoTables({}, config.embedding, device=torch.device(device)),
        make_optimizer(model, config.optimizer),
        averaged_weights(model, config),
        Progress(),
        {**_course(config, manifest), "semantic_ids": ids.digest()},
    )


def _course(config: GenerateConfig, manifest: Manifest) -> dict[str, Any]:
    """What decides the training; decoding may change later."""
    found = identity(config, manifest)
    for key in ("strategies", "strategy", "generation"):
        del found["config"][key]
    return found


def training_view(dataset: Dataset, config: GenerateConfig) -> Dataset:
    """Few training requests that hold all training events, and each user's last request of `valid`."""
    generator = config.generator
    stored = dataset.manifest.domains[generator.domain].max_len
    every = generator.every or config.loader.max_len.get(generator.domain, stored)
    train, valid = dataset.split("train"), dataset.split("valid")
    chosen = {
        "train": pick_requests(train, covering_requests(train, generator.domain, every)),
        "valid": pick_requests(valid, last_requests(valid)),
    }
    return DatasetView(narrow(dataset, config), chosen)


def narrow(dataset: Dataset, config: GenerateConfig) -> Dataset:
    """The data set without what a generator does not read: the loader then makes small batches."""
    generator, manifest = config.generator, dataset.manifest
    kept = {generator.candidate, f"{generator.domain}.{generator.event}"}
    if generator.token_filter.mode == "mask_loss":
        kept.add(f"{generator.domain}.{generator.token_filter.by}")
    names = [c.name for c in manifest.features]
    names += [
        f"{d}.{c.name}" for d, info in manifest.domains.items() for c in info.side if d == generator.domain
    ]
    names += [d for d in manifest.domains if d != generator.domain]
    return dataset.without([name for name in names if name not in kept])


def generator_loader(config: GenerateConfig, dataset: Dataset, split: str, *, train: bool) -> Loader:
    """Batches of a split, shuffled for training, else in file order."""
    loader = config.loader
    if not train:
        loader = LoaderConfig(
            order="time", batch_rows=config.generation.batch_requests, max_len=config.loader.max_len
        )
    return Loader(dataset, split, loader, seed=config.seed)


def mean_loss(loss: Tensor, batch: Batch) -> Tensor:
    """The objective of a model that gives its loss itself."""
    return loss
