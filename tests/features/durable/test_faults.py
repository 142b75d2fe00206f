from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from features.durable.faults import Fault, InjectedFault, fault_point, injected, parse_plan
from features.errors import ConfigError


def test_plan_reads_every_form() -> None:
    assert parse_plan("ckpt.after_data:kill, loader.batch:17:raise,step:3:sleep=0.5") == (
        Fault("ckpt.after_data", None, "kill"),
        Fault("loader.batch", 17, "raise"),
        Fault("step", 3, "sleep", 0.5),
    )
    assert parse_plan(" , ") is None


@pytest.mark.parametrize(
    "text", ["step", ":kill", "step:42:explode", "step:x:kill", "a:1:2:kill", "step:kill=3"]
)
def test_wrong_rule_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"CTR_FAULT must be rules name\[:index\]:action"):
        parse_plan(text)


def test_points_fire_at_their_index_only() -> None:
    assert not fault_point("loss", 5)
    with injected("loss:5:nan,loader.batch:raise,disk:enospc"):
        assert [fault_point("loss", step) for step in (4, 5, 6)] == [False, True, False]
        assert not fault_point("other", 5)
        with pytest.raises(InjectedFault, match=r"loader\.batch"):
            fault_point("loader.batch", 0)
        with pytest.raises(OSError) as caught:
            fault_point("disk")
        assert caught.value.errno == errno.ENOSPC
    assert not fault_point("loss", 5)


def test_kill_from_the_environment() -> None:
    code = (
        "from features.durable.faults import fault_point\n"
        "for i in range(5): print(i, flush=True); fault_point('step', i)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"CTR_FAULT": "step:2:kill"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["0", "1", "2"]
