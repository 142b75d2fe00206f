"""Starting from another run: what it learned goes to the same values, names and features of this one.

Nothing is taken over by its shape alone. Rows of ID tables are matched by value. What differs has a name and
is refused, unless `init.allow` names it: then a table or weight begins anew here, and an option of the model,
or a column beside its weights, is as this run has it, with the weights of equal names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ctr.build import ngrams_of
from ctr.checkpoint.choose import choose_checkpoint
from ctr.checkpoint.contents import check_finite, reading
from ctr.checkpoint.restore import mismatches
from ctr.config import InitConfig, RunConfig
from ctr.distributed.world import World
from ctr.errors import CheckpointError
from ctr.training.state import TrainingState
from ctr.transfer.dense import DenseWeights, match_weights, take_optimizer, take_weights
from ctr.transfer.plan import (
    RowPlan,
    defined_otherwise,
    differing_inputs,
    fitted_otherwise,
    plan_rows,
)
from ctr.transfer.report import TableRows, TakenOver
from ctr.transfer.rows import take_rows
from ctr.transfer.trained import Trained
from features.dataset import Dataset
from features.errors import ConfigError
from features.remote.working_copy import here

_MOST = 20  # differences in a message


def start_from_run(
    state: TrainingState, config: RunConfig, dataset: Dataset, *, world: World | None = None
) -> TakenOver | None:
    """Give a fresh state what the run that `init` or `lora.base` names has learned; all ranks together.

    Dense weights under adapters are those that score, averaged where the other run keeps an average.

    Args:
        state: fresh.
        config: of this run.
        dataset: of this run, as it sees it.
        world: the processes of the job; this one alone if None.

    Returns:
        What was taken over; None where the configuration names no run.

    Raises:
        ConfigError: the run is this one, or has no checkpoint of that name.
        CheckpointError: something differs that may not; the message names each.
    """
    if (init := _init_of(config)) is None:
        return None
    trained = _open(init, config, world)
    with reading(trained.checkpoint):
        taken = _take(state, init, config, dataset, trained)
    check_finite(trained.checkpoint, state.tensors())
    return taken


def _take(
    state: TrainingState, init: InitConfig, config: RunConfig, dataset: Dataset, trained: Trained
) -> TakenOver:
    stored = trained.checkpoint.tensors
    rows = plan_rows(
        trained, dataset, state.encoding, state.tables.state(), ngrams=ngrams_of(config, dataset.manifest)
    )
    weights = match_weights(state.model, stored.within("model/"))
    allowed = _check_allowed(init, _differences(state, trained, dataset, rows, weights), trained)
    keep = init.optimizer == "keep"
    _check_optimizer(init, trained, config)
    take_weights(state, trained.checkpoint, weights.shared, averaged=config.lora is not None or not keep)
    take_rows(state.tables, stored.within("tables/"), rows.maps, keep_optimizer=keep)
    if keep:
        take_optimizer(state, trained.checkpoint, weights.shared)
    return _taken(init, trained, state, dataset, rows, weights, allowed)


def _init_of(config: RunConfig) -> InitConfig | None:
    """What to start from; an adapted run goes on with its tables as the other one left them."""
    if config.lora is None or config.lora.base is None:
        return config.init
    return InitConfig(run=config.lora.base)


def _open(init: InitConfig, config: RunConfig, world: World | None) -> Trained:
    run, option = here(init.run), "init.run" if config.init is not None else "lora.base"
    if run.resolve() == here(config.run).resolve():
        raise ConfigError(f"{option} must be another run than this one, got {init.run} for both")
    checkpoint = choose_checkpoint(run / "checkpoints", init.checkpoint, what="init.checkpoint", world=world)
    if checkpoint is None:
        raise CheckpointError(f"{option} must be a run with a checkpoint, {init.run} has none")
    at = None if init.dataset is None else Path(init.dataset)
    return Trained(run, checkpoint, at, remedy="name the directory of that data set as init.dataset")


def _differences(
    state: TrainingState, trained: Trained, dataset: Dataset, rows: RowPlan, weights: DenseWeights
) -> dict[str, str]:
    """Everything that does not fit, by its name."""
    own, found = state.identity["config"], trained.config
    model = {f"model.{name}": how for name, how in mismatches(own["model"], found["model"]).items()}
    model |= mismatches({"tasks": _learned(own)}, {"tasks": _learned(found)})  # towers are numbered
    inputs = {}
    if trained.dataset_digest != dataset.manifest.digest():
        inputs = differing_inputs(state.encoding, trained.encoding)
    return {**model, **inputs, **rows.problems, **weights.problems}


def _learned(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The section `tasks` without what its losses count."""
    tasks = config.get("tasks")
    return tasks and {name: value for name, value in tasks.items() if name != "weights"}


def _check_allowed(init: InitConfig, differences: Mapping[str, str], trained: Trained) -> dict[str, str]:
    """The differences, all of which are allowed.

    Raises:
        CheckpointError: one is not.
    """
    refused = [n for n in differences if not any(fnmatchcase(n, pattern) for pattern in init.allow)]
    if refused:
        lines = [f"  {name}: {differences[name]}" for name in refused[:_MOST]]
        more = [f"  … and {len(refused) - _MOST} more"] if len(refused) > _MOST else []
        raise CheckpointError(
            f"{trained.checkpoint.path} must fit the model and the data set of this run, but {len(refused)} "
            "parts differ:\n" + "\n".join([*lines, *more]) + "\n"
            "keep them as they are in that run, or name in init.allow what may begin anew here"
        )
    return dict(differences)


def _check_optimizer(init: InitConfig, trained: Trained, config: RunConfig) -> None:
    """Check that an optimizer's state means the same to both runs."""
    found, own = trained.config["embedding"]["optimizer"], config.embedding.optimizer
    if init.optimizer == "keep" and found != own:
        raise ConfigError(
            f"init.optimizer: keep needs one embedding.optimizer in both runs, it is {own} here and {found} "
            f"in {trained.run}; set init.optimizer to drop"
        )


def _taken(
    init: InitConfig,
    trained: Trained,
    state: TrainingState,
    dataset: Dataset,
    rows: RowPlan,
    weights: DenseWeights,
    allowed: dict[str, str],
) -> TakenOver:
    same = trained.dataset_digest == dataset.manifest.digest()
    known = None if same else trained.encoding
    tables = {}
    for table, count in state.tables.rows.items():
        there = rows.maps.get(table)
        kept = 0 if there is None else int((there >= 0).sum())
        tables[table] = TableRows(kept, count - kept, 0 if there is None else len(there) - kept)
    return TakenOver(
        run=init.run,
        from_step=trained.checkpoint.step,
        same_data=same,
        optimizer=init.optimizer,
        tables=tables,
        weights=len(weights.shared),
        new_weights=[name for name in state.model.state_dict() if name not in weights.shared],
        gone_weights=[
            n.removeprefix("weights.") for n, how in allowed.items() if _is_gone(n, how, "weights.")
        ],
        gone_tables=[n.removeprefix("tables.") for n, how in allowed.items() if _is_gone(n, how, "tables.")],
        scales=list(fitted_otherwise(state.encoding, known)),
        definitions=defined_otherwise(state.encoding, known),
        allowed=allowed,
    )


def _is_gone(name: str, how: str, part: str) -> bool:
    return name.startswith(part) and how.startswith("expected nothing")
