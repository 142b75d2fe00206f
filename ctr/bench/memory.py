"""Peak memory of a case, in a process of its own, so that cases do not add up."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from ctr.bench.variants import BASELINE
from ctr.config import RunConfig
from ctr.errors import RetryableError

PATIENCE = 600.0  # seconds for one case


def peak_rss() -> int:
    """Bytes that this process had resident at most.

    Linux's ru_maxrss lives on through exec, so that a child would report its parent; VmHWM belongs to the
    program alone.
    """
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_child(
    config: RunConfig, *, steps: int, threads: int, variant: str = BASELINE.name
) -> dict[str, float]:
    """Train a few steps in a new process.

    Args:
        config: names the data set, the model and the batch.
        steps: how many; none measures what is there before the first.
        threads: of the child.
        variant: an optimisation to switch off, by name.

    Returns:
        ``peak`` and ``loaded`` (before the model was built), in bytes, and ``rows`` trained.

    Raises:
        RetryableError: the child failed or took too long; the message ends with its last words.
    """
    order = {"config": config.model_dump(mode="json"), "steps": steps, "threads": threads, "variant": variant}
    command = [sys.executable, "-m", "ctr.bench.child"]
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(p for p in (str(root), os.environ.get("PYTHONPATH")) if p)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise RetryableError(
            f"a case must end within {PATIENCE:g} s, did not; the machine may be short of memory: try --quick"
        ) from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise RetryableError(
            f"a case ended with an error: {last[0]}; free memory and try again, or try --quick"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return {name: float(value) for name, value in found.items()}
