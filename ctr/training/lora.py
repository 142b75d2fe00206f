"""Low-rank adapters on the dense part of a finished run: warm-start adaptation, through `peft`.

    y = W x + (α / r) B A x        W frozen;  A (r, in) random, B (out, r) zero: it starts as that model

The dense weights of the finished run stay as they are; only A and B are learned. The embedding tables are
taken over as well and go on learning, row by row, as they always do; `ctr.transfer` puts both here.

Source: LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from ctr.blocks.encoders import AttentionEncoder
from ctr.config import AdapterConfig
from ctr.library.transformers import load_library
from ctr.models.sequence.side import SequenceSide
from features.errors import ConfigError

ADAPTER, WRAPPED = ".lora_", ".base_layer."  # in the names of weights: of an adapter; inside one


def add_adapters(model: nn.Module, config: AdapterConfig, *, seed: int) -> None:
    """Freeze a model and put an adapter beside every linear map that a target matches, in place.

    Raises:
        ConfigError: peft is not installed, or a target matches nothing.
    """
    maps = _linear_maps(model)
    for pattern in config.targets:
        if not any(fnmatchcase(name, pattern) for name in maps):
            raise ConfigError(
                f"lora.targets must match linear maps of the model, got {pattern!r}; it has {', '.join(maps)}"
            )
    chosen = [name for name in maps if any(fnmatchcase(name, pattern) for pattern in config.targets)]
    peft = _peft()
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=chosen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(ADAPTER in name)


def _linear_maps(model: nn.Module) -> list[str]:
    """Names of the linear maps that are called as modules; one that is read by its weight would pass by."""
    unread = {
        f"{name}.attention.{part}"
        for name, module in model.named_modules()
        if isinstance(module, AttentionEncoder) and module.recent is None
        for part in ("query", "key_value")
    }
    unread |= {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if isinstance(module, SequenceSide)
        for part in module.read_by_weight
    }
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in unread
    ]


def _peft() -> Any:
    load_library()  # peft imports it: offline, as the library's own door does
    try:
        import peft
    except ImportError:
        raise ConfigError(
            "lora needs peft; `python -m pip install --no-deps -r requirements/lora.txt`"
        ) from None
    return peft
