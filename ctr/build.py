"""From a configuration and a data set to a model, its tables, its optimizer and its loaders."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ctr.config import LoaderConfig, RunConfig, TrainConfig
from ctr.distributed.world import World
from ctr.embedding import EmbeddingTables, make_tables
from ctr.embedding.restart import check_restart, impressions_per_row
from ctr.footprint import check_dense
from ctr.loader import Loader, Shard
from ctr.loader.collate import column_tables, table_rows
from ctr.loader.periods import restrict
from ctr.loader.teacher import read_teacher
from ctr.loader.view import sample_view
from ctr.models.aligned import align
from ctr.models.config import ModelConfig
from ctr.models.heads.config import TasksConfig
from ctr.models.model import Model
from ctr.models.registry import model_class
from ctr.runs.identity import identity
from ctr.tokens.ngram import NgramField, ngram_fields
from ctr.training.hidden import MANY, HiddenColumns
from ctr.training.lora import add_adapters
from ctr.training.optim import averaged_weights, make_optimizer
from ctr.training.speed import speed_up
from ctr.training.state import Progress, TrainingState
from ctr.training.validation import check_tasks
from features.dataset import Dataset, Manifest, TaskInfo, read_manifest
from features.errors import ConfigError


def open_dataset(config: RunConfig, *, at: Path | None = None, verify: bool = True) -> Dataset:
    """The data set of a run as it sees it (`run_view`), in its period; `at`: where it is now, if it moved."""
    dataset = Dataset(at or config.dataset, verify=verify)
    return restrict(dataset.seen_as(run_view(config, dataset.manifest)), config.period)


def run_view(config: RunConfig, manifest: Manifest) -> Manifest:
    """A data set without what a run drops, with the tasks that it learns.

    Raises:
        ConfigError: `drop` or `tasks` names what the data set has not, or the metric that chooses the step is
            of another task, or of a regression.
    """
    tasks = manifest.tasks[:1] if config.tasks is None else config.tasks.chosen(manifest.tasks)
    if config.train.negatives < 1 or manifest.sampling is not None:
        _check_sampled(manifest.tasks[0], tasks)
    if config.train.loss.kind in ("pairwise", "listwise"):
        _check_ranked(config.train.loss.kind, manifest)
    check_tasks(config.train.metric, tasks)
    view = manifest.without(config.drop).model_copy(update={"tasks": tasks})
    if not view.features:
        raise ConfigError(
            f"drop must leave a feature of data set {manifest.name!r}, got {config.drop}, after which no "
            "feature is left; name fewer"
        )
    return view


def _check_sampled(sampled: TaskInfo, tasks: list[TaskInfo]) -> None:
    """Tasks where negatives of a label are sampled: that label, and those of rows that are all kept."""
    if tasks[0] != sampled:
        raise ConfigError(
            f"where negatives are sampled, tasks.use must begin with the label that they are negatives of, "
            f"{sampled.name}, got {tasks[0].name}; name it first, or set train.negatives to 1"
        )
    if wrong := [task.name for task in tasks[1:] if task.given is None]:
        raise ConfigError(
            f"where negatives of {sampled.name} are sampled, further tasks must be given another label, as "
            f"their rows would be sampled too, got {wrong}; set train.negatives to 1, or drop them"
        )


def _check_ranked(kind: str, manifest: Manifest) -> None:
    """A loss within requests needs some of several rows."""
    split = manifest.splits["train"]
    if split.impressions <= split.requests:
        raise ConfigError(
            f"train.loss {kind} compares the rows of a request, but all {split.requests:,} of the train part "
            "have one row; choose cross_entropy or focal, or name impressions.request in the spec"
        )


def first_label(dataset: Dataset) -> str:
    """The name of the first label of a data set, of which `ctr prepare` counts the positives."""
    return read_manifest(dataset.root).tasks[0].name


def build_model(
    manifest: Manifest, config: ModelConfig, *, dim: int, seed: int, tasks: TasksConfig | None = None
) -> Model:
    """A freshly initialised model; the same seed gives the same weights.

    Args:
        manifest: of the data set, as the run sees it.
        config: of the model.
        dim: E, width of the embeddings.
        seed: of the weights.
        tasks: how the tasks of the manifest share it; None: it learns the first one.

    Raises:
        ConfigError: the configuration and the data set's tokens and domains do not fit together, or it
            is for a training that predicts events.
    """
    config.check(manifest)
    if config.token_filter.mode == "mask_loss":
        raise ConfigError(
            "model.token_filter.mode: mask_loss drops terms of a loss that predicts events, got kind "
            f"{config.kind!r}, which predicts clicks; set it to remove or off"
        )
    several = {} if tasks is None else {"tasks": tasks}
    build = partial(model_class(config.kind), manifest, config, dim=dim, **several)
    with torch.random.fork_rng(devices=[]):
        check_dense(build, what="model")
        torch.manual_seed(seed)
        try:
            model = build()
        except ValueError as error:  # the blocks check widths and counts
            raise ConfigError(f"model: {error}") from None
        if config.aligned_start:
            align(model)
    return model


def build_state(
    config: RunConfig, manifest: Manifest, device: torch.device, *, world: World | None = None
) -> TrainingState:
    """Model, tables and optimizer of a run, fresh, on a device; also seeds torch for dropout.

    The dense weights are the same in all processes of `world`, which the tables are spread over.
    """
    model = build_model(
        manifest, config.model, dim=config.embedding.dim, seed=config.seed, tasks=config.tasks
    )
    if config.lora is not None:
        add_adapters(model, config.lora, seed=config.seed)
    model.to(device)
    tables = build_tables(config, manifest, device, world=world)
    speed_up(model, config.train)
    torch.manual_seed(config.seed)
    return TrainingState(
        model,
        tables,
        make_optimizer(model, config.optimizer),
        averaged_weights(model, config),
        Progress(),
        identity(config, manifest),
        world=world or World.single(device),
    )


def build_tables(
    config: RunConfig,
    manifest: Manifest,
    device: torch.device | str = "cpu",
    *,
    world: World | None = None,
) -> EmbeddingTables:
    """The tables of the data set and those of n-grams, fresh."""
    ngrams = ngrams_of(config, manifest)
    widths = {table.name: field.dim for field in ngrams for table in field.tables}
    rows = table_rows(manifest, ngrams)
    check_restart(config, rows)
    return make_tables(rows, config.embedding, seed=config.seed, device=device, widths=widths, world=world)


def ngrams_of(config: RunConfig, manifest: Manifest) -> list[NgramField]:
    """The fields of events that the run makes n-grams of."""
    return ngram_fields(manifest, config.model.ngram, dim=config.embedding.dim)


def training_loader(config: RunConfig, dataset: Dataset, *, world: World | None = None) -> Loader:
    """Batches of the split or splits that the run trains on, or this rank's share of each."""
    shard, train = Shard(world.rank, world.size) if world else None, config.train
    options = {"negatives": train.negatives, "teacher": read_teacher(config, dataset)}
    return _loader(config, dataset, train.data.split("+"), config.loader, shard, **options)


