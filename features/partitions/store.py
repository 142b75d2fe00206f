"""The files of the data set, put together from the parts: the bytes do not tell how many there were."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from features.encode.layout import BATCH_ROWS
from features.partitions.frames import read_table, slices_of
from features.partitions.one_batch import write_one_batch
from features.store.manifest import sha256_of
from features.store.write import write_arrow


def store(work: Path, out: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write one file of the data set.

    Args:
        arguments: `name` of the file, the `parts` it is made of, and `whole`: one record batch, or many.

    Returns:
        its name and sha256.
    """
    path = out / "data"
    parts = [work / part for part in arguments["parts"]]
    if arguments["whole"]:
        write_one_batch(path, parts)
    else:
        write_arrow(path, slices_of(map(read_table, parts), BATCH_ROWS))
    return {"name": arguments["name"], "sha256": sha256_of(path)}


def take(source: Path, target: Path) -> None:
    """Give a finished file a second name, or copy it where that cannot be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
