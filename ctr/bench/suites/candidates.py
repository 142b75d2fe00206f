"""Cost against the number of candidates of a request, whose sequences are computed once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ctr.bench.results import CellValue, Chart, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import HYFORMER, build_all, sized, synthetic
from ctr.bench.timing import interleave
from ctr.bench.workload import first_batches

COUNTS, QUICK_COUNTS = (1, 2, 4, 8, 16, 32, 64), (1, 4)
REQUESTS = 8  # of a step


def run(settings: Settings) -> SuiteResult:
    """Training time per request for 1 to 64 candidates."""
    counts = QUICK_COUNTS if settings.quick else COUNTS
    cost: dict[str, list[tuple[float, float]]] = {name: [] for name in HYFORMER}
    for count in counts:
        settings.say(f"candidates: {count}")
        shape = replace(sized(Shape(), settings), requests=REQUESTS, rows_per_request=count)
        dataset = synthetic(settings, shape, f"candidates-{count}")
        workloads = build_all(settings, dataset, HYFORMER, requests=REQUESTS)
        (batch,) = first_batches(dataset, workloads[HYFORMER[0]].config, 1)
        jobs = {name: partial(w.step, batch) for name, w in workloads.items()}
        for name, taken in interleave(jobs, rounds=settings.rounds, budget=settings.budget / 5).items():
            cost[name].append((float(count), 1e3 * taken.median / REQUESTS))
    rows: list[list[CellValue]] = []
    for i, count in enumerate(counts):
        per_request = [cost[name][i][1] for name in HYFORMER]
        rows.append([count, *per_request, *(1e3 * count / ms for ms in per_request)])
    columns = ["candidates", *(f"{n}, ms/request" for n in HYFORMER), *(f"{n}, rows/s" for n in HYFORMER)]
    chart = Chart("candidates", "Cost of a request by its candidates", "candidates", "ms per request", cost)
    note = f"A training step of {REQUESTS} requests; histories of the default lengths."
    table = ResultTable("Cost of a request by its candidates", columns, rows, note)
    return SuiteResult("candidates", "Candidates per request", [table], [chart])
