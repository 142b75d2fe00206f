"""Cost of long histories: attention to all events, LONGER, searches for K of them, and sums of fixed size."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from ctr.batch import Batch, take_candidates
from ctr.bench.memory import in_child
from ctr.bench.results import CellValue, Chart, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import case_config, synthetic
from ctr.bench.timing import TimedCall, interleave
from ctr.bench.workload import Workload, first_batches, new_tables
from ctr.config import RunConfig
from features.dataset import Dataset

LENGTHS, QUICK_LENGTHS = (256, 1024, 4096, 16384), (16, 80)
COUNTS, QUICK_COUNTS = (1, 16, 64), (1, 4)
REQUESTS = 2  # of a step
STEPS = 2  # of the process whose memory is measured
MIB = 2**20
FIELD = "a_2"  # that hard search compares; the first feature of the item has its IDs
PLAIN = "target attention"  # what the others are compared with


def _searched(by: str, **options: str) -> dict[str, str]:
    return {"kind": "search", "by": by, **options}


# Sequence sides of the grid (kind: options), behind them one unified model; K is 50.
ROUTES: dict[str, dict[str, str]] = {
    PLAIN: {"kind": "target_attention"},
    "LONGER": {"kind": "longer"},
    "SIM, hard": _searched("field", compare=FIELD),
    "SIM, soft": _searched("inner_product"),
    "ETA": _searched("signs"),
    "TWIN": _searched("attention"),
    "SDIM": {"kind": "sdim"},
    "linear attention": {"kind": "linear_attention"},
}
UNIFIED = "HyFormer, LONGER-style"


def run(settings: Settings) -> SuiteResult:
    """A table per length of the history, and the memory of the longest."""
    lengths = settings.lengths or (QUICK_LENGTHS if settings.quick else LENGTHS)
    counts = settings.candidates or (QUICK_COUNTS if settings.quick else COUNTS)
    shape = replace(Shape().single(max(lengths)), requests=REQUESTS, rows_per_request=max(counts))
    dataset = synthetic(settings, replace(shape, shared={"item_0": FIELD}), "retrieval")
    tables: list[ResultTable] = []
    scored: dict[str, list[tuple[float, float]]] = {name: [] for name in _names()}
    for length in lengths:
        settings.say(f"retrieval: {length} events")
        found = _one_length(settings, dataset, length, counts)
        tables.append(_table(length, counts, found))
        for name, times in found.items():
            scored[name].append((float(length), times.scored[-1]))
    most = max(counts)
    title = f"A request with {most} candidates by length of its history"
    chart = Chart("retrieval", title, "events", "ms to score the request, encoded anew", scored)
    tables.append(_memory(settings, dataset, max(lengths)))
    return SuiteResult("retrieval", "Long histories", tables, [chart])


class Times(NamedTuple):
    """Milliseconds per request for each number of candidates; `kept`: for the most, the request encoded."""

    trained: list[float]
    scored: list[float]
    kept: float


def _names() -> list[str]:
    return [*ROUTES, UNIFIED]


def _config(settings: Settings, dataset: Dataset, name: str, length: int) -> RunConfig:
    """Of a route, everything else equal."""
    extra = [f"loader.max_len={{a: {length}}}"]
    if name in ROUTES:
        extra += [f"model.sequence.{option}={value}" for option, value in ROUTES[name].items()]
    model = "DIN" if name in ROUTES else name
    return case_config(settings, dataset, model, requests=REQUESTS, extra=extra)


def _one_length(settings: Settings, dataset: Dataset, length: int, counts: Sequence[int]) -> dict[str, Times]:
    """Route → its times; the routes take turns, for each number of candidates anew."""
    configs = {name: _config(settings, dataset, name, length) for name in _names()}
    shared = new_tables(configs[PLAIN], dataset.manifest)
    cases = {name: Workload.build(config, dataset.manifest, shared) for name, config in configs.items()}
    (whole,) = first_batches(dataset, configs[PLAIN], 1)
    found = {name: Times([], [], 0.0) for name in cases}
    for count in counts:
        batch = _first_candidates(whole, count)
        trained = {name: partial(case.step, batch) for name, case in cases.items()}
        for name, taken in _timed(settings, trained).items():
            found[name].trained.append(taken)
        for name, taken in _timed(settings, {n: partial(_score, c, batch) for n, c in cases.items()}).items():
            found[name].scored.append(taken)
    kept = {name: partial(_score, case, batch, _encoded(case, batch)) for name, case in cases.items()}
    return {name: found[name]._replace(kept=ms) for name, ms in _timed(settings, kept).items()}


def _timed(settings: Settings, jobs: Mapping[str, TimedCall]) -> dict[str, float]:
    """Milliseconds per request: of one thread its processor time, which other jobs disturb less."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken = interleave(jobs, rounds=settings.rounds, budget=settings.budget / 2, clock=clock)
    return {name: 1e3 * samples.median / REQUESTS for name, samples in taken.items()}


def _first_candidates(batch: Batch, count: int) -> Batch:
    """The first candidates of each request."""
    each = torch.bincount(batch.request_index)
    place = torch.arange(batch.num_rows) - (each.cumsum(0) - each)[batch.request_index]
    return take_candidates(batch, (place < count).nonzero().flatten())


@torch.inference_mode()
def _encoded(case: Workload, batch: Batch) -> Any:
    """What a service keeps of the requests."""
    return case.model.eval().encode(batch, case.tables.lookup(batch.unique_ids))


@torch.inference_mode()
def _score(case: Workload, batch: Batch, state: Any = None) -> None:
    """Score the candidates, with the requests encoded anew unless their state was kept."""
    model, rows = case.model.eval(), case.tables.lookup(batch.unique_ids)
    model.score(model.encode(batch, rows) if state is None else state, batch, rows)
    model.train()


def _table(length: int, counts: Sequence[int], found: dict[str, Times]) -> ResultTable:
    most = counts[-1]
    columns = [
        "route",
        *(f"training, {count}" for count in counts),
        *(f"scoring, {count}" for count in counts),
    ]
    columns += [f"scoring, {most}, state kept", f"training, {most}, over {PLAIN}"]
    plain = found[PLAIN].trained[-1]
    rows: list[list[CellValue]] = [
        [name, *times.trained, *times.scored, times.kept, times.trained[-1] / plain]
        for name, times in found.items()
    ]
    clock = "processor time" if torch.get_num_threads() == 1 else "time"
    note = (
        f"Milliseconds of {clock} per request, by its number of candidates. Training: a step of {REQUESTS} "
        "requests. Scoring: encoded anew, no gradients; state kept: scored alone. Searches keep 50 events."
    )
    return ResultTable(f"Histories of {length:,} events", columns, rows, note)


def _memory(settings: Settings, dataset: Dataset, length: int) -> ResultTable:
    """Peak memory of training steps with all candidates."""
    cells: list[list[CellValue]] = []
    for name in _names():
        settings.say(f"retrieval: memory of {name}")
        config = _config(settings, dataset, name, length)
        found = in_child(config, steps=STEPS, threads=torch.get_num_threads())
        cells.append([name, found["peak"] / MIB, (found["peak"] - found["loaded"]) / MIB])
    candidates = dataset.manifest.splits["train"].impressions // REQUESTS
    note = (
        f"The high-water mark of a fresh process after {STEPS} steps of {REQUESTS} requests with "
        f"{candidates} candidates each."
    )
    columns = ["route", "peak, MiB", "of it beyond the loaded libraries, MiB"]
    return ResultTable(f"Peak memory of training, {length:,} events", columns, cells, note)
