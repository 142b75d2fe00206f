"""A command whose memory is limited runs in a child process, whose death this one turns into a sentence.

Polars and other libraries abort the whole process when they get no memory, and the kernel kills it when a
control group holds too much: nothing inside it can then say why. At times they wait for ever instead, for a
thread that could not be started.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from features.memory.limit import process_limits
from features.memory.sizes import shown
from pipelines.terminal import echo

_CHILD = "CTR_SUPERVISED"  # set in the child's environment
# Of Polars: its allocator tries without end, and says so each time, to start a thread that gets no memory.
_ALLOCATOR = "_RJEM_MALLOC_CONF"
_FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_ABORTS = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS}  # what libraries end in that get no memory
_NO_THREAD_MEMORY = 127  # the dynamic loader's exit code where it gets none for a thread; no command's own
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
RETRYABLE = 75
_LOOK, _PATIENCE = 5.0, 30.0  # seconds: how often the child is looked at, and how long it may stand still
_FULL = 16 * 2**20  # bytes short of the limit: hardly more than the stack of a thread


def is_child() -> bool:
    """Whether this process is the child; asked once, at its start."""
    return os.environ.pop(_CHILD, None) is not None


def needs_supervision() -> bool:
    """Whether the memory of this process is limited by `ulimit` or a control group, on Linux."""
    return sys.platform == "linux" and bool(process_limits())


def supervise() -> int:
    """Run the same command line in a child; returns the exit code that a shell would, or 75 for its memory.

    Signals for this process go on to the child, which dies with it.
    """
    killed_before = _killed_by_kernel()
    waited = _FORWARDED | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={_ALLOCATOR: "background_thread:false", **os.environ, _CHILD: "1"},
        preexec_fn=lambda: _begin(waited),
    )
    standstill = _Standstill()
    while child.poll() is None:
        came = signal.sigtimedwait(waited, _LOOK)
        if came is None:
            if standstill.seen(child.pid):
                child.kill()
                return _out_of_memory("it stood still, waiting for a thread")
            continue
        # Of a terminal, all its processes get a signal; of `kill`, this one alone.
        if came.si_signo != signal.SIGCHLD and came.si_code <= 0:
            child.send_signal(came.si_signo)
    return _exit_code(child.returncode, out_of_memory=_killed_by_kernel() > killed_before)


def _begin(blocked: set[signal.Signals]) -> None:
    """In the child, before it becomes the command."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)


def _exit_code(code: int, *, out_of_memory: bool) -> int:
    """The exit code for that of a child, negative if a signal ended it; says what happened."""
    if code >= 0 and code != _NO_THREAD_MEMORY:
        return code
    ended = None if code >= 0 else signal.Signals(-code)
    if ended is None or ended in _ABORTS or (ended == signal.SIGKILL and out_of_memory):
        return _out_of_memory("no thread could be started" if ended is None else ended.name)
    return 128 + ended


def _out_of_memory(how: str) -> int:
    limits = [f"{shown(limit.total)}, {limit.name}" for limit in process_limits()]
    echo(
        "error: the memory must hold what the command needs, but too little was left "
        f"({'; '.join([how, *limits])}); raise the limit, or make batches, histories, the model "
        "or the data smaller, and run the command again",
        err=True,
    )
    return RETRYABLE


class _Standstill:
    """Whether the child, whose address space is used up, has computed nothing for a while."""

    def __init__(self) -> None:
        self.ticks, self.since = -1, time.monotonic()

    def seen(self, child: int) -> bool:
        """Look at the child and its own children; True from the end of the patience on."""
        try:
            ticks = sum(_ticks(pid) for pid in _family(child))
        except (OSError, ValueError):  # it ends just now
            return False
        if ticks != self.ticks or not _is_full(child):
            self.ticks, self.since = ticks, time.monotonic()
            return False
        return time.monotonic() - self.since >= _PATIENCE


def _family(pid: int) -> list[int]:
    own = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid] + [p for path in own for child in path.read_text().split() for p in _family(int(child))]


def _ticks(pid: int) -> int:
    """Processor time of a process in ticks of the system's clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _is_full(pid: int) -> bool:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    found = re.search(r"^VmPeak:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return limit != resource.RLIM_INFINITY and found is not None and int(found[1]) * 1024 > limit - _FULL


def _killed_by_kernel() -> int:
    """How many processes the kernel has killed for want of memory since it runs."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
