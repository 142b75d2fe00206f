"""One training of an ablation, in a process of its own: `python -m pipelines.ablate_worker` < a task.

The task is the first line of stdin. When stdin ends, whoever started this is gone, and so it stops, too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from ctr.ablate.cost import ROW, measure, peak_mib
from ctr.ablate.permute import PermutedBatches
from ctr.ablate.subruns import predictions_name
from ctr.ablate.task import Task
from ctr.build import scoring_loader, training_loader
from ctr.metrics import evaluate_tasks
from ctr.runs.directory import RunDir
from ctr.tracking import Tracker
from ctr.training.scoring import BatchSource, predict_split
from pipelines.cli import guarded
from pipelines.runs import OpenRun, open_run
from pipelines.train import train


def main() -> int:
    """Read the task, do it; the exit code is that of `ctr train`."""
    task = Task.from_json(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    return guarded(lambda: work(task))


def _die_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def work(task: Task) -> int:
    """Train to the end or to the pause; at the end score, and write down what it cost."""
    outcome = train(task.config, until=task.until)
    if outcome.stopped_by is not None:
        return 128 + outcome.stopped_by
    if task.until is None:
        score(task)
    return 0


def score(task: Task) -> None:
    """The test predictions of a trained run, as far as they are missing; metrics and cost in its journal."""
    with RunDir.open(task.config.run, create=False, results=True) as run_dir:
        opened = open_run(run_dir)
        with Tracker(run_dir, uri=None, system_seconds=0) as tracker:
            tracker.begin(opened.step)
            _record_cost(opened, tracker)
            # The plain test last: where it is, all is.
            for names in (*task.permutations, ()):
                _predict(run_dir, opened, names, tracker)


def _record_cost(opened: OpenRun, tracker: Tracker) -> None:
    batch = next(training_loader(opened.config, opened.dataset).iterate(0)).to(opened.device)
    peak = peak_mib()  # before the count, which is no part of training
    values = measure(opened.state, batch, bf16=opened.config.train.precision == "bf16")
    tracker.log(ROW, opened.step, values, wall={"peak_mib": peak})


def _predict(run_dir: RunDir, opened: OpenRun, permute: tuple[str, ...], tracker: Tracker) -> None:
    name = predictions_name(permute)
    path = run_dir.predictions / f"{name}.parquet"
    if path.is_file():
        return
    loader = scoring_loader(opened.config, opened.dataset, "test")
    batches: BatchSource = PermutedBatches(loader, permute) if permute else loader
    bf16 = opened.config.train.precision == "bf16"
    predict_split(path, opened.state, batches, opened.dataset, "test", bf16=bf16, device=opened.device)
    values: dict[str, float | None] = {}
    for place, (task, found) in enumerate(evaluate_tasks(path, slices=[], draws=0).items()):
        metrics = found.overall.metrics
        values |= {f"{task}.{key}" if place else key: m.value for key, m in metrics.items()}
    tracker.log(name, opened.step, values)


if __name__ == "__main__":
    sys.exit(main())
