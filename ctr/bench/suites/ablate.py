"""Each optimisation switched off alone: first the same result, then the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ctr.batch import Batch
from ctr.bench.results import CellValue, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import build_all, case_config, given_or_synthetic, sized
from ctr.bench.timing import TimedCall, interleave, ratio
from ctr.bench.variants import ALL_OFF, BASELINE, VARIANTS, Implementation
from ctr.bench.workload import Workload, first_batches
from features.dataset import Dataset, Manifest
from features.errors import CtrError

MODELS = ("HyFormer, Transformer", "HyFormer, LONGER-style")  # much attention, and little
FEW = 8  # requests of a step with nothing on: without sharing and pooling 40 rows take seconds and gigabytes
WARM_STEPS = 3  # before parity is checked: fresh weights hide much
TOLERANCE = {"fp32": 2e-4, "bf16": 5e-2}  # relative to the largest logit or gradient


class ParityError(CtrError):
    """An implementation computes something else: a fault of this program, so no time is reported."""


def run(settings: Settings) -> SuiteResult:
    """Time without each optimisation over the time with all, for each encoder."""
    rows = settings.rows_per_request[0]
    shape = replace(sized(Shape(), settings), requests=3 * settings.requests, rows_per_request=rows)
    dataset = given_or_synthetic(settings, shape, f"ablate-{rows}")
    workloads = build_all(settings, dataset, MODELS, requests=settings.requests)
    (batch,) = first_batches(dataset, workloads[MODELS[0]].config, 1)
    few = case_config(settings, dataset, MODELS[0], requests=min(FEW, settings.requests))
    (small,) = first_batches(dataset, few, 1)
    columns = ["optimisation switched off", "instead", "relative difference"]
    cells: list[list[CellValue]] = [[v.name, v.instead, 0.0] for v in (*VARIANTS, ALL_OFF)]
    for name in MODELS:
        settings.say(f"ablate: {name}")
        found = _one_model(settings, workloads[name], batch, small, dataset)
        columns.append(f"{name}: times slower")
        for row, (difference, times) in zip(cells, found, strict=True):
            row[2] = max(float(str(row[2])), difference)
            row.append(times)
    note = (
        f"A step of {batch.num_requests} requests and {batch.num_rows} rows, in the last line of "
        f"{small.num_rows}; time without the optimisation over time with all of them, round by round, "
        f"median. Difference: of logits and dense gradients of {small.num_rows} rows, relative to the "
        "largest. Packing concerns all but attention."
    )
    table = ResultTable("Each optimisation switched off alone", columns, cells, note)
    return SuiteResult("ablate", "What each optimisation contributes", [table])


def _one_model(
    settings: Settings, workload: Workload, batch: Batch, small: Batch, dataset: Dataset
) -> list[tuple[float, float]]:
    """For each implementation: the difference of its results, and how many times slower it is."""
    manifest = dataset.manifest
    for _ in range(WARM_STEPS):
        workload.step(batch)
    differences = [check_parity(workload, small, v, manifest) for v in (*VARIANTS, ALL_OFF)]
    jobs = {v.name: _job(workload, v.batch(batch, manifest), v) for v in (BASELINE, *VARIANTS)}
    taken = interleave(jobs, rounds=settings.rounds, budget=4 * settings.budget)
    slowest = {v.name: _job(workload, v.batch(small, manifest), v) for v in (BASELINE, ALL_OFF)}
    pair = interleave(slowest, rounds=1, warmup=1)
    times = [ratio(taken[v.name], taken[BASELINE.name]) for v in VARIANTS]
    return list(zip(differences, [*times, ratio(pair[ALL_OFF.name], pair[BASELINE.name])], strict=True))


def check_parity(workload: Workload, batch: Batch, variant: Implementation, manifest: Manifest) -> float:
    """Largest difference of a logit or a dense gradient with and without, relative to the largest.

    Raises:
        ParityError: it is more than rounding.
    """
    expected = workload.probe(batch)
    with variant.active():
        found = workload.probe(variant.batch(batch, manifest))
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
    if not difference <= TOLERANCE[workload.config.train.precision]:
        raise ParityError(
            f"{variant.name} on and off must give the same logits and gradients, they differ by "
            f"{difference:g} of the largest; mend ctr/bench/variants.py before measuring"
        )
    return difference


def _job(workload: Workload, batch: Batch, variant: Implementation) -> TimedCall:
    def step() -> float:
        with variant.active():
            return workload.step(batch)

    job: Callable[[], float] = step
    return job
