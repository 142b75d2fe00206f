"""Steps that all ranks of a job take together, or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from ctr.distributed.world import World


def run_on_all_ranks(world: World, action: Callable[[], Any], *, failure: type[Exception]) -> list[Any]:
    """Do something on every rank and wait for all; what fails on one rank fails on all.

    Args:
        world: the ranks; each calls this at the same place.
        action: what this rank does; returns JSON data.
        failure: what ranks raise whose own action succeeded while another's did not.

    Returns:
        On rank 0 what the ranks returned, in their order; elsewhere an empty list.

    Raises:
        Exception: this rank's own error.
        failure: with the text of the first rank that failed.

    Example:
        >>> run_on_all_ranks(World.single(), lambda: 7, failure=OSError)
        [7]
    """
    result, own = None, None
    try:
        result = action()
    except Exception as error:
        own = error
    text = json.dumps({"result": result, "error": None if own is None else f"rank {world.rank}: {own}"})
    gathered = world.gather_arrays({"report": np.frombuffer(bytearray(text.encode()), dtype=np.uint8)})
    reports = [json.loads(found["report"].tobytes()) for found in gathered]
    problem = world.broadcast_json(next((r["error"] for r in reports if r["error"]), None))
    if own is not None:
        raise own
    if problem is not None:
        raise failure(problem)
    return [report["result"] for report in reports]
