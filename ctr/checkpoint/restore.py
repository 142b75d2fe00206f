"""Putting a checkpoint's content back: random generators, and what does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ctr.distributed.shards import Sharded
from ctr.distributed.world import World

_CPU, _CUDA = "torch", "cuda."
_OWN_CUDA = "cuda"  # of several ranks, each with one device
_MISSING = object()


def rng_state(world: World | None = None) -> Mapping[str, Tensor | Sharded]:
    """The state of torch's generators, of the CPU and of CUDA devices in use, as uint8 tensors by name.

    With several ranks, one row for each: the state of its CPU and of its one device.
    """
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    if world is None or world.size == 1:
        devices = range(torch.cuda.device_count()) if used else range(0)
        return {_CPU: torch.get_rng_state()} | {f"{_CUDA}{i}": torch.cuda.get_rng_state(i) for i in devices}
    own = {_CPU: torch.get_rng_state()} | ({_OWN_CUDA: torch.cuda.get_rng_state()} if used else {})
    offset = (world.rank, 0)
    return {n: Sharded((world.size, len(state)), [(offset, state[None])]) for n, state in own.items()}


def restore_rng(state: Mapping[str, Tensor], world: World | None = None) -> None:
    """Set torch's generators to what `rng_state` returned; CUDA devices that are not here are left out.

    A rank beyond those that saved begins anew, from a seed derived of the first one's state and its number.
    """
    rank = 0 if world is None else world.rank
    rows = state[_CPU].reshape(-1, state[_CPU].shape[-1]).to(torch.uint8)
    if rank < len(rows):
        torch.set_rng_state(rows[rank].clone())
    else:
        digest = hashlib.sha256(rows[0].numpy().tobytes() + str(rank).encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if (name := f"{_CUDA}{index}") in state:
                torch.cuda.set_rng_state(state[name], index)
        if _OWN_CUDA in state and rank < len(state[_OWN_CUDA]):
            torch.cuda.set_rng_state(state[_OWN_CUDA][rank].clone())


def describe_mismatch(expected: Mapping[str, Any], found: Mapping[str, Any], *, limit: int = 20) -> str:
    """One line for each field in which two nested mappings differ; the empty string if they are equal.

    Args:
        expected: what this job has, such as its config or its tensors' shapes by name.
        found: what the checkpoint has.
        limit: how many lines at most; a last line counts the rest.

    Example:
        >>> print(describe_mismatch({"d": {"width": 64}, "h": 4}, {"d": {"width": 32}, "k": 1}))
        d.width: expected 64, found 32
        h: expected 4, found nothing
        k: expected nothing, found 1
    """
    lines = [f"{name}: {text}" for name, text in mismatches(expected, found).items()]
    rest = [f"… and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join(lines[:limit] + rest)


def mismatches(expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """The fields in which two nested mappings differ, with what each has.

    Example:
        >>> mismatches({"d": {"width": 64}}, {"d": {"width": 32}})
        {'d.width': 'expected 64, found 32'}
    """
    left, right = _leaves(expected), _leaves(found)
    return {
        name: f"expected {_shown(left, name)}, found {_shown(right, name)}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name, _MISSING) != right.get(name, _MISSING)
    }


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            leaves |= _leaves(item, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = list(item) if isinstance(item, tuple) else item
    return leaves


def _shown(leaves: Mapping[str, Any], name: str) -> str:
    return repr(leaves[name])[:120] if name in leaves else "nothing"
