"""The same loss curve with each optimisation on and off: what is faster must not learn anything else."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ctr.bench.results import Cell, Chart, Settings, SuiteResult, Table, Target
from ctr.bench.shape import Shape
from ctr.bench.suites.common import synthetic
from ctr.bench.variants import ALL_OFF, BASELINE, FOR_FEW_ROWS, VARIANTS, Variant
from ctr.bench.workload import MODELS, Workload, bench_config, endless, training_batches
from ctr.config import RunConfig
from features.dataset import Dataset

STEPS, QUICK_STEPS = 200, 10
REQUESTS = 16  # of a step
# What rounding alone does to a curve is measured, not assumed: the training is run again, its first weights
# moved by one unit in their last place. So many draws of the directions; so many times the largest difference
# among them is still called rounding: other rounding in every step is more than other rounding at the start.
DRAWS, TIMES = 6, 4.0
LEAST = 1e-6  # the bound is never below: a few units in the last place of the loss itself


def run(settings: Settings) -> SuiteResult:
    """200 steps of a small HyFormer, as it is, with each optimisation off, and with other rounding."""
    steps = QUICK_STEPS if settings.quick else STEPS
    shape = replace(Shape().small(), requests=8 * REQUESTS, rows_per_request=3)
    dataset = synthetic(settings, shape, "curves")
    config = bench_config(dataset, MODELS["HyFormer, Transformer"], requests=REQUESTS)
    curves: dict[str, list[float]] = {}
    for variant in (BASELINE, *VARIANTS, ALL_OFF):
        settings.say(f"curves: {variant.name}")
        curves[variant.name] = loss_curve(dataset, config, variant, steps=steps)
    expected = curves[BASELINE.name]
    rounded: list[list[float]] = []
    for draw in range(1, 1 + (2 if settings.quick else DRAWS)):
        settings.say(f"curves: first weights moved by one unit in their last place, {draw}")
        rounded.append(loss_curve(dataset, config, BASELINE, steps=steps, moved=draw))
    parts = {"half of the steps": steps // 2, "all steps": steps}
    bounds = {part: bound(rounded, expected, until) for part, until in parts.items()}
    cells: list[list[Cell]] = []
    targets: list[Target] = []
    for name, curve in curves.items():
        worst = {part: difference(curve, expected, until) for part, until in parts.items()}
        cells.append([name, curve[0], sum(curve[-20:]) / len(curve[-20:]), *worst.values()])
        if name != BASELINE.name:
            targets += [
                Target(
                    f"without {name}: largest difference of the loss, {part}", worst[part], limit, "at most"
                )
                for part, limit in bounds.items()
            ]
    for draw, curve in enumerate(rounded, start=1):
        last = sum(curve[-20:]) / len(curve[-20:])
        worst = {part: difference(curve, expected, until) for part, until in parts.items()}
        cells.append([f"rounding alone, {draw}", curve[0], last, *worst.values()])
    lines = {
        name: [(float(i), v) for i, v in enumerate(c)]
        for name, c in curves.items()
        if name in (BASELINE.name, ALL_OFF.name)
    }
    chart = Chart("curves", "Loss with all optimisations and with none", "step", "loss", lines, log=False)
    columns = ["optimisation switched off", "loss of step 1", "mean of the last 20"]
    columns += [f"largest difference, {part}" for part in parts]
    title = f"{steps} steps of a small HyFormer with full Transformer encoders"
    note = (
        "Rounding alone: every first weight moved up or down by one unit in its last place, everything else "
        f"as it is. The bound is {TIMES:g} times the largest difference among these."
    )
    table = Table(title, columns, cells, note)
    return SuiteResult("curves", "The same loss curve", [table], [chart], targets)


def difference(curve: list[float], expected: list[float], until: int) -> float:
    """The largest difference in the first `until` steps."""
    return max(abs(a - b) for a, b in zip(curve[:until], expected[:until], strict=True))


def bound(rounded: list[list[float]], expected: list[float], until: int) -> float:
    """What still is rounding in the first `until` steps, given curves that differ by rounding alone."""
    return max(LEAST, TIMES * max(difference(curve, expected, until) for curve in rounded))


def loss_curve(
    dataset: Dataset, config: RunConfig, variant: Variant, *, steps: int, moved: int | None = None
) -> list[float]:
    """Losses of a training from fresh weights with an optimisation off; the others are on for few rows too.

    With `moved` every dense weight starts one unit in its last place higher or lower, as this seed draws.
    """
    workload = Workload.build(config, dataset.manifest)
    if moved is not None:
        _move(workload.model, seed=moved)
    batches = endless(training_batches(dataset, config))
    try:
        with FOR_FEW_ROWS.active(), variant.active():
            return [workload.step(variant.batch(next(batches), dataset.manifest)) for _ in range(steps)]
    finally:
        batches.close()


@torch.no_grad()
def _move(model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        up = torch.rand(weight.shape, generator=generator) < 0.5
        weight.copy_(torch.nextafter(weight, torch.where(up, torch.inf, -torch.inf)))
