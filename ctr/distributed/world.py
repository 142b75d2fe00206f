"""The processes of one job: who this one is, what all of them agree on, and what happens when one dies.

torchrun starts the processes ("ranks") and tells each its number by environment variables. Without them a job
is one process, for which every function here does nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ctr.distributed.rendezvous import exchange_store
from ctr.errors import RetryableError
from features.errors import ConfigError

# What gloo says of a peer that is gone or silent; it has no exception class of its own.
_LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "pair closure", "Timed out waiting")


@dataclass(frozen=True)
class World:
    """This process among those of its job.

    The three groups hold all ranks. Collectives of one group happen in the same order everywhere; those of
    different groups may overlap. Each is None in a job of one process.

    Args:
        rank: 0 … size − 1; rank 0 writes files, tracks and draws.
        size: number of processes.
        local_rank: number among the processes of this machine.
        device: where this process computes.
        data: gloo on a CPU, NCCL on CUDA: embedding rows and their gradients.
        dense: the same, for the gradients of dense weights alone.
        control: always gloo: plain numbers and small messages.
        timeout: seconds that a rank waits for the others.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    data: dist.ProcessGroup | None = None
    dense: dist.ProcessGroup | None = None
    control: dist.ProcessGroup | None = None
    timeout: float = 600.0

    @classmethod
    def single(cls, device: torch.device | str = "cpu") -> World:
        """A job of one process."""
        return cls(0, 1, 0, torch.device(device))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and draws."""
        return self.rank == 0

    def with_own_control_group(self) -> World:
        """The same ranks with a control group of their own, for a thread that talks beside the others.

        Every rank calls it at the same place.
        """
        if self.size == 1:
            return self
        control = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.timeout))
        return replace(self, data=None, dense=None, control=control)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the ranks, in place; the same bits everywhere."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.control if tensor.device.type == "cpu" else self.data)
        return tensor

    def sums(self, *numbers: float) -> list[float]:
        """Sum plain numbers over the ranks, in float64.

        Example:
            >>> World.single().sums(1.5, 2)
            [1.5, 2.0]
        """
        return self.sum_(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        numbers = [0.0] * self.size
        numbers[self.rank] = number
        return int(max(self.sums(*numbers)))

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        for tensor in tensors if self.size > 1 else ():
            group = self.control if tensor.device.type == "cpu" else self.data
            dist.broadcast(tensor, src=0, group=group)

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self.sums(0.0)

    def broadcast_json(self, value: Any = None) -> Any:
        """Rank 0's value, which must be strict JSON, on every rank; what others pass is not looked at.

        Example:
            >>> World.single().broadcast_json({"step": 3})
            {'step': 3}
        """
        text = json.dumps(value, allow_nan=False).encode() if self.first else b""
        if self.size > 1:
            length = self.sum_(torch.tensor([len(text)]))
            content = np.zeros(int(length), dtype=np.uint8)
            content[: len(text)] = np.frombuffer(text, dtype=np.uint8)
            dist.broadcast(torch.from_numpy(content), src=0, group=self.control)
            text = content.tobytes()
        return json.loads(text)

    def gather_arrays(self, arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Collect arrays of all ranks at rank 0, bit by bit and without pickle.

        Args:
            arrays: the same names in the same order, dtypes and trailing shapes on every rank; first
                dimensions may differ.

        Returns:
            On rank 0 the arrays of each rank in the order of ranks; elsewhere an empty list.
        """
        own = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        lengths = self._all_lengths([len(array) for array in own.values()])
        if not self.first:
            for array in own.values():
                if array.nbytes:
                    dist.send(_bytes_of(array), dst=0, group=self.control)
            return []
        return [own, *(self._receive(own, rank, lengths[rank]) for rank in range(1, self.size))]

    def _all_lengths(self, lengths: list[int]) -> list[list[int]]:
        table = torch.zeros(self.size, len(lengths), dtype=torch.int64)
        table[self.rank] = torch.tensor(lengths, dtype=torch.int64)
        return self.sum_(table).tolist()

    def _receive(
        self, like: Mapping[str, np.ndarray], rank: int, lengths: list[int]
    ) -> dict[str, np.ndarray]:
        found = {}
        for (name, own), length in zip(like.items(), lengths, strict=True):
            found[name] = np.empty((length, *own.shape[1:]), dtype=own.dtype)
            if found[name].nbytes:
                dist.recv(_bytes_of(found[name]), src=rank, group=self.control)
        return found


def _bytes_of(array: np.ndarray) -> Tensor:
    """A view of a contiguous array's memory."""
    return torch.from_numpy(array.reshape(-1).view(np.uint8))


@contextmanager
def open_world(device: torch.device | str, *, timeout: float = 600.0) -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end.

    A rank that dies or hangs ends the others with an error and exit code 75: at once where its connections
    break, after `timeout` where it is only silent.

    Args:
        device: `cpu` or `cuda`; each rank takes the CUDA device of its local rank.
        timeout: seconds that a rank waits for the others.

    Raises:
        ConfigError: torchrun's variables are not numbers, or there are more ranks than CUDA devices.
        RetryableError: another rank is gone.
    """
    device = torch.device(device)
    rank, size, local_rank = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if size is None or size < 2 or rank is None:
        yield World.single(device)
        return
    device = _own_device(device, local_rank or 0)
    with _peers(rank, size, timeout):
        try:
            world = _join(rank, size, local_rank or 0, device, timedelta(seconds=timeout))
            yield world
            world.barrier()  # nobody leaves while another still talks
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def _join(rank: int, size: int, local_rank: int, device: torch.device, timeout: timedelta) -> World:
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = exchange_store(rank, size, timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    dense = dist.new_group(backend=backend, timeout=timeout)
    control = dist.new_group(backend="gloo", timeout=timeout)
    world = World(rank, size, local_rank, device, dist.group.WORLD, dense, control, timeout.total_seconds())
    world.barrier()
    return world


def _own_device(device: torch.device, local_rank: int) -> torch.device:
    if device.type != "cuda":
        return device
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"every rank needs a CUDA device of its own, this machine has {torch.cuda.device_count()} and "
            f"local rank {local_rank} has none; lower --nproc-per-node or set train.device: cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextmanager
def _peers(rank: int, size: int, timeout: float) -> Iterator[None]:
    """Turn a lost connection, wherever it shows, into one clear error."""
    try:
        yield
    except RuntimeError as error:
        if not lost_peer(error):
            raise
        raise RetryableError(
            f"all {size} ranks must answer within {timeout:g} s, but rank {rank} lost another one "
            f"({_short(error)}); the first error of the job's log tells why it ended. "
            "Start the job again: it goes on from its newest checkpoint (torchrun --max-restarts does so)"
        ) from error


def lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone or silent."""
    return isinstance(error, dist.DistError) or any(part in str(error) for part in _LOST)


def _short(error: RuntimeError) -> str:
    """The first sentence, without the position in gloo's source."""
    return str(error).splitlines()[0].rpartition("] ")[2].split(". ")[0][:200]


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigError(f"{name} must be a number as torchrun sets it, got {text!r}; unset it")
    return int(text)
