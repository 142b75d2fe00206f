"""Cached scoring against scoring every row by itself, and against the same model without histories."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ctr.batch import Batch, take_candidates
from ctr.bench.results import Bound, CellValue, ResultTable, Settings, SuiteResult
from ctr.bench.rewrite import take_requests
from ctr.bench.score_load import load
from ctr.bench.shape import Shape
from ctr.bench.suites.common import case_config, synthetic
from ctr.bench.timing import TimedCall, interleave
from ctr.bench.workload import Workload, first_batches
from ctr.loader.columns import Columns
from ctr.serving.cache import StateCache
from ctr.serving.http import serving_in_thread
from ctr.serving.lookup import FeatureLookup
from ctr.serving.requests import Request, RequestCollator, split_requests
from ctr.serving.scorer import Scorer
from ctr.serving.service import ScoreService
from features.dataset import Dataset

MODELS = ("LONGER", "HyFormer, LONGER-style", "HyFormer, SwiGLU", "two-stage")
LENGTHS, QUICK_LENGTHS = (256, 2_000, 10_000), (32,)
COUNTS, QUICK_COUNTS = (1, 16, 64, 200, 512), (1, 4)
REQUESTS = 2
GOAL_LENGTH, GOAL_COUNT, GOAL = 2_000, 200, 20.0
ROWS = 4  # rows apart from each other in one batch: faster than one at a time, and what more do not improve
CLIENTS, SECONDS = 4, 5.0


def run(settings: Settings) -> SuiteResult:
    """A table per length of the history; then the endpoint under load."""
    lengths = settings.lengths or (QUICK_LENGTHS if settings.quick else LENGTHS)
    counts = settings.candidates or (QUICK_COUNTS if settings.quick else COUNTS)
    shape = Shape().single(max(lengths))
    shape = replace(shape, requests=REQUESTS, rows_per_request=max(counts))
    dataset = synthetic(settings, shape, "score")
    result = SuiteResult("score", "Cached scoring")
    for length in lengths:
        rows: list[list[CellValue]] = []
        for name in MODELS:
            settings.say(f"score: {length} events, {name}")
            case = Case(settings, dataset, name, length)
            for count in counts:
                measured = case.measure(settings, count)
                rows.append([name, count, *measured, measured[1] / measured[2]])
                if (length, count) == (GOAL_LENGTH, GOAL_COUNT):
                    what = f"{name}: {count} candidates, {length} events: cached over per row"
                    result.targets.append(Bound(what, measured[1] / measured[2], GOAL, "at least"))
        result.tables.append(_table(length, rows))
    result.tables.append(_under_load(settings, dataset, lengths, max(counts)))
    return result


class Case:
    """One model, with a scorer, on a request with a history of `length` events."""

    def __init__(self, settings: Settings, dataset: Dataset, name: str, length: int) -> None:
        config = case_config(settings, dataset, name, requests=1, extra=(f"loader.max_len={{a: {length}}}",))
        self.workload = Workload.build(config, dataset.manifest)
        self.model = self.workload.model.eval()
        self.scorer = Scorer(
            self.model,
            self.workload.tables,
            RequestCollator(dataset, max_len=config.loader.max_len),
            cache=StateCache(2**30),
        )
        self.request, self.candidates = next(split_requests(dataset, "train"))
        (self.batch,) = first_batches(dataset, config, 1)
        end = int(self.request.columns.plain["end.a"][0])
        without = self.request.with_plain(**{"start.a": end})
        self.without_history = replace(without, name=("without history",))

    def measure(self, settings: Settings, count: int) -> list[float]:
        """Candidates/s: state kept, encoded anew, row by row, rows apart, without history; all agree."""
        candidates = self.candidates.take(np.arange(count))
        rows = min(ROWS, count)
        one_by_one = _rows_alone(self.batch, rows)
        want, got = self._forward(one_by_one), torch.from_numpy(self.scorer.score(self.request, candidates))
        torch.testing.assert_close(got[:rows], want, atol=1e-3, rtol=1e-3)
        jobs: dict[str, TimedCall] = {
            "kept": partial(self.scorer.score, self.request, candidates),
            "anew": partial(self._anew, self.request, candidates),
            "per row": partial(self._forward, _rows_alone(self.batch, 1)),
            "apart": partial(self._forward, one_by_one),
            "without": partial(self.scorer.score, self.without_history, candidates),
        }
        taken = interleave(jobs, rounds=settings.rounds, budget=settings.budget / 4)
        amounts = {"per row": 1, "apart": rows}
        return [taken[name].per_second(amounts.get(name, count)) for name in jobs]

    def _anew(self, request: Request, candidates: Columns) -> np.ndarray:
        cache, self.scorer.cache = self.scorer.cache, None
        try:
            return self.scorer.score(request, candidates)
        finally:
            self.scorer.cache = cache

    @torch.inference_mode()
    def _forward(self, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = self.model(batch, self.workload.tables.lookup(batch.unique_ids)).float()
        return logits


def _rows_alone(batch: Batch, rows: int) -> Batch:
    """The first rows, each as a request of its own."""
    index = torch.arange(rows)
    return take_requests(take_candidates(batch, index), torch.zeros_like(index), request_index=index)


def _table(length: int, rows: list[list[CellValue]]) -> ResultTable:
    ways = ("state kept", "encoded anew", "per row", f"{ROWS} rows a batch", "without history")
    columns = ["model", "candidates", *(f"{way}, 1/s" for way in ways), "anew over per row"]
    note = (
        "1/s: candidates of one request scored in a second. Per row: the model's forward on one candidate "
        f"with its whole request; {ROWS} rows a batch: the same on {ROWS} of them; without history: the same "
        "model on no event."
    )
    return ResultTable(f"Histories of {length:,} events", columns, rows, note)


def _under_load(settings: Settings, dataset: Dataset, lengths: tuple[int, ...], most: int) -> ResultTable:
    """Latency of the endpoint over HTTP."""
    length = GOAL_LENGTH if GOAL_LENGTH in lengths else max(lengths)
    count = min(GOAL_COUNT, most)
    rows: list[list[CellValue]] = []
    seconds = 0.3 if settings.quick else SECONDS
    for name in MODELS:
        settings.say(f"score: {name} under load")
        case = Case(settings, dataset, name, length)
        score_requests = [
            {
                "request_id": int(r.columns.plain["request_id"][0]),
                "row_ids": c.plain["row_id"][:count].tolist(),
            }
            for r, c in split_requests(dataset, "train")
        ]
        service = ScoreService(case.scorer, FeatureLookup(dataset))
        with serving_in_thread(service) as port:
            load(port, score_requests, clients=1, seconds=0.2)
            for clients in (1, CLIENTS):
                found = load(port, score_requests, clients=clients, seconds=seconds)
                shares = [found.percentile(share) for share in (50, 95, 99)]
                rows.append([name, clients, found.per_second, *shares, found.refused])
    columns = ["model", "clients", "requests/s", "p50, ms", "p95, ms", "p99, ms", "refused"]
    note = f"{count} candidates a score request, {length:,} events, states kept; clients ask without a pause."
    return ResultTable("The endpoint under load", columns, rows, note)
