"""The same loss curve with each optimisation on and off: what is faster must not learn anything else."""

from __future__ import annotations

from dataclasses import replace

from ctr.bench.results import Cell, Chart, Settings, SuiteResult, Table, Target
from ctr.bench.shape import Shape
from ctr.bench.suites.common import synthetic
from ctr.bench.variants import ALL_OFF, BASELINE, VARIANTS, Variant
from ctr.bench.workload import MODELS, Workload, bench_config, endless, training_batches
from ctr.config import RunConfig
from features.dataset import Dataset

STEPS, QUICK_STEPS = 200, 10
REQUESTS = 16  # of a step
# Rounding grows from step to step. On some machines it leaves this bound: see what one unit in the last place
# of the first weights does (docs/performance.md) before a difference is taken for a fault.
TOLERANCE = 1e-3


def run(settings: Settings) -> SuiteResult:
    """200 steps of a small HyFormer, as it is and with each optimisation off."""
    steps = QUICK_STEPS if settings.quick else STEPS
    shape = replace(Shape().small(), requests=8 * REQUESTS, rows_per_request=3)
    dataset = synthetic(settings, shape, "curves")
    config = bench_config(dataset, MODELS["HyFormer, Transformer"], requests=REQUESTS)
    curves: dict[str, list[float]] = {}
    for variant in (BASELINE, *VARIANTS, ALL_OFF):
        settings.say(f"curves: {variant.name}")
        curves[variant.name] = loss_curve(dataset, config, variant, steps=steps)
    expected = curves[BASELINE.name]
    cells: list[list[Cell]] = []
    targets: list[Target] = []
    for name, curve in curves.items():
        worst = max(abs(a - b) for a, b in zip(curve, expected, strict=True))
        cells.append([name, curve[0], sum(curve[-20:]) / len(curve[-20:]), worst])
        if name != BASELINE.name:
            targets.append(
                Target(f"without {name}: largest difference of the loss", worst, TOLERANCE, "at most")
            )
    lines = {
        name: [(float(i), v) for i, v in enumerate(c)]
        for name, c in curves.items()
        if name in (BASELINE.name, ALL_OFF.name)
    }
    chart = Chart("curves", "Loss with all optimisations and with none", "step", "loss", lines, log=False)
    columns = ["optimisation switched off", "loss of step 1", "mean of the last 20", "largest difference"]
    title = f"{steps} steps of a small HyFormer with full Transformer encoders"
    return SuiteResult("curves", "The same loss curve", [Table(title, columns, cells)], [chart], targets)


def loss_curve(dataset: Dataset, config: RunConfig, variant: Variant, *, steps: int) -> list[float]:
    """Losses of a training from fresh weights with an optimisation switched off."""
    workload = Workload.build(config, dataset.manifest)
    batches = endless(training_batches(dataset, config))
    try:
        with variant.active():
            return [workload.step(variant.batch(next(batches), dataset.manifest)) for _ in range(steps)]
    finally:
        batches.close()
