"""Tables and checkpoints of two and three processes: equal to those of one, readable by any number."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ctr.checkpoint.checkpoint import MANIFEST, load_checkpoint, load_latest
from ctr.checkpoint.manifest import sealed
from ctr.config import EmbeddingConfig
from ctr.embedding import make_tables
from ctr.embedding.torchrec_plan import column_parts
from ctr.errors import CheckpointError
from ctr.runs.journal import read_rows
from ctr.runs.versions import fbgemm_available
from features.durable import sweep
from features.errors import ConfigError
from pipelines.train import train
from tests.ctr import shard_jobs
from tests.ctr.ranks import Ending, run_ranks, start_ranks
from tests.ctr.tiny_run import endings, tiny_config, tiny_dataset

pytestmark = pytest.mark.skipif(not fbgemm_available(), reason="fbgemm is not installed")
EQUAL = [f"equals_one_process {kind}" for kind in shard_jobs.KINDS]
ALONE = [*EQUAL, "takes_rows", "leaves_no_trace", "counts_bytes"]
LOADS_3 = ["trains 3", "loads 2 row_wise column_wise", "loads 2 column_wise row_wise", "loads 2 mixed auto"]
LOADS_2 = [
    "trains 99",
    "loads 3 row_wise mixed",
    "loads 3 column_wise table_wise",
    "loads 2 row_wise row_wise",
]


def arguments(label: str, folder: Path) -> tuple[str, tuple[object, ...]]:
    name, *words = label.split()
    places = () if name in ("equals_one_process", *ALONE) else (folder,)
    return name, (*places, *(int(word) if word.isdigit() else word for word in words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharding")
    tiny_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[str | None]]:
    """`size scenario` → of each rank what went wrong. Every world is started once."""
    saved = [f"saves {kind}" for kind in ("row_wise", "column_wise", "mixed")]
    plan = {2: [*ALONE, *saved], 3: [*ALONE, *LOADS_3, *saved]}
    found = {f"{size} {k}": v for size in plan for k, v in ran(size, plan[size], folder).items()}
    damage(folder)
    last = [*LOADS_2, "damage_is_found_by_all", "background_errors"]
    return found | {f"2 {label}": texts for label, texts in ran(2, last, folder).items()}


def ran(size: int, labels: list[str], folder: Path) -> dict[str, list[str | None]]:
    endings = run_ranks(size, shard_jobs.run, folder, [arguments(label, folder) for label in labels])
    return {label: [said(ending, label) for ending in endings] for label in labels}


def said(ending: Ending, label: str) -> str | None:
    return ending.error or (ending.result or {}).get(label, "not run: an earlier one failed")


def damage(folder: Path) -> None:
    """Step 4 whole, and a later one with a flipped bit in the last rank's file."""
    source = folder / "row_wise-of-3" / "step-4"
    if not source.exists():
        return  # the scenario that should have written it says why
    for step in (4, 5):
        target = folder / "damaged" / f"step-{step}"
        target.mkdir(parents=True)
        for path in source.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
    body = bytearray((target / "tensors-2.safetensors").read_bytes())
    body[-5] ^= 4
    (target / "tensors-2.safetensors").write_bytes(body)
    manifest = json.loads((target / MANIFEST).read_bytes())
    del manifest["seal"]
    (target / MANIFEST).write_bytes(sealed(manifest | {"step": 5}))


@pytest.mark.parametrize(
    "scenario",
    [
        *(f"{size} {label}" for size in (2, 3) for label in ALONE),
        *(f"3 {label}" for label in LOADS_3),
        *(f"2 {label}" for label in [*LOADS_2, "damage_is_found_by_all", "background_errors"]),
    ],
)
def test_several_processes(outcomes: dict[str, list[str | None]], scenario: str) -> None:
    for rank, wrong in enumerate(outcomes[scenario]):
        assert wrong is None, f"rank {rank}: {wrong}"


