"""How the ranks of one start of a job find each other, and only each other.

torchrun keeps one store for all starts of a job (torch 2.13), with the addresses that ranks of earlier starts
left there; restarted ranks that read them wait for the dead. Here every start talks under a name of its own.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from ctr.errors import RetryableError

_JOB = "ctr/start"
_PAUSE = 0.05  # seconds between two looks


def meet(rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Return a store that holds nothing but what the ranks of this start put there.

    Rank 0 makes up a name and waits until every other rank has signed under it; the others sign under the
    name they read, and look again until the list of signatures holds their own: an old list does not.

    Args:
        rank: of this process.
        size: number of ranks.
        timeout: how long to wait for the others.

    Raises:
        DistError: torchrun's store cannot be reached, or rank 0 waited in vain.
        RetryableError: another rank waited in vain.
    """
    store, _, _ = next(dist.rendezvous("env://", rank=rank, world_size=size, timeout=timeout))
    store.set_timeout(timeout)
    name = _invite(store, size) if rank == 0 else _sign(store, rank, timeout.total_seconds())
    return dist.PrefixStore(name, store)


def _invite(store: dist.Store, size: int) -> str:
    name = f"ctr/{uuid.uuid4().hex}"
    store.set(_JOB, name)
    signatures = [store.get(f"{name}/{rank}").decode() for rank in range(1, size)]
    store.set(f"{name}/all", json.dumps(signatures))
    return name


def _sign(store: dist.Store, rank: int, timeout: float) -> str:
    signature, deadline = uuid.uuid4().hex, time.monotonic() + timeout
    while time.monotonic() < deadline:
        name = store.get(_JOB).decode()
        store.set(f"{name}/{rank}", signature)
        if store.check([f"{name}/all"]) and signature in json.loads(store.get(f"{name}/all")):
            return name
        time.sleep(_PAUSE)
    raise RetryableError(
        f"all ranks must start within {timeout:g} s, rank {rank} waited in vain for rank 0; look at the "
        "first error of the job's log, then start the job again"
    )
