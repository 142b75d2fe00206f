"""Commands that are killed before and after every rename they make; run by test_renames.py.

    python -m tests.pipelines.renames FOLDER [POINT …]

One process loads everything and forks a child for each kill, so that the children start at once. Prints a
JSON line per kill: the point, the child's end, what is there then, how the same command ends afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ctr.checkpoint.checkpoint import TENSORS
from ctr.checkpoint.load import load_latest
from features.dataset import Dataset
from features.durable import TMP_PREFIX
from features.durable.faults import injected
from features.store import verify
from pipelines.cli import main
from tests.ctr.tiny_run import tiny_dataset, write_config

SPEC = Path(__file__).parents[2] / "pipelines" / "configs" / "specs" / "simulator.yaml"
SMALL = ("--users", "20", "--items", "200", "--days", "5", "--categories", "4")


@dataclass(frozen=True)
class Case:
    """A command that passes through a point, in a folder that was prepared for it.

    Args:
        command: its arguments, in a folder.
        there: what stands in its place at every instant; None where there may be nothing yet.
    """

    command: Callable[[Path], list[str]]
    there: Callable[[Path], Any]


def train(folder: Path, *overrides: str) -> list[str]:
    options = ("train.max_steps=4", "train.checkpoint_every=1", "train.evaluate_every=100", *overrides)
    return ["train", str(write_config(folder / "run.yaml", folder / "dataset", folder / "run", *options))]


def checkpoint(folder: Path) -> int | None:
    found = load_latest(folder / "run" / "checkpoints")
    return None if found is None else found.step


def table(name: str) -> Callable[[Path], int | None]:
    """Rows of a Parquet file."""
    return lambda folder: pq.read_table(folder / name).num_rows if (folder / name).exists() else None


def dataset(folder: Path) -> str | None:
    """The name of a data set whose files are as its manifest says."""
    if not (folder / "made").exists():
        return None
    found = Dataset(folder / "made").manifest
    verify.verify_files(folder / "made", found.files, digest=found.digest() + folder.name)
    return found.name


def prepare(folder: Path, *more: str) -> list[str]:
    source = ("--spec", str(SPEC), "--source", str(folder / "log"))
    return ["prepare", *source, "--out", str(folder / "made"), *more]


CASES = {
    "file": Case(train, checkpoint),
    "ckpt": Case(train, checkpoint),
    "ckpt.aside": Case(lambda f: train(f, "train.keep_last=1"), checkpoint),
    "ckpt.again": Case(train, checkpoint),  # its newest checkpoint is damaged, so that it is made again
    "ckpt.settle": Case(train, checkpoint),
    "predictions": Case(lambda f: ["predict", str(f / "run")], table("run/predictions/test.parquet")),
    "report": Case(
        lambda f: ["evaluate", str(f / "run")],
        lambda f: sorted(p.name for p in (f / "run" / "report").iterdir() if not p.stat().st_size) or None,
    ),
    "scores": Case(
        lambda f: ["score", str(f / "run"), "--split", "test", "--out", str(f / "scores.parquet")],
        table("scores.parquet"),
    ),
    "verified": Case(lambda f: ["predict", str(f / "run")], lambda f: None),
    "simulated": Case(lambda f: ["simulate", "--out", str(f / "made-log"), *SMALL], lambda f: None),
    "dataset": Case(prepare, dataset),
    "dataset.exchange": Case(lambda f: prepare(f, "--overwrite"), dataset),
}
HELD = {"ckpt.aside", "ckpt.again", "ckpt.settle", "dataset.exchange"}  # something was there before


def make_ready(template: Path, folder: Path, point: str) -> None:
    """A copy of the template in which the command comes to the point."""
    shutil.copytree(template, folder)
    if point in ("file", "ckpt"):
        shutil.rmtree(folder / "run")
    elif point == "ckpt.aside":
        shutil.rmtree(folder / "run" / "checkpoints" / "step-4")
    elif point.startswith("ckpt"):
        os.truncate(folder / "run" / "checkpoints" / "step-4" / TENSORS, 20)
    if point == "dataset.exchange":
        assert forked(lambda: main(prepare(folder))) == 0


def forked(action: Callable[[], int], *, fault: str = "") -> int:
    """Exit code of an action in a child process; minus the signal that ended it."""
    if (pid := os.fork()) == 0:
        code = 99
        try:
            with (
                injected(fault),
                open(os.devnull, "w") as null,
                contextlib.redirect_stderr(null),
                contextlib.redirect_stdout(null),
            ):
                code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def leftovers(folder: Path) -> list[str]:
    names = [p.name for p in folder.rglob("*")]
    return sorted(n for n in names if n.startswith(TMP_PREFIX) or ".partial-" in n or n.startswith("step-4."))


def attack(template: Path, folder: Path, point: str, when: str) -> dict[str, Any]:
    """Kill the command at the point, look, run it again, look again."""
    make_ready(template, folder, point)
    case = CASES[point]
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    end = forked(lambda: main(case.command(folder)), fault=f"{point}.{when}_rename:kill")
    after_kill = case.there(folder)
    again = forked(lambda: main(case.command(folder)))
    return {
        "point": f"{point}.{when}",
        "killed": end == -signal.SIGKILL,
        "held": after_kill if point in HELD else "nothing was there",
        "again": again,
        "in the end": case.there(folder),
        "leftovers": leftovers(folder),
    }


def attack_all(top: Path, points: Sequence[str]) -> None:
    template = top / "template"
    template.mkdir()
    tiny_dataset(template)
    verify._WORTH = 0  # remember also what is small
    os.environ["XDG_CACHE_HOME"] = str(top / "cache")
    for made in (train(template), ["simulate", "--out", str(template / "log"), *SMALL]):
        assert forked(lambda command=made: main(command)) == 0  # type: ignore[misc]
    for point in points or CASES:
        for when in ("before", "after"):
            print(json.dumps(attack(template, top / f"{point}.{when}", point, when)), flush=True)


if __name__ == "__main__":
    attack_all(Path(sys.argv[1]), sys.argv[2:])
