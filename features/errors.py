"""The errors a user can cause, each with the exit code its command ends with."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class CtrError(Exception):
    """Base of every error that is reported to the user without a traceback.

    The message says what must hold, what came, and what to do.
    """

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What a library says, without its query plan."""
    return str(error).strip().split("\n", 1)[0][:200]


class ConfigError(CtrError):
    """A wrong spec, configuration or command line (exit code 2)."""

    exit_code = 2


class DataError(CtrError):
    """Unreadable, inconsistent or leaking data (exit code 3)."""

    exit_code = 3


class RetryableError(CtrError):
    """The job may succeed when it is started again: I/O, full disk, network, preemption (exit code 75)."""

    exit_code = 75


MOST_FAULTS, MOST_CHARACTERS = 20, 300
_REPR = reprlib.Repr()  # never writes out the whole of a long value
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 90
_REPR.maxlist = _REPR.maxtuple = 20


def explain(error: ValidationError) -> str:
    """One line per wrong key: where, what must hold, what came; of many the first, and how many there are."""
    found = error.errors(include_url=False, include_context=False)
    lines = [_fault(item) for item in found[:MOST_FAULTS]]
    if more := len(found) - len(lines):
        lines.append(f"  … and {more:,} more")
    return "\n".join(lines)


def _fault(item: ErrorDetails) -> str:
    # The kind of a feature, [column] or [columns], follows from its keys and is none of them.
    named = [str(part)[:MOST_CHARACTERS] for part in item["loc"] if not str(part).startswith("[")]
    where = ".".join(named)[:MOST_CHARACTERS]
    unknown = item["type"] == "extra_forbidden"
    # A whole section is no value that a person would recognise.
    got = "" if unknown or isinstance(item["input"], dict) else f", got {_REPR.repr(item['input'])[:80]}"
    remedy = "; unknown key: check its spelling or delete it" if unknown else ""
    text = item["msg"].removeprefix("Value error, ")[:MOST_CHARACTERS]
    return f"  {where}: {text}{got}{remedy}" if where else f"  {text}"
