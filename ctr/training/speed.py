"""What changes how a model is computed, never what: recomputed activations, compiled blocks, memory kept."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from functools import cache, partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ctr.blocks.layers import FeedForward, SwiGLU
from ctr.blocks.mixing import PerTokenFFN
from ctr.config import TrainConfig
from ctr.models.model import Model
from features.errors import ConfigError

# Chains of products and pointwise maps without data-dependent shapes inside.
_COMPILED = (FeedForward, SwiGLU, PerTokenFFN)


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


@cache
def keep_freed_memory() -> bool:
    """Let this process keep memory that is freed, for what a step asks for next.

    glibc gives tensors above some size back to Linux and asks for fresh pages each time: they must be filled
    with zeros, and none of them is in a cache. Resident memory then stays near its peak, or grows above it
    where small tensors stand between large ones that are gone. Settings that the user has made (`MALLOC_…`,
    `GLIBC_TUNABLES`) stand.

    Returns:
        Whether it could be set: by glibc alone.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))  # never


def speed_up(model: nn.Module, config: TrainConfig) -> None:
    """Apply `recompute` and `compile` to a model in place; names of its parameters stay as they are.

    Raises:
        ConfigError: compile without a C++ compiler on a machine without CUDA, or recompute of a model that
            names no layers.
    """
    if config.compile:
        _check_compiler()
        for block in _all(model, _COMPILED):
            block.compile(dynamic=True)
    if config.recompute:
        for layer in _recomputed(model):
            # Set as an attribute, so that hooks and `state_dict` see the module unchanged.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _all(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kinds)]


def _recomputed(model: nn.Module) -> list[nn.Module]:
    """Whole layers: their inputs are kept, everything inside is computed again for the backward."""
    if not isinstance(model, Model) or not (layers := model.recomputed()):
        raise ConfigError(
            f"train.recompute needs a model that names its layers, got {type(model).__name__}; set false"
        )
    return layers


def _check_compiler() -> None:
    compiler = os.environ.get("CXX", "g++")
    if not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise ConfigError(
            f"train.compile on a CPU needs a C++ compiler, {compiler!r} is not on the PATH; install one "
            "(Debian: g++), name it in CXX, or set train.compile: false"
        )