@pytest.mark.fault(8)
@pytest.mark.parametrize("engine", ["torch", "fbgemm"])
@pytest.mark.parametrize("saved", ["row_wise-of-2", "column_wise-of-3", "mixed-of-3"])
def test_one_process_loads_what_several_saved(
    outcomes: dict[str, list[str | None]], folder: Path, engine: str, saved: str
) -> None:
    found = load_latest(folder / saved)
    assert found is not None
    config = EmbeddingConfig.model_validate({"engine": engine, "dim": shard_jobs.DIM})
    tables = make_tables(shard_jobs.ROWS, config, seed=5)
    tables.load_state(found.tensors.within("tables/"))
    shard_jobs.same_bits(tables.state(), load_file(folder / f"{saved}.safetensors"))


def test_each_part_is_written_once_by_its_rank(outcomes: dict[str, list[str | None]], folder: Path) -> None:
    path = folder / "row_wise-of-3" / "step-4"
    assert sorted(p.name for p in path.iterdir()) == [
        "manifest.json",
        "state.json",
        "tensors-1.safetensors",
        "tensors-2.safetensors",
        "tensors.safetensors",
    ]
    layout = json.loads((path / MANIFEST).read_bytes())["sharded"]["tables/item.id.weight"]
    assert layout["shape"] == [300, 16]
    assert [(p["file"], p["offset"], p["shape"]) for p in layout["parts"]] == [
        ("tensors.safetensors", [0, 0], [100, 16]),
        ("tensors-1.safetensors", [100, 0], [100, 16]),
        ("tensors-2.safetensors", [200, 0], [100, 16]),
    ]
    stored = sum(p.stat().st_size for p in path.glob("tensors*"))
    assert stored < 4 * 358 * 17 + 3 * 6000 + 6000  # tables with their sums, random states, headers


@pytest.mark.fault(8)
def test_a_run_of_three_goes_on_with_two_as_if_it_had_been_one(
    outcomes: dict[str, list[str | None]], folder: Path, tmp_path: Path
) -> None:
    train(tiny_config(folder / "dataset", tmp_path, *shard_jobs.TRAINED))
    ours, theirs = (load_latest(run / "checkpoints") for run in (folder / "run", tmp_path))
    assert ours is not None and theirs is not None and ours.step == theirs.step == 6
    assert endings(folder / "run") == ["FINISHED", "FINISHED"] and ours.path.name == "step-6"
    rows = [row for row in read_rows(folder / "run" / "journal.jsonl") if row["kind"] == "train"]
    assert rows and all(row["bytes_ids"] > 0 and row["bytes_rows"] > 0 for row in rows)
    names = [name for name in theirs.tensors if not name.startswith("rng/")]
    assert [name for name in ours.tensors if not name.startswith("rng/")] == names
    for name in names:
        bounds = {"rtol": 1e-4, "atol": 1e-7} if name.startswith("tables/") else {"rtol": 1e-6, "atol": 1e-6}
        torch.testing.assert_close(ours.tensors[name], theirs.tensors[name], **bounds)


@pytest.mark.fault(5)
def test_a_lost_file_is_named(outcomes: dict[str, list[str | None]], folder: Path) -> None:
    target = folder / "lost" / "step-4"
    target.mkdir(parents=True)
    for path in (folder / "row_wise-of-2" / "step-4").iterdir():
        if path.name != "tensors-1.safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"tensors-1.safetensors: .* but it is missing"):
        load_checkpoint(target)


@pytest.mark.fault(2)
def test_a_kill_inside_a_background_save_leaves_the_one_before(tmp_path: Path) -> None:
    first, last = start_ranks(2, shard_jobs.dies_in_a_save, tmp_path, timeout=20.0)()
    assert last.exit_code == -9
    assert first.exit_code == 75 and "rank 0 lost another one" in (first.error or "")
    root = tmp_path / "killed"
    sweep(root)
    assert os.listdir(root) == ["step-1"]
    found = load_latest(root)
    assert found is not None and torch.equal(found.tensors["t"], torch.ones(2))


def test_what_cannot_be_sharded_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"each of 3 ranks equal parts .* got tables of 8; .* to 12"):
        column_parts(8, 3)
    with pytest.raises(ConfigError, match=r"name tables among \['item'\], got \['user'\]"):
        make_tables({"item": 9}, EmbeddingConfig(table_sharding={"user": "row_wise"}), seed=1)
