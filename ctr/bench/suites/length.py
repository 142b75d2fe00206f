"""Cost against the length of the history."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ctr.bench.results import Bound, CellValue, Chart, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import HYFORMER, build_all, sized, synthetic
from ctr.bench.timing import Samples, exponent, interleave, ratio
from ctr.bench.workload import first_batches

LINEAR = ["LONGER", "HyFormer, LONGER-style", "HyFormer, SwiGLU"]
QUADRATIC = "HyFormer, Transformer"
LENGTHS, QUADRATIC_UP_TO = (256, 512, 1024, 2048, 4096, 8192, 16384), 8192
QUICK_LENGTHS = (16, 32, 64)
FIT_FROM = 4096  # events; the fixed costs of a step hide the growth of shorter histories
REQUESTS = 4  # of a step with one history of 16k events
FACTOR = 4
BOUNDS = {"HyFormer, Transformer": 9.0, "HyFormer, LONGER-style": 4.5, "HyFormer, SwiGLU": 4.5}


def run(settings: Settings) -> SuiteResult:
    """One history of up to 16k events; then a training batch, and one of histories four times as long."""
    lengths = QUICK_LENGTHS if settings.quick else LENGTHS
    cost = _cost_by_length(settings, lengths)
    growth = {name: _growth(points) for name, points in cost.items()}
    rows: list[list[CellValue]] = [
        [length, *(dict(points).get(length) for points in cost.values())] for length in map(float, lengths)
    ]
    exponents: list[list[CellValue]] = [[name, value] for name, value in growth.items()]
    columns = ["events", *(f"{name}, ms" for name in cost)]
    note = f"A training step of {REQUESTS} requests of one row, per request; one domain, 7 fields."
    four, targets = _four_times(settings)
    linear = ("LONGER", "HyFormer, SwiGLU")
    targets += [Bound(f"{name}: exponent of the cost in L", growth[name], 1.05, "at most") for name in linear]
    chart = Chart("length", "Cost of a request by length of its history", "events", "ms per request", cost)
    tables = [
        ResultTable("Cost of a request by length", columns, rows, note),
        ResultTable(
            "Growth of the cost with the length",
            ["model", f"exponent, from {FIT_FROM:,} events on"],
            exponents,
        ),
        four,
    ]
    return SuiteResult("length", "Length of the history", tables, [chart], targets)


def _growth(points: list[tuple[float, float]]) -> float:
    """The exponent of the cost over the long histories."""
    long = [point for point in points if point[0] >= FIT_FROM]
    return exponent(long if len(long) > 1 else points)


def _cost_by_length(settings: Settings, lengths: tuple[int, ...]) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of training per request: model → (length, ms)."""
    dataset = synthetic(settings, replace(Shape().single(max(lengths)), requests=REQUESTS), "length")
    cost: dict[str, list[tuple[float, float]]] = {name: [] for name in [*LINEAR, QUADRATIC]}
    for length in lengths:
        settings.say(f"length: {length} events")
        models = [*LINEAR, QUADRATIC] if length <= QUADRATIC_UP_TO else LINEAR
        cut = (f"loader.max_len={{a: {length}}}",)
        workloads = build_all(settings, dataset, models, requests=REQUESTS, extra=cut)
        (batch,) = first_batches(dataset, workloads[models[0]].config, 1)
        jobs = {name: partial(w.step, batch) for name, w in workloads.items()}
        samples = interleave(jobs, rounds=settings.rounds, budget=settings.budget / 4)
        for name, taken in samples.items():
            cost[name].append((float(length), 1e3 * taken.median / batch.num_requests))
    return cost


def _four_times(settings: Settings) -> tuple[ResultTable, list[Bound]]:
    """Step time of histories four times as long, over that of the usual ones."""
    shape = replace(sized(Shape(), settings), requests=settings.requests)
    data = {
        1: synthetic(settings, shape, "length-1"),
        FACTOR: synthetic(settings, shape.longer(FACTOR), "length-4"),
    }
    rows: list[list[CellValue]] = []
    targets: list[Bound] = []
    workloads = {f: build_all(settings, d, HYFORMER, requests=settings.requests) for f, d in data.items()}
    for name in HYFORMER:
        settings.say(f"length: {name}, {FACTOR} times as long")
        jobs = {}
        for factor, dataset in data.items():
            workload = workloads[factor][name]
            (batch,) = first_batches(dataset, workload.config, 1)
            jobs[str(factor)] = partial(workload.step, batch)
        taken: dict[str, Samples] = interleave(jobs, rounds=settings.rounds, budget=settings.budget / 2)
        times = ratio(taken[str(FACTOR)], taken["1"])
        rows.append([name, taken["1"].median, taken[str(FACTOR)].median, times])
        targets.append(
            Bound(f"{name}: histories {FACTOR} times as long cost", times, BOUNDS[name], "at most")
        )
    columns = ["encoder", "s/step", f"s/step, {FACTOR} times as long", "times the cost"]
    lengths = "/".join(str(d.length) for d in shape.domains.values())
    note = f"A training step of {settings.requests} requests."
    return ResultTable(
        f"Histories of {lengths} events, and {FACTOR} times as long", columns, rows, note
    ), targets
