"""The models by name: a line makes one known to training, evaluation, ablation, serving, bench and tests.

A line says where the model is; its file is loaded when a configuration names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from ctr.models.config import ModelConfig
from ctr.options.kinds import OneOf
from features.errors import ConfigError, explain

if TYPE_CHECKING:
    from ctr.models.model import Model

# kind → module.Class
MODELS = {
    "hyformer": "ctr.models.hyformer.HyFormer",
    "longer": "ctr.models.longer.Longer",
    "two_stage": "ctr.models.two_stage.TwoStage",
    "grid": "ctr.models.grid.Grid",
    "one_trans": "ctr.models.one_trans.OneTrans",
    "hstu": "ctr.models.hstu.HstuModel",
}


def model_class(kind: str) -> type[Model]:
    """The model of a kind."""
    module, _, name = MODELS[kind].rpartition(".")
    return cast("type[Model]", getattr(importlib.import_module(module), name))


class _Options(Mapping[str, type[ModelConfig]]):
    """kind → the options of the model."""

    def __getitem__(self, kind: str) -> type[ModelConfig]:
        return model_class(kind).Config

    def __iter__(self) -> Iterator[str]:
        return iter(MODELS)

    def __len__(self) -> int:
        return len(MODELS)

    def __contains__(self, kind: object) -> bool:
        return kind in MODELS


KINDS = OneOf(_Options(), default="hyformer")


def model_config(**options: Any) -> ModelConfig:
    """The options of a model, of the kind that they name.

    Raises:
        ConfigError: naming every wrong option; with the kinds that have it, if any has.

    Example:
        >>> model_config(kind="longer", layers=3).layers
        3
    """
    try:
        return cast(ModelConfig, KINDS.read(options))
    except ValidationError as error:
        raise ConfigError(f"model is not valid:\n{explain(error)}") from None
