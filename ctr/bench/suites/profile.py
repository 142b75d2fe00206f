"""Where a training step goes: its phases and blocks on the clock, then its operators under torch.profiler."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from torch.profiler import ProfilerActivity, profile

from ctr.bench.phases import LOADER, REST, Phases, watched
from ctr.bench.results import CellValue, ResultTable, Settings, SuiteResult
from ctr.bench.shape import Shape
from ctr.bench.suites.common import given_or_synthetic, sized
from ctr.bench.workload import Workload, bench_config, endless, training_batches
from ctr.config import RunConfig
from features.dataset import Dataset

MODEL = "HyFormer, LONGER-style"  # where no configuration is given
WARM_UP = 2  # steps before the first that counts
OPERATORS = 12  # rows of the second table


def run(settings: Settings) -> SuiteResult:
    """Two tables: milliseconds of a step by phase and block; its most expensive operators."""
    steps = settings.rounds
    requests = (WARM_UP + 2 * steps + 2) * settings.requests  # no epoch ends while it is measured
    shape = replace(sized(Shape(), settings), requests=requests)
    dataset = given_or_synthetic(settings, shape, "profile")
    config = _config(settings, dataset)
    workload = Workload.build(config, dataset.manifest)
    phases = Phases()
    with closing(endless(training_batches(dataset, config))) as batches:

        def step() -> None:
            with phases.of(REST):
                with phases.of(LOADER):
                    batch = next(batches)
                workload.step(batch)

        for _ in range(WARM_UP):
            step()
        settings.say(f"profile: {steps} steps on the clock")
        with watched(workload, phases):
            taken = [_one(step, phases) for _ in range(steps)]
        settings.say(f"profile: {steps} steps under torch.profiler")
        operators = _operators(step, steps)
    name = "the configuration's model" if settings.config else MODEL
    about = f"{name} on {dataset.manifest.name} data, {config.loader.batch_rows} rows a batch"
    return SuiteResult("profile", "Where a training step goes", [_phases(taken, about), operators])


def _config(settings: Settings, dataset: Dataset) -> RunConfig:
    """The model of the given configuration as it is, else the default one."""
    return bench_config(
        dataset,
        None if settings.config else MODEL,
        [f"train.precision={settings.precision}"],
        requests=settings.requests,
        base=settings.config,
    )


def _one(step: Callable[[], None], phases: Phases) -> dict[str, float]:
    """Seconds by phase of a single step."""
    phases.seconds.clear()
    step()
    return dict(phases.seconds)


def _phases(taken: list[dict[str, float]], about: str) -> ResultTable:
    """The step of median length: its parts add up, and a step that the machine disturbed is not shown."""
    ordered = sorted(taken, key=lambda seconds: sum(seconds.values()))
    shown, lengths = ordered[len(ordered) // 2], [1e3 * sum(seconds.values()) for seconds in ordered]
    whole = sum(shown.values())
    parts = sorted(shown.items(), key=lambda item: -item[1])
    rows: list[list[CellValue]] = [[name, 1e3 * s, _share(s, whole)] for name, s in parts]
    rows.append(["whole step", 1e3 * whole, _share(whole, whole)])
    note = (
        f"{about}; the step of median length of {len(taken)}, which took {lengths[0]:.0f} to "
        f"{lengths[-1]:.0f} ms, without the profiler. A block's time is its own: what a block inside it "
        "takes stands in that block's line. The backward pass is one line, with what is recomputed in it."
    )
    return ResultTable("By phase", ["phase", "ms a step", "share, %"], rows, note)


def _operators(step: Callable[[], None], steps: int) -> ResultTable:
    """The operators that take most time of their own; ranges that no operator stands for are left out."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    events = [event for event in profiler.key_averages() if not event.is_user_annotation]
    whole = sum(event.self_cpu_time_total for event in events)
    top = sorted(events, key=lambda event: -event.self_cpu_time_total)[:OPERATORS]
    rows: list[list[CellValue]] = [
        [
            f"`{event.key}`",
            event.count / steps,
            event.self_cpu_time_total / 1e3 / steps,
            _share(event.self_cpu_time_total, whole),
        ]
        for event in top
    ]
    note = (
        "CPU time of an operator without the operators that it calls, on the thread of the step, under "
        "torch.profiler (which itself costs time). Names without `aten::` are operators of this project, or "
        "autograd's."
    )
    return ResultTable("By operator", ["operator", "calls a step", "own ms a step", "share, %"], rows, note)


def _share(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None
