"""Time of the embedding update against the size of the table: it must depend on touched rows alone.

U touched rows.
"""

from __future__ import annotations

import torch

from ctr.bench.results import Bound, CellValue, Chart, ResultTable, Settings, SuiteResult
from ctr.bench.timing import TimedCall, interleave
from ctr.bench.variants import Implementation, update_whole_table
from ctr.config import EmbeddingConfig
from ctr.embedding import EmbeddingTables, make_tables
from ctr.sparse_optim.rowwise_adagrad import RowwiseAdagrad

ROWS, QUICK_ROWS = (10_000, 50_000, 200_000, 1_000_000, 5_000_000), (1_000, 4_000)
WHOLE_UP_TO = 1_000_000
TOUCHED, WIDTH = 8_000, 64
# Rows of a small table come from the cache, so growth counts from a size on that none holds.
FROM, BOUND = 200_000, 2.0
WHOLE = Implementation("", "", (), ((RowwiseAdagrad, "update", update_whole_table),))


def run(settings: Settings) -> SuiteResult:
    """Milliseconds of an update of 8,000 rows in tables of 10 thousand to 5 million."""
    sizes, touched = (QUICK_ROWS, 500) if settings.quick else (ROWS, TOUCHED)
    sparse: list[tuple[float, float]] = []
    whole: list[tuple[float, float]] = []
    for rows in sizes:
        settings.say(f"optimizer: {rows:,} rows")
        tables = make_tables({"table": rows}, EmbeddingConfig(dim=WIDTH, engine="torch"), seed=1)
        jobs: dict[str, TimedCall] = {"sparse": _update(tables, rows, touched)}
        if rows <= WHOLE_UP_TO:
            jobs["whole"] = _update(tables, rows, touched, variant=WHOLE)
        taken = interleave(jobs, rounds=4 * settings.rounds, warmup=2, budget=settings.budget / 5)
        sparse.append((float(rows), 1e3 * taken["sparse"].median))
        if "whole" in taken:
            whole.append((float(rows), 1e3 * taken["whole"].median))
    cells: list[list[CellValue]] = [[int(rows), ms, dict(whole).get(rows)] for rows, ms in sparse]
    columns = ["rows of the table", "touched rows, ms", "whole table, ms"]
    note = f"{touched:,} rows of width {WIDTH} looked up, their gradients applied by row-wise Adagrad."
    lines = {"touched rows": sparse, "whole table": whole}
    chart = Chart("optimizer", "Embedding update by size of the table", "rows of the table", "ms", lines)
    large = [point for point in sparse if point[0] >= FROM] or sparse
    growth = large[-1][1] / large[0][1]
    what = f"update at {large[-1][0]:,.0f} rows over that at {large[0][0]:,.0f}"
    targets = [Bound(what, growth, BOUND, "at most")]
    return SuiteResult(
        "optimizer", "Optimizer", [ResultTable("Embedding update", columns, cells, note)], [chart], targets
    )


def _update(
    tables: EmbeddingTables, rows: int, touched: int, *, variant: Implementation | None = None
) -> TimedCall:
    """Look up, take a gradient and apply it; other rows in every call."""
    generator = torch.Generator().manual_seed(rows)
    gradient = torch.randn(touched, WIDTH, generator=generator)

    def update() -> None:
        ids = torch.randint(rows, (touched,), generator=generator).unique()
        looked_up = tables.lookup({"table": ids})["table"]
        looked_up.backward(gradient[: len(ids)])
        tables.apply_gradients()

    def update_whole() -> None:
        assert variant is not None
        with variant.active():
            update()

    return update if variant is None else update_whole
