"""Named points where a test makes the job fail on purpose.

The environment variable ``CTR_FAULT`` holds a comma-separated list of ``name[:index]:action``, for example
``ckpt.after_data:kill``, ``step:42:kill``, ``loader.batch:17:raise``, ``loss:5:nan`` or ``step:3:sleep=0.5``.
Without an index the rule fires whenever the point is passed. When the variable is unset, a point costs one
comparison.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from features.errors import ConfigError

VARIABLE = "CTR_FAULT"
ACTIONS = ("kill", "raise", "sleep", "nan", "enospc")


class InjectedFault(Exception):
    """Raised by a point whose action is ``raise``; it stands for a bug, so no handler expects it."""


@dataclass(frozen=True)
class Fault:
    """One rule of the plan: at point `name` (and at `index`, if it is not None) do `action`."""

    name: str
    index: int | None
    action: str
    seconds: float = 1.0


def parse_plan(text: str) -> tuple[Fault, ...] | None:
    """Read the rules of ``CTR_FAULT``; None when there are none.

    Raises:
        ConfigError: a rule is not ``name[:index]:action``.

    Example:
        >>> parse_plan("step:42:kill")
        (Fault(name='step', index=42, action='kill', seconds=1.0),)
        >>> parse_plan("") is None
        True
    """
    rules = tuple(_parse_rule(part.strip()) for part in text.split(",") if part.strip())
    return rules or None


def _parse_rule(text: str) -> Fault:
    try:
        name, *index, action = text.split(":")
        action, _, seconds = action.partition("=")
        if not name or action not in ACTIONS or len(index) > 1 or (seconds and action != "sleep"):
            raise ValueError
        return Fault(name, int(index[0]) if index else None, action, float(seconds or 1.0))
    except ValueError:
        raise ConfigError(
            f"{VARIABLE} must be rules name[:index]:action with an action of {', '.join(ACTIONS)}, "
            f"got {text!r}; unset it or write for example step:42:kill"
        ) from None


_plan: tuple[Fault, ...] | None = parse_plan(os.environ.get(VARIABLE, ""))


def fault_point(name: str, index: int | None = None) -> bool:
    """Do what the plan says for this point.

    Args:
        name: the point, such as ``ckpt.after_data``.
        index: which pass through the point this is, such as the step.

    Returns:
        True if the caller is to put a NaN in place of its value, else False.

    Raises:
        InjectedFault: the action is ``raise``.
        OSError: with ENOSPC, the action is ``enospc``.
    """
    if _plan is None:
        return False
    return any([_fire(rule) for rule in _plan if rule.name == name and rule.index in (None, index)])


def _fire(rule: Fault) -> bool:
    if rule.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if rule.action == "raise":
        raise InjectedFault(f"injected at {rule.name}:{rule.index}")
    if rule.action == "enospc":
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (injected at {rule.name})")
    if rule.action == "sleep":
        time.sleep(rule.seconds)
    return rule.action == "nan"


@contextmanager
def injected(text: str) -> Iterator[None]:
    """Use the plan `text` within a block of this process (for tests)."""
    global _plan
    before, _plan = _plan, parse_plan(text)
    try:
        yield
    finally:
        _plan = before
