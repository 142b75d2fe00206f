"""Rows 31 and 42: where memory is limited, its end is an exit code and a sentence, whoever met it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import supervise
from pipelines.supervise import _exit_code

MIB = 2**20
CLI = "from pipelines import cli, supervise; import sys\n{job}\nsys.exit(cli.main())"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")


def started(job: str, *, limit: int, cwd: Path) -> subprocess.Popen[str]:
    """A command whose dispatch is replaced by a job of Python, under a limit of its address space."""
    return subprocess.Popen(
        [sys.executable, "-c", CLI.format(job=job)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip


def ended(job: str, *, limit: int, cwd: Path) -> tuple[int, str]:
    child = started(job, limit=limit, cwd=cwd)
    _, err = child.communicate(timeout=60)
    return child.returncode, err


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "job",
    [
        "import os; cli._dispatch = lambda _: os.abort()",
        "import os; cli._dispatch = lambda _: os._exit(127)",
        "import polars as pl; cli._dispatch = lambda _: pl.zeros(10**9, eager=True).height",
        "cli._dispatch = lambda _: bytearray(10**10)",
        "import numpy as np; cli._dispatch = lambda _: np.zeros(10**10).sum()",
        "import pyarrow as pa; cli._dispatch = lambda _: pa.allocate_buffer(10**10)",
    ],
    ids=["abort", "loader", "polars", "python", "numpy", "arrow"],
)
def test_whoever_gets_no_memory_the_command_ends_with_75_and_a_sentence(job: str, tmp_path: Path) -> None:
    code, err = ended(job, limit=2000 * MIB, cwd=tmp_path)
    assert code == 75, err
    assert "error: the memory must hold what the command needs" in err and "Traceback" not in err


WAITS = """
import mmap, threading
supervise._LOOK, supervise._PATIENCE = 0.1, 0.5
def wait(_):
    taken = []
    for size in ({sizes}):
        try:
            while True:
                taken.append(mmap.mmap(-1, size))
        except OSError:
            pass
    threading.Event().wait({seconds})
cli._dispatch = wait
"""


@pytest.mark.fault(31)
def test_a_command_that_waits_for_ever_in_a_full_address_space_is_ended(tmp_path: Path) -> None:
    code, err = ended(WAITS.format(sizes="2**30, 2**20", seconds=600), limit=2000 * MIB, cwd=tmp_path)
    assert code == 75 and "it stood still" in err
    # One that waits for something else is left in peace.
    assert ended(WAITS.format(sizes="", seconds=2), limit=2000 * MIB, cwd=tmp_path)[0] == 0


@pytest.mark.fault(31)
def test_exit_codes_and_signals_pass_through(tmp_path: Path) -> None:
    assert ended("cli._dispatch = lambda _: 6", limit=2000 * MIB, cwd=tmp_path)[0] == 6
    assert ended("1 / 0", limit=2000 * MIB, cwd=tmp_path)[0] == 1  # before there is a command
    job = """
import os, signal, time
def wait(_):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    open("ready", "w").close()
    time.sleep(60)
cli._dispatch = wait
"""
    child = started(job, limit=2000 * MIB, cwd=tmp_path)
    _wait_for(tmp_path / "ready")
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 143


@pytest.mark.fault(31)
def test_a_killed_command_leaves_no_child(tmp_path: Path) -> None:
    job = """
import os, time
def wait(_):
    open("ready.new", "w").write(str(os.getpid()))
    os.rename("ready.new", "ready")
    time.sleep(60)
cli._dispatch = wait
"""
    child = started(job, limit=2000 * MIB, cwd=tmp_path)
    pid = int(_wait_for(tmp_path / "ready"))
    assert pid != child.pid
    child.kill()
    child.communicate()
    for _ in range(1000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the child lives on")


def _wait_for(path: Path) -> str:
    for _ in range(5000):
        if path.exists():
            return path.read_text()
        time.sleep(0.01)
    raise AssertionError(f"{path.name} never came")


def test_the_killer_of_the_kernel_is_told_from_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(-signal.SIGKILL, out_of_memory=False) == 137 and capsys.readouterr().err == ""
    assert _exit_code(-signal.SIGKILL, out_of_memory=True) == 75
    assert "the memory must hold what the command needs" in capsys.readouterr().err
    assert [_exit_code(code, out_of_memory=True) for code in (0, 3, -signal.SIGTERM)] == [0, 3, 143]


def test_without_a_limit_the_command_is_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "process_limits", lambda: [])
    assert not supervise.needs_supervision()


def test_what_supervises_is_small() -> None:
    """It must come through a limit that the command does not."""
    code = "import sys, pipelines.cli; print(*{'numpy', 'polars', 'pyarrow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
