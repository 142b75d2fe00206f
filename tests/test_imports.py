"""The import rule of pyproject.toml holds, and each of its contracts can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

LINT = "from importlinter.cli import lint_imports_command as run; run()"
# One wrong import per line: (file, imported module, id of the contract that must name it).
WRONG = [
    ("features/a.py", "ctr.config", "layers"),
    ("features/b.py", "kernels.backend", "layers"),
    ("kernels/c.py", "features.spec", "layers"),
    ("kernels/d.py", "ctr.config", "layers"),
    ("ctr/e.py", "pipelines.cli", "layers"),
    ("features/f.py", "torch", "features-without-torch"),
    ("ctr/g.py", "features.encode.tables", "features-interface"),
    ("ctr/blocks/h.py", "features.past.history", "features-interface"),
    ("pipelines/i.py", "mlflow", "door-mlflow"),
    ("ctr/j.py", "transformers", "door-transformers"),
    ("ctr/r.py", "peft", "door-peft"),
    ("ctr/k.py", "torchrec", "door-torchrec"),
    ("pipelines/l.py", "fbgemm_gpu", "door-torchrec"),
    ("kernels/m.py", "triton", "door-triton"),
]
# Every import that has a door, through it.
RIGHT = [
    ("ctr/tracking.py", "mlflow"),
    ("ctr/library/transformers.py", "transformers"),
    ("ctr/training/lora.py", "peft"),
    ("ctr/embedding/__init__.py", "torchrec"),
    ("ctr/embedding/fused.py", "fbgemm_gpu"),
    ("kernels/pooling/triton.py", "triton"),
    ("ctr/n.py", "features.spec"),
    ("ctr/blocks/o.py", "features.names"),
    ("ctr/p.py", "kernels.backend"),
    ("pipelines/q.py", "features.encode.tables"),
]
TARGETS = ["ctr/config.py", "kernels/backend.py", "pipelines/cli.py"]
TARGETS += [f"features/{name}.py" for name in ("spec", "names", "encode", "history")]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT, "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def plant(root: Path, repo_root: Path, imports: list[tuple[str, str]]) -> None:
    """Make a small project under the contracts of this one, each file holding one import."""
    shutil.copy(repo_root / "pyproject.toml", root)
    for name in TARGETS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, module in imports:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"def late():\n    import {module}\n")
    for name, _ in imports:
        (root / name).parent.joinpath("__init__.py").touch()


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
    contracts = tomllib.loads((repo_root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    # A heading per broken contract, its violations below.
    pieces = re.split("|".join(f"({re.escape(c['name'])})\n-+" for c in contracts), done.stdout)
    found = [piece for piece in pieces if piece]
    sections = {c["id"]: found[found.index(c["name"]) + 1] for c in contracts}
    for name, module, contract in WRONG:
        importer = name.removesuffix(".py").replace("/", ".")
        assert re.search(rf"{importer} -> {module} \(l\.2\)", " ".join(sections[contract].split())), name
