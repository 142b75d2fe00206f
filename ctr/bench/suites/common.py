"""What several suites share: where the data come from, and models side by side on one set of tables."""

from __future__ import annotations

from collections.abc import Sequence

from ctr.bench.results import Settings
from ctr.bench.shape import Shape
from ctr.bench.synthetic import write_dataset
from ctr.bench.workload import Workload, bench_config, new_tables
from ctr.config import RunConfig
from ctr.models.hyformer import HyFormer
from features.dataset import Dataset

HYFORMER = list(HyFormer.BENCH)


def sized(shape: Shape, settings: Settings) -> Shape:
    """The shape, or its miniature for a quick run."""
    return shape.small() if settings.quick else shape


def given_or_synthetic(settings: Settings, shape: Shape, name: str) -> Dataset:
    """The data set that was named, else one in this shape."""
    return Dataset(settings.dataset) if settings.dataset is not None else synthetic(settings, shape, name)


def synthetic(settings: Settings, shape: Shape, name: str) -> Dataset:
    """A data set in this shape in the scratch directory, made once."""
    root = settings.scratch / name
    return Dataset(root) if root.is_dir() else write_dataset(root, shape)


def case_config(
    settings: Settings, dataset: Dataset, model: str, *, requests: int, extra: Sequence[str] = ()
) -> RunConfig:
    """The configuration of one of the models, as the command was told to run it."""
    overrides = [f"train.precision={settings.precision}", *extra]
    return bench_config(dataset, model, overrides, requests=requests, base=settings.config)


def build_all(
    settings: Settings, dataset: Dataset, models: Sequence[str], *, requests: int, extra: Sequence[str] = ()
) -> dict[str, Workload]:
    """A workload per model; all update one set of tables, which saves memory and changes no time."""
    configs = {m: case_config(settings, dataset, m, requests=requests, extra=extra) for m in models}
    tables = new_tables(next(iter(configs.values())), dataset.manifest)
    return {name: Workload.build(config, dataset.manifest, tables) for name, config in configs.items()}
