"""An MLflow server in memory, as strict as the real one about sizes, that can fail on demand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class FakeRun:
    """What the server holds of one run."""

    def __init__(self, run_id: str, name: str, tags: dict[str, str]) -> None:
        self.info = SimpleNamespace(run_id=run_id, status="RUNNING")
        self.name = name
        self.tags = tags
        self.params: dict[str, str] = {}
        self.metrics: list[Metric] = []  # stricter than the database, which drops exact repetitions
        self.inputs: list[Any] = []
        self.artifacts: list[tuple[str, str | None]] = []
        self.asked: list[str] = []  # keys whose history was asked for

    @property
    def data(self) -> SimpleNamespace:
        """What the server tells at once: the latest value of each metric, parameters and tags."""
        return SimpleNamespace(
            params=self.params, tags=self.tags, metrics={m.key: m.value for m in self.metrics}
        )

    def values(self) -> list[tuple[str, int, float]]:
        """Every metric value, without its time."""
        return sorted((m.key, m.step, m.value) for m in self.metrics)


class FakeServer:
    """The store, and its client: `before` and `after` are called around each write and may raise."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, FakeRun] = {}
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    @property
    def run(self) -> FakeRun:
        """The only run."""
        assert len(self.runs) == 1
        return next(iter(self.runs.values()))

    def get_experiment_by_name(self, name: str) -> Any:
        self.before()
        found = self.experiments.get(name)
        return found and SimpleNamespace(experiment_id=found, lifecycle_stage="active")

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def search_runs(self, _: list[str], filter_string: str) -> list[FakeRun]:
        uid = filter_string.split("'")[1]
        return [run for run in self.runs.values() if run.tags["ctr.uid"] == uid]

    def create_run(self, _: str, tags: dict[str, str], run_name: str) -> FakeRun:
        run = FakeRun(f"run{len(self.runs)}", run_name, tags)
        self.runs[run.info.run_id] = run
        return run

    def get_run(self, run_id: str) -> FakeRun:
        return self.runs[run_id]

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), *, synchronous: bool
    ) -> None:
        assert synchronous and len(metrics) <= 1000 and len(params) <= 100
        assert all(len(p.value) <= 6000 and p.key not in self.runs[run_id].params for p in params)
        self.before()
        self.runs[run_id].metrics.extend(metrics)
        self.runs[run_id].params.update({p.key: p.value for p in params})
        self.after()

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        self.runs[run_id].asked.append(key)
        return [metric for metric in self.runs[run_id].metrics if metric.key == key]

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id].info.status = status

    def set_terminated(self, run_id: str, status: str, end_time: int | None = None) -> None:
        self.before()
        self.runs[run_id].info.status = status

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.runs[run_id].tags[key] = value

    def log_inputs(self, run_id: str, datasets: list[Any]) -> None:
        assert all(len(entry.dataset.digest) <= 36 for entry in datasets)
        self.runs[run_id].inputs += datasets

    def log_artifact(self, run_id: str, path: str, place: str | None = None) -> None:
        self.runs[run_id].artifacts.append((path, place))

    log_artifacts = log_artifact


def install(monkeypatch: pytest.MonkeyPatch, servers: dict[str, FakeServer]) -> None:
    """Put the servers in place of mlflow, by tracking URI."""
    package, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    exceptions = ModuleType("mlflow.exceptions")
    exceptions.MlflowException = RuntimeError  # type: ignore[attr-defined]
    package.MlflowClient = lambda tracking_uri: servers[tracking_uri]  # type: ignore[attr-defined]
    entities.__dict__.update(
        Metric=Metric,
        Param=Param,
        Dataset=lambda name, digest, *rest, **more: SimpleNamespace(name=name, digest=digest),
        DatasetInput=lambda dataset, tags: SimpleNamespace(dataset=dataset, tags=dict(tags)),
        InputTag=lambda key, value: (key, value),
    )
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    monkeypatch.setattr("ctr.tracking.store.sqlite_file", lambda uri: None)  # a fake store has no file
