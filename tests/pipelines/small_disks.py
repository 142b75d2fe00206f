"""Every command that writes, on a disk that is read-only and on one that is full; run by test_disks.py.

    unshare -rm python -m tests.pipelines.small_disks FOLDER

The mounts exist in the namespace of this process alone. Prints a JSON line per command: the disk, the
command, its exit code, what it said, and which files are new or changed and not whole.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

from ctr.runs.journal import read_rows
from features.durable.own import MARKER
from features.safe_yaml import dump_yaml
from pipelines.cli import main
from tests.ctr.tiny_run import tiny_dataset, write_config

SPEC = Path(__file__).parents[2] / "pipelines" / "configs" / "specs" / "simulator.yaml"
SMALL = ("--users", "20", "--items", "200", "--days", "5", "--categories", "4")
LEFT = 16  # KiB on a full disk: a result begins to be written


def commands(safe: Path, disk: Path) -> dict[str, list[str]]:
    """What writes to `disk` and reads, beside it, only from `safe`."""
    run = disk / "run"
    config = write_config(safe / "new.yaml", safe / "dataset", disk / "new", "train.max_steps=2")
    plan = {"name": "plan", "base": str(safe / "run.yaml"), "variants": {"b": {"set": ["optimizer.lr=0.02"]}}}
    (safe / "plan.yaml").write_text(dump_yaml({**plan, "out": str(disk / "plan")}))
    two = [str(safe / "run" / "predictions" / "test.parquet")] * 2
    return {
        "train": ["train", str(config)],
        "predict": ["predict", str(run)],
        "evaluate": ["evaluate", str(run)],
        "compare": ["evaluate", "--compare", f"a={two[0]}", f"b={two[1]}", "--out", str(disk / "compared")],
        "score": ["score", str(run), "--split", "test", "--out", str(disk / "scores.parquet")],
        "baseline": ["baseline", str(safe / "dataset"), "--out", str(disk / "baseline.parquet")],
        "simulate": ["simulate", "--out", str(disk / "log"), *SMALL],
        "prepare": ["prepare", "--spec", str(SPEC), "--source", str(safe / "log"), "--out", str(disk / "ds")],
        "ablate": ["ablate", str(safe / "plan.yaml")],
        "sync": ["sync", str(run), "--uri", f"sqlite:///{safe}/mlflow.db"],
    }


def files(disk: Path) -> dict[str, bytes]:
    """What lies there, without the locks, which say who held them last."""
    found = {p.relative_to(disk).as_posix(): p for p in disk.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith("lock")}


def torsos(before: dict[str, bytes], disk: Path) -> list[str]:
    """Files that are new, changed or gone; a journal may have more rows, and a new run its marker."""
    wrong = [name for name in before if not (disk / name).exists()]
    for name, data in files(disk).items():
        if Path(name).name == "journal.jsonl":
            whole = len(read_rows(disk / name)) == data.count(b"\n")
            fine = whole and data.startswith(before.get(name, b""))
        else:
            fine = data == before.get(name) or Path(name).name == MARKER
        wrong += [] if fine else [name]
    return wrong


def attack(kind: str, safe: Path, disk: Path) -> None:
    """Run all commands one after another."""
    before = files(disk)
    for name, arguments in commands(safe, disk).items():
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(arguments)
        line = {"disk": kind, "command": name, "code": code, "said": said.getvalue()}
        print(json.dumps({**line, "torsos": torsos(before, disk)}), flush=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def attack_all(folder: Path) -> None:
    """Make a run, put it on the disks, attack each."""
    safe = folder / "safe"
    safe.mkdir()
    dataset = tiny_dataset(safe)
    config = write_config(safe / "run.yaml", dataset, safe / "run", "train.max_steps=3")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for made in (["train", str(config)], ["predict", str(safe / "run")]):
            assert main(made) == 0
        assert main(["simulate", "--out", str(safe / "log"), *SMALL]) == 0
    for kind in ("read-only", "full"):
        disk = folder / kind
        disk.mkdir()
        mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk))
        shutil.copytree(safe / "run", disk / "run")
        shutil.rmtree(disk / "run" / "predictions")
        (disk / "run" / "predictions").mkdir()
        if kind == "full":
            fill(disk, LEFT)
        else:
            mount("-o", "remount,ro", str(disk))
        attack(kind, safe, disk)


def fill(disk: Path, left: int) -> None:
    """Write until the disk is full, then give so many KiB back."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)) == 4096:
                pass
        file.truncate(max(0, file.tell() // 4096 * 4096 - left * 1024))


if __name__ == "__main__":
    attack_all(Path(sys.argv[1]))
