"""Every command beside what is not its own: directories of somebody else, and data that changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from features.safe_yaml import dump_yaml
from features.store import verify
from pipelines.cli import COMMANDS, READING, main
from tests.ctr.tiny_run import settings, tiny_dataset, write_config
from tests.features.small_log import RATINGS_SPEC, rating_tables, write_tables
from tests.features.test_own import FOREIGN, content

SIMULATOR = Path(__file__).resolve().parents[2] / "pipelines" / "configs" / "specs" / "simulator.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and two runs that were trained on it for a step, one with its predictions."""
    root = tmp_path_factory.mktemp("place")
    config = write_config(root / "run.yaml", tiny_dataset(root), root / "run", "train.max_steps=1")
    assert main(["train", str(config)]) == main(["predict", str(root / "run")]) == 0
    other = write_config(root / "other.yaml", root / "dataset", root / "other", "train.max_steps=1", "seed=2")
    assert main(["train", str(other)]) == 0
    return root


def named(commands: dict[str, Any]) -> list[Any]:
    """Their names; what imports transformers takes seconds."""
    return [pytest.param(c, marks=pytest.mark.slow) if c == "generate" else c for c in commands]


def written(path: Path, data: dict[str, Any]) -> str:
    path.write_text(dump_yaml(data))
    return str(path)


def base(place: Path) -> dict[str, Any]:
    found = settings(place / "dataset", place / "unused")
    return {key: value for key, value in found.items() if key != "run"}


def plan(place: Path, out: Path) -> str:
    variants = {"longer": {"set": {"model.kind": "longer"}}}
    return written(
        out.parent / "plan.yaml", {"name": "p", "base": base(place), "out": str(out), "variants": variants}
    )


def sweep(place: Path, out: Path) -> str:
    data = {"name": "s", "base": base(place), "out": str(out), "axis": "history", "values": [1, 2, 4, 6]}
    return written(out.parent / "sweep.yaml", data)


def generator(place: Path, run: Path) -> str:
    own = {
        "run": str(run),
        "ids": {"run": str(place / "run"), "codes": [6, 4]},
        "generator": {"domain": "view", "targets": "shown", "d_model": 12, "layers": 1, "heads": 2},
    }
    data = {key: value for key, value in base(place).items() if key != "model"}
    return written(run.parent / "g.yaml", {**data, **own, "train": {"device": "cpu", "metric": "ne"}})


def config(place: Path, run: Path) -> str:
    return str(write_config(run.parent / "c.yaml", place / "dataset", run))


def compared(place: Path) -> list[str]:
    predictions = place / "run" / "predictions" / "test.parquet"
    return ["evaluate", "--compare", f"a={predictions}", f"b={predictions}"]


def members(place: Path) -> list[str]:
    return [str(place / "run"), str(place / "other")]


# Commands that write into a directory, or into that of a run.
WRITING: dict[str, Callable[[Path, Path], list[str]]] = {
    "simulate": lambda place, out: ["simulate", "--out", str(out)],
    "prepare": lambda place, out: [
        *("prepare", "--spec", str(SIMULATOR), "--source", str(place), "--out", str(out), "--overwrite")
    ],
    "train": lambda place, out: ["train", config(place, out)],
    "evaluate": lambda place, out: ["evaluate", str(out)],
    "predict": lambda place, out: ["predict", str(out)],
    "counters": lambda place, out: ["counters", str(out), "--at", "1"],
    "compare": lambda place, out: [*compared(place), "--out", str(out)],
    "ablate": lambda place, out: ["ablate", plan(place, out)],
    "scaling": lambda place, out: ["scaling", sweep(place, out)],
    "generate": lambda place, out: ["generate", "train", generator(place, out)],
    "ensemble": lambda place, out: ["ensemble", *members(place), "--out", str(out)],
    "bench": lambda place, out: ["bench", "unique", "--quick", "--out", str(out)],
    "sync": lambda place, out: ["sync", str(out)],
}


