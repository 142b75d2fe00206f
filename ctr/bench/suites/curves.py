"""Loss curves with each optimisation on and off: an optimisation must not change what is learned."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from ctr.batch import map_tensors
from ctr.bench.results import Bound, CellValue, Chart, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import synthetic
from ctr.bench.variants import ALL_OFF, BASELINE, FOR_FEW_ROWS, VARIANTS, Implementation
from ctr.bench.workload import Workload, bench_config, endless, training_batches
from ctr.config import RunConfig
from features.dataset import Dataset

STEPS, QUICK_STEPS = 200, 10
REQUESTS = 16  # of a step
# In float64, rounding does not grow to what a loss shows. Compiled kernels have no float64: for them, what
# rounding alone does to a curve is measured, by trainings whose first weights are moved by one unit in their
# last place. So many draws of the directions; so many times the largest difference among them is still called
# rounding: other rounding in every step is more than other rounding at the start.
EXACT = 1e-7
DRAWS, TIMES = 6, 4.0
LEAST = 1e-6  # the bound is never below: a few units in the last place of the loss itself
COLUMNS = ["optimisation switched off", "loss of step 1", "mean of the last 20"]
PARTS = ("largest difference, half of the steps", "largest difference, all steps")


def run(settings: Settings) -> SuiteResult:
    """200 steps of a small HyFormer, as it is and with each optimisation off, in both precisions."""
    steps = QUICK_STEPS if settings.quick else STEPS
    shape = replace(Shape().small(), requests=8 * REQUESTS, rows_per_request=3)
    dataset = synthetic(settings, shape, "curves")
    config = bench_config(dataset, "HyFormer, Transformer", requests=REQUESTS)

    def curve(
        variant: Implementation, moved: int | None = None, *, dtype: torch.dtype = torch.float32
    ) -> list[float]:
        draw = f", first weights moved, {moved}" if moved else ""
        settings.say(f"curves: {variant.name}, {dtype}{draw}")
        return loss_curve(dataset, config, variant, steps=steps, moved=moved, dtype=dtype)

    exact = {v.name: curve(v, dtype=torch.float64) for v in (BASELINE, *VARIANTS) if not v.float32}
    curves = {v.name: curve(v) for v in (BASELINE, *VARIANTS, ALL_OFF)}
    rounded = [curve(BASELINE, draw) for draw in range(1, 1 + (2 if settings.quick else DRAWS))]
    title = f"{steps} steps of a small HyFormer with full Transformer encoders"
    tables = [
        _table(f"{title}, float64", exact, note="Logits are rounded to float32 for the loss."),
        _table(
            f"{title}, float32",
            curves | {f"rounding alone, {draw}": c for draw, c in enumerate(rounded, start=1)},
            note="Rounding alone: every first weight moved up or down by one unit in its last place, "
            f"everything else as it is. The bound is {TIMES:g} times the largest difference among these.",
        ),
    ]
    targets = [
        Bound(f"float64, without {name}: {PARTS[1]}", worst, EXACT, "at most")
        for name, worst in _worst(exact, steps)
    ]
    for part, until in zip(PARTS, (steps // 2, steps), strict=True):
        limit = bound(rounded, curves[BASELINE.name], until)
        targets += [
            Bound(f"float32, without {name}: {part}", worst, limit, "at most")
            for name, worst in _worst(curves, until)
        ]
    lines = {
        name: [(float(i), v) for i, v in enumerate(curves[name])] for name in (BASELINE.name, ALL_OFF.name)
    }
    chart = Chart("curves", "Loss with all optimisations and with none", "step", "loss", lines, log=False)
    return SuiteResult("curves", "The same loss curve", tables, [chart], targets)


def _worst(curves: dict[str, list[float]], until: int) -> list[tuple[str, float]]:
    """The largest difference of each curve from the first."""
    (_, expected), *others = curves.items()
    return [(name, difference(curve, expected, until)) for name, curve in others]


def _table(title: str, curves: dict[str, list[float]], *, note: str) -> ResultTable:
    """A line per curve; the others are compared with the first."""
    expected = next(iter(curves.values()))
    steps = len(expected)
    cells: list[list[CellValue]] = [
        [name, c[0], sum(c[-20:]) / len(c[-20:]), *(difference(c, expected, n) for n in (steps // 2, steps))]
        for name, c in curves.items()
    ]
    return ResultTable(title, [*COLUMNS, *PARTS], cells, note)


def difference(curve: list[float], expected: list[float], until: int) -> float:
    """The largest difference in the first `until` steps."""
    return max(abs(a - b) for a, b in zip(curve[:until], expected[:until], strict=True))


def bound(rounded: list[list[float]], expected: list[float], until: int) -> float:
    """The largest difference by rounding in the first `until` steps, from curves that differ by it alone."""
    return max(LEAST, TIMES * max(difference(curve, expected, until) for curve in rounded))


def loss_curve(
    dataset: Dataset,
    config: RunConfig,
    variant: Implementation,
    *,
    steps: int,
    moved: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[float]:
    """Losses of a training from fresh weights with an optimisation off; the others are on for few rows too.

    With `moved` every dense weight starts one unit in its last place higher or lower, as this seed draws.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    batches = endless(training_batches(dataset, config))
    try:
        workload = Workload.build(config, dataset.manifest)
        if moved is not None:
            _move(workload.model, seed=moved)
        with FOR_FEW_ROWS.active(), variant.active():
            given = (map_tensors(batch, partial(_as, dtype=dtype)) for batch in islice(batches, steps))
            return [workload.step(variant.batch(batch, dataset.manifest)) for batch in given]
    finally:
        batches.close()
        torch.set_default_dtype(before)


def _as(tensor: Tensor, *, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@torch.no_grad()
def _move(model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        up = torch.rand(weight.shape, generator=generator) < 0.5
        weight.copy_(torch.nextafter(weight, torch.where(up, torch.inf, -torch.inf)))
