"""`ctr demo`, what `make demo` runs: simulate, prepare, train HyFormer, evaluate; says where everything is.

Each part is the ctr command of the same name; the demo only strings them together in data/demo and runs/demo.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from ctr.config import load_config
from ctr.runs.directory import RunDir
from features.doctor import examine
from features.durable.own import check_free, claim
from features.prepare import prepare
from features.spec import load_spec
from features.synthetic import best_auc, learnable_auc, simulate
from pipelines.evaluate import EvaluationResult, evaluate
from pipelines.prepare import report, with_source
from pipelines.terminal import echo
from pipelines.train import train

CONFIGS = Path(__file__).parent / "configs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--users", type=int, default=3000, help="size of the simulated log")
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="where log and dataset go")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="run directory", dest="run_dir")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=1", dest="overrides")


def run(arguments: argparse.Namespace) -> int:
    """The parts, one after another; a second call starts from nothing again."""
    started = time.monotonic()
    check_free(arguments.data, "demo", known=_is_earlier_demo)
    RunDir.check_free(arguments.run_dir)
    for old in (arguments.data, arguments.run_dir):
        shutil.rmtree(old, ignore_errors=True)
    claim(arguments.data, "demo")
    log, dataset = arguments.data / "log", arguments.data / "dataset"
    say("1/5", "simulating a click log")
    simulate(log, users=arguments.users)
    say("2/5", "preparing features")
    spec = with_source(load_spec(CONFIGS / "specs" / "simulator.yaml"), str(log))
    manifest = prepare(spec, dataset, base=CONFIGS, progress=report)
    say("   ", f"ctr doctor: {examine(dataset).summary()}")
    say("3/5", "training HyFormer")
    overrides = [f"dataset={dataset}", f"run={arguments.run_dir}", *arguments.overrides]
    outcome = train(load_config(CONFIGS / "simulator-hyformer.yaml", overrides))
    if outcome.stopped_by is not None:
        return 128 + outcome.stopped_by
    say("4/5", "evaluating on the test period")
    lines = best_lines(log, manifest.splits["test"].time_range)
    result = evaluate(arguments.run_dir, baselines=["logistic"], lines=lines)
    say("5/5", f"done in {time.monotonic() - started:.0f} s\n")
    echo(summary(result, arguments.run_dir, dataset))
    return 0


def _is_earlier_demo(data: Path) -> bool:
    """Whether a directory without marker holds a demo's log and data set, and nothing else."""
    return {path.name for path in data.iterdir()} <= {"log", "dataset"}


def best_lines(log: Path, period: tuple[int, int] | None) -> list[dict[str, Any]]:
    """The best AUC on the test period: possible, to be learned, and without history; for the report."""
    assert period is not None
    best, learnable = best_auc(log, start=period[0]), learnable_auc(log, start=period[0])
    return [
        {"name": "best possible (true click probability)", "auc": best["auc"]},
        {"name": "best that can be learned", "auc": learnable["auc"]},
        {"name": "true probability without history terms", "auc": best["auc_static"]},
    ]


def summary(result: EvaluationResult, run: Path, dataset: Path) -> str:
    """What a person wants to know at the end."""
    lines = [
        result.text(),
        "",
        f"report      {result.report}   (open it in a browser)",
        f"MLflow      .venv/bin/python -m mlflow ui --backend-store-uri sqlite:///{run.parent / 'mlflow.db'}",
        f"run         {run}   (config.yaml, journal.jsonl, checkpoints, predictions)",
        f"dataset     {dataset}   (look inside: .venv/bin/python -m pipelines.cli doctor {dataset})",
    ]
    return "\n".join(lines)


def say(part: str, text: str) -> None:
    """A heading on stderr."""
    echo(f"[{part}] {text}", err=True)
