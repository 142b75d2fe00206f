"""A command whose memory is limited runs in a child process, whose death this one turns into a sentence.

Polars and other libraries abort the whole process when they get no memory, and the kernel kills it when a
control group holds too much: nothing inside it can then say why.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from features.memory.limit import process_limits
from features.memory.sizes import shown
from pipelines.terminal import echo

_CHILD = "CTR_SUPERVISED"  # set in the child's environment
_FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_ABORTS = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS}  # what libraries end in that get no memory
_NO_THREAD_MEMORY = 127  # the dynamic loader's exit code where it gets none for a thread; no command's own
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
RETRYABLE = 75


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
        env={**os.environ, _CHILD: "1"},
        preexec_fn=lambda: _begin(waited),
    )
    while child.poll() is None:
        came = signal.sigwaitinfo(waited)
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
        how = "no thread could be started" if ended is None else ended.name
        limits = [f"{shown(limit.total)}, {limit.name}" for limit in process_limits()]
        echo(
            "error: the memory must hold what the command needs, but too little was left "
            f"({'; '.join([how, *limits])}); raise the limit, or make batches, histories, the model "
            "or the data smaller, and run the command again",
            err=True,
        )
        return RETRYABLE
    return 128 + ended


def _killed_by_kernel() -> int:
    """How many processes the kernel has killed for want of memory since it runs."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
