"""Training rows/s of every model: the whole step, from the loader's batch to the updated rows."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace

from ctr.batch import Batch
from ctr.bench.calibration import SIDE, matrix_product
from ctr.bench.flops import count_flops
from ctr.bench.results import Bound, CellValue, Chart, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import build_all, given_or_synthetic, sized
from ctr.bench.timing import Samples, TimedCall, interleave
from ctr.bench.workload import Workload, endless, first_batches, models, training_batches
from features.dataset import Dataset

# Training rows/s of the competition's public HyFormer, tuned, where a 2048³ product reaches PEER_GFLOPS.
PEER = {"HyFormer, Transformer": 25.5, "HyFormer, LONGER-style": 99.0, "HyFormer, SwiGLU": 46.0}
PEER_GFLOPS = 190.0
PRODUCT = "product"
# Rows per request → rows/s to reach on such a machine.
GOALS = {
    1: {name: 2 * rows for name, rows in PEER.items()},
    5: {"HyFormer, Transformer": 150.0, "HyFormer, LONGER-style": 450.0, "HyFormer, SwiGLU": 250.0},
    25: {"HyFormer, Transformer": 450.0, "HyFormer, LONGER-style": 1500.0, "HyFormer, SwiGLU": 900.0},
}


def run(settings: Settings) -> SuiteResult:
    """A table per number of rows per request; targets for the models that the peer has."""
    result = SuiteResult("train", "Training speed")
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in models()}
    sessions = (None,) if settings.dataset is not None else settings.rows_per_request
    for rows in sessions:
        dataset = _dataset(settings, rows)
        split = dataset.manifest.splits["train"]
        per_request = split.impressions / max(1, split.requests)
        speeds, scale, table = _measure(settings, dataset, per_request)
        result.tables.append(table)
        result.targets.extend(_targets(speeds, scale, round(per_request)))
        for name, speed in speeds.items():
            lines[name].append((per_request, speed))
    if len(sessions) > 1:
        result.charts.append(Chart("train", "Training speed", "rows per request", "training rows/s", lines))
    return result


def _dataset(settings: Settings, rows: int | None) -> Dataset:
    batches = 2 * settings.rounds + 2  # no epoch ends while it is measured: the loader would work ahead there
    requests = batches * settings.requests
    shape = replace(sized(Shape(), settings), requests=requests, rows_per_request=rows or 5)
    return given_or_synthetic(settings, shape, f"train-{rows}")


def _measure(
    settings: Settings, dataset: Dataset, per_request: float
) -> tuple[dict[str, float], float, ResultTable]:
    """Rows/s by model, what the peer's are scaled by, and the table."""
    workloads = build_all(settings, dataset, list(models()), requests=settings.requests)
    seconds, batch_rows, gflops = _step_times(settings, dataset, workloads)
    scale = gflops / PEER_GFLOPS
    speeds: dict[str, float] = {}
    rows: list[list[CellValue]] = []
    for name, samples in seconds.items():
        (batch,) = first_batches(dataset, workloads[name].config, 1)
        flops = _flops(workloads[name], batch) / batch.num_rows
        speeds[name] = samples.per_second(batch_rows[name])
        rate = flops * speeds[name] / 1e9
        peer = PEER[name] * scale if name in PEER else None
        rows.append(
            [
                name,
                speeds[name],
                peer,
                speeds[name] / peer if peer else None,
                flops / 1e9,
                rate,
                100 * rate / gflops,
            ]
        )
    columns = ["model", "rows/s", "peer, scaled", "times the peer", "GFLOP/row", "GFLOP/s", "MFU, %"]
    size = round(sum(batch_rows.values()) / len(batch_rows))
    title = f"{dataset.manifest.name}: {per_request:.3g} rows a request, {size} rows a batch"
    note = (
        "Whole step, waiting for the loader included; medians of interleaved rounds, in each of which a "
        "model makes one unmeasured step first. Peer: the competition's public HyFormer, tuned, scaled by an "
        f"fp32 product in the same rounds ({gflops:.0f} against {PEER_GFLOPS:.0f} GFLOP/s). GFLOP/row is "
        "what this code computes for a row, forward and backward, shared work divided; MFU is over the same "
        "product."
    )
    return speeds, scale, ResultTable(title, columns, rows, note)


def _step_times(
    settings: Settings, dataset: Dataset, workloads: dict[str, Workload]
) -> tuple[dict[str, Samples], dict[str, float], float]:
    """Seconds of a step with its share of the loader, rows of a batch on average, fp32 GFLOP/s meanwhile."""
    counted: dict[str, list[int]] = {name: [] for name in workloads}
    with ExitStack() as stack:

        def job(name: str, workload: Workload) -> TimedCall:
            batches = stack.enter_context(closing(endless(training_batches(dataset, workload.config))))

            def step() -> None:
                settings.say(f"train: {name}")
                batch = next(batches)
                counted[name].append(batch.num_rows)
                workload.step(batch)

            return step

        product, operations = matrix_product(256 if settings.quick else SIDE, times=4)
        jobs = {name: job(name, workload) for name, workload in workloads.items()} | {PRODUCT: product}
        samples = interleave(jobs, rounds=settings.rounds, settle=1, budget=4 * settings.budget)
    gflops = samples.pop(PRODUCT).per_second(operations) / 1e9
    return samples, {name: sum(rows) / len(rows) for name, rows in counted.items()}, gflops


def _flops(workload: Workload, batch: Batch) -> int:
    return count_flops(lambda: workload.step(batch))


def _targets(speeds: dict[str, float], scale: float, rows: int) -> list[Bound]:
    """Goals on the peer's data shape, scaled like the peer."""
    goals = GOALS.get(rows, {})
    return [
        Bound(f"{name}: rows/s, requests of {rows}", speeds[name], goal * scale, "at least")
        for name, goal in goals.items()
    ]
