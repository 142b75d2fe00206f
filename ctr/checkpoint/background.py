"""Checkpoints written beside the training: it waits for the copy, a thread does the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from torch import Tensor

from ctr.checkpoint.checkpoint import Snapshot, write_snapshot
from ctr.distributed.shards import Sharded
from ctr.distributed.world import World


class CheckpointWriter:
    """Saves one checkpoint at a time in a thread; every rank has one and calls it alike.

    An error of the thread is raised by the next `save` or `wait`. A job that is killed while the
    thread writes leaves the last complete checkpoint. While it writes, the copy takes as much memory again
    as the tables and their optimizer.

    Args:
        root: the directory of all checkpoints of the run.
        world: the processes that save together; the thread talks over a group of its own.
    """

    def __init__(self, root: Path, *, world: World) -> None:
        self.root = root
        self._world = world.with_own_control_group()
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        step: int,
        *,
        tensors: Mapping[str, Tensor | Sharded],
        state: Mapping[str, Any],
        keep_last: int = 3,
        keep: Collection[int] = (),
    ) -> None:
        """Copy everything and return; arguments and errors are those of `save_checkpoint`.

        Waits for the checkpoint before this one.
        """
        self.wait()
        snapshot = Snapshot.take(tensors, state, first=self._world.first)
        keep = frozenset(keep)
        self._thread = Thread(
            target=self._write, args=(step, snapshot, keep_last, keep), name=f"checkpoint-{step}", daemon=True
        )
        self._thread.start()

    def _write(self, step: int, snapshot: Snapshot, keep_last: int, keep: Collection[int]) -> None:
        try:
            write_snapshot(self.root, step, snapshot, keep_last=keep_last, keep=keep, world=self._world)
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        """Wait until the last checkpoint is whole.

        Raises:
            RetryableError: it could not be written, on this rank or another.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
