"""Peak memory of training, each case in a process of its own."""

from __future__ import annotations

from dataclasses import replace

import torch

from ctr.bench.memory import in_child
from ctr.bench.results import Bound, CellValue, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import case_config, given_or_synthetic, sized
from ctr.bench.variants import ALL_OFF, BASELINE
from ctr.bench.workload import models

GIB = 2**30
STEPS = 3
LIMIT = 4.0  # GiB, of any model at the default setting
WITHOUT = "HyFormer, LONGER-style"  # the model that is also measured with everything off


def run(settings: Settings) -> SuiteResult:
    """Every model; one of them also without any optimisation."""
    rows = 5 if settings.dataset is not None else settings.rows_per_request[0]
    shape = replace(sized(Shape(), settings), requests=3 * settings.requests, rows_per_request=rows)
    dataset = given_or_synthetic(settings, shape, f"memory-{rows}")
    cases = [(name, BASELINE) for name in models()] + [(WITHOUT, ALL_OFF)]
    cells: list[list[CellValue]] = []
    targets: list[Bound] = []
    for name, variant in cases:
        shown = name if variant is BASELINE else f"{name}, no optimisation"
        settings.say(f"memory: {shown}")
        config = case_config(settings, dataset, name, requests=settings.requests)
        steps = STEPS if variant is BASELINE else 1
        found = in_child(config, steps=steps, threads=torch.get_num_threads(), variant=variant.name)
        peak, loaded = found["peak"] / GIB, found["loaded"] / GIB
        cells.append([shown, config.loader.batch_rows, peak, peak - loaded])
        if variant is BASELINE:
            targets.append(Bound(f"{shown}: peak, GiB", peak, LIMIT, "at most"))
    rows_of_tables = sum(table.rows for table in dataset.manifest.tables.values())
    embeddings = rows_of_tables * config.embedding.dim * 4 / GIB
    columns = ["model", "rows a batch", "peak, GiB", "of it beyond the loaded libraries, GiB"]
    note = (
        f"The high-water mark of a fresh process after {STEPS} steps (1 without optimisation). The tables "
        f"alone hold about {embeddings:.2f} GiB; mapped pages of the data set count while they are resident."
    )
    return SuiteResult(
        "memory", "Peak memory", [ResultTable("Peak memory of training", columns, cells, note)], [], targets
    )
