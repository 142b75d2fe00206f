"""The two halves of a model as modules from tensors to tensors, for `torch.export`.

    encode(tables, requests)            ─►  the state, a list of tensors
    score(tables, state, candidates)    ─►  scores and logits (R, C); with tasks (R, C, O) and (R, C, K)

Both read whole tables and gather the rows they need. R requests, C candidates of one, K tasks, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctr.blocks.key_values import PaddedKV
from ctr.blocks.padded import OneBucket, Padded
from ctr.export.inputs import Input, candidate_batch, request_batch
from ctr.export.outputs import ScoreOutputs
from ctr.models.model import Model
from features.dataset import Manifest

Rebuild = Callable[[Sequence[Tensor]], Any]


class EncodeHalf(nn.Module):
    """`Model.encode` of padded requests.

    Args:
        model: in evaluation mode.
        manifest: as the model sees the data set.
        inputs: of requests.
    """

    def __init__(self, model: Model, manifest: Manifest, inputs: Sequence[Input]) -> None:
        super().__init__()
        self.model, self.manifest, self.inputs = model, manifest, inputs
        self.rebuild: Rebuild | None = None  # of the last state, from its tensors

    def forward(self, tables: dict[str, Tensor], requests: dict[str, Tensor]) -> list[Tensor]:
        """The state."""
        same_sizes(requests, self.inputs)
        found: list[Tensor] = []
        self.rebuild = take_apart(self.model.encode(request_batch(requests, self.manifest), tables), found)
        return found


class ScoreHalf(nn.Module):
    """`Model.score` of padded candidates, given the tensors of a state.

    Args:
        model: in evaluation mode.
        rebuild: makes the state from its tensors.
        inputs: of candidates.
        outputs: what makes scores of logits.
    """

    def __init__(
        self, model: Model, rebuild: Rebuild, inputs: Sequence[Input], outputs: ScoreOutputs
    ) -> None:
        super().__init__()
        self.model, self.rebuild, self.inputs, self.outputs = model, rebuild, inputs, outputs

    def forward(
        self, tables: dict[str, Tensor], state: list[Tensor], candidates: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Scores, float64 (R, C, …), and logits (R, C, …)."""
        same_sizes(candidates, self.inputs)
        shape = next(iter(candidates.values())).shape
        for part in state:
            torch._check(part.shape[0] == shape[0])
        logits = self.model.score(self.rebuild(state), candidate_batch(candidates), tables)
        logits = logits.reshape(-1, self.outputs.tasks) if self.outputs.tasks else logits
        scores = self.outputs(logits)
        return scores.view(*shape[:2], *scores.shape[1:]), logits.view(*shape[:2], *logits.shape[1:])


def same_sizes(given: Mapping[str, Tensor], inputs: Sequence[Input]) -> None:
    """Tell a graph that is being made which sizes are one: R, C, L of a domain, K of a list."""
    sizes: dict[str, int] = {}
    for name, shape in ((i.name, i.shape) for i in inputs):
        for letter, size in zip(shape, given[name].shape, strict=True):
            if isinstance(letter, str):
                torch._check(size == sizes.setdefault(letter, size))


def take_apart(value: Any, found: list[Tensor]) -> Rebuild:
    """Append the tensors of a state to `found`; returns how to make it from them again.

    Numbers of events are read from the tensors that are given then, so that a state may have other sizes.
    """
    if isinstance(value, Tensor):
        place = len(found)
        found.append(value.contiguous())  # a graph expects the strides of its samples
        return lambda tensors: tensors[place]
    if isinstance(value, Padded):
        rows, count = take_apart(value.by_request(), found), take_apart(value.count, found)
        return lambda tensors: _padded(rows(tensors), count(tensors))
    if isinstance(value, PaddedKV):
        parts = [take_apart(part[0], found) for part in (value.key, value.value, value.valid)]
        return lambda tensors: PaddedKV(_one_bucket(), *([part(tensors)] for part in parts))
    if isinstance(value, dict):
        by_name = {name: take_apart(part, found) for name, part in value.items()}
        return lambda tensors: {name: part(tensors) for name, part in by_name.items()}
    if isinstance(value, list | tuple):
        several, kind = [take_apart(part, found) for part in value], type(value)
        return lambda tensors: kind(part(tensors) for part in several)
    if is_dataclass(value) and not isinstance(value, type):
        made: Any = type(value)
        by_field = {f.name: take_apart(getattr(value, f.name), found) for f in fields(value)}
        return lambda tensors: made(**{name: part(tensors) for name, part in by_field.items()})
    return lambda tensors: value


def _padded(rows: Tensor, count: Tensor) -> Padded:
    return Padded.of(rows.flatten(0, 1), count, slots=rows.shape[1])


def _one_bucket() -> OneBucket:
    return OneBucket(np.empty(0, np.int64), [1])