@pytest.mark.fault(41)
@pytest.mark.parametrize("command", named(WRITING))
def test_no_command_touches_a_foreign_directory(
    command: str,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    counted: Callable[..., None],
) -> None:
    """A web app, configurations, locks, temporary files, journals, markers of something else."""
    for number, files in enumerate(FOREIGN):
        folder = tmp_path / str(number) / "site"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        before = content(folder)
        assert main(WRITING[command](place, folder)) == 2, (command, files)
        assert str(folder) in capsys.readouterr().err
        assert content(folder) == before
    counted(foreign_directories=len(FOREIGN))


# Commands that read a data set.
OPENING: dict[str, Callable[[Path, Path], list[str]]] = {
    "train": lambda place, out: ["train", config(place, out)],
    "evaluate": lambda place, out: ["evaluate", str(place / "run")],
    "predict": lambda place, out: ["predict", str(place / "run")],
    "score": lambda place, out: [
        *("score", str(place / "run"), "--split", "test", "--out", str(out.parent / "scores.parquet"))
    ],
    "counters": lambda place, out: ["counters", str(place / "run"), "--at", "1"],
    "baseline": lambda place, out: ["baseline", str(place / "dataset")],
    "generate": lambda place, out: ["generate", "train", generator(place, out)],
    "ablate": lambda place, out: ["ablate", plan(place, out)],
    "scaling": lambda place, out: ["scaling", sweep(place, out)],
    "ensemble": lambda place, out: ["ensemble", *members(place), "--out", str(out)],
    "doctor": lambda place, out: ["doctor", str(place / "dataset")],
}


def test_no_command_is_forgotten() -> None:
    later = {"export", "roll", "tune"}  # they open a run or a data set by the doors that these commands use
    assert {*READING, "doctor"} - later == set(OPENING)
    made = {"compare"}  # an option of evaluate
    # Own tests, a file, runs made as `train` makes them, or nothing.
    elsewhere = {"demo", "download", "score", "baseline", "doctor", "models", "export", "roll", "tune"}
    assert set(COMMANDS) == (set(WRITING) - made) | elsewhere


@pytest.mark.fault(40)
@pytest.mark.parametrize("command", named(OPENING))
def test_every_command_finds_a_flipped_bit_of_the_data(
    command: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chaos_seed: int,
    counted: Callable[..., None],
) -> None:
    """In a file drawn from all, at a place drawn from all; nothing is written."""
    monkeypatch.setattr(verify, "_verified", set())
    dataset, draw = place / "dataset", random.Random(f"{chaos_seed} {command}")
    files = sorted(path for path in dataset.rglob("*") if path.is_file() and path.suffix == ".arrow")
    before = sorted((place / "run").rglob("*"))
    for path in draw.sample(files, 3):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            code = main(OPENING[command](place, tmp_path / "out"))
        finally:
            path.write_bytes(whole)
        shown = capsys.readouterr()
        assert code == 3 and path.name in shown.out + shown.err and "Traceback" not in shown.err
        assert not (tmp_path / "out").exists() and sorted((place / "run").rglob("*")) == before
    counted(flips=3)


@pytest.mark.fault(10)
def test_prepare_names_a_raw_file_with_a_flipped_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chaos_seed: int
) -> None:
    tables, draw = rating_tables(), random.Random(chaos_seed)
    write_tables(tmp_path / "raw", tables)
    path = tmp_path / "raw" / "ratings.parquet"
    pq.write_table(tables["ratings"].to_arrow(), path, write_page_checksum=True, row_group_size=100)
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(file.metadata.num_row_groups - 1).column(0)
    spec = written(tmp_path / "spec.yaml", {**RATINGS_SPEC})
    command = ["prepare", "--spec", spec, "--source", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    flipped = bytearray(path.read_bytes())
    flipped[column.data_page_offset + column.total_compressed_size - 1 - draw.randrange(8)] ^= 1
    path.write_bytes(flipped)
    assert main(command) == 3 and not (tmp_path / "out").exists()
    assert "ratings.parquet cannot be read" in capsys.readouterr().err
