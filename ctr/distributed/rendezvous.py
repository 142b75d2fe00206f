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


def exchange_store(rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Return a store that holds nothing but what the ranks of this start put there.

    Rank 0 publishes a new name and waits until every other rank has joined under it. The others put a token
    of their own under the name they read, and look again until the list of tokens holds theirs, which that of
    an earlier start does not.

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
    name = _publish_name(store, size) if rank == 0 else _join(store, rank, timeout.total_seconds())
    return dist.PrefixStore(name, store)


def _publish_name(store: dist.Store, size: int) -> str:
    name = f"ctr/{uuid.uuid4().hex}"
    store.set(_JOB, name)
    tokens = [store.get(f"{name}/{rank}").decode() for rank in range(1, size)]
    store.set(f"{name}/all", json.dumps(tokens))
    return name


def _join(store: dist.Store, rank: int, timeout: float) -> str:
    token, deadline = uuid.uuid4().hex, time.monotonic() + timeout
    while time.monotonic() < deadline:
        name = store.get(_JOB).decode()
        store.set(f"{name}/{rank}", token)
        if store.check([f"{name}/all"]) and token in json.loads(store.get(f"{name}/all")):
            return name
        time.sleep(_PAUSE)
    raise RetryableError(
        f"all ranks must start within {timeout:g} s, rank {rank} waited in vain for rank 0; look at the "
        "first error of the job's log, then start the job again"
    )
