"""Dense weights and their optimizer's state from another run, by the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctr.checkpoint.load import Checkpoint
from ctr.distributed.shards import Readable
from ctr.errors import CheckpointError
from ctr.training.lora import ADAPTER, WRAPPED
from ctr.training.optim import load_optimizer_tensors, parameter_names
from ctr.training.state import TrainingState


def plain_name(name: str) -> str:
    """A weight's name without the wrapper of an adapter around its module."""
    return name.replace(WRAPPED, ".")


@dataclass(frozen=True)
class DenseWeights:
    """Which dense weights of another run have their place here.

    Args:
        shared: name here → name there, of equal shapes.
        problems: `weights.<name>` → why a weight is drawn anew, or has no place here.
    """

    shared: Mapping[str, str]
    problems: Mapping[str, str]


def match_weights(model: nn.Module, stored: Mapping[str, Readable]) -> DenseWeights:
    """Compare names and shapes; an adapter that only the model has is new by intent.

    Args:
        model: the run's own.
        stored: the other run's weights by name.
    """
    own = model.state_dict()
    there = {plain_name(name): name for name in stored}
    shared, problems = {}, {}
    for name, tensor in own.items():
        found = there.pop(plain_name(name), None)
        if found is None:
            if ADAPTER not in name:
                problems[f"weights.{plain_name(name)}"] = f"expected {list(tensor.shape)}, found nothing"
        elif (shape := tuple(stored[found].shape)) != tuple(tensor.shape):
            problems[f"weights.{plain_name(name)}"] = f"expected {list(tensor.shape)}, found {list(shape)}"
        else:
            shared[name] = found
    gone = {
        f"weights.{name}": f"expected nothing, found {list(stored[n].shape)}" for name, n in there.items()
    }
    return DenseWeights(shared, problems | gone)


@torch.no_grad()
def take_weights(
    state: TrainingState, checkpoint: Checkpoint, shared: Mapping[str, str], *, averaged: bool
) -> None:
    """Copy weights, and the average of weights where this run keeps one.

    Args:
        state: fresh.
        checkpoint: of the other run.
        shared: name here → name there.
        averaged: take the other run's averages, with which it scores, for the weights themselves.
    """
    stored = checkpoint.tensors
    own = state.model.state_dict()
    for name, there in shared.items():
        average = f"average/{there}"
        own[name].copy_(stored[average if averaged and average in stored else f"model/{there}"])
    if state.averaged is None:
        return
    state.averaged.load(dict(state.model.named_parameters()))
    if not averaged and state.averaged.goes_on:
        for name, there in shared.items():
            if name in state.averaged.average and f"average/{there}" in stored:
                state.averaged.average[name].copy_(stored[f"average/{there}"])
        state.averaged.updates = checkpoint.state["averaged_updates"]


def take_optimizer(state: TrainingState, checkpoint: Checkpoint, shared: Mapping[str, str]) -> None:
    """Copy the dense optimizer's state of the weights that were taken over and are learned here."""
    number_there = {name: i for i, name in enumerate(_names_there(state, checkpoint))}
    found: dict[str, Tensor] = {}
    stored = checkpoint.tensors.within("optimizer/")
    learned = {name for name, p in state.model.named_parameters() if p.requires_grad}
    for i, name in enumerate(parameter_names(state.model)):
        if name not in learned:
            continue
        head = f"{number_there.get(shared.get(name, ''), -1)}."
        found |= {
            f"{i}.{key.removeprefix(head)}": t[t.whole] for key, t in stored.items() if key.startswith(head)
        }
    load_optimizer_tensors(state.optimizer, found)


def _names_there(state: TrainingState, checkpoint: Checkpoint) -> list[str]:
    """The weights by their numbers in the other run's optimizer.

    Raises:
        CheckpointError: an older version saved them without names, and the two models' weights differ.
    """
    if (names := checkpoint.state.get("parameters")) is not None:
        return list(names)
    shapes = {n: t.shape for n, t in checkpoint.tensors.within("model/").items()}
    own = {plain_name(name): name for name, _ in state.model.named_parameters()}
    there = {plain_name(name): name for name in shapes}
    here = {plain_name(name) for name in state.model.state_dict() if ADAPTER not in name}
    if not here <= there.keys() <= here | own.keys():
        raise CheckpointError(
            f"{checkpoint.path} must name the weights of its optimizer state where the models differ, but an "
            "earlier version saved it; set init.optimizer to drop"
        )
    in_order = [there[name] for name in own if name in there]
    return sorted(in_order, key=lambda name: len(shapes[name]) < 2)
