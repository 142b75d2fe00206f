"""What a run says of a row: its tasks, and of those that are given another one the joint chance of both.

A purchase given a click has two outputs: `buy`, the chance of a purchase of what is clicked, whose label is
known of clicked rows; and `click_and_buy`, the chance of a click and a purchase, known of all rows where the
click did not happen or the purchase is known. The first output has the columns `label` and `score`, each
other one `label_<name>` and `score_<name>`; a label is null where it is not known. Where rows count
differently, `weight` and `weight_<name>` say how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctr.predictions.weights import metric_weight
from features.dataset import TARGET, Manifest, TaskInfo, chain_of, is_plain


@dataclass(frozen=True)
class Output:
    """One figure that a run gives for each row.

    Args:
        name: of the task, or of a chain of tasks: `click_and_buy`.
        chain: positions of the tasks whose chances are multiplied, or of the one task.
        task: the last one of the chain.
    """

    name: str
    chain: tuple[int, ...]
    task: TaskInfo

    @property
    def binary(self) -> bool:
        """Whether its score is a probability."""
        return self.task.kind == "binary"

    def decided_by(self, labels: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position of the task that decides each row, and whether its label is known, (N,) each.

        It is the first of the chain that did not happen, or the last one.

        Args:
            labels, known: of all tasks, (N, K).
        """
        task, there = np.full(len(labels), self.chain[0]), known[:, self.chain[0]]
        for place, following in pairwise(self.chain):
            going_on = there & (labels[:, place] > 0) & (task == place)
            task = np.where(going_on, following, task)
            there = there & (~going_on | known[:, following])
        return task, there


def outputs_of(tasks: Sequence[TaskInfo]) -> list[Output]:
    """The outputs of a run that learns these tasks: each task in their order, then the joint chances.

    Example:
        >>> tasks = [TaskInfo(name="click"), TaskInfo(name="buy", given="click")]
        >>> [output.name for output in outputs_of(tasks)]
        ['click', 'buy', 'click_and_buy']
    """
    own = [Output(task.name, (place,), task) for place, task in enumerate(tasks)]
    chains = [(task, chain_of(task, tasks)) for task in tasks]
    names = {task.name: "_and_".join(tasks[i].name for i in chain) for task, chain in chains}
    return own + [Output(names[task.name], tuple(c), task) for task, c in chains if len(c) > 1]


def label_columns(shown: pa.Table, manifest: Manifest) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Labels and, where rows have them, weights by the name of their column; see the module.

    Labels are int8, of a regression float32, null where not known.

    Args:
        shown: rows of impressions.
        manifest: with the tasks of the run.
    """
    tasks, names = manifest.tasks, [task.name for task in manifest.tasks]
    weights = [metric_weight(manifest, name, shown) for name in names]
    plain = is_plain(tasks)
    values = [shown["label" if plain else TARGET + name].to_numpy().astype(np.float32) for name in names]
    labels, known = np.stack(values, axis=1), ~np.isnan(np.stack(values, axis=1))
    found: dict[str, pa.Array | pa.ChunkedArray] = {}
    for place, output in enumerate(outputs_of(tasks)):
        behind = f"_{output.name}" if place else ""
        task, there = output.decided_by(labels, known)
        label = labels[np.arange(len(labels)), task]
        kind = pa.int8() if output.binary else pa.float32()
        found[f"label{behind}"] = pc.cast(pa.array(label, mask=~there), kind)
        if any(weights[own] is not None for own in output.chain):
            columns = [np.ones(len(labels)) if own is None else own for own in weights]
            found[f"weight{behind}"] = pa.array(np.choose(task, columns))
    return found
