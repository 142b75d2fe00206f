"""Optimizers of embedding rows: one line of the table below makes one known to configurations and engines.

The line says where the optimizer is; its file says all else: options, state per row, update rule, and which
engines have it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from features.errors import explain

if TYPE_CHECKING:
    from ctr.sparse_optim.base import OptimizerOptions, SparseOptimizer

# name → module.Class, loaded when it is asked for: configurations are read before torch is imported.
OPTIMIZERS = {
    "rowwise_adagrad": "ctr.sparse_optim.rowwise_adagrad.RowwiseAdagrad",
    "adam": "ctr.sparse_optim.adam.Adam",
    "adam_ar": "ctr.sparse_optim.adaptive.AdaptiveAdam",
    "rowwise_adagrad_ar": "ctr.sparse_optim.adaptive.AdaptiveAdagrad",
}


def check_optimizer(name: str) -> str:
    """The name of an optimizer, as it is.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"must be one of {', '.join(OPTIMIZERS)}")
    return name


def optimizer_class(name: str) -> type[SparseOptimizer]:
    """The optimizer of a name in the table."""
    module, _, kind = OPTIMIZERS[name].rpartition(".")
    return cast("type[SparseOptimizer]", getattr(importlib.import_module(module), kind))


def has_option(name: str, option: str) -> bool:
    """Whether an optimizer has an option."""
    return option in optimizer_class(name).Options.model_fields


def read_options(
    name: str, *, common: Mapping[str, Any], changed: Mapping[str, Any], own: Mapping[str, Any]
) -> OptimizerOptions:
    """The options of an optimizer.

    Args:
        name: of the optimizer.
        common: options that configurations have for all optimizers; those it lacks are left out.
        changed: those of them that were set to something other than their default.
        own: further options, of this optimizer alone.

    Raises:
        ValueError: it has no such option, or not of such a value; with the optimizers that have it.
    """
    for option, value in {**changed, **own}.items():
        if not has_option(name, option):
            others = [other for other in OPTIMIZERS if has_option(other, option)]
            raise ValueError(
                f"optimizer {name} has no option {option}, so that {value!r} would change nothing; delete it "
                f"(optimizers that have it: {', '.join(others) or 'none'})"
            )
        if option in own and option in common:
            raise ValueError(f"option {option} must be set as embedding.{option}, not in optimizer_options")
    shared = {option: value for option, value in common.items() if has_option(name, option)}
    try:
        return optimizer_class(name).Options.model_validate({**shared, **own})
    except ValidationError as error:
        raise ValueError(f"optimizer_options of {name} are not valid:\n{explain(error)}") from None


def lacking(name: str, engine: str, device: str) -> str | None:
    """Why an engine does not have an optimizer on a device, with the engines that do; None if it has it.

    Example:
        >>> lacking("rowwise_adagrad", "fbgemm", "cpu") is None
        True
        >>> lacking("adam", "fbgemm", "cpu")
        'engine fbgemm must have the optimizer on cpu, but adam runs in torch, fbgemm (cuda), torchrec (cuda)'
    """
    engines = optimizer_class(name).engines()
    if device in engines.get(engine, ()):
        return None
    known = ", ".join(_engine_label(found, devices) for found, devices in engines.items())
    return f"engine {engine} must have the optimizer on {device}, but {name} runs in {known}"


def _engine_label(engine: str, devices: tuple[str, ...]) -> str:
    return engine if devices == ("cpu", "cuda") else f"{engine} ({', '.join(devices)})"


def overview() -> str:
    """A table of all optimizers for the documentation, in Markdown."""
    lines = [
        "| optimizer | update of a touched row | state per row | options | engines |",
        "|---|---|---|---|---|",
    ]
    for name in OPTIMIZERS:
        rule = optimizer_class(name)
        sizes = {"scalar": "1", "vector": "E"}
        state = ", ".join(f"`{tensor}` ({sizes[kind]})" for tensor, kind in rule.STATE.items())
        options = ", ".join(f"`{option}`" for option in rule.Options.model_fields)
        engines = ", ".join(_engine_label(engine, devices) for engine, devices in rule.engines().items())
        lines.append(f"| `{name}` | {rule.RULE} | {state or 'none'} | {options or 'none'} | {engines} |")
    return "\n".join(lines)
