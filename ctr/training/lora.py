"""Low-rank adapters on the dense part of a finished run: warm-start adaptation, through `peft`.

    y = W x + (α / r) B A x        W frozen;  A (r, in) random, B (out, r) zero: it starts as that model

The dense weights of the finished run stay as they are; only A and B are learned. The embedding tables are
taken over as well and go on learning, row by row, as they always do.

Source: LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ctr.blocks.encoders import AttentionEncoder
from ctr.checkpoint.load import load_best
from ctr.checkpoint.restore import describe_mismatch
from ctr.config import AdapterConfig
from ctr.errors import CheckpointError
from ctr.library.transformers import load_library
from ctr.runs.identity import completed
from ctr.training.state import TrainingState
from features.errors import ConfigError

_ADAPTER, _BASE = ".lora_", ".base_layer."


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
        parameter.requires_grad_(_ADAPTER in name)


def start_from_base(state: TrainingState, config: AdapterConfig) -> int:
    """Give a fresh state the weights of the finished run, averaged ones where it has them.

    Returns:
        The step of the checkpoint.

    Raises:
        CheckpointError: the run has no checkpoint, or its model and tables are others.
    """
    chosen = load_best(Path(config.base) / "checkpoints")
    if chosen is None:
        raise CheckpointError(f"lora.base must be a run with a checkpoint, {config.base} has none")
    found, own = _what_must_fit(completed(chosen.state["identity"])), _what_must_fit(state.identity)
    if found != own:
        raise CheckpointError(
            f"{chosen.path} does not fit this run's model and tables:\n{describe_mismatch(own, found)}\n"
            "keep `model` and `embedding` as they are in the run that lora.base names"
        )
    _copy_weights(state.model, chosen.tensors)
    state.tables.load_state(chosen.tensors.within("tables/"))
    if state.averaged is not None:
        state.averaged.load(dict(state.model.named_parameters()))
    return chosen.step


@torch.no_grad()
def _copy_weights(model: nn.Module, stored: Mapping[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        if _ADAPTER not in name:
            plain = name.replace(_BASE, ".")
            averaged = f"average/{plain}"
            tensor.copy_(stored[averaged if averaged in stored else f"model/{plain}"])


def _what_must_fit(identity: Mapping[str, Any]) -> dict[str, Any]:
    config = identity["config"]
    embedding = {key: config["embedding"][key] for key in ("dim", "optimizer")}
    return {"model": config["model"], "embedding": embedding}


def _linear_maps(model: nn.Module) -> list[str]:
    """Names of the linear maps that are called as modules; one that is read by its weight would pass by."""
    unread = {
        f"{name}.attention.{part}"
        for name, module in model.named_modules()
        if isinstance(module, AttentionEncoder) and module.recent is None
        for part in ("query", "key_value")
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
