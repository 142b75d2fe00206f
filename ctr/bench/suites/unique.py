"""Unique pooling against plain embedding lookup, forward and backward, by the share of unique IDs.

U unique IDs, V IDs, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.bench.results import Bound, CellValue, Chart, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import case_config, given_or_synthetic, sized
from ctr.bench.timing import interleave, ratio
from ctr.bench.workload import first_batches
from ctr.loader.stats import batch_stats
from kernels.unique_pooling import gather_bags

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
WIDTH, ID_BYTES, FLOAT_BYTES = 64, 8, 4
TOLERANCE = 1e-4  # of gradients of rows summed in another order, relative to the largest


def run(settings: Settings) -> SuiteResult:
    """Time and bytes for each share, and the bytes of a real batch."""
    rows, uses = (20_000, 4_000) if settings.quick else (2_000_000, 400_000)
    weight = torch.randn(rows, WIDTH)
    cells: list[list[CellValue]] = []
    faster: list[tuple[float, float]] = []
    for share in SHARES:
        settings.say(f"unique: {share:.0%} unique")
        cells.append(_one_share(settings, weight, uses, share))
        faster.append((100 * share, _number(cells[-1][4])))
    columns = [
        "unique IDs, %",
        "plain, ms",
        "plain, whole-table gradient, ms",
        "pooled, ms",
        "times faster",
        "bytes over plain",
        "relative difference",
    ]
    note = (
        f"{uses:,} uses of a table of {rows:,} rows × {WIDTH}; forward and backward until each row "
        "has its gradient. Plain: F.embedding with a sparse gradient, coalesced. Times faster is over the "
        "better of the two plain ones. Bytes: IDs, positions and rows that move, over an ID and a row for "
        "every use. IDs are made unique in the loader's threads, not here."
    )
    chart = Chart(
        "unique",
        "Unique pooling against plain lookup",
        "unique IDs, %",
        "times faster",
        {"pooled": faster},
        levels={"as fast as plain": 1.0},
    )
    tables = [
        ResultTable("Unique pooling by share of unique IDs", columns, cells, note),
        _bytes_of_a_batch(settings),
    ]
    at = {row[0]: row for row in cells}
    quarter, whole = at[25.0], at[100.0]
    targets = [
        Bound("bytes moved at 25 % unique, of plain", _number(quarter[5]), 0.30, "at most"),
        Bound("speed at 25 % unique, over plain", _number(quarter[4]), 1.5, "at least"),
        Bound("speed at 100 % unique, over plain", _number(whole[4]), 0.9, "at least"),
    ]
    return SuiteResult("unique", "Unique pooling", tables, [chart], targets)


def _one_share(settings: Settings, weight: Tensor, uses: int, share: float) -> list[CellValue]:
    """A row of the table."""
    generator = torch.Generator().manual_seed(int(1000 * share))
    unique = torch.randperm(len(weight), generator=generator)[: max(1, round(share * uses))].sort().values
    inverse = torch.randint(len(unique), (uses,), generator=generator)
    inverse[: len(unique)] = torch.arange(len(unique))  # each at least once
    inverse = inverse[torch.randperm(uses, generator=generator)]
    gradient = torch.randn(uses, WIDTH, generator=generator)
    jobs: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain(weight, unique[inverse], gradient),
        "whole": lambda: whole_table(weight, unique[inverse], gradient),
        "pooled": lambda: pooled(weight, unique, inverse, gradient),
    }
    exact = jobs["plain"]()
    difference = float((jobs["pooled"]() - exact).abs().max() / exact.abs().max())
    if difference > TOLERANCE:
        raise AssertionError(f"pooled and plain gradients must agree, differ by {difference:g}")
    taken = interleave(jobs, rounds=settings.rounds, budget=settings.budget / 4)
    better = min(("plain", "whole"), key=lambda name: taken[name].median)
    entry = ID_BYTES + FLOAT_BYTES * WIDTH
    bytes_share = (len(unique) * entry + uses * ID_BYTES) / (uses * entry)
    times = [1e3 * taken[name].median for name in jobs]
    return [100 * share, *times, ratio(taken[better], taken["pooled"]), bytes_share, difference]


def plain(weight: Tensor, ids: Tensor, gradient: Tensor) -> Tensor:
    """Look every ID up; the gradient of each touched row, (U, E)."""
    table = weight.detach().requires_grad_()
    F.embedding(ids, table, sparse=True).backward(gradient)
    assert table.grad is not None
    return table.grad.coalesce().values()


def whole_table(weight: Tensor, ids: Tensor, gradient: Tensor) -> Tensor:
    """Look every ID up; the gradient of the whole table, as nn.Embedding gives it."""
    table = weight.detach().requires_grad_()
    F.embedding(ids, table).backward(gradient)
    assert table.grad is not None
    return table.grad


def pooled(weight: Tensor, unique: Tensor, inverse: Tensor, gradient: Tensor) -> Tensor:
    """Look unique rows up and gather tokens from them; the gradient of each row, (U, E)."""
    rows = weight.index_select(0, unique).requires_grad_()
    gather_bags(rows, inverse).backward(gradient)
    assert rows.grad is not None
    return rows.grad


def _bytes_of_a_batch(settings: Settings) -> ResultTable:
    """Bytes of IDs and rows of the first training batch, by the skew of its IDs or of the given data set."""
    cells: list[list[CellValue]] = []
    skews = (None,) if settings.dataset is not None else (1.0, 2.0, 4.0, 8.0)
    for skew in skews:
        shape = replace(sized(Shape(), settings), requests=settings.requests, skew=skew or 4.0)
        dataset = given_or_synthetic(settings, shape, f"unique-{skew}")
        config = case_config(settings, dataset, "HyFormer, LONGER-style", requests=settings.requests)
        stats = batch_stats(first_batches(dataset, config, 1)[0], dataset.manifest, dim=config.embedding.dim)
        share = stats["bytes_unique"] / stats["bytes_plain"]
        name = dataset.manifest.name if skew is None else f"IDs as rows · u^{skew:g}"
        cells.append(
            [
                name,
                int(stats["rows"]),
                stats["unique_ratio"],
                stats["bytes_plain"] / 2**20,
                stats["bytes_unique"] / 2**20,
                share,
            ]
        )
    columns = ["data", "rows", "unique IDs over uses", "plain, MiB", "pooled, MiB", "pooled over plain"]
    note = "IDs and embedding rows that move to the device for one batch, requests shared in both."
    return ResultTable("Bytes of a batch", columns, cells, note)


def _number(cell: CellValue) -> float:
    assert isinstance(cell, float)
    return cell
