"""The import rule of pyproject.toml holds, and each of its contracts can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

LINT = "from importlinter.cli import lint_imports_command as run; run()"
# One wrong import per line: (file, imported module, id of the contract that must name it).
WRONG = [
    ("features/spec.py", "ctr.config", "layers"),
    ("features/store/b.py", "kernels.backend", "layers"),
    ("kernels/c.py", "features.spec", "layers"),
    ("kernels/d.py", "ctr.config", "layers"),
    ("ctr/batch.py", "pipelines.cli", "layers"),
    ("features/read/f.py", "torch", "features-without-torch"),
    ("ctr/build.py", "features.encode.tables", "features-interface"),
    ("ctr/blocks/h.py", "features.past.history", "features-interface"),
    ("pipelines/i.py", "mlflow", "door-mlflow"),
    ("ctr/serving/j.py", "transformers", "door-transformers"),
    ("ctr/bench/r.py", "peft", "door-peft"),
    ("ctr/loader/k.py", "torchrec", "door-torchrec"),
    ("pipelines/l.py", "fbgemm_gpu", "door-torchrec"),
    ("kernels/m.py", "triton", "door-triton"),
    ("ctr/loader/w.py", "deltalake", "door-lake"),
    ("features/store/x.py", "pyiceberg", "door-lake"),
    ("ctr/ablate/y.py", "optuna", "door-optuna"),
    ("ctr/runs/s.py", "ctr.training.step", "rooms-ctr"),
    ("ctr/metrics/t.py", "ctr.report.plots", "rooms-ctr"),
    ("features/store/u.py", "features.encode.tables", "rooms-features"),
    ("features/read/v.py", "features.sources.movielens", "rooms-features"),
]
# A module that has no place in the order of the rooms: (file, id of the contract that must name it).
HOMELESS = [("ctr/cellar.py", "rooms-ctr"), ("features/attic/w.py", "rooms-features")]
# Every import that has a door, through it.
RIGHT = [
    ("ctr/tracking/mlflow_client.py", "mlflow"),
    ("ctr/library/transformers.py", "transformers"),
    ("ctr/training/lora.py", "peft"),
    ("ctr/tune/study.py", "optuna"),
    ("ctr/embedding/__init__.py", "torchrec"),
    ("ctr/embedding/fused.py", "fbgemm_gpu"),
    ("kernels/pooling/triton.py", "triton"),
    ("features/read/delta.py", "deltalake"),
    ("features/read/iceberg.py", "pyiceberg"),
    ("ctr/build.py", "features.spec"),
    ("ctr/blocks/o.py", "features.names"),
    ("ctr/loader/x.py", "features.durable.faults"),
    ("ctr/tokens/p.py", "kernels.backend"),
    ("pipelines/q.py", "features.encode.tables"),
]
TARGETS = [
    "ctr/config.py",
    "ctr/training/step.py",
    "ctr/report/plots.py",
    "kernels/backend.py",
    "pipelines/cli.py",
]
TARGETS += [
    f"features/{n}.py" for n in ("spec", "names", "encode/tables", "past/history", "sources/movielens")
]
# The most modules that lie beside the folders, their __init__ not counted.
BESIDE = {"ctr": 6, "features": 11}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT, "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def contracts(root: Path) -> list[dict[str, Any]]:
    settings: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    return list(settings["contracts"])


def room_files(root: Path) -> list[str]:
    """A file of every room that has its place in an order."""
    rooms = [
        f"{top}/{room}" for c in contracts(root) for top in c.get("containers", []) for room in c["layers"]
    ]
    return [f"{r}.py" if (root / f"{r}.py").exists() else f"{r}/__init__.py" for r in rooms]


def plant(root: Path, repo_root: Path, imports: list[tuple[str, str]]) -> None:
    """Make a small project under the contracts of this one, each file holding one import."""
    shutil.copy(repo_root / "pyproject.toml", root)
    for name in [*room_files(repo_root), *TARGETS]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, module in imports:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"def late():\n    import {module}\n")
    for folder in {path.parent for path in root.rglob("*.py")}:
        (folder / "__init__.py").touch()


def sections(root: Path, output: str) -> dict[str, str]:
    """ID of a broken contract → what the output says below its heading, on one line."""
    names = {c["name"]: c["id"] for c in contracts(root)}
    pieces = re.split("|".join(f"({re.escape(name)})\n-+" for name in names), output)
    found = [piece for piece in pieces if piece]
    return {names[n]: " ".join(text.split()) for n, text in pairwise(found) if n in names}


def test_the_code_keeps_the_contracts(repo_root: Path) -> None:
    done = lint(repo_root)
    assert done.returncode == 0, done.stdout


def test_imports_through_the_doors_pass(repo_root: Path, tmp_path: Path) -> None:
    plant(tmp_path, repo_root, RIGHT)
    done = lint(tmp_path)
    assert done.returncode == 0, done.stdout


def test_every_wrong_import_is_found(repo_root: Path, tmp_path: Path) -> None:
    plant(tmp_path, repo_root, [(name, module) for name, module, _ in WRONG])
    done = lint(tmp_path)
    assert done.returncode == 1
    broken = sections(repo_root, done.stdout)
    assert broken.keys() == {c["id"] for c in contracts(repo_root)}
    for name, module, contract in WRONG:
        importer = name.removesuffix(".py").replace("/", ".")
        assert re.search(rf"{importer} -> {module} \(l\.2\)", broken[contract]), name


def test_a_module_without_a_place_in_the_order_is_found(repo_root: Path, tmp_path: Path) -> None:
    plant(tmp_path, repo_root, [(name, "json") for name, _ in HOMELESS])
    done = lint(tmp_path)
    assert done.returncode == 1
    broken = sections(repo_root, done.stdout)
    assert broken.keys() == {contract for _, contract in HOMELESS}
    for name, contract in HOMELESS:
        assert name.removesuffix(".py").split("/")[1] in broken[contract]


@pytest.mark.parametrize(("top", "most"), BESIDE.items())
def test_few_modules_lie_beside_the_folders(repo_root: Path, top: str, most: int) -> None:
    assert len({p.name for p in (repo_root / top).glob("*.py")} - {"__init__.py"}) <= most


def test_every_folder_of_code_is_a_package(repo_root: Path) -> None:
    """A folder without __init__.py is left out of the wheel, and a whole room out of the order above."""
    folders = {
        p.parent
        for top in ("ctr", "features", "kernels", "pipelines")
        for p in (repo_root / top).rglob("*.py")
    }
    assert [f.name for f in folders if not (f / "__init__.py").is_file()] == []
