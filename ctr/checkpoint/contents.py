"""Whether an intact checkpoint holds what its reader needs: names, shapes, dtypes, finite values.

Its hashes prove that nothing changed since it was written, not that this program wrote it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ctr.checkpoint.load import Checkpoint
from ctr.checkpoint.tensors import StoredTensor
from ctr.distributed.shards import Sharded, as_sharded
from ctr.errors import CheckpointError

Held = Mapping[str, Tensor | Sharded]
_SHOWN = 3  # differences in a message


def check_tensors(
    checkpoint: Checkpoint, exact: Held, optional: Held, *, unread: Collection[str] = ()
) -> None:
    """Compare names, shapes and dtypes; no values are read.

    Args:
        checkpoint: holds tensors under names like `model/head.weight`.
        exact: tensors that must all be there.
        optional: tensors that may be there.
        unread: first parts of the names of all others that may be there.

    Raises:
        CheckpointError: naming some that are missing, unknown or different.
    """
    wanted = {name: _form(tensor) for name, tensor in exact.items()}
    known = wanted | {name: _form(tensor) for name, tensor in optional.items()}
    found = {
        name: _stored_form(checkpoint.tensors.stored(name))
        for name in checkpoint.tensors
        if name.split("/", 1)[0] not in unread
    }
    different = sorted(name for name in found if found[name] != known.get(name))
    different += sorted(wanted.keys() - found.keys())
    if different:
        details = "; ".join(
            f"{n}: expected {known.get(n, 'nothing')}, found {found.get(n, 'nothing')}"
            for n in different[:_SHOWN]
        )
        raise CheckpointError(
            f"{checkpoint.path} must hold the tensors of this model, {len(different)} differ ({details}); "
            "use another checkpoint, or another run directory"
        )


def check_finite(checkpoint: Checkpoint, held: Held) -> None:
    """Check what was read of a checkpoint: no value is NaN or infinite.

    Raises:
        CheckpointError: naming the first tensor that has such a value.
    """
    for name, tensor in held.items():
        for _, part in as_sharded(tensor).parts:
            if part.is_floating_point() and part.numel() and not _finite(part):
                raise CheckpointError(
                    f"{checkpoint.path} must hold finite numbers, {name} has NaN or infinite ones; use an "
                    "earlier checkpoint"
                )


@contextmanager
def reading(checkpoint: Checkpoint) -> Iterator[None]:
    """What a library or a look-up raises inside is a checkpoint that cannot be used.

    Raises:
        CheckpointError: naming the checkpoint and what was raised.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).strip().split("\n", 1)[0][:200]
        raise CheckpointError(
            f"{checkpoint.path} must hold a state to go on from, got {type(error).__name__}: {said}; "
            "use another checkpoint, or another run directory"
        ) from error


def _form(tensor: Tensor | Sharded) -> str:
    """Dtype and shape, as in `float32 [3, 4]`; of what this process holds no part of: as of tables."""
    held = as_sharded(tensor)
    return _told(held.parts[0][1].dtype if held.parts else torch.float32, held.shape)


def _stored_form(stored: StoredTensor) -> str:
    return _told(stored.dtype, stored.shape)


def _told(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    counts = (torch.int32, torch.int64)  # engines count their steps in one or the other
    return f"{'int' if dtype in counts else str(dtype).removeprefix('torch.')} {list(shape)}"


def _finite(values: Tensor) -> bool:
    low, high = values.detach().aminmax()  # NaN if there is one
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))
