"""Every model beside the same mathematics in plain torch: one training step on one batch, in turn."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ctr.batch import Batch
from ctr.bench.plain.cases import cases
from ctr.bench.plain.data import PlainBatch, plain_batch
from ctr.bench.plain.step import PlainTraining
from ctr.bench.results import Bound, CellValue, ResultTable, Settings, SuiteResult
from ctr.bench.shape import DomainShape, Shape
from ctr.bench.suites.common import given_or_synthetic
from ctr.bench.timing import Samples, interleave, ratio
from ctr.bench.workload import Workload, bench_config, first_batches
from ctr.config import RunConfig
from features.dataset import Dataset

ROWS, QUICK_ROWS = 1024, 4
LEAST = 0.8  # of the rows/s of plain code
# MovieLens 1M as this project prepares it: one rating a request, 50 events at most.
RATINGS = Shape(
    domains={"rated": DomainShape(50, (3700, 19, 10, 10, 3))},
    fill=0.95,
    rows_per_request=1,
    request_ids=(6040, 7, 3, 21, 24, 7),
    candidate_ids=(3700, 19, 10),
    shared={"item_0": "rated_0"},
    request_dense=(8, 24),
    tokens=5,
)
BASE: dict[str, Any] = {
    "model": {"d_model": 32, "heads": 2, "head_hidden": [32]},
    "embedding": {"dim": 32, "engine": "torch", "optimizer": "adam", "lr": 0.002},
    "train": {"device": "cpu"},
}
COMMON = ("d_model", "heads", "head_hidden", "expansion", "dense_bins", "time_gaps", "dropout")
LONGEST = 50  # events of a domain


NOTE = (
    "One whole training step (forward, loss, backward, AdamW, Adam of the tables) on one batch: medians of "
    "interleaved rounds, an unmeasured step before each. Plain: histories padded, a row for each candidate, "
    "nn.Embedding with dense gradients. What loaders do is not in it: unique IDs here, padding there. "
    "Difference: the largest of all logits, before any step."
)


def run(settings: Settings) -> SuiteResult:
    """A line for each model, and a target: at least 0.8 of the rows/s of plain code."""
    rows = QUICK_ROWS if settings.quick else ROWS
    dataset = given_or_synthetic(settings, _shape(settings, rows), "models")
    table: list[list[CellValue]] = []
    targets: list[Bound] = []
    for name, options in cases(dataset.manifest).items():
        settings.say(f"models: {name}")
        difference, ours, plain = _time(settings, dataset, options, rows)
        share = ratio(plain, ours)
        table.append([name, rows / ours.median, rows / plain.median, share, difference])
        targets.append(Bound(f"{name}: times plain torch", share, LEAST, "at least"))
    columns = ["model", "rows/s", "plain torch, rows/s", "times plain", "difference"]
    title = f"{dataset.manifest.name}: batches of {rows} rows"
    tables = [ResultTable(title, columns, table, NOTE)]
    return SuiteResult("models", "Models beside plain torch", tables, [], targets)


def _shape(settings: Settings, rows: int) -> Shape:
    """Batches enough for one; few features and events of a quick run."""
    if not settings.quick:
        return replace(RATINGS, requests=2 * rows)
    few = {"rated": DomainShape(5, (9, 7))}
    return replace(RATINGS, domains=few, requests=2 * rows, request_ids=(6, 7, 3), request_dense=(2,))


def _time(
    settings: Settings, dataset: Dataset, options: dict[str, Any], rows: int
) -> tuple[float, Samples, Samples]:
    """The difference of logits, and seconds of a step: ours, and the plain one."""
    manifest = dataset.manifest
    config = _config(settings, dataset, options, rows)
    (batch,) = first_batches(dataset, config, 1)
    given, workload = plain_batch(batch, manifest), Workload.build(config, manifest)
    plain = PlainTraining(copy.deepcopy(workload.model), config, manifest)
    difference = _difference(workload, plain, batch, given)
    jobs = {"ours": partial(workload.step, batch), "plain": partial(plain.step, given)}
    taken = interleave(jobs, rounds=settings.rounds, settle=1, budget=settings.budget)
    return difference, taken["ours"], taken["plain"]


def _config(settings: Settings, dataset: Dataset, options: dict[str, Any], rows: int) -> RunConfig:
    """Of a case: the base's sizes, or those of the configuration that was given."""
    manifest, base = dataset.manifest, settings.config or BASE
    common = {name: base["model"][name] for name in COMMON if name in base["model"]}
    lengths = {name: min(LONGEST, info.max_len) for name, info in manifest.domains.items()}
    loader = base.get("loader") or {"max_len": lengths}
    whole = {**BASE, **base, "model": common | options, "loader": loader}
    split = manifest.splits["train"]
    requests = max(1, round(rows * split.requests / max(1, split.impressions)))
    return bench_config(
        dataset, None, [f"train.precision={settings.precision}"], requests=requests, base=whole
    )


@torch.no_grad()
def _difference(workload: Workload, plain: PlainTraining, batch: Batch, given: PlainBatch) -> float:
    """The largest, of the logits of both from the same weights and rows."""
    rows = workload.tables.lookup(batch.unique_ids)
    weights = {
        name: torch.zeros_like(weight).index_copy(0, batch.unique_ids[name], rows[name])
        for name, weight in plain.weights().items()
        if name in rows
    }
    workload.model.eval()
    plain.model.eval()
    logits, _ = plain.score(plain.model, given, weights)
    difference = (workload.model(batch, rows) - logits).abs().max().item()
    workload.model.train()
    plain.model.train()
    workload.tables.discard()
    return difference
