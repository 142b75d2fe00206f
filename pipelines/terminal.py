"""What commands print: one door, which escapes the control characters of names and values from elsewhere."""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path

from features.names import printable


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a text on stdout, or on stderr; it is there at once.

    Args:
        text: may hold line ends and tabs; other control characters are shown as ``\\x1b``.
        err: print on stderr.
    """
    print(printable(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


def keep_traceback(error: BaseException) -> Path | None:
    """Write the traceback of a fault to a new file that its user alone can read; None where that fails."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="ctr-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return None
    return Path(file.name)
