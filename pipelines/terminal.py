"""What commands print: one door, which escapes the control characters of names and values from elsewhere."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from features.names import printable


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a text on stdout, or on stderr; it is there at once.

    Args:
        text: may hold line ends and tabs; other control characters are shown as ``\\x1b``.
        err: print on stderr.
    """
    print(printable(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


class Formatter(logging.Formatter):
    """Log lines without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return printable(super().format(record))


class Parser(argparse.ArgumentParser):
    """A parser whose messages show arguments without control characters."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message), file)


def log_to_stderr() -> None:
    """Warnings of the product, of libraries and of Python itself go to stderr, through the same door."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)


def keep_traceback(error: BaseException) -> Path | None:
    """Write the traceback of a fault to a new file that its user alone can read; None where that fails."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="ctr-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.writelines(map(printable, traceback.format_exception(error)))
    except OSError:
        return None
    return Path(file.name)