def scoring_loader(config: RunConfig, dataset: Dataset, split: str, *, world: World | None = None) -> Loader:
    """Every row of a split once, in file order, in batches twice as large as in training.

    With several ranks each has every so-many-th of these batches.
    """
    loader = LoaderConfig(
        **{
            **config.loader.model_dump(),
            "order": "time",
            "batch_rows": 2 * config.loader.batch_rows,
            "micro_batches": 1,
            "id_dropout": {},
        }
    )
    shard = Shard(world.rank, world.size, of="epoch") if world else None
    return _loader(config, dataset, [split], loader, shard)


def validation_loader(config: RunConfig, dataset: Dataset, *, world: World | None = None) -> Loader | None:
    """The validation part, as `scoring_loader` gives it; None where a run trains on it, or it has no rows.

    Raises:
        ConfigError: training is to stop early, or scores to be calibrated, for which there must be one.
    """
    rows = dataset.manifest.splits["valid"].impressions
    if rows and config.train.data == "train":
        return scoring_loader(config, dataset, "valid", world=world)
    why = f"train.data is {config.train.data}" if rows else f"that of {dataset.root} has no rows"
    check_no_early_stopping(config.train, why)
    if config.calibration != "none":
        raise ConfigError(
            f"calibration must be none without a validation part ({why}), which it is fitted on, got "
            f"{config.calibration}; set it to none, or keep a validation part"
        )
    return None


def hidden_columns(
    config: RunConfig, dataset: Dataset, *, world: World | None = None
) -> HiddenColumns | None:
    """What says after each evaluation which ID columns are memorised; None where it is not asked for.

    It looks at columns of vocabularies with few impressions a row: where a row stands for thousands, no label
    can be read from it.
    """
    manifest, parts = dataset.manifest, ("train", "valid")
    empty = not all(manifest.splits[part].requests for part in parts)
    if not config.train.hidden_rows or config.train.data != "train" or empty:
        return None
    few = {name for name, found in impressions_per_row(manifest, ["train"]).items() if found < MANY}
    columns = {key: table for key, table in column_tables(manifest).items() if table in few}
    view = sample_view(dataset, dict.fromkeys(parts, config.train.hidden_rows))
    samples = {part: scoring_loader(config, view, part, world=world) for part in parts}
    together = world or World.single(pick_device(config.train.device))
    bf16 = config.train.precision == "bf16"
    return HiddenColumns(samples, columns, bf16, together.device, together) if columns else None


def check_no_early_stopping(config: TrainConfig, why: str) -> None:
    """Check that a run without a validation part is to train to its end.

    Args:
        config: of the run.
        why: it has none, for the message.

    Raises:
        ConfigError: it is to stop early.
    """
    if config.early_stopping:
        raise ConfigError(
            f"train.early_stopping must be 0 without a validation part ({why}), got {config.early_stopping}; "
            "set it to 0, or keep a validation part"
        )


def _loader(
    config: RunConfig,
    dataset: Dataset,
    splits: list[str],
    loader: LoaderConfig,
    shard: Shard | None,
    **options: Any,
) -> Loader:
    pin = pick_device(config.train.device).type == "cuda"
    ngrams = ngrams_of(config, dataset.manifest)
    return Loader(
        dataset,
        splits,
        loader,
        seed=config.seed,
        pin=pin,
        ngrams=ngrams,
        shard=shard,
        **options,
    )


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "train.device must be a device of this machine; it has no CUDA device: use cpu or auto"
        )
    return torch.device(name)


def parameter_counts(state: TrainingState) -> dict[str, int]:
    """Dense parameters and embedding parameters."""
    dense = sum(p.numel() for p in state.model.parameters())
    return {"dense_parameters": dense, "embedding_parameters": state.tables.num_parameters}
